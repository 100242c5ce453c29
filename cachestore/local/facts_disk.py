"""The way facts are stored in diskcache: text only, and nothing else is ever read back."""

from __future__ import annotations

from typing import Any


def text_disk() -> type[Any]:
    """A `diskcache.Disk` for str keys and str values; anything else raises `TypeError`.

    diskcache pickles what it does not know and unpickles what it finds; whoever can write into the
    folder could then run code (CVE-2025-69872). Made here so that diskcache is imported late.
    """
    from diskcache.core import MODE_RAW, MODE_TEXT, Disk

    class TextDisk(Disk):  # type: ignore[misc]  # diskcache has no types
        def put(self, key: Any) -> tuple[Any, bool]:
            if not isinstance(key, str):
                raise TypeError("fact keys are text")
            return key, True

        def get(self, key: Any, raw: bool) -> Any:
            if not raw or not isinstance(key, str):
                raise TypeError("fact keys are text")
            return key

        def store(self, value: Any, read: bool, key: Any = None) -> Any:
            if read or not isinstance(value, str):
                raise TypeError("facts are text")
            return super().store(value, False, key)

        def fetch(self, mode: int, filename: Any, value: Any, read: bool) -> Any:
            if read or mode not in (MODE_RAW, MODE_TEXT):
                raise TypeError("facts are text")
            found = super().fetch(mode, filename, value, read)
            if not isinstance(found, str):
                raise TypeError("facts are text")
            return found

    return TextDisk
