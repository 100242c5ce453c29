"""The one place where errors of boto3 become ours."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cachestore.errors import Corrupt, NotSent, RemoteUnavailable
from cachestore.locks import NO_FORKS
from cachestore.policy.classify import classify


class NotModified(Exception):
    """304: the copy that the caller has is current. Never leaves the remote."""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Run one request; `what` names it in errors, for example "put 'a/b'"."""
    with NO_FORKS:
        from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        raise of_answer(error.response, what) from None
    except boto.ParamValidationError as error:
        raise ValueError(f"{what}: {error}") from None
    except (boto.EndpointConnectionError, boto.ConnectTimeoutError) as error:
        raise NotSent(f"{what}: {_name(error)}: {error}") from None
    except (boto.BotoCoreError, OSError, http.client.HTTPException) as error:
        raise RemoteUnavailable(f"{what}: {_name(error)}: {error}") from None


@contextmanager
def translated_body(what: str) -> Iterator[None]:
    """Read from an answer's body, which botocore leaves to us."""
    from botocore import exceptions as boto
    from urllib3.exceptions import HTTPError

    try:
        yield
    except boto.IncompleteReadError as error:
        raise Corrupt(f"{what}: the answer ended early: {error}") from None
    except (boto.BotoCoreError, HTTPError, OSError, http.client.HTTPException) as error:
        raise RemoteUnavailable(f"{what}: the answer broke: {_name(error)}: {error}") from None


def of_answer(response: dict[str, Any], what: str) -> Exception:
    """The error for botocore's parsed error answer; `NotModified` for 304."""
    meta = response.get("ResponseMetadata", {})
    error = response.get("Error", {})
    code = str(error.get("Code") or "") or None
    status = meta.get("HTTPStatusCode")
    if status is None and code is not None and code.isdigit():
        status = int(code)
    if status == 304:
        return NotModified(what)
    headers = {str(name).lower(): str(value) for name, value in _headers(meta).items()}
    return classify(
        status, code, str(error.get("Message") or ""), headers, what=what, now=time.time()
    )


def _headers(meta: dict[str, Any]) -> dict[str, Any]:
    headers = meta.get("HTTPHeaders")
    return dict(headers) if headers else {}


def _name(error: BaseException) -> str:
    return type(error).__name__
