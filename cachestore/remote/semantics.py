"""What the remotes that are not S3 share: conditions, ranges and listings, as pure functions."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from cachestore.errors import (
    PreconditionFailed,
    RangeNotSatisfiable,
    SourceError,
    UploadLost,
)
from cachestore.model import ListPage, RemoteObject
from cachestore.remote.base import MAX_PARTS, MIN_PART, RemoteSource

CHUNK = 1 << 18


def nfc(key: str) -> str:
    """The one spelling under which a key is compared."""
    return unicodedata.normalize("NFC", key)


def check_write(
    key: str, current: str | None, if_match: str | None, if_none_match: str | None
) -> None:
    """Raise `PreconditionFailed` if a put's condition does not hold; `current`: the ETag there."""
    if if_none_match is not None and current is not None:
        raise PreconditionFailed(f"put {key!r}: it exists already", found=current)
    if if_match is not None and if_match != current:
        raise PreconditionFailed(
            f"put {key!r}: it is not the version that was expected",
            expected=if_match,
            found=current,
        )


def check_read(key: str, current: str, if_match: str | None) -> None:
    """Raise `PreconditionFailed` if a get's `if_match` is not the current ETag."""
    if if_match is not None and if_match != current:
        raise PreconditionFailed(
            f"get {key!r}: it is not the version that was expected",
            expected=if_match,
            found=current,
        )


def check_range(start: int, end: int | None) -> None:
    """Raise `ValueError` for a range that nothing can lie in."""
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f"the range {start} to {end} is empty or negative")


def resolve_range(key: str, size: int, start: int, end: int | None) -> tuple[int, int]:
    """Where an answer begins and ends (exclusive) in an object of `size` bytes."""
    check_range(start, end)
    if start == 0 and end is None:
        return 0, size
    if start >= size:
        raise RangeNotSatisfiable(
            f"get {key!r}: it has {size} bytes, {start} is behind", status=416
        )
    return start, size if end is None else min(end, size)


def read_exactly(body: RemoteSource, size: int, key: str) -> Iterator[bytes]:
    """`size` bytes of a source in chunks; `SourceError` if it has fewer."""
    left = size
    while left:
        chunk = body.read(min(CHUNK, left))
        if not chunk:
            raise SourceError(f"put {key!r}: the source ended {left} bytes early")
        left -= len(chunk)
        yield chunk


def check_parts(key: str, sizes: Sequence[int]) -> None:
    """Raise `UploadLost` where R2 would refuse the parts: unequal, too small, too many, none."""
    if not sizes or len(sizes) > MAX_PARTS:
        raise UploadLost(f"put {key!r}: {len(sizes)} parts; 1 to 10,000 are allowed", status=400)
    first = sizes[0]
    if any(size != first for size in sizes[:-1]) or sizes[-1] > first:
        raise UploadLost(f"put {key!r}: all parts but the last must be equal", status=400)
    if len(sizes) > 1 and first < MIN_PART:
        raise UploadLost(f"put {key!r}: a part of {first} bytes is too small", status=400)


def at_most_1000(keys: Iterable[str]) -> list[str]:
    """The keys of one `delete_many`; `ValueError` if there are too many."""
    wanted = list(keys)
    if len(wanted) > 1000:
        raise ValueError(f"{len(wanted)} keys; at most 1,000 can be deleted at once")
    return wanted


def pages(
    objects: Iterable[RemoteObject],
    prefix: str,
    delimiter: str | None,
    after: str | None,
    page_size: int,
) -> Iterator[ListPage]:
    """Listing pages over all objects of a bucket, in the order of the keys' UTF-8 bytes."""
    found: list[RemoteObject] = []
    common: list[str] = []
    last = None
    floor = b"" if after is None else after.encode()
    for obj in sorted(objects, key=lambda each: each.key.encode()):
        if not obj.key.startswith(prefix) or obj.key.encode() <= floor:
            continue
        cut = obj.key.find(delimiter, len(prefix)) if delimiter else -1
        name = obj.key[: cut + len(delimiter)] if delimiter and cut >= 0 else None
        if name is not None and name == last:
            continue
        if len(found) + len(common) == page_size:
            yield ListPage(tuple(found), tuple(common))
            found, common = [], []
        if name is None:
            found.append(obj)
        else:
            common.append(name)
            last = name
    if found or common:
        yield ListPage(tuple(found), tuple(common))
