"""Flags set while stores are open: `SPOOL_DIR/flags.json`, replaced atomically.

They win over the environment and lose against arguments. A store takes them in at `reload`.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cachestore.errors import ConfigError
from cachestore.files import Files, locked_folder, read_file, replace_file
from cachestore.settings.names import SETTINGS, find

FILE = "flags.json"
_LOCK_SECONDS = 10.0


def read_flags(spool_dir: str | Path) -> dict[str, str]:
    """The flags as they were written, by the setting's name; empty if none was ever set.

    Raises `ConfigError` when the file is there but cannot be used.
    """
    path = Path(spool_dir) / FILE
    try:
        flags = json.loads(read_file(Files(), path))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise ConfigError(f"cannot read the live flags in {path}: {what}") from None
    if not isinstance(flags, dict) or not all(map(_plain, flags.values())):
        raise ConfigError(f"{path} must hold one JSON object of names and plain values")
    return {name: _text(value) for name, value in flags.items() if value is not None}


def check_flag(name: str, value: Any) -> tuple[str, str]:
    """The setting's name and the value as text, or `ConfigError` that says what is wrong."""
    setting = find(name)
    if not setting.spec.live:
        live = ", ".join(s.name for s in SETTINGS.values() if s.spec.live)
        raise ConfigError(f"{setting.name} cannot be changed live; these can: {live}")
    text = "none" if value is None else _text(value).strip()
    if not text:
        raise ConfigError(f"{setting.name} is empty; unset the flag instead")
    try:
        setting.kind.parse(text)
    except ValueError as error:
        raise ConfigError(f"{setting.name} cannot be {text[:40]!r}: {error}") from None
    return setting.name, text


def set_flag(spool_dir: str | Path, name: str, value: Any) -> None:
    """Set a live flag durably. `name` in any case; `value` as in the environment.

    Raises `ConfigError` for a name that is unknown or not live-changeable, and a wrong value.
    """
    known, text = check_flag(name, value)
    with _changing(Path(spool_dir)) as flags:
        flags[known] = text


def unset_flag(spool_dir: str | Path, name: str) -> bool:
    """Take a flag back; False if it was not set. A name that no setting has is removed too."""
    wanted = {name, name.upper()}
    try:
        wanted.add(find(name).name)
    except ConfigError:
        pass
    if not wanted & read_flags(spool_dir).keys():
        return False
    with _changing(Path(spool_dir)) as flags:
        found = [known for known in wanted if known in flags]
        for known in found:
            del flags[known]
    return bool(found)


@contextmanager
def _changing(spool_dir: Path) -> Iterator[dict[str, str]]:
    """The flags to change, under a lock: two processes that set one each keep both."""
    files = Files()
    folder = Path(os.path.realpath(spool_dir))

    def refused() -> ConfigError:
        return ConfigError(f"another process holds {folder}; try again")

    try:
        files.make_folder(folder)
        with locked_folder(files, folder, _LOCK_SECONDS, refused):
            flags = read_flags(folder)
            yield flags
            data = json.dumps(flags, indent=1, sort_keys=True).encode() + b"\n"
            replace_file(files, folder / FILE, data, unique=secrets.token_hex(8))
    except OSError as error:
        raise ConfigError(f"cannot write the live flags in {folder}: {error.strerror}") from None


def _plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
