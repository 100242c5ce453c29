"""Sidecars: documents that go with a file. Found beside it, or made by a writer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cachestore.errors import CacheStoreError, ConfigError, SourceError
from cachestore.policy.templates import FileFacts, Template, split_suffix

SUFFIX = ".json"
_LARGEST = 1 << 20
_MORE = {"key": "the file's key", "content_type": "its content type"}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as a sidecar writer gets it. `relative` is its path in the folder, with `/`."""

    path: Path
    relative: str
    key: str
    size: int
    sha256: str
    time: datetime
    content_type: str


Maker = Callable[[SourceFile], Any]


def sidecar_names(name: str) -> tuple[str, str]:
    """What a file's sidecar may be called: `x.json` or `x.jpg.json` for `x.jpg`."""
    return split_suffix(name)[0] + SUFFIX, name + SUFFIX


def sidecar_key(key: str, *, whole: bool = False) -> str:
    """The key of a file's sidecar. `whole`: `.json` comes behind the suffix, not in its place."""
    if whole:
        return key + SUFFIX
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{split_suffix(name)[0]}{SUFFIX}"


def read_document(path: str) -> Mapping[str, Any] | None:
    """The JSON object in a sidecar; None for anything else. Raises nothing."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
        found = json.loads(data) if len(data) <= _LARGEST else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class SidecarWriter:
    """Makes a file's document: by a callable, or by a JSON object whose texts are templates.

    A text that is one field alone keeps the field's kind: `"{size}"` becomes a number. `model`: a
    pydantic model that the document has to fit; without one any JSON object does.
    """

    def __init__(self, made_by: Maker | Mapping[str, Any] | str, model: Any = None) -> None:
        """A `str` is JSON text. Raises `ConfigError` for a template that cannot be used."""
        if isinstance(made_by, str):
            try:
                made_by = json.loads(made_by)
            except ValueError as error:
                raise ConfigError(f"the sidecar template is no JSON: {error}") from None
        self._call: Maker | None = None
        self._template: Any = None
        if callable(made_by):
            self._call = made_by
        elif isinstance(made_by, Mapping):
            self._template = _compiled(made_by)
        else:
            raise ConfigError("a sidecar is made by a callable or by a JSON object")
        self._adapter = _adapter(model)
        self.mark = _mark(made_by, model)

    def document(self, source: SourceFile) -> bytes:
        """The document, as JSON in UTF-8. Raises `SourceError`."""
        from pydantic import ValidationError

        try:
            made = self._call(source) if self._call else _filled(self._template, _values(source))
            plain = made.model_dump(mode="json") if hasattr(made, "model_dump") else made
            valid = self._adapter.validate_python(plain)
            text: bytes = self._adapter.dump_json(valid, indent=2)
            return text + b"\n"
        except ValidationError as error:
            raise SourceError(f"the sidecar of {source.relative!r} is not valid: {error}") from None
        except CacheStoreError:
            raise
        except Exception as error:  # the app's own callable may raise anything
            raise SourceError(
                f"the sidecar of {source.relative!r} cannot be made:"
                f" {type(error).__name__}: {error}"
            ) from error


def _adapter(model: Any) -> Any:
    from pydantic import JsonValue, TypeAdapter

    return TypeAdapter(dict[str, JsonValue] if model is None else model)


def _mark(made_by: Any, model: Any) -> str:
    """Tells one writer from another between runs."""
    name = made_by if isinstance(made_by, Mapping) else getattr(made_by, "__qualname__", "")
    return json.dumps([name, getattr(model, "__qualname__", "")], sort_keys=True, default=str)


def _values(source: SourceFile) -> dict[str, Any]:
    facts = FileFacts(source.relative, source.size, source.time, source.sha256)
    return facts.values() | {"key": source.key, "content_type": source.content_type}


def _compiled(node: Any) -> Any:
    if isinstance(node, str):
        return Template(node, _MORE)
    if isinstance(node, Mapping):
        return {str(name): _compiled(value) for name, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_compiled(value) for value in node]
    return node


def _filled(node: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, Template):
        alone = node.only_field()
        if alone == "size":
            return values[alone]
        return node.render(values)
    if isinstance(node, dict):
        return {name: _filled(value, values) for name, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, values) for value in node]
    return node
