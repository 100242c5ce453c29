"""The router's OpenAPI says what it does, and nothing that fits or breaks it makes a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI, Header, HTTPException, Request
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from store_rig import make_options, on_server, store_of

from cachestore.web.asgi import Source
from cachestore.web.fastapi import PresignBody, build_router

CHECKS: list[Any] = [
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_headers_conformance, response_schema_conformance,
]  # fmt: skip


def authorize(x_user: str = Header("ann")) -> None:
    if x_user != "ann":
        raise HTTPException(401, "who are you?")


def key_for(request: Request, body: PresignBody) -> str:
    return f"uploads/{body.filename}"


def app_of(store: Source, folder: str = ".") -> FastAPI:
    app = FastAPI()
    router = build_router(store, authorize=authorize, key_for=key_for, sync=folder)
    app.include_router(router, prefix="/storage")
    return app


OPERATIONS = [
    (method.upper(), path)
    for path, item in app_of(lambda request: None).openapi()["paths"].items()
    for method in item
]


@pytest.fixture(scope="module", params=["local", pytest.param("bucket", marks=pytest.mark.torture)])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp(request.param)
    options = make_options(root, public_base_url="http://testserver/storage")
    if request.param == "bucket":
        server = request.getfixturevalue("moto_server")
        options = on_server(root, server, server.new_bucket())
    with store_of(options) as store:
        store.put("a.txt", b"0123456789").wait(60)
        (root / "snapshots").mkdir()
        (root / "snapshots" / "a.jpg").write_bytes(b"x")
        app = app_of(store, str(root / "snapshots"))
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_fits_and_what_does_not(api: Any, method: str, path: str) -> None:
    ask_for(api, method, path, 8)


@pytest.mark.torture
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_much_of_it(api: Any, method: str, path: str) -> None:
    ask_for(api, method, path, 2_000)


def ask_for(api: Any, method: str, path: str, examples: int) -> None:
    operation = api[path][method]
    modes = [GenerationMode.POSITIVE]
    if operation.body:
        modes.append(GenerationMode.NEGATIVE)  # any text fits a path, so all else always fits
    for mode in modes:

        @settings(
            max_examples=examples, deadline=None, database=None, derandomize=examples < 100,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)

        ask()


def test_every_route_is_described() -> None:
    assert len(OPERATIONS) == len(set(OPERATIONS))
    for method in ("GET", "HEAD"):
        for path in ("/storage/files/{key}", "/storage/links/{token}/{name}"):
            assert (method, path) in OPERATIONS
