"""Which files make a unit, under which keys they go, and which of them are known already. Pure,
but for the sidecars that tell a file's time."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from hashlib import sha256
from typing import Literal

from cachestore.errors import InvalidKey
from cachestore.ingest.memory import Seen
from cachestore.ingest.scan import Patterns, Source
from cachestore.ingest.sidecars import (
    SUFFIX,
    SidecarWriter,
    read_document,
    sidecar_key,
    sidecar_names,
)
from cachestore.keys import check_key, check_prefix
from cachestore.policy.filetimes import NamePattern, file_time, zone_of
from cachestore.policy.templates import FileFacts, KeyTemplate

_NONE: Mapping[str, Seen] = {}
Kind = Literal["file", "sidecar", "made"]
MADE = "\n" + SUFFIX
"""Behind a file's path: the document that a writer makes for it, which lies nowhere."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How files get their keys: prefix, template, and where a file's time comes from."""

    prefix: str
    template: KeyTemplate
    pattern: NamePattern | None
    field: str
    zone: tzinfo

    @property
    def base(self) -> str:
        """What all keys begin with."""
        return self.prefix + self.template.text.partition("{")[0]

    @property
    def varies(self) -> bool:
        """True if a file may get another key when it changes."""
        return self.template.needs_hash or self.template.needs_time

    def time(self, source: Source, sidecar: str | None) -> datetime:
        """The file's own time; `sidecar`: the path of its document."""
        found = self.pattern.find(source.name) if self.pattern else None
        document = read_document(sidecar) if sidecar and found is None else None
        return file_time(
            source.name, source.mtime_ns, pattern=self.pattern, document=document,
            field=self.field, zone=self.zone,
        )  # fmt: skip

    def key(self, source: Source, sidecar: str | None, digest: str = "") -> str:
        """The file's key. Raises `InvalidKey`."""
        needs_time = self.template.needs_time
        time = self.time(source, sidecar if needs_time else None)
        made = self.template.key(FileFacts(source.path, source.size, time, digest))
        return check_key(self.prefix + made)

    def variant(self, writer: SidecarWriter | None, sidecars: bool) -> str:
        """Tells one way to name files from another between runs."""
        pattern = self.pattern.pattern if self.pattern else ""
        parts = [self.prefix, self.template.text, pattern, self.field, str(self.zone), sidecars]
        text = json.dumps([*parts, writer.mark if writer else ""])
        return sha256(text.encode()).hexdigest()[:16]


def naming_of(
    prefix: str, template: str | None, time_pattern: str | None, time_field: str,
    timezone: str | tzinfo | None,
) -> Naming:  # fmt: skip
    """What a caller asked for, checked. Raises `ConfigError` and `InvalidKey`."""
    return Naming(
        prefix_of(prefix), KeyTemplate(template or "{path}"),
        NamePattern(time_pattern) if time_pattern else None, time_field, zone_of(timezone),
    )  # fmt: skip


def prefix_of(prefix: str) -> str:
    """A prefix as keys begin with it: a folder's name gets its `/`."""
    checked = check_prefix(prefix)
    return checked + "/" if checked and not checked.endswith("/") else checked


@dataclass(slots=True)
class Item:
    """One file, or one document to be made. `key` "" until its bytes are known.

    `seen`: what is remembered of it. `document`: the path of its sidecar. Of a sidecar, `main` is
    the file it goes with; `whole`: it keeps that file's suffix in its own name. `taken`: it counts
    against the limit. `asked`: the bucket is asked for it, whatever was listed.
    """

    source: Source
    kind: Kind
    key: str = ""
    seen: Seen | None = None
    document: str | None = None
    main: Item | None = None
    whole: bool = False
    error: str = ""
    taken: bool = False
    asked: bool = False

    @property
    def path(self) -> str:
        return self.source.path + (MADE if self.kind == "made" else "")

    @property
    def size(self) -> int:
        return 0 if self.kind == "made" else self.source.size

    @property
    def shown(self) -> str:
        """The path for people."""
        return self.source.path + (" (sidecar)" if self.kind == "made" else "")


@dataclass(slots=True)
class Unit:
    """Files that go together: first the files, then their sidecars."""

    files: list[Item]
    sidecars: list[Item] = field(default_factory=list)

    @property
    def items(self) -> list[Item]:
        return [*self.files, *self.sidecars]


