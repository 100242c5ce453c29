"""Key templates: `snapshots/{mtime:%Y}/{mtime:%m}/{name}`. Checked when made, pure when used."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cachestore.errors import ConfigError, InvalidKey
from cachestore.keys import check_key

FIELDS = {
    "path": "the file's path in the folder, with its folders",
    "folder": "the folders of that path, empty at the top",
    "name": "the file's name with its suffix",
    "stem": "the name without its last suffix",
    "suffix": "the last suffix with its dot, empty if there is none",
    "size": "bytes",
    "hash": "the SHA-256 of the bytes, 64 hex digits; {hash:.8} gives eight of them",
    "mtime": "the file's time: by the name pattern, by its sidecar, else when it was modified;"
    " always with a format, as {mtime:%Y-%m-%d}",
}
"""Every field of a template, and what it stands for."""

_TIME_DIRECTIVES = frozenset("YymdjHMSfzZGVuAaBbUW%")
_DISTINCT = frozenset({"path", "name", "stem", "hash"})


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a template knows of a file. `path` with `/`; `hash` "" unless it is asked for."""

    path: str
    size: int
    mtime: datetime
    hash: str = ""

    def values(self) -> dict[str, Any]:
        """The fields by name."""
        folder, _, name = self.path.rpartition("/")
        stem, suffix = split_suffix(name)
        return {
            "path": self.path, "folder": folder, "name": name, "stem": stem, "suffix": suffix,
            "size": self.size, "hash": self.hash, "mtime": self.mtime,
        }  # fmt: skip


_SAMPLE = FileFacts("folder/name.jpg", 24_576, datetime(2026, 1, 15, tzinfo=UTC), "0a" * 32)


def split_suffix(name: str) -> tuple[str, str]:
    """Stem and last suffix, as `pathlib` splits them: a leading dot begins no suffix."""
    dot = name.rfind(".")
    return (name[:dot], name[dot:]) if 0 < dot < len(name) - 1 else (name, "")


class Template:
    """Text with fields in braces. `fields`: the names that it uses."""

    def __init__(self, text: str, more: Mapping[str, str] | None = None) -> None:
        """`more`: further fields with texts as values, by name, each with what it stands for.

        Raises `ConfigError` that says what is wrong with it.
        """
        self.text = text
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConfigError(f"the template {text!r} cannot be read: {error}") from None
        self._parts = parsed
        self.fields = frozenset(name for _, name, _, _ in parsed if name is not None)
        for _, name, spec, conversion in parsed:
            if name is not None:
                _check(text, name, spec or "", conversion, more or {})

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def render(self, values: Mapping[str, Any]) -> str:
        """The text with its fields filled in."""
        made: list[str] = []
        for literal, name, spec, _ in self._parts:
            made.append(literal)
            if name is not None:
                made.append(_shown(values[name], spec or ""))
        return "".join(made)

    def only_field(self) -> str | None:
        """The field, if the template is one field without a format and nothing else."""
        if len(self._parts) != 1:
            return None
        literal, name, spec, _ = self._parts[0]
        return None if literal or spec else name


class KeyTemplate(Template):
    """A template that makes keys, different ones for different files."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        if any(name == "mtime" and not spec for _, name, spec, _ in self._parts):
            raise ConfigError(f"the key template {text!r}: write a format, as {{mtime:%Y-%m-%d}}")
        if not self.fields & _DISTINCT:
            raise ConfigError(
                f"the key template {text!r} gives every file the same key; use one of"
                f" {', '.join('{' + name + '}' for name in sorted(_DISTINCT))}"
            )
        try:
            self.key(_SAMPLE)
        except InvalidKey as error:
            raise ConfigError(f"the key template {text!r} makes no keys: {error}") from None

    @property
    def needs_hash(self) -> bool:
        """True if the file has to be read before its key is known."""
        return "hash" in self.fields

    @property
    def needs_time(self) -> bool:
        return "mtime" in self.fields

    def key(self, facts: FileFacts) -> str:
        """The checked key of a file; `InvalidKey` if its name makes none.

        A folder that is empty leaves no empty segment behind.
        """
        made = self.render(facts.values())
        if "folder" in self.fields:
            made = re.sub("/{2,}", "/", made).lstrip("/")
        return check_key(made)


def _shown(value: Any, spec: str) -> str:
    if isinstance(value, datetime):
        return value.strftime(spec) if spec else value.isoformat()
    return format(value, spec)


def _check(
    text: str, name: str, spec: str, conversion: str | None, more: Mapping[str, str]
) -> None:
    """Raise `ConfigError` for a field that is unknown or has a format that does not fit."""
    where = f"the template {text!r}"
    if name not in FIELDS and name not in more:
        known = ", ".join([*FIELDS, *more])
        shown = f"{{{name}}}" if name else "{} without a name"
        raise ConfigError(f"{where} has an unknown field {shown}; there are {known}")
    if conversion:
        raise ConfigError(f"{where}: {{{name}!{conversion}}} is not possible; leave out the !")
    if "{" in spec:
        raise ConfigError(f"{where}: the format of {{{name}}} cannot hold another field")
    if name == "mtime":
        _check_time(where, spec)
        return
    try:
        format(_SAMPLE.values().get(name, "text"), spec)
    except ValueError as error:
        raise ConfigError(f"{where}: {{{name}:{spec}}} has a bad format: {error}") from None


def _check_time(where: str, spec: str) -> None:
    directives = re.findall(r"%(.?)", spec, re.DOTALL)
    if spec and not directives:
        raise ConfigError(f"{where}: a time has a format such as {{mtime:%Y-%m-%d}}")
    unknown = [each for each in directives if each not in _TIME_DIRECTIVES]
    if unknown:
        raise ConfigError(f"{where}: there is no time directive %{unknown[0]}")
