"""What is looked at to tell whether a store is well, and the limits that it is held to. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cachestore.options import Options

_NEARLY_FULL = 0.9


@dataclass(frozen=True, slots=True)
class Readings:
    """A store as it is now, and as it was in the last window and in the one before.

    `remote`: its state, None where there is none. `queued`, `parked`: operations. `failures`:
    tries to upload that failed in this window and in the one before. `stalled`: seconds for which
    the uploading process has not moved, None if it does, or if there is none. `refusal`: why
    nothing can be made durable.
    """

    cache_bytes: int = 0
    spool_bytes: int = 0
    queued: int = 0
    parked: int = 0
    hits: int = 0
    misses: int = 0
    failures: tuple[int, int] = (0, 0)
    remote: str | None = None
    remote_error: str | None = None
    stalled: float | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One rule. `detail` says what was found; it is an alert when not `ok`."""

    name: str
    ok: bool
    detail: str


def judge(now: Readings, options: Options) -> tuple[Check, ...]:
    """All rules, in the order in which people want to read them."""
    return (
        _puts(now), _mode(options), _remote(now), _uploader(now), _uploads(now, options),
        _queue(now, options), _spool(now, options), _cache(now, options), _misses(now, options),
    )  # fmt: skip


def _puts(now: Readings) -> Check:
    if now.refusal is None:
        return Check("puts", True, "are made durable")
    return Check("puts", False, f"files cannot be made durable: {now.refusal}")


def _mode(options: Options) -> Check:
    return Check("mode", not options.degraded, f"{options.mode}: {options.reason}")


def _remote(now: Readings) -> Check:
    if now.remote is None:
        return Check("remote", True, "there is none in this mode")
    if now.remote == "closed":
        return Check("remote", True, "works, as far as is known")
    return Check("remote", False, f"the bucket cannot be used: {now.remote_error}")


def _uploader(now: Readings) -> Check:
    if now.stalled is None:
        return Check("uploader", True, "moves, or has nothing to do")
    return Check("uploader", False, f"the uploading process has not moved for {now.stalled:.0f} s")


def _uploads(now: Readings, options: Options) -> Check:
    failed, before = now.failures
    least = options.alert_failed_uploads
    span = f"in the last {_minutes(options)}"
    if least and now.parked:
        return Check("uploads", False, f"parked uploads, which wait for a person: {now.parked}")
    if least and failed >= least and failed > before:
        return Check("uploads", False, f"{failed} tries to upload failed {span}, {before} before")
    return Check("uploads", True, f"{failed} tries to upload failed {span}")


def _queue(now: Readings, options: Options) -> Check:
    most = options.alert_queue
    if now.queued > most:
        return Check(
            "queue", False, f"{now.queued} operations wait, over {most}: is the uploader running?"
        )
    return Check("queue", True, f"{now.queued} operations wait")


def _spool(now: Readings, options: Options) -> Check:
    most, limit = options.alert_spool_bytes, options.spool_max_bytes
    if now.spool_bytes > most:
        return Check("spool", False, f"the spool holds {now.spool_bytes} bytes, over {most}")
    # It never gets over its limit: puts wait, or are refused, before that.
    if limit and now.spool_bytes >= _NEARLY_FULL * limit:
        return Check("spool", False, f"the spool holds {now.spool_bytes} of at most {limit} bytes")
    return Check("spool", True, f"{now.spool_bytes} bytes wait")


def _cache(now: Readings, options: Options) -> Check:
    most = min(options.alert_cache_bytes, options.cache_max_bytes)
    if now.cache_bytes > most:
        return Check("cache", False, f"the cache holds {now.cache_bytes} bytes, over {most}")
    return Check("cache", True, f"{now.cache_bytes} bytes of at most {options.cache_max_bytes}")


def _misses(now: Readings, options: Options) -> Check:
    reads = now.hits + now.misses
    rate = now.misses / reads if reads else 0.0
    told = f"the miss rate is {rate:.0%} of {reads} reads in the last {_minutes(options)}"
    bad = reads >= max(1, options.alert_miss_requests) and rate > options.alert_miss_rate
    return Check("misses", not bad, told)


def _minutes(options: Options) -> str:
    return f"{options.alert_window / 60:g} minutes"