@dataclass(slots=True)
class Plan:
    """Units with something to do, and how many files are known to be there already.

    `named`: path and SHA-256 of those, by key, where keys come from the bytes.
    """

    units: list[Unit] = field(default_factory=list)
    known: int = 0
    named: dict[str, tuple[str, str]] = field(default_factory=dict)


class Planner:
    """Makes a plan of what was found in a folder.

    `remembered(path)`: what is known of a file. `since`: wall seconds; older files stay out.
    With `check` no file is known. `elsewhere`: by key, remembered files that were not looked for.
    """

    def __init__(
        self, naming: Naming, patterns: Patterns, *, sidecars: bool, writer: SidecarWriter | None,
        remembered: Callable[[str], Seen | None], since: float | None, check: bool = False,
        elsewhere: Mapping[str, Seen] = _NONE,
    ) -> None:  # fmt: skip
        self._naming = naming
        self._patterns = patterns
        self._sidecars = sidecars
        self._writer = writer
        self._remembered = remembered
        self._since = since
        self._check = check
        self._elsewhere = elsewhere

    def make(self, sources: Iterable[Source]) -> Plan:
        """Group what was found, name it, and leave out what is known."""
        plan, keys = Plan(), dict[str, Item]()
        if self._naming.template.needs_hash:
            plan.named = {key: (row.path, row.sha256) for key, row in self._elsewhere.items()}
        for unit in self._grouped(list(sources)):
            self._name(unit)
            self._refuse_doubles(unit, keys)
            left = [item for item in unit.items if not self._is_known(item)]
            plan.known += len(unit.items) - len(left)
            if self._naming.template.needs_hash:
                for item in unit.items:
                    if item.seen is not None and item not in left:
                        plan.named[item.key] = (item.path, item.seen.sha256)
            if left:
                plan.units.append(
                    Unit(
                        [item for item in left if item.kind == "file"],
                        [item for item in left if item.kind != "file"],
                    )
                )
        plan.units.sort(key=lambda unit: min(item.source.mtime_ns for item in unit.items))
        return plan

    # -- units -------------------------------------------------------------------------------------

    def _grouped(self, sources: list[Source]) -> Iterable[Unit]:
        owners = self._owners(sources) if self._sidecars else {}
        units: dict[str, Unit] = {}
        documents: list[Source] = []
        for source in sources:
            if source.path in owners:
                documents.append(source)
            elif self._is_wanted(source):
                units[source.path] = Unit([Item(source, "file")])
        for document in documents:
            self._attach(document, owners[document.path], units)
        if self._writer is not None:
            self._add_made(units)
        merged = {id(unit): unit for unit in units.values()}
        return merged.values()

    def _is_wanted(self, source: Source) -> bool:
        young = self._since is None or source.mtime_ns >= self._since * 1e9
        return young and self._patterns.takes(source.path)

    def _owners(self, sources: list[Source]) -> dict[str, list[str]]:
        """The paths of sidecars, each with the files that it may belong to."""
        documents = {s.path for s in sources if s.name.endswith(SUFFIX)}
        owners: dict[str, list[str]] = defaultdict(list)
        if documents:
            for source in sources:
                if not source.name.endswith(SUFFIX):
                    folder, slash, name = source.path.rpartition("/")
                    for other in sidecar_names(name):
                        if (path := f"{folder}{slash}{other}") in documents:
                            owners[path].append(source.path)
        return owners

    def _attach(self, document: Source, owners: list[str], units: dict[str, Unit]) -> None:
        """A sidecar goes with its files; alone if none of them is taken, and it is wanted."""
        mains = [units[path] for path in owners if path in units]
        if not mains:
            if self._is_wanted(document):
                item = Item(document, "file")
                self._follow(item, owners)
                units[document.path] = Unit([item])
            return
        first = mains[0]
        for other in mains[1:]:
            if other is not first:
                first.files.extend(other.files)
                first.sidecars.extend(other.sidecars)
                for item in other.files:
                    units[item.source.path] = first
        whole = document.path == first.files[0].source.path + SUFFIX
        item = Item(document, "sidecar", main=first.files[0], whole=whole)
        first.sidecars.append(item)
        for path in owners:
            for main in first.files:
                if main.source.path == path:
                    main.document = document.full

    def _follow(self, item: Item, owners: list[str]) -> None:
        """A sidecar whose file is not taken this time still gets the key that belongs to it."""
        seen = self._remembered(owners[0])
        if seen is not None:
            whole = item.source.path == owners[0] + SUFFIX
            item.key, item.kind = sidecar_key(seen.key, whole=whole), "sidecar"

    def _add_made(self, units: dict[str, Unit]) -> None:
        stems: dict[str, int] = defaultdict(int)
        for path in units:
            stems[_without_suffix(path)] += 1
        for path, unit in units.items():
            main = next(item for item in unit.files if item.source.path == path)
            if main.document is None and not path.endswith(SUFFIX):
                whole = stems[_without_suffix(path)] > 1
                unit.sidecars.append(Item(main.source, "made", main=main, whole=whole))

    # -- keys --------------------------------------------------------------------------------------

    def _name(self, unit: Unit) -> None:
        for item in unit.items:
            item.seen = self._remembered(item.path)
        for item in unit.files:
            if not item.key:
                self._name_file(item, unit)
        for item in unit.sidecars:
            main = item.main
            if main is not None and main.error:
                item.error = f"its file {main.source.path!r} has no key"
            elif main is not None and main.key:
                item.key = sidecar_key(main.key, whole=item.whole)

    def _name_file(self, item: Item, unit: Unit) -> None:
        template, seen = self._naming.template, item.seen
        if seen is not None and is_same(item.source, seen) and self._document_is_same(unit):
            item.key = seen.key
        elif not template.needs_hash:
            try:
                item.key = self._naming.key(item.source, item.document)
            except InvalidKey as error:
                item.error = str(error)

    def _document_is_same(self, unit: Unit) -> bool:
        """True if no time that a sidecar tells can be another than before."""
        if not self._naming.template.needs_time:
            return True
        found = [item for item in unit.sidecars if item.kind == "sidecar"]
        return all(item.seen is not None and is_same(item.source, item.seen) for item in found)

    def _refuse_doubles(self, unit: Unit, keys: dict[str, Item]) -> None:
        for item in unit.items:
            other = keys.setdefault(item.key, item) if item.key else item
            if other is not item and not self._are_equal(item, other):
                item.error = f"{other.shown!r} has the same key {item.key!r}"
            row = self._elsewhere.get(item.key)
            if row is not None and item.seen is None and self._is_there(item.source, row):
                item.error = f"{row.path!r} has the same key {item.key!r}"

    def _is_there(self, source: Source, row: Seen) -> bool:
        """True if a file elsewhere in the folder is still the one that has its key."""
        if self._naming.template.needs_hash:
            return False  # told apart by their bytes, when these are read
        return os.path.lexists(source.full.removesuffix(source.path) + row.path.split("\n")[0])

    def _are_equal(self, item: Item, other: Item) -> bool:
        """Files with the same bytes may share a key that comes from them."""
        if not self._naming.template.needs_hash or item.seen is None or other.seen is None:
            return False
        return item.seen.sha256 == other.seen.sha256

    def _is_known(self, item: Item) -> bool:
        seen = item.seen
        if self._check or seen is None or item.error or not item.key or seen.key != item.key:
            return False
        return is_same(item.source, seen)


def _without_suffix(path: str) -> str:
    return sidecar_key(path).removesuffix(SUFFIX)


def is_same(source: Source, seen: Seen) -> bool:
    """True if a file need not be read: size, times and inode are as they were.

    The time of its last change of any kind (ctime) tells what was written and then given its old
    modification time, and another file that got its inode number.
    """
    was = (seen.size, seen.mtime_ns, seen.inode, seen.ctime_ns)
    return (source.size, source.mtime_ns, source.inode, source.ctime_ns) == was


def remembering(
    rows: Mapping[tuple[str, str], Seen], place_of: Callable[[str], str]
) -> Callable[[str], Seen | None]:
    """Rows by path, of the place where the key belongs now."""

    def look(path: str) -> Seen | None:
        for place in ("bucket", "folder"):
            seen = rows.get((path, place))
            if seen is not None and place_of(seen.key) == place:
                return seen
        return None

    return look
