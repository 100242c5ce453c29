"""The S3 servers that other tests stand on answer, are separate, and end with the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from servers import S3Server, client_of
from store_rig import until

TESTS = Path(__file__).parent


def test_put_get_list(s3_server: S3Server, bucket: str) -> None:
    client = client_of(s3_server)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="a/ä b.txt", Body=b"hello", ContentType="text/plain")
    got = client.get_object(Bucket=bucket, Key="a/ä b.txt")
    assert (got["Body"].read(), got["ContentType"]) == (b"hello", "text/plain")
    (found,) = client.list_objects_v2(Bucket=bucket, Prefix="a/")["Contents"]
    assert (found["Key"], found["Size"]) == ("a/ä b.txt", 5)


def test_conditions_are_as_declared(s3_server: S3Server, bucket: str) -> None:
    client = client_of(s3_server)
    client.put_object(Bucket=bucket, Key="a", Body=b"one")
    try:
        client.put_object(Bucket=bucket, Key="a", Body=b"two", IfNoneMatch="*")
        status = 200
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    assert status == (412 if s3_server.conditional else 200)


def test_new_buckets_are_empty_and_separate(s3_server: S3Server) -> None:
    client = client_of(s3_server)
    client.put_object(Bucket=s3_server.bucket, Key="x", Body=b"")
    names: list[str] = []
    for _ in range(8):
        names.append(s3_server.new_bucket())
        assert "Contents" not in client.list_objects_v2(Bucket=names[-1])
        client.put_object(Bucket=names[-1], Key="x", Body=b"")
    assert len(set(names[-3:])) == 3
    assert s3_server.bucket not in names


def test_the_secret_is_not_shown(s3_server: S3Server) -> None:
    assert s3_server.secret_key not in repr(s3_server)


def answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ["moto", "rclone"])
def test_servers_end_with_their_last_user(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(f"{name}_server")  # skips where it is not installed
    code = (
        "import sys, pathlib, servers\n"
        f"with servers.{name}(pathlib.Path(sys.argv[1])) as server:\n"
        "    print(server.endpoint, flush=True)\n"
        "    input()\n"
    )
    users = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
        for _ in range(2)
    ]
    try:
        said = [user.stdout.readline().strip() for user in users if user.stdout]
        assert said[0].startswith("http://")
        assert said[0] == said[1]
        users[0].kill()
        users[0].wait()
        assert answers(said[1])
    finally:
        for user in users:
            user.kill()
            user.communicate()
    until(lambda: not answers(said[0]), "the end of a server whose users are gone")
