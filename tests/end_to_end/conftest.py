"""The service as its users start it: a process of its own, reached over HTTP."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import pytest
import trio
from trio_asyncio import aio_as_trio, open_loop

from bench.trigger_engine import Latency, Report, answer

SECRET = secrets.token_hex(32)
KEY = secrets.token_urlsafe(32)
SERVICE_PASSWORD = secrets.token_hex(16)

# Nothing that names a database of the developer's own: these tests migrate, seed and notify.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("SCHEDULER_", "DATABASE_URL", "PG"))
}

IDLE_FOR_A_MONTH = """
with m as (insert into public.peer_mentors (id, user_id, status, created_at)
           select gen_random_uuid(), gen_random_uuid(), 'active', now() - interval '30 days'
             from generate_series(1, $1::int) returning id)
insert into public.assignments (id, mentor_id, status, expires_at)
select gen_random_uuid(), id, 'active', current_date + 365 from m
"""

# Bounds for what should take a second, on a machine that is busy with something else.
PATIENCE = 30.0


def arguments_of(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "web", *arguments]


def command(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        arguments_of(*arguments), env=ENVIRONMENT | settings, capture_output=True, text=True, timeout=60
    )


class Service:
    """A process that serves."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.process = process
        self._log_file = log_file
        self.url = ""

    def log(self) -> str:
        """Whole lines only: the last one may be half written."""
        return self._log_file.read_text().rpartition("\n")[0]

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = map(json.loads, self.log().splitlines())
        return [line for line in lines if line["event"] == event]

    async def wait_until_logged(self, event: str) -> dict[str, Any]:
        with trio.fail_after(PATIENCE):
            while not (lines := self.logged(event)):
                assert self.process.poll() is None, self.log()
                await trio.sleep(0.01)
        return lines[0]

    async def tick(self, *, secret: str = SECRET, **body: object) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=45) as client:
            return await client.post(f"{self.url}/run", headers={"X-Scheduler-Secret": secret}, json=body)

    async def get(self, path: str, *, token: str | None = None) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            return await client.get(f"{self.url}{path}", headers=headers)

    def open_files(self) -> int:
        """File descriptors, connections included."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    async def exit_code(self) -> int:
        with trio.fail_after(PATIENCE):
            return await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


StartService = Callable[..., Awaitable[Service]]


async def as_service(url: str) -> str:
    """The URL with which scheduler_service logs in; the same where nobody answers or nothing is migrated."""
    if urlsplit(url).username == "scheduler_service":
        return url
    try:
        await query(url, f"alter role scheduler_service password '{SERVICE_PASSWORD}'")
        user = f"scheduler_service:{SERVICE_PASSWORD}"
    except* (OSError, asyncpg.PostgresError):
        user = ""
    parts = urlsplit(url)
    server = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}@{server}").geturl() if user else url


@contextmanager
def open_services(folder: Path) -> Iterator[StartService]:
    """Start a service with these settings and wait until it serves; killed with the block. Logs go there."""
    processes: list[subprocess.Popen[bytes]] = []

    async def start(**settings: str) -> Service:
        defaults = {
            "SCHEDULER_BIND": "127.0.0.1:0",
            "SCHEDULER_SECRET": SECRET,
            "SCHEDULER_SERVICE_ROLE_KEY": KEY,
        }
        if "DATABASE_URL" in settings:
            settings["DATABASE_URL"] = await as_service(settings["DATABASE_URL"])
        log_file = folder / f"service-{len(processes)}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - forking blocks for a moment
                arguments_of("serve"),
                env=ENVIRONMENT | defaults | settings,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        processes.append(process)
        service = Service(process, log_file)
        service.url = (await service.wait_until_logged("serving"))["url"]
        return service

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[StartService]:
    """Start a service with these settings and wait until it serves; killed with the test."""
    with open_services(tmp_path) as start:
        yield start


class HeardTriggerEngine:
    """A trigger engine of somebody else's, and what it heard."""

    def __init__(self, latency: Latency) -> None:
        self.url = ""
        self.report = Report()
        self._latency = latency
        self._awaited: list[tuple[int, trio.Event]] = []

    def latency(self, mentor_id: UUID) -> float:
        for calls, event in self._awaited:
            if len(self.report.mentor_ids) >= calls:
                event.set()
        return self._latency(mentor_id)

    async def wait_until_called(self, calls: int) -> None:
        event = trio.Event()
        self._awaited.append((calls, event))
        with trio.fail_after(PATIENCE):
            await event.wait()


@asynccontextmanager
async def open_trigger_engine(latency: Latency = lambda mentor_id: 0.0) -> AsyncIterator[HeardTriggerEngine]:
    engine = HeardTriggerEngine(latency)

    async def answer_one(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # a caller who was cut may leave without a farewell
            await answer(engine.latency, engine.report, stream)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, answer_one, 0, host="127.0.0.1"))
        engine.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        yield engine
        nursery.cancel_scope.cancel()


async def query(url: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(sql, *arguments)
        finally:
            await connection.close()

    async with open_loop():
        return await aio_as_trio(fetch)()


async def seed(url: str, mentors: int) -> None:
    """Mentors who have been idle for a month: each is due one `inactivity` and nothing else."""
    await query(url, IDLE_FOR_A_MONTH, mentors)


async def notified_once_each(url: str) -> int:
    rows = await query(url, "select user_id, count(*) as n from scheduler.notifications group by 1")
    assert all(row["n"] == 1 for row in rows)
    return len(rows)
