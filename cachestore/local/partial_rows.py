"""Partial copies in the catalog: which blocks of a large object are here.

A partial copy is a reservation (see `room_rows`) that outlives the process: its bytes are counted
there, a row here says what it is, and one for each block which pages came, with their CRC-32.
When the reservation goes, these rows go with it.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from cachestore.local.catalog_rows import JunkRow, is_copy_name
from cachestore.local.room_rows import Reserved, give_up
from cachestore.model import RemoteObject
from cachestore.policy.blocks import PAGES

PART_NAME = re.compile(r"partial/[0-9a-f]{64}-[0-9a-f]{16}\.part")
_COLUMNS = "p.key, p.part, r.goal, r.id, r.bytes, p.block, p.token, p.validated, p.used, p.info"
_SELECT = f"SELECT {_COLUMNS} FROM partials p JOIN reserved r ON r.part = p.part"
_HERE = 1 << 32


@dataclass(frozen=True, slots=True)
class PartialRow:
    """A partial copy. `part`: its file below the root; `goal`: what it becomes when it is whole.

    `block` in bytes; `token`: the board's when it was begun (L2); `validated`, `used`: wall
    seconds.
    """

    key: str
    part: str
    goal: str
    id: str
    bytes: int
    block: int
    token: int
    validated: float
    used: float
    info: RemoteObject

    @property
    def reserved(self) -> Reserved:
        return Reserved(self.part, self.goal, self.bytes, 0, self.id)


def _row(values: Any) -> PartialRow:
    """Raises `JunkRow` for what this library never wrote."""
    key, part, goal, id_, size, block, token, validated, used, info = values
    try:
        told, began = RemoteObject(**json.loads(info)), int(token, 16)
        # A planted name must not lead to a file outside the cache.
        ours = bool(PART_NAME.fullmatch(part)) and is_copy_name(goal)
        if not ours or block <= 0 or told.size <= 0:
            raise ValueError("it names no file of ours")
    except (ValueError, TypeError) as error:
        raise JunkRow("a broken row of a partial copy") from error
    return PartialRow(key, part, goal, id_, size, block, began, validated, used, told)


def find(db: sqlite3.Connection, key: str) -> PartialRow | None:
    """The key's partial copy."""
    found = db.execute(f"{_SELECT} WHERE p.key = ?", (key,)).fetchone()
    return None if found is None else _row(found)


def all_of(db: sqlite3.Connection) -> list[PartialRow]:
    """All partial copies, the longest unread first."""
    return [_row(found) for found in db.execute(f"{_SELECT} ORDER BY p.used")]


def begin(db: sqlite3.Connection, row: PartialRow) -> None:
    """Note a partial copy whose room is reserved; the key's older one is given up."""
    older = find(db, row.key)
    if older is not None:
        give_up(db, older.reserved, files=(older.part,))
    # A census that was taken meanwhile has its file among those that nobody knows.
    db.execute("DELETE FROM leaving WHERE file = ?", (row.part,))
    values = (row.key, row.part, row.block, f"{row.token:x}", row.validated, row.used)
    text = json.dumps({**asdict(row.info), "metadata": dict(row.info.metadata)})
    db.execute("INSERT INTO partials VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, text))


def announce(
    db: sqlite3.Connection, part: str, numbers: Iterable[int]
) -> tuple[int, list[int]] | None:
    """Blocks are about to be written; how many count then, and the new ones. None: it is over."""
    if db.execute("SELECT 1 FROM partials WHERE part = ?", (part,)).fetchone() is None:
        return None
    sql = "INSERT OR IGNORE INTO blocks VALUES (?, ?, 0, x'')"
    new = [number for number in numbers if db.execute(sql, (part, number)).rowcount > 0]
    [count] = db.execute("SELECT count(*) FROM blocks WHERE part = ?", (part,)).fetchone()
    return int(count), new


def withdraw(db: sqlite3.Connection, part: str, numbers: Iterable[int]) -> None:
    """These blocks do not come after all."""
    sql = "DELETE FROM blocks WHERE part = ? AND number = ? AND pages = x''"
    db.executemany(sql, [(part, number) for number in numbers])


def load(db: sqlite3.Connection, part: str, first: int, end: int) -> dict[int, dict[int, int]]:
    """By block from `first` up to `end`: page to CRC-32 of what is said to be here."""
    sql = "SELECT number, pages FROM blocks WHERE part = ? AND number >= ? AND number < ?"
    return {number: _unpack(pages) for number, pages in db.execute(sql, (part, first, end))}


def note(
    db: sqlite3.Connection, part: str, number: int, pages: dict[int, int], *, whole: int
) -> None:
    """Pages of a block came, beside those that are known. `whole`: how many it has."""
    sql = "SELECT pages FROM blocks WHERE part = ? AND number = ?"
    found = db.execute(sql, (part, number)).fetchone()
    if found is None:
        return
    known = {**_unpack(found[0]), **pages}
    sql = "UPDATE blocks SET pages = ?, whole = ? WHERE part = ? AND number = ?"
    db.execute(sql, (_pack(known), int(len(known) >= whole), part, number))


def damaged(db: sqlite3.Connection, part: str, number: int, pages: Iterable[int]) -> None:
    """These pages are not what they were: they are to come again."""
    sql = "SELECT pages FROM blocks WHERE part = ? AND number = ?"
    found = db.execute(sql, (part, number)).fetchone()
    if found is not None:
        known = _unpack(found[0])
        for page in pages:
            known.pop(page, None)
        sql = "UPDATE blocks SET pages = ?, whole = 0 WHERE part = ? AND number = ?"
        db.execute(sql, (_pack(known), part, number))


def whole_blocks(db: sqlite3.Connection, part: str) -> int:
    """How many blocks are here to the last page."""
    sql = "SELECT count(*) FROM blocks WHERE part = ? AND whole = 1"
    [count] = db.execute(sql, (part,)).fetchone()
    return int(count)


def give_up_idle(
    db: sqlite3.Connection, need: int, idle: Callable[[str], bool], but: str = ""
) -> int:
    """Give up partial copies that nobody reads, the longest unread first, until `need` bytes are
    free; how many bytes that is. `but`: not this one.
    """
    freed = 0
    for found in db.execute(f"{_SELECT} ORDER BY p.used").fetchall():
        if freed >= need:
            break
        row = _row(found)
        if row.part != but and idle(row.part):
            give_up(db, row.reserved, files=(row.part,))
            freed += row.bytes
    return freed


def _pack(pages: dict[int, int]) -> bytes:
    """CRC-32 and a mark for each page that is here."""
    return b"".join(
        (pages[page] | _HERE).to_bytes(8, "little") if page in pages else bytes(8)
        for page in range(PAGES)
    )


def _unpack(data: bytes) -> dict[int, int]:
    if len(data) != PAGES * 8:
        return {}
    values = (int.from_bytes(data[at : at + 8], "little") for at in range(0, PAGES * 8, 8))
    return {page: value ^ _HERE for page, value in enumerate(values) if value & _HERE}
