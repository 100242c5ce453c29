"""Secrets stay where they were given, and nothing that is found on disk is ever run."""

from __future__ import annotations

import ast
import logging
import pickle
import runpy
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_rig import seed
from store_rig import make_options, store_of, until

import cachestore
from cachestore import Settings
from cachestore.errors import CacheStoreError
from cachestore.local.facts_disk import text_disk
from cachestore.options import Options, RemoteOptions
from cachestore.remote.memory import MemoryRemote
from cachestore.testing.r2 import R2Double

SECRET = "SeCrEt-recognise-me-0123456789abcdef"
TOKEN = "ToKeN-recognise-me-0123456789abcdef"
URLS = "uRl-SeCrEt-recognise-me-0123456789"
ALL = (SECRET, TOKEN, URLS)


class Everything(logging.Handler):
    """All that is logged, by anybody, with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.ours: list[str] = []
        self.others: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        (self.ours if record.name.startswith("cachestore") else self.others).append(text)


@pytest.fixture
def logged() -> Iterator[Everything]:
    handler, root = Everything(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def on_disk(root: Path) -> bytes:
    """Every byte of every file below a folder, and all names."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in files)


def options_of(root: Path, double: R2Double, **fields: object) -> Options:
    remote = RemoteOptions(
        bucket=double.bucket, endpoint=double.endpoint, access_key=double.access_key,
        secret_key=SECRET, session_token=TOKEN, conditional=True, kind="r2",
    )  # fmt: skip
    values = {"url_secret": URLS, "leader_interval": 0.02} | fields
    return make_options(root, mode="remote", remote=remote, **values)


@pytest.mark.parametrize("trouble", ["wrong secret", "refused", "unavailable", "reset", "down"])
def test_no_secret_is_on_disk_in_a_log_in_an_error_or_an_event(
    tmp_path: Path, logged: Everything, trouble: str
) -> None:
    known = "another one" if trouble == "wrong secret" else SECRET
    said: list[str] = []
    with R2Double(secret_key=known, session_token=TOKEN) as double:
        store = store_of(options_of(tmp_path, double))
        store.subscribe(lambda event: said.append(repr(event)))
        if trouble == "refused":
            double.rules.add("status", status=403, code="AccessDenied")
        elif trouble == "unavailable":
            double.rules.add("status", status=503)
        elif trouble == "reset":
            double.rules.add("reset")
        elif trouble == "down":
            double.down()
        receipt = store.put("a.wav", b"data", metadata={"note": "n"})
        until(lambda: "UploadFailed" in " ".join(said) or "Parked" in " ".join(said), "a failure")
        for work in (lambda: store.get("far.wav"), lambda: list(store.list()), store.health):
            try:
                said.append(repr(work()))
            except CacheStoreError as error:
                said += [repr(error), str(error), repr(error.__cause__), repr(error.__context__)]
        said += [repr(store), repr(store.options), repr(store.pending()), repr(receipt)]
        said += [repr(store.flush(0.1)), repr(store.stats()), repr(store.fsck()), repr(store.core)]
        store.close(drain=0)
    disk = on_disk(tmp_path)
    assert b"a.wav" in disk
    assert any("a.wav" in text for text in logged.ours)
    for secret in ALL:
        assert secret not in "\n".join(said), f"{secret} in {trouble}"
        assert secret not in "\n".join(logged.ours)
        assert secret.encode() not in disk
    for secret in (SECRET, URLS):  # botocore writes the headers that it sends into its own log
        assert secret not in "\n".join(logged.others)


def test_no_secret_is_in_the_settings_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(
        r2_account_id="a" * 32, r2_access_key_id="id", r2_secret_access_key=SECRET,
        r2_session_token=TOKEN, r2_bucket_name="b", url_secret=URLS, use_r2_storage=True,
    )  # fmt: skip
    options = settings.options()
    assert options.remote is not None
    assert options.remote.secret_key == SECRET
    words = (repr(settings), str(settings), repr(options), str(options), repr(options.remote))
    for secret in ALL:
        assert not any(secret in text for text in words)
    with pytest.raises(CacheStoreError) as caught:
        Settings.load(r2_secret_access_key=SECRET, cache_max_bytes="much")
    assert SECRET not in str(caught.value) + repr(caught.value)


# -- what is found on disk is never run ------------------------------------------------------------


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("column", ["key", "value"])
def test_a_planted_pickle_is_refused(tmp_path: Path, column: str) -> None:
    bucket, bang = MemoryRemote(), tmp_path / "bang"
    seed(bucket, "a.wav", b"data")
    options = make_options(tmp_path, mode="remote", negative_ttl=3600.0)
    with store_of(options, remote=bucket) as store:
        store.head("a.wav")
        assert not store.exists("none.wav")
    [database] = options.cache_dir.glob("*/facts/cache.db")
    evil = pickle.dumps(Bomb(bang))
    with sqlite3.connect(database) as db:
        changed = (
            db.execute("UPDATE Cache SET raw = 0, key = ? || rowid", (evil,))
            if column == "key"
            else db.execute("UPDATE Cache SET mode = 4, value = ?", (evil,))
        )
        assert changed.rowcount >= 2
    db.close()
    with store_of(options, remote=bucket) as store:
        assert store.head("a.wav").size == 4
        assert not store.exists("none.wav")
        store.clean()
        store.fsck(repair=True)
    assert not bang.exists()
    pickle.loads(evil)
    assert bang.exists(), "the bomb is one"


def test_nothing_in_the_library_can_run_what_it_reads() -> None:
    """No pickle, marshal, shelve, eval or exec; diskcache only with our own `Disk`."""
    root = Path(cachestore.__file__).parent
    shipped = [path for path in root.rglob("*.py") if path.relative_to(root).parts[0] != "testing"]
    assert len(shipped) > 100
    for path in shipped:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path
                if node.func.id == "Cache":
                    assert "disk" in [keyword.arg for keyword in node.keywords], path
            for name in names:
                base = name.split(".")[0]
                assert base not in ("pickle", "marshal", "shelve", "dill", "yaml"), path
                inside = path.relative_to(root).as_posix()
                assert base != "diskcache" or inside.startswith("local/facts"), path


def test_the_cve_of_diskcache_does_not_reach_us() -> None:
    """CVE-2025-69872 needs diskcache's own `Disk`, which unpickles; ours takes text only."""
    from diskcache.core import MODE_PICKLE

    disk = text_disk()(directory=".")
    with pytest.raises(TypeError):
        disk.fetch(MODE_PICKLE, None, pickle.dumps("x"), False)
    with pytest.raises(TypeError):
        disk.get(pickle.dumps("x"), False)
    for value in (b"bytes", {"a": 1}, None):
        with pytest.raises(TypeError):
            disk.store(value, False)


def test_it_is_the_one_exception_of_the_audit_and_explained() -> None:
    top = Path(__file__).parent.parent
    audit = runpy.run_path(str(top / ".ci" / "audit.py"))
    assert set(audit["IGNORED"]) == {"CVE-2025-69872", "GHSA-w8v5-vhqr-4h9v"}
    text = (top / "SECURITY.md").read_text()
    assert "CVE-2025-69872" in text
    assert "diskcache" in text
    assert "audit.py" in (top / ".ci" / "run").read_text()
