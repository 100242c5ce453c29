"""A real Chromium, and an app on a port of its own for it to visit."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import uvicorn
from store_rig import PATIENCE, until

T = TypeVar("T")
_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_ARGUMENTS = (
    "--no-sandbox",  # containers have no user namespaces, and the pages are our own
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
)


class Missing(Exception):
    """There is no browser here."""


def chromium_path() -> str:
    """The browser to use: TEST_CHROMIUM, else what is installed. Raises `Missing`."""
    given = os.environ.get("TEST_CHROMIUM")
    found = given or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise Missing("no Chromium is installed (on Debian: apt install chromium)")
    return found


class Browser:
    """Chromium, driven on a thread of its own.

    Playwright leaves an event loop running in the thread that uses it; in the test's own thread
    the store would warn of that, and `asyncio.run` would fail.
    """

    def __init__(self) -> None:
        path = chromium_path()
        self._thread = ThreadPoolExecutor(1, "browser")
        self._stack = contextlib.ExitStack()
        self._browser: Any = self.do(lambda: self._launch(path))

    def _launch(self, path: str) -> Any:
        from playwright.sync_api import sync_playwright

        driver = self._stack.enter_context(sync_playwright())
        browser = driver.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        self._stack.callback(browser.close)
        return browser

    def do(self, work: Callable[[], T]) -> T:
        """Run `work` where Playwright may be used, and wait for it."""
        return self._thread.submit(work).result(4 * PATIENCE)

    @contextlib.contextmanager
    def visit(self, url: str, **context: Any) -> Iterator[Visit]:
        """A page in a profile of its own; `context`: Playwright's, and `cookie` as `name=value`."""
        cookie = context.pop("cookie", None)

        def begin() -> Visit:
            made = self._browser.new_context(**context)
            if cookie:
                name, _, value = cookie.partition("=")
                made.add_cookies([{"name": name, "value": value, "url": url}])
            made.set_default_timeout(PATIENCE * 1000)
            page = made.new_page()
            visit = Visit(self, page)
            page.goto(url)
            return visit

        visit = self.do(begin)
        try:
            yield visit
        finally:
            self.do(visit.page.context.close)

    def close(self) -> None:
        self.do(self._stack.close)
        self._thread.shutdown()


class Visit:
    """An open page. `troubles`: what its console and its scripts complained of."""

    def __init__(self, browser: Browser, page: Any) -> None:
        self.page = page
        self.troubles: list[str] = []
        self.dialogs: list[str] = []
        self._browser = browser
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", self._hear)
        page.on("dialog", self._dismiss)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(message.text)

    def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def do(self, work: Callable[[Any], T]) -> T:
        """`work(page)` on the browser's thread."""
        return self._browser.do(lambda: work(self.page))

    def text(self, selector: str) -> str:
        return self.do(lambda page: str(page.text_content(selector)))

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        return self.do(lambda page: page.evaluate(script))

    def until(self, script: str, what: str) -> Any:
        """Poll until an expression is true."""
        return until(lambda: self.run(script), what)


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app on a free port, with its lifespan; gives its origin."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        run = threading.Thread(target=server.run, args=([listener],), name="uvicorn", daemon=True)
        run.start()
        until(lambda: server.started or not run.is_alive(), "the app's start")
        assert server.started
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            run.join(PATIENCE)
