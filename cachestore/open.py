"""`open_store`: the only place that puts a store together."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachestore.aio import AsyncCacheStore
from cachestore.census import Census
from cachestore.clock import Clock, SystemClock
from cachestore.core import Core
from cachestore.downloader import Downloader
from cachestore.errors import ConfigError, SpoolError
from cachestore.events import Events, log
from cachestore.files import Files
from cachestore.flight import Pool
from cachestore.janitor import Janitor
from cachestore.local.announcements import Announcements
from cachestore.local.board import Board
from cachestore.local.bookkeeping import log_pages
from cachestore.local.bypass import Bypass
from cachestore.local.cache import CacheFiles
from cachestore.local.catalog import Catalog
from cachestore.local.disks import disk_of
from cachestore.local.evictors import evictor_of
from cachestore.local.facts import Facts
from cachestore.local.folder import LocalFolder
from cachestore.local.handing import HandOuts
from cachestore.local.hot import HotMap
from cachestore.local.last_remote import last_remote, remember_remote
from cachestore.local.minutes import Minutes
from cachestore.local.partials import Partials
from cachestore.local.pending_index import PendingIndex
from cachestore.local.room import Room
from cachestore.local.spool import Spool
from cachestore.local.tallies import Tallies
from cachestore.options import Options
from cachestore.progressive.registry import Progressive
from cachestore.progressive.tools import Tools
from cachestore.remote.base import RemoteStore
from cachestore.remote.breaker import GuardedRemote
from cachestore.remote.budget import Budget
from cachestore.remote.directory import DirectoryRemote
from cachestore.remote.ids import remote_id_of
from cachestore.remote.s3 import S3Remote
from cachestore.stats import Stats
from cachestore.store import CacheStore
from cachestore.uploader import Uploader
from cachestore.uploads.changes import FolderChanges
from cachestore.uploads.copies import CacheCopies

if TYPE_CHECKING:
    from cachestore.settings import Settings

_BLOCK_THREADS = 24


def open_store(settings: Settings | Options | None = None, **overrides: Any) -> CacheStore:
    """Open a store from the environment and `.env`, or from `settings`, or keyword overrides.

    No network, and boto3 is not imported. `overrides` are names of settings in any case, for
    example `cache_dir=...`. Raises `ConfigError`.
    """

    folders: dict[bool, Options] = {}
    home = Path.cwd()

    def build() -> tuple[Core, Downloader]:
        options = _options(settings, overrides if settings else _anchored(overrides, home))
        private = options.mode == "mock"
        kept = folders.setdefault(private, _resolved(options))
        return assemble(_in_folders_of(kept, options))

    store = CacheStore(build)
    options = store.options
    log.info(
        "cachestore: mode %s (%s); cache %s, spool %s, local %s",
        options.mode, options.reason, options.cache_dir, options.spool_dir, options.local_dir,
    )  # fmt: skip
    if options.degraded:
        log.warning("cachestore: %s", options.reason)
    _warn_of_disks(options)
    if options.watch:
        _watch(store, settings, overrides, home)
    return store


def _watch(
    store: CacheStore, settings: Settings | Options | None, overrides: dict[str, Any], home: Path
) -> None:
    from cachestore.settings import Settings
    from cachestore.settings.live import FILE
    from cachestore.watching import SettingsWatch

    files = [store.options.spool_dir / FILE]
    if not isinstance(settings, Options):
        found = (settings or Settings.load(**overrides)).env_file
        files.append(found or home / ".env")
    SettingsWatch(store, files)


def _anchored(overrides: dict[str, Any], home: Path) -> dict[str, Any]:
    """A reload reads the `.env` of the first load, wherever the program went since."""
    if Path.cwd() == home or any(name.upper().endswith("ENV_FILE") for name in overrides):
        return overrides
    file = home / ".env"
    named = "CACHESTORE_ENV_FILE" in os.environ or not file.is_file()
    return overrides if named else {**overrides, "env_file": file}


async def open_async_store(
    settings: Settings | Options | None = None, **overrides: Any
) -> AsyncCacheStore:
    """`open_store` for asyncio; use `async with await open_async_store() as store:`."""
    return AsyncCacheStore(open_store(settings, **overrides))


def _options(settings: Settings | Options | None, overrides: dict[str, Any]) -> Options:
    if isinstance(settings, Options):
        return replace(settings, **overrides)
    from cachestore.settings import Settings

    if settings is None:
        return Settings.load(**overrides).options()
    if overrides:
        raise ConfigError("give either Settings or keyword overrides, not both")
    return settings.options()


def assemble(
    options: Options,
    *,
    files: Files | None = None,
    clock: Clock | None = None,
    events: Events | None = None,
    remote: RemoteStore | None = None,
) -> tuple[Core, Downloader]:
    """Put the parts together. Tests inject a file layer, a clock or a remote of their own."""
    files, clock, events = files or Files(), clock or SystemClock(), events or Events()
    options = _resolved(options)
    remote, shadow = remote or _remote(options), _shadow(options, clock, events)
    _make_folders(files, options)
    remote_id = _remote_id(files, options, remote)
    board = Board(options.spool_dir, files)
    spool = Spool(options.spool_dir, remote_id, files, board, options.lock_timeout)
    root = options.cache_dir / (remote_id or "local")
    cache = CacheFiles(root, remote_id, files, board, clock, options)
    catalog = _catalog(root, files, clock, events, options)
    room = Room(catalog, cache, files, clock, events, options)
    partials = Partials(catalog, cache, room, files, clock)
    stats, tallies, minutes = _counting(events, clock, catalog, options)
    folder = LocalFolder(options.local_dir, remote_id, files, clock, options.lock_timeout)
    guarded = None if remote is None else GuardedRemote(remote, clock, events)
    budget, bypass = Budget(options.in_flight_bytes), Bypass(files, clock, options.handout_grace)
    hot = HotMap(board, _now(clock), options.web_memory_bytes)
    uploader = Uploader(
        guarded or shadow, spool=spool, copies=CacheCopies(catalog, cache, room, files, clock),
        changes=FolderChanges(folder, spool, files), files=files, clock=clock, events=events,
        options=replace(options, mode="remote") if shadow else options, budget=budget,
    )  # fmt: skip
    janitor = Janitor(
        spool=spool, catalog=catalog, cache=cache, room=room, hot=hot, files=files, clock=clock,
        events=events, options=options, tallies=tallies, minutes=minutes, partials=partials,
        folder=folder,
    )  # fmt: skip
    downloader = Downloader(
        guarded, spool=spool, catalog=catalog, cache=cache, room=room, events=events, clock=clock,
        options=options, budget=budget, bypass=bypass,
    )  # fmt: skip
    core = Core(
        options=options, clock=clock, files=files, events=events, stats=stats,
        remote_id=remote_id, board=board, spool=spool, catalog=catalog, cache=cache, room=room,
        hand_outs=HandOuts(spool, cache, room, files), facts=Facts(root / "facts", board),
        bypass=bypass, folder=folder, remote=guarded, shadow=shadow, uploader=uploader,
        janitor=janitor, hot=hot, minutes=minutes, index=PendingIndex(spool),
        census=_census(catalog, guarded, files, clock, events, options, root / "census.lock"),
        announcements=Announcements(files, options.spool_dir),
    )  # fmt: skip
    return _with_blocks(core, partials, downloader, budget), downloader


def _with_blocks(core: Core, partials: Partials, downloader: Downloader, budget: Budget) -> Core:
    """Large files are read block by block where there is a remote."""
    if core.remote is not None:
        tools = Tools(
            core.remote, partials, downloader, core.files, core.clock, core.events, core.options,
            budget, Pool(_BLOCK_THREADS, "cachestore-blocks"),
        )  # fmt: skip
        core.progressive = Progressive(tools)
    return core


def _catalog(root: Path, files: Files, clock: Clock, events: Events, options: Options) -> Catalog:
    pages = log_pages(options.cache_max_bytes)
    evictor = evictor_of(options)
    return Catalog(root / "catalog", files, clock, _reporter(events), evictor, pages)


def _counting(
    events: Events, clock: Clock, catalog: Catalog, options: Options
) -> tuple[Stats, Tallies, Minutes]:
    stats, tallies, minutes = Stats(), Tallies(clock), Minutes(clock, catalog, options)
    for take in (stats.take, tallies.take, minutes.take):
        events.subscribe(take)
    return stats, tallies, minutes


def _census(
    catalog: Catalog,
    remote: GuardedRemote | None,
    files: Files,
    clock: Clock,
    events: Events,
    options: Options,
    lock: Path,
) -> Census:
    interval = options.bucket_count_interval
    return Census(
        remote, interval, catalog=catalog, lock=lock, files=files, clock=clock, events=events
    )


def _now(clock: Clock) -> Callable[[], float]:
    """The time as quickly as it can be had."""
    return time.time if clock.__class__ is SystemClock else clock.now


def _reporter(events: Events) -> Any:
    from cachestore.events import Trouble

    return lambda text: events.emit(Trouble("", "cache", text))


def _resolved(options: Options) -> Options:
    """Absolute folders, decided once; mock mode gets private ones that go at exit."""
    if options.mode == "mock" and options.mock_private:
        base = Path(tempfile.mkdtemp(prefix="cachestore-mock-"))
        weakref.finalize(_MOCK_KEEPER, shutil.rmtree, base, ignore_errors=True)
        options = replace(
            options,
            cache_dir=base / "cache",
            spool_dir=base / "spool",
            local_dir=base / "output",
            mock_dir=base / "remote",
        )
    return replace(
        options,
        cache_dir=Path(os.path.abspath(options.cache_dir)),
        spool_dir=Path(os.path.abspath(options.spool_dir)),
        local_dir=Path(os.path.abspath(options.local_dir)),
    )


def _in_folders_of(kept: Options, options: Options) -> Options:
    """Folders are decided at the first load: a `reload` elsewhere must not lose sight of work."""
    return replace(
        options,
        cache_dir=kept.cache_dir,
        spool_dir=kept.spool_dir,
        local_dir=kept.local_dir,
        mock_dir=kept.mock_dir,
        mock_private=False,
    )


class _Keeper:
    """Lives as long as the interpreter; mock folders go with it."""


_MOCK_KEEPER = _Keeper()


def _remote(options: Options) -> RemoteStore | None:
    if options.mode == "local":
        return None
    if options.mode == "mock":
        return DirectoryRemote(options.mock_dir or options.cache_dir.parent / "remote")
    if options.remote is None:
        raise ConfigError("mode 'remote' needs a remote; set the R2_* variables")
    return S3Remote(options.remote, workers=options.workers, in_flight=options.download_parts)


def _shadow(options: Options, clock: Clock, events: Events) -> GuardedRemote | None:
    """The bucket that local mode sends its changes to as well, if it does."""
    if options.mode != "local" or not options.shadow or options.remote is None:
        return None
    remote = S3Remote(options.remote, workers=options.workers, in_flight=options.download_parts)
    return GuardedRemote(remote, clock, events)


def _remote_id(files: Files, options: Options, remote: RemoteStore | None) -> str:
    """Local mode belongs to the remote that the settings name, else to the last one used."""
    if remote is not None:
        remember_remote(files, options.spool_dir, remote.remote_id, remote.name)
        return remote.remote_id
    if options.remote is not None:
        return remote_id_of(options.remote.endpoint, options.remote.bucket)
    return last_remote(files, options.spool_dir)


def _warn_of_disks(options: Options) -> None:
    """Acknowledged files on a disk that does not stay, or that other machines may write."""
    if options.mode == "mock":
        return
    name, folder = "SPOOL_DIR", options.spool_dir
    if options.mode == "local":
        name, folder = "LOCAL_DIR", options.local_dir
    try:
        disk = disk_of(folder if folder.exists() else folder.parent)
    except OSError:
        return
    if disk.volatile:
        log.warning(
            "cachestore: files in %s (%s) can be lost, since %s", name, folder, disk.volatile
        )
    elif disk.network:
        log.warning(
            "cachestore: %s (%s) is on %s; only one machine may use it", name, folder, disk.kind
        )


def _make_folders(files: Files, options: Options) -> None:
    for folder in (options.cache_dir, options.spool_dir):
        try:
            files.make_folder(folder)
            os.chmod(folder, 0o700)
            ignore = folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            if folder == options.spool_dir:
                raise SpoolError(f"cannot use {folder} as the spool: {error}") from error
            log.warning("cachestore: cannot use %s as the cache: %s", folder, error)
