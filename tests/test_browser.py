"""What a person sees: the dashboard, direct uploads and players, in a real Chromium."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser_rig import Browser, Missing, Visit, chromium_path, serving
from conftest import NO_BROWSER
from fastapi import Cookie, FastAPI, HTTPException, Request
from starlette.responses import HTMLResponse, Response
from store_rig import make_options, on_server, store_of, until

from cachestore.aio import AsyncCacheStore
from cachestore.errors import Rejected
from cachestore.model import Attributes
from cachestore.remote.memory import MemoryRemote
from cachestore.remote.s3 import S3Remote
from cachestore.store import CacheStore
from cachestore.testing.contract_tools import put as upload
from cachestore.testing.link import SlowLink
from cachestore.testing.r2 import R2Double
from cachestore.testing.remotes import FaultyRemote
from cachestore.web.asgi import file_response
from cachestore.web.fastapi import PresignBody, build_router

HOSTILE = '<img src=x onerror="window.harmed=1;alert(1)">.wav'
BLOCK = 4 << 20
COOKIE = "who=ann"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        chromium_path()
    except Missing as missing:
        pytest.skip(f"{NO_BROWSER}{missing}")
    made = Browser()
    yield made
    made.close()


def authorize(who: str = Cookie("")) -> None:
    if who != "ann":
        raise HTTPException(401, "who are you?")


def app_of(store: CacheStore, **parts: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(build_router(store, authorize=authorize, **parts), prefix="/media")
    return app


# -- the dashboard -------------------------------------------------------------------------------


@pytest.fixture
def remote() -> FaultyRemote:
    made = MemoryRemote()
    upload(made, HOSTILE, b"hostile")
    upload(made, "plain.wav", b"plain")
    return FaultyRemote(made)


@pytest.fixture
def store(tmp_path: Path, remote: FaultyRemote) -> Iterator[CacheStore]:
    options = make_options(tmp_path, mode="remote", bucket_count_interval=0.0)
    with store_of(options, remote=remote) as made:
        yield made


def seen(page: Visit, selector: str, text: str) -> None:
    until(lambda: text in page.text(selector), f"{text!r} in {selector}")


def test_the_dashboard_is_live(browser: Browser, store: CacheStore, remote: FaultyRemote) -> None:
    faults = [lambda: Rejected(f"no {HOSTILE}", status=400)] * 2
    for error in faults:
        remote.fail("put", times=1, error=error)
    with (
        serving(app_of(store)) as origin,
        browser.visit(f"{origin}/media/dashboard", cookie=COOKIE) as page,
    ):
        seen(page, "#status", "healthy")
        assert page.text("#reads") == "0"
        store.get("plain.wav")
        seen(page, "#reads", "1")
        store.get("plain.wav")
        seen(page, "#reads", "2")
        seen(page, "#rate", "50.0 %")
        store.put("waiting.wav", b"12345")
        until(lambda: store.health()["pending"]["parked"] == 1, "the first refusal")
        page.run("refresh()")  # not in two seconds
        seen(page, "#queue", "waiting.wav")
        seen(page, "#queue", "parked")
        seen(page, "#status", "degraded")
        seen(page, "#alerts", "parked")
        page.do(lambda each: each.click("#queue button"))
        seen(page, "#done", "due: 1")
        until(lambda: store.health()["pending"]["parked"] == 1, "the second refusal")
        page.do(lambda each: each.click("#retry"))
        seen(page, "#queue-more", "The bucket has everything")
        page.do(lambda each: each.click("#clean"))
        until(lambda: page.text("#done") not in ("…", "due: 1"), "the clean-up's report")
        assert (page.troubles, page.dialogs) == ([], [])


def test_a_hostile_key_does_nothing(
    browser: Browser, store: CacheStore, remote: FaultyRemote
) -> None:
    error = f"no <script>window.harmed=2</script> {HOSTILE}"
    remote.fail("put", times=1, error=lambda: Rejected(error, status=400))
    store.put(HOSTILE.replace("src=x", "src=y"), b"12345")
    until(lambda: store.health()["pending"]["parked"])
    store.get(HOSTILE)
    with (
        serving(app_of(store)) as origin,
        browser.visit(f"{origin}/media/dashboard", cookie=COOKIE) as page,
    ):
        seen(page, "#queue", "<img src=y onerror")
        seen(page, "#queue", "<script>window.harmed=2</script>")
        seen(page, "#largest", HOSTILE)
        seen(page, "#hottest", HOSTILE)
        assert (
            page.run("document.images.length + document.querySelectorAll('td script').length") == 0
        )
        assert page.run("window.harmed === undefined")
        assert (page.troubles, page.dialogs) == ([], [])
        # Had the page a hole, the policy would still stop it.
        blocked = page.run(
            "(() => { try { document.body.innerHTML = '<img src=x onerror=window.harmed=3>';"
            " return 'done' } catch (error) { return error.name } })()"
        )
        assert blocked == "TypeError"
        assert page.run("window.harmed === undefined")


def test_another_site_cannot_press_a_button(browser: Browser, store: CacheStore) -> None:
    pressed: list[str] = []

    def count(request: Request) -> None:
        pressed.append(request.method)

    app, evil = FastAPI(), FastAPI()
    app.include_router(build_router(store, authorize=count))

    @evil.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse("<form method=post><input name=x value=1></form>")

    with serving(app) as origin, serving(evil) as other, browser.visit(other) as visit:
        sent = visit.run(
            f"fetch('{origin}/dashboard/clean', {{method: 'POST', headers:"
            " {'x-cachestore-action': '1'}}).then(() => 'sent', () => 'refused')"
        )
        assert sent == "refused"
        status = visit.do(lambda each: _posted(each, f"{origin}/dashboard/clean"))
        assert status == 403
    assert pressed == ["POST"], "the form's, which was refused"


def _posted(page: Any, url: str) -> int:
    with page.expect_navigation() as navigation:
        page.evaluate("url => { document.forms[0].action = url; document.forms[0].submit() }", url)
    return int(navigation.value.status)


def test_it_fits_a_phone(browser: Browser, store: CacheStore) -> None:
    store.get(HOSTILE)
    store.put("renders/" + "long" * 60 + ".wav", b"1")
    with (
        serving(app_of(store)) as origin,
        browser.visit(
            f"{origin}/media/dashboard", cookie=COOKIE,
            viewport={"width": 375, "height": 740}, color_scheme="dark",
        ) as page,
    ):  # fmt: skip
        seen(page, "#largest", HOSTILE)
        assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(16, 21, 27)"
        assert page.troubles == []


# -- direct uploads ------------------------------------------------------------------------------

UPLOAD_PAGE = """<!DOCTYPE html><title>upload</title>
<input type=file id=file><output id=said></output>
<script>
const post = (what, body) => fetch('/media/uploads/' + what, {
  method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify(body),
}).then(async answer => {
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
});
file.onchange = async () => {
  try {
    const chosen = file.files[0];
    const how = await post('presign', {
      filename: chosen.name, content_type: chosen.type, size: chosen.size,
    });
    const put = await fetch(how.url, {method: how.method, headers: how.headers, body: chosen});
    if (!put.ok) throw new Error('PUT ' + put.status);
    const info = await post('confirm', {key: how.key, size: chosen.size});
    said.textContent = 'confirmed ' + info.key + ' ' + info.size + ' at ' + new URL(how.url).host;
  } catch (error) { said.textContent = 'failed: ' + error.message }
};
</script>"""


@pytest.mark.parametrize("mode", ["bucket", "local"])
def test_a_file_chosen_in_a_page_is_uploaded_directly(
    browser: Browser, tmp_path: Path, r2_double: R2Double, mode: str
) -> None:
    photo = tmp_path / "cat photo.jpg"
    photo.write_bytes(b"\xff\xd8" + bytes(300_000))
    options = make_options(tmp_path, bucket_count_interval=0.0)
    if mode == "bucket":
        options = on_server(tmp_path, r2_double, r2_double.bucket, bucket_count_interval=0.0)
    confirmed: list[str] = []

    def key_for(request: Request, body: PresignBody) -> str:
        return f"ann/{body.filename}"

    app = FastAPI()

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(UPLOAD_PAGE)

    with ExitStack() as stack:
        origin = stack.enter_context(serving(app))
        store = stack.enter_context(store_of(replace(options, public_base_url=f"{origin}/media")))
        router = build_router(
            store, authorize=authorize, key_for=key_for,
            on_confirmed=lambda info, request: confirmed.append(info.key),
        )  # fmt: skip
        app.include_router(router, prefix="/media")
        visit = stack.enter_context(browser.visit(origin, cookie=COOKIE))
        if mode == "bucket":
            visit.do(lambda each: each.set_input_files("#file", photo))
            seen(visit, "#said", "failed")  # no rule of the bucket lets the page in yet
            r2_double.allow_origin(origin)
            visit.do(lambda each: each.reload())
        visit.do(lambda each: each.set_input_files("#file", photo))
        host = r2_double.endpoint if mode == "bucket" else origin
        seen(visit, "#said", f"confirmed ann/{photo.name} 300002 at {host.partition('//')[2]}")
        assert confirmed == [f"ann/{photo.name}"]
        assert store.read(f"ann/{photo.name}") == photo.read_bytes()
        assert store.head(f"ann/{photo.name}").content_type == "image/jpeg"


# -- players -------------------------------------------------------------------------------------


def wav(size: int) -> bytes:
    """About so many bytes of CD-quality sound; no two seconds are the same."""
    rate, width, channels = 44_100, 2, 2
    frames = size // (width * channels)
    second = rate * width * channels
    sound = b"".join(bytes([number % 7, number % 3]) * (second // 2) for number in range(600))
    with io.BytesIO() as file:
        with wave.open(file, "wb") as out:
            out.setparams((channels, width, rate, 0, "NONE", ""))
            out.writeframes(sound[: frames * width * channels])
        return file.getvalue()


PLAYER_PAGE = """<!DOCTYPE html><title>player</title>
<audio id=player preload=metadata src="/song.wav"></audio>
<script>
const heard = [];
for (const name of ['playing', 'seeked', 'error', 'stalled'])
  player.addEventListener(name, () => {
    heard.push(name);
    navigator.sendBeacon('/heard/' + name);
  });
