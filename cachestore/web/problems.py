"""Our errors as HTTP has them, and how OpenAPI describes them."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException

from cachestore.errors import (
    CacheStoreError,
    ConfigError,
    ConfirmFailed,
    InvalidKey,
    NotFound,
    Unsupported,
)
from cachestore.web.bodies import Problem
from cachestore.web.receiving import TooLarge

Responses = dict[int | str, dict[str, Any]]

_TEXT = {"text/plain": {"schema": {"type": "string"}}}


def _problem(why: str) -> dict[str, Any]:
    return {"model": Problem, "description": why}


def _text(why: str) -> dict[str, Any]:
    return {"description": why, "content": _TEXT}


GUARDED: Responses = {
    401: _problem("Who are you? (As the app's `authorize` answers.)"),
    403: _problem("Not allowed."),
}

STATE: Responses = {**GUARDED, 503: _problem("Not now; try again.")}

UPLOAD: Responses = {
    **STATE,
    400: _problem("The body cannot be parsed."),
    404: _problem("There is no such file."),
    409: _problem("What was uploaded is not what was announced."),
    413: _problem("Too large."),
    501: _problem("There is nothing to make a URL with."),
}

RECEIVED: Responses = {
    **{status: UPLOAD[status] for status in (409, 413, 501, 503)},
    403: _problem("The signed URL is over, or for something else."),
}

_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

FILE: Responses = {
    200: {"description": "The file, with its own content type.", "content": _BYTES},
    206: {"description": "The bytes that were asked for.", "content": _BYTES},
    304: {"description": "The client has this version."},
    400: _text("That is no key."),
    404: _text("There is no such file."),
    412: _text("The file is another version."),
    416: _text("The file has no such bytes."),
    503: _text("The file cannot be had now; try again."),
}


class answered:
    """`with answered():` raises our errors as `HTTPException`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (CacheStoreError, ValueError, TooLarge)):
            status = _status(error)
            raise HTTPException(status, _invalid(error) if status == 422 else str(error)) from error


def _invalid(error: BaseException) -> list[dict[str, Any]]:
    """As FastAPI says it of a body that is not what the model wants."""
    return [{"type": "value_error", "loc": ["body"], "msg": str(error)}]


def _status(error: BaseException) -> int:
    for kinds, status in (
        (TooLarge, 413), (ConfirmFailed, 409), (InvalidKey, 422), (NotFound, 404),
        (Unsupported, 501), (ConfigError, 503), (ValueError, 422),
    ):  # fmt: skip
        if isinstance(error, kinds):
            return status
    return 503
