"""The command `demo`: the main job on real files, with nothing configured."""

from __future__ import annotations

import random
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from cachestore.cli.demo_files import make_tones
from cachestore.cli.output import Exit, Json, err, out, show_json, size, span, table, telling
from cachestore.cli.stores import overrides
from cachestore.errors import CacheStoreError
from cachestore.open import open_store
from cachestore.options import Options
from cachestore.settings import Settings
from cachestore.store import CacheStore


@dataclass(frozen=True, slots=True)
class Visit:
    """What one visit saw. Times are medians in seconds, 0.0 where there were none."""

    reads: int
    first_reads: int
    hits: int
    hit_rate: float
    byte_hit_rate: float
    seconds_per_hit: float
    seconds_per_miss: float


@dataclass(frozen=True, slots=True)
class Result:
    """The whole demo."""

    remote: str
    files: int
    bytes: int
    seconds_per_put: float
    uploads: int
    pending: int
    visits: list[Visit]


def demo(
    context: typer.Context,
    files: Annotated[int, typer.Option(min=2, max=200, help="How many WAV files.")] = 24,
    visits: Annotated[int, typer.Option(min=1, max=20, help="How often a listener comes.")] = 4,
    reads: Annotated[int, typer.Option(min=1, help="Reads in each visit.")] = 60,
    seed: Annotated[int, typer.Option(help="The same reads each time.")] = 1,
    as_json: Json = False,
) -> None:
    """Store WAV files, then read them with skewed popularity over several visits."""
    with telling(as_json), _room() as room, _progress() as progress:
        base, name, own = _where(context, room)
        step = progress.add_task("making files", total=files)
        sources = []
        for path in make_tones(room / "made", files):
            sources.append(path)
            progress.advance(step)
        prefix = f"cachestore-demo/{secrets.token_hex(4)}/"
        keys = [prefix + path.name for path in sources]
        try:
            result = _run(base, room, name, keys, sources, visits, reads, seed, progress)
        finally:
            if own:
                _tidy_bucket(_at(base, room / "tidy"), prefix)
    if as_json:
        show_json(result)
    else:
        _show(result, own)
    if result.pending:
        raise typer.Exit(int(Exit.PENDING))


@contextmanager
def _room() -> Iterator[Path]:
    """A folder of the demo's own, gone afterwards."""
    room = Path(tempfile.mkdtemp(prefix="cachestore-demo-"))
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=err, transient=True,
    )  # fmt: skip


def _where(context: typer.Context, room: Path) -> tuple[Options, str, bool]:
    """The bucket of the settings if R2 is on, else a folder that stands in for one."""
    options = Settings(**overrides(context)).options()
    if options.mode == "remote" and options.remote is not None:
        return options, f"bucket {options.remote.bucket} at {options.remote.endpoint}", True
    stand_in = replace(options, mode="mock", mock_dir=room / "bucket", mock_private=False,
                       reason="demo", degraded=False)  # fmt: skip
    return stand_in, "a folder that stands in for R2 (nothing is configured)", False


def _at(base: Options, place: Path) -> Options:
    """The same remote seen from a machine with folders of its own."""
    return replace(base, cache_dir=place / "cache", spool_dir=place / "spool",
                   local_dir=place / "output", local_only_prefixes=())  # fmt: skip


def _run(
    base: Options,
    room: Path,
    name: str,
    keys: list[str],
    sources: list[Path],
    visits: int,
    reads: int,
    seed: int,
    progress: Progress,
) -> Result:
    total = sum(path.stat().st_size for path in sources)
    puts, uploads, pending = _store_all(_at(base, room / "studio"), keys, sources, progress)
    listener = replace(_at(base, room / "listener"), cache_min_free=0.0)
    rng = random.Random(seed)
    order = rng.sample(keys, len(keys))
    weights = [1 / (rank + 1) for rank in range(len(order))]
    step = progress.add_task("reading", total=visits * reads)
    seen: list[Visit] = []
    for _ in range(visits):
        # Each visit is a new store on the same folders, as after a restart of the app.
        with open_store(listener) as store:
            seen.append(_visit(store, rng.choices(order, weights, k=reads), progress, step))
    return Result(name, len(keys), total, statistics.median(puts), uploads, pending, seen)


def _store_all(
    options: Options, keys: list[str], sources: list[Path], progress: Progress
) -> tuple[list[float], int, int]:
    """Put every file, then wait for the uploads: seconds per put, uploads done, pending."""
    seconds = []
    step = progress.add_task("storing", total=len(keys))
    with open_store(options) as store:
        for key, path in zip(keys, sources, strict=True):
            start = time.perf_counter()
            store.put(key, path)
            seconds.append(time.perf_counter() - start)
            progress.advance(step)
        report = store.flush(300)
        return seconds, store.stats().uploads, len(report.left) + len(report.parked)


def _visit(store: CacheStore, keys: list[str], progress: Progress, step: TaskID) -> Visit:
    hits: list[float] = []
    misses: list[float] = []
    for key in keys:
        before = store.stats().misses
        start = time.perf_counter()
        store.get(key)
        took = time.perf_counter() - start
        (misses if store.stats().misses > before else hits).append(took)
        progress.advance(step)
    counts = store.stats()
    return Visit(
        len(keys), len(misses), len(hits), counts.hit_rate, counts.byte_hit_rate,
        _median(hits), _median(misses),
    )  # fmt: skip


def _median(seconds: list[float]) -> float:
    return statistics.median(seconds) if seconds else 0.0


def _tidy_bucket(options: Options, prefix: str) -> None:
    """Leave nothing of the demo in somebody's bucket."""
    try:
        with open_store(options) as store:
            store.delete_prefix(prefix)
            store.flush(60)
    except CacheStoreError as error:
        err.print(f"could not remove {prefix} from the bucket: {error}", style="yellow")


def _show(result: Result, own: bool) -> None:
    out.print(f"Remote: {result.remote}")
    out.print(
        f"Stored {result.files} WAV files, {size(result.bytes)}: durable after"
        f" {span(result.seconds_per_put)} each (median). Uploads done: {result.uploads},"
        f" pending: {result.pending}.\n"
    )
    numbers = (
        "reads",
        "first reads",
        "hits",
        "hit rate",
        "of bytes",
        "per hit",
        "per miss",
    )
    made = table(
        "visit", *numbers, right=numbers,
        title="Reading back; each visit is a new start on the folders of the one before",
    )  # fmt: skip
    for number, visit in enumerate(result.visits, 1):
        made.add_row(
            str(number), str(visit.reads), str(visit.first_reads), str(visit.hits),
            f"{visit.hit_rate:.0%}", f"{visit.byte_hit_rate:.0%}",
            span(visit.seconds_per_hit) if visit.hits else "-",
            span(visit.seconds_per_miss) if visit.first_reads else "-",
        )  # fmt: skip
    out.print(made)
    if own:
        out.print("\nThe demo's objects were removed from the bucket again.")
    else:
        out.print(
            "\nA miss costs next to nothing here, since the bucket is a folder. To run on R2, set"
            " R2_ACCOUNT_ID, R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY and R2_BUCKET_NAME (in .env"
            " or the environment), check them with `cachestore doctor`, and run this again."
        )


COMMANDS = (demo,)