const plays = async from => {
  await player.play();
  const until = performance.now() + 40000;
  while (player.currentTime < from + 0.2) {
    if (performance.now() > until || player.error) return 'stuck at ' + player.currentTime;
    await new Promise(done => setTimeout(done, 20));
  }
  return 'plays';
};
const seek = async to => {
  const sought = new Promise(done => player.addEventListener('seeked', done, {once: true}));
  player.currentTime = to;
  await sought;
  return plays(to);
};
</script>"""


def player_of(store: CacheStore, on_event: Callable[[str], Any] = str) -> FastAPI:
    """`on_event` is told what the player says, at once."""
    app = FastAPI()
    asked = AsyncCacheStore(store)

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(PLAYER_PAGE)

    @app.get("/song.wav")
    async def song(request: Request) -> Response:
        return await file_response(asked, "song.wav", request)

    @app.post("/heard/{name}")
    def heard(name: str) -> None:
        on_event(name)

    return app


def test_an_audio_element_plays_and_seeks(browser: Browser, tmp_path: Path) -> None:
    with store_of(make_options(tmp_path)) as store:
        store.put("song.wav", wav(5_000_000))
        with serving(player_of(store)) as origin, browser.visit(origin) as page:
            page.until("player.duration > 28", "the song's length")
            assert page.run("plays(0)") == "plays"
            assert page.run("seek(24)") == "plays"
            assert page.run("seek(5)") == "plays"
            assert page.run("player.seekable.end(0) > 28")
            assert page.run("heard.includes('error')") is False


def test_a_cold_file_behind_a_slow_link_plays_at_once(
    browser: Browser, tmp_path: Path, r2_double: R2Double
) -> None:
    with ExitStack() as stack:
        link = stack.enter_context(SlowLink(r2_double.endpoint, latency=0.05, rate=20e6))
        options = on_server(tmp_path, r2_double, r2_double.bucket, bucket_count_interval=0.0)
        assert options.remote is not None
        bucket = S3Remote(options.remote)
        upload(bucket, "song.wav", wav(100_000_000), Attributes("audio/wav"))
        bucket.close()
        there = replace(options.remote, endpoint=link.endpoint)
        store = stack.enter_context(store_of(replace(options, remote=there)))
        events: list[tuple[str, int]] = []
        app = player_of(store, lambda name: events.append((name, link.received)))
        page = stack.enter_context(browser.visit(stack.enter_context(serving(app))))
        assert page.run("plays(0)") == "plays"
        until(lambda: events, "the player's word")
        # A little more than the blocks: headers, and what came while the player said so.
        assert events[0] < ("playing", 3 * BLOCK + (512 << 10))
        assert page.run("player.duration > 560")
        assert page.run("seek(500)") == "plays"
        assert link.received < 50_000_000
