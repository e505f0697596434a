"""A headless Chromium, driven by playwright from a thread of its own, and a site for it to look at.

Playwright's synchronous API leaves its thread with a running asyncio loop, which the main thread's fixtures
can't do with.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from pydantic import SecretStr

from engine import Settings
from tests.web.conftest import TOKEN, FakeScheduler
from tests.web.states import NOW
from web.app import create_app
from web.serve import base_url, open_listener

T = TypeVar("T")

CHROMIUM = os.environ.get("SCHEDULER_TEST_CHROMIUM") or shutil.which("chromium") or ""

ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Milliseconds for what should take a tenth of a second, on a machine that is busy with something else.
PATIENCE = 15_000


class Seen:
    """Everything that a page did which it should not."""

    def __init__(self) -> None:
        self.console: list[str] = []
        self.hosts: set[str] = set()

    def watch(self, page: Any) -> None:
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))


class Browser:
    """Runs functions of a page in its thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="browser")
        self._playwright: Any = None
        self._browser: Any = None

    def start(self) -> None:
        self._thread.submit(self._start).result()

    def _start(self) -> None:
        from playwright.sync_api import sync_playwright

        # trio-asyncio makes loops of its own, also outside trio; this is for the thread at hand alone.
        asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=False, args=ARGUMENTS
        )

    def stop(self) -> None:
        self._thread.submit(self._stop).result()
        self._thread.shutdown()

    def _stop(self) -> None:
        if self._browser is not None:
            self._browser.close()
        if self._playwright is not None:
            self._playwright.stop()

    def on_page(self, look: Callable[[Any], T], **how: Any) -> T:
        """What `look` returns of a page of a fresh profile. `how` as playwright's new_context."""

        def run() -> T:
            settings = {"viewport": {"width": 1200, "height": 900}, "timezone_id": "UTC", "locale": "en-GB"}
            context = self._browser.new_context(**(settings | how))
            try:
                context.set_default_timeout(PATIENCE)
                return look(context.new_page())
            finally:
                context.close()

        return self._thread.submit(run).result()


@contextmanager
def open_browser() -> Iterator[Browser]:
    browser = Browser()
    try:
        browser.start()
        yield browser
    finally:
        browser.stop()


class Site:
    """The application over a fake scheduler, served on loopback from a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self.scheduler = FakeScheduler()
        self.scheduler.at = NOW
        self._settings = settings
        self._listener = open_listener("127.0.0.1:0")
        self.url = base_url(self._listener)
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=[self._serve], name="site")

    async def _serve(self) -> None:
        config = Config()
        config.bind = [f"fd://{self._listener.detach()}"]
        config.graceful_timeout = 0.1
        config.accesslog = None
        self._stop = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        app = create_app(self.scheduler, self._settings)
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
                await serve(app, config, shutdown_trigger=self._stop.wait, task_status=task_status)

            await nursery.start(run)
            self._is_up.set()

    def change(self, how: Callable[[FakeScheduler], None]) -> None:
        """In the thread that serves."""
        trio.from_thread.run_sync(how, self.scheduler, trio_token=self._token)

    def __enter__(self) -> Site:
        self._thread.start()
        self._is_up.wait()
        return self

    def __exit__(self, *exception: object) -> None:
        trio.from_thread.run_sync(self.scheduler.drain, trio_token=self._token)
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join()


def make_site(**changes: Any) -> Site:
    values: dict[str, Any] = {
        "secret": SecretStr("a1" * 32),
        "operator_token": SecretStr(TOKEN),
        "trigger_engine": "https://project.example/functions/v1/trigger-engine",
    }
    return Site(Settings(**(values | changes)))


def log_in(page: Any, url: str, token: str = TOKEN) -> None:
    page.goto(f"{url}/dashboard")
    page.get_by_label("Operator token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Scenario scheduler").wait_for()
