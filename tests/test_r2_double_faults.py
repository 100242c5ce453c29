"""The R2 double breaks when it is told to, and its log tells what happened."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    HTTPClientError,
)
from servers import client_of
from store_rig import until

from cachestore.testing.r2 import ACTIONS, R2Double, Rule, Rules

DATA = bytes(range(256)) * 4096
FAR = 3600.0


@pytest.fixture
def double() -> Iterator[R2Double]:
    with R2Double() as running:
        yield running


@pytest.fixture
def client(double: R2Double) -> Any:
    return client_of(double)


@pytest.fixture
def stored(double: R2Double, client: Any) -> dict[str, str]:
    """Where an object of a megabyte lies."""
    client.put_object(Bucket=double.bucket, Key="big", Body=DATA)
    double.log.clear()
    return {"Bucket": double.bucket, "Key": "big"}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as running:
        yield running


def exists(client: Any, place: dict[str, str]) -> bool:
    found = client.list_objects_v2(Bucket=place["Bucket"], Prefix=place["Key"])
    return any(item["Key"] == place["Key"] for item in found.get("Contents", ()))


def object_url(client: Any, place: dict[str, str]) -> tuple[str, str]:
    """Host and target of a request that needs no more signing."""
    parts = urlsplit(client.generate_presigned_url("get_object", Params=place))
    return parts.netloc, f"{parts.path}?{parts.query}"


# Answers


def test_a_status(double: R2Double, client: Any) -> None:
    put = {"Bucket": double.bucket, "Key": "a/1", "Body": b"x"}
    double.rules.add(
        "status", status=429, code="SlowDown", method="PUT", key="a/*", count=2, retry_after=5
    )
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            client.put_object(**put)
        response = caught.value.response
        assert response["Error"]["Code"] == "SlowDown"
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 429
        assert response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "5"
        assert not exists(client, {"Bucket": double.bucket, "Key": "a/1"})
    client.put_object(**put)
    assert double.log.count("PUT", "a/1", status=429) == 2
    assert double.log.count("PUT", "a/*", status=200) == 1
    assert [entry.fault for entry in double.log.entries("PUT")] == ["status", "status", ""]


def test_an_error_of_the_edge_is_html(
    double: R2Double, stored: dict[str, str], client: Any
) -> None:
    double.rules.add("status", status=522, operation="GetObject")
    host, target = object_url(client, stored)
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("GET", target)
    answer = connection.getresponse()
    assert answer.status == 522
    assert answer.read().startswith(b"<!DOCTYPE html>")
    connection.close()


def test_the_nth_and_so_many(double: R2Double, client: Any) -> None:
    double.rules.add("status", status=500, nth=2, count=1, operation="PutObject")
    answers = []
    for _ in range(4):
        try:
            client.put_object(Bucket=double.bucket, Key="a", Body=b"")
            answers.append(200)
        except ClientError as error:
            answers.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
    assert answers == [200, 500, 200, 200]


# Connections


def test_a_reset_has_no_effect(double: R2Double, client: Any) -> None:
    double.rules.add("reset", method="PUT", count=1)
    place = {"Bucket": double.bucket, "Key": "a"}
    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        client.put_object(**place, Body=DATA)
    assert not exists(client, place)
    (entry,) = double.log.entries("PUT")
    assert (entry.status, entry.received, entry.fault) == (0, len(DATA), "reset")
    client.put_object(**place, Body=DATA)


def test_a_dropped_answer_has_an_effect(double: R2Double, client: Any) -> None:
    double.rules.add("drop_answer", method="PUT", count=1)
    place = {"Bucket": double.bucket, "Key": "a"}
    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        client.put_object(**place, Body=DATA)
    assert client.get_object(**place)["Body"].read() == DATA


def test_a_late_commit(double: R2Double, client: Any) -> None:
    double.rules.add("late_commit", method="PUT", count=1)
    place = {"Bucket": double.bucket, "Key": "a"}
    parts = urlsplit(client.generate_presigned_url("put_object", Params=place))
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.request("PUT", f"{parts.path}?{parts.query}", b"late")
    until(lambda: double.log.bytes_received("a") == 4, "the whole request")
    connection.close()
    assert not exists(client, place)
    double.rules.release()
    until(lambda: exists(client, place), "the late commit")


def test_a_slow_start(double: R2Double, client: Any, pool: ThreadPoolExecutor) -> None:
    place = {"Bucket": double.bucket, "Key": "a"}
    double.rules.add("slow_headers", method="PUT", seconds=FAR)
    answer = pool.submit(client.put_object, **place, Body=b"x")
    until(lambda: exists(client, place), "the effect")
    assert double.log.entries("PUT")[0].status == 0
    assert not answer.done()
    double.rules.release()
    assert "ETag" in answer.result(60)


def test_a_start_after_so_long(double: R2Double, stored: dict[str, str], client: Any) -> None:
    double.rules.add("slow_headers", method="GET", seconds=0.3, count=1)
    start = time.monotonic()
    assert client.get_object(**stored)["Body"].read() == DATA
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_hang(double: R2Double, client: Any, pool: ThreadPoolExecutor, method: str) -> None:
    place = {"Bucket": double.bucket, "Key": "a"}
    double.rules.add("hang", key="a", count=1)
    if method == "PUT":
        answer = pool.submit(client.put_object, **place, Body=DATA)
    else:
        answer = pool.submit(client.get_object, **place)
    (entry,) = double.log.wait_for(1, method)
    assert (entry.status, entry.received, entry.done) == (0, 0, False)
    assert not answer.done()
    double.rules.release()
    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        answer.result(60)
    assert not exists(client, place)


# Bodies


@pytest.mark.parametrize("action", ["cut", "reset"])
@pytest.mark.parametrize("at", [0, 1000, len(DATA) - 1])
def test_a_body_that_ends_early(
    double: R2Double, stored: dict[str, str], client: Any, action: str, at: int
) -> None:
    double.rules.add(action, operation="GetObject", at=at, count=1)
    host, target = object_url(client, stored)
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("GET", target)
    # A reset may overtake anything, the headers too.
    got = b""
    try:
        answer = connection.getresponse()
        assert answer.headers["Content-Length"] == str(len(DATA))
        answer.read()
        pytest.fail("the body is whole")
    except http.client.IncompleteRead as error:
        got = error.partial
        assert action == "cut"
    except ConnectionResetError:
        assert action == "reset"
    connection.close()
    if action == "cut":
        assert got == DATA[:at]
    assert double.log.bytes_sent("big") == at
    assert client.get_object(**stored)["Body"].read() == DATA


def test_a_body_that_is_wrong(double: R2Double, stored: dict[str, str], client: Any) -> None:
    for at in (0, 300_000, len(DATA) - 1):
        double.rules.replace([Rule("corrupt", operation="GetObject", at=at)])
        got = client.get_object(**stored)["Body"].read()
        assert len(got) == len(DATA)
        assert [i for i, (a, b) in enumerate(zip(got, DATA, strict=True)) if a != b] == [at]
    # Counted from where the answer starts.
    double.rules.replace([Rule("corrupt", operation="GetObject", at=1)])
    got = client.get_object(**stored, Range="bytes=10-12")["Body"].read()
    assert got == bytes([10, 11 ^ 0xFF, 12])


def test_a_body_that_stops(double: R2Double, stored: dict[str, str], client: Any) -> None:
    double.rules.add("stall", operation="GetObject", at=70_000, seconds=FAR)
    body = client.get_object(**stored)["Body"]
    assert body.read(70_000) == DATA[:70_000]
    for _ in range(5):
        client.head_object(**stored)
    (entry,) = double.log.entries("GET", "big")
    assert (entry.sent, entry.done) == (70_000, False)
    double.rules.release()
    assert body.read() == DATA[70_000:]


def test_a_slow_body(double: R2Double, stored: dict[str, str], client: Any) -> None:
    double.rules.add("slow_body", operation="GetObject", rate=2 * len(DATA))
    start = time.monotonic()
    assert client.get_object(**stored)["Body"].read() == DATA
    assert time.monotonic() - start >= 0.4


# Rules


def test_rules_are_checked() -> None:
    for wrong in (
        {"action": "explode"},
        {"action": "cut"},
        {"action": "status", "nth": 0},
        {"action": "status", "color": "red"},
        {"method": "GET"},
    ):
        with pytest.raises(ValueError):
            Rule.from_json(wrong)
    for action in ACTIONS:
        Rule(action, at=0)


def test_each_rule_counts_what_reaches_it() -> None:
    rules = Rules()
    first = rules.add("reset", method="GET", nth=2, count=1)
    second = rules.add("status", key="a*")
    taken = [rules.take("GET", "a1", "GetObject") for _ in range(3)]
    assert taken == [second, first, second]
    assert rules.take("GET", "b", "GetObject") is None
    assert rules.take("HEAD", "abc", "HeadObject") == second


def test_rules_over_http(double: R2Double, client: Any) -> None:
    def ask(method: str, name: str, value: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(urlsplit(double.endpoint).netloc, timeout=60)
        body = None if value is None else json.dumps(value).encode()
        connection.request(method, f"/__double__/{name}", body)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        return answer.status, found

    put = {"Bucket": double.bucket, "Key": "a", "Body": b"x"}
    status, rules = ask("PUT", "rules", [{"action": "status", "status": 500}])
    assert (status, len(rules)) == (200, 1)
    with pytest.raises(ClientError):
        client.put_object(**put)
    assert len(ask("POST", "rules", {"action": "hang", "seconds": 1.5})[1]) == 2
    assert ask("GET", "rules")[1][1]["seconds"] == 1.5
    assert ask("DELETE", "rules") == (200, [])
    client.put_object(**put)
    assert [entry["status"] for entry in ask("GET", "log")[1]] == [500, 200]
    assert ask("DELETE", "log") == (200, [])
    assert double.log.count() == 0
    assert ask("POST", "rules", {"action": "explode"})[0] == 400
    assert ask("PUT", "settings", {"write_interval": 60})[1] == {"write_interval": 60.0}
    assert double.write_interval == 60.0
    assert ask("POST", "release")[0] == 200
    assert ask("GET", "nothing")[0] == 404


# The log and the whole


def test_the_log_counts_bytes(double: R2Double, client: Any) -> None:
    place = {"Bucket": double.bucket, "Key": "dir/a"}
    client.put_object(**place, Body=DATA)
    client.get_object(**place)["Body"].read()
    client.get_object(**place, Range="bytes=0-99")["Body"].read()
    client.head_object(**place)
    log = double.log
    assert log.bytes_received("dir/*") == len(DATA)
    assert log.bytes_sent("dir/a") == len(DATA) + 100
    assert log.bytes_sent("other") == 0
    assert [entry.operation for entry in log.wait_for(4)] == [
        "PutObject",
        "GetObject",
        "GetObject",
        "HeadObject",
    ]
    assert log.count("GET", "dir/*", status=206) == 1
    with pytest.raises(TimeoutError, match="0 of 1"):
        log.wait_for(1, "DELETE", timeout=0.01)


def test_down_and_up(double: R2Double, stored: dict[str, str], client: Any) -> None:
    endpoint = double.endpoint
    assert client.get_object(**stored)["Body"].read() == DATA
    double.down()
    with pytest.raises(BotoCoreError):
        client.get_object(**stored)
    double.up()
    assert double.endpoint == endpoint
    assert client.get_object(**stored)["Body"].read() == DATA


def test_a_download_outlives_its_object(double: R2Double, client: Any) -> None:
    for size in (1, 40):
        place = {"Bucket": double.bucket, "Key": f"of {size}"}
        client.put_object(**place, Body=DATA * size)
        body = client.get_object(**place)["Body"]
        assert body.read(10) == DATA[:10]
        client.put_object(**place, Body=b"new")
        rest = body.read()
        assert len(rest) == len(DATA) * size - 10
        assert rest.endswith(DATA[-1000:])
        assert client.get_object(**place)["Body"].read() == b"new"


def test_only_one_of_many_creates(double: R2Double) -> None:
    interval = sys.getswitchinterval()
    # Threads take turns so often that a check and its act are hardly ever done in one turn.
    sys.setswitchinterval(1e-6)
    try:
        race_to_create(double)
    finally:
        sys.setswitchinterval(interval)


def race_to_create(double: R2Double) -> None:
    won: list[int] = []
    lost: list[str] = []
    start = threading.Barrier(8)

    def create(number: int) -> None:
        client = client_of(double)
        start.wait()
        try:
            client.put_object(
                Bucket=double.bucket, Key="a", Body=str(number).encode(), IfNoneMatch="*"
            )
            won.append(number)
        except ClientError as error:
            lost.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert lost == ["PreconditionFailed"] * 7
    got = client_of(double).get_object(Bucket=double.bucket, Key="a")["Body"].read()
    assert got == str(won[0]).encode()


def test_closing_ends_everything() -> None:
    double = R2Double()
    client = client_of(double)
    double.rules.add("hang", method="GET", key="hanging")
    place = {"Bucket": double.bucket, "Key": "hanging"}
    failed: list[Exception] = []

    def get() -> None:
        try:
            client.get_object(**place)
        except BotoCoreError as error:
            failed.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    double.log.wait_for(1, "GET")
    double.close()
    double.close()
    thread.join(60)
    assert len(failed) == 1
    with pytest.raises(BotoCoreError):
        client.get_object(**place)
