"""Open pages of the served dashboard: they do no harm to a run, and do not keep the service from ending."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from tests.end_to_end.conftest import (
    PATIENCE,
    Service,
    StartService,
    open_trigger_engine,
    seed,
)

TOKEN = "operator-token-of-32-characters!"
MENTORS = 60

NOTHING_LISTENS = "postgresql://nobody@127.0.0.1:1/nowhere"


class Stream:
    """A browser's connection, byte for byte."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""

    async def wait_for(self, text: bytes) -> None:
        with trio.fail_after(PATIENCE):
            while text not in self._received:
                data = await self._stream.receive_some()
                assert data, f"it ended before {text!r}: {self._received!r}"
                self._received += data

    async def wait_for_end(self) -> bytes:
        with trio.fail_after(PATIENCE):
            async for data in self._stream:
                self._received += data
        return self._received

    async def hang_up(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def open_stream(service: Service) -> AsyncIterator[Stream]:
    where = urlsplit(service.url)
    async with await trio.open_tcp_stream(where.hostname, where.port) as stream:
        await stream.send_all(
            f"GET /dashboard/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        opened = Stream(stream)
        await opened.wait_for(b"retry: ")
        yield opened


async def hold(service: Service, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """A page that is open, and reads."""
    async with open_stream(service) as stream:
        task_status.started()
        await stream.wait_for_end()


async def test_a_run_is_seen_while_it_lasts_and_pages_that_look_away_do_it_no_harm(
    start_service: StartService, database_url: str
) -> None:
    """Twenty that read, ten that take nothing, ten that hang up in the middle of it."""
    await seed(database_url, MENTORS)
    async with open_trigger_engine(lambda mentor_id: 0.2) as engine, trio.open_nursery() as nursery:
        service = await start_service(
            DATABASE_URL=database_url,
            SCHEDULER_TRIGGER_ENGINE=engine.url,
            SCHEDULER_OPERATOR_TOKEN=TOKEN,
        )
        for _ in range(20):
            await nursery.start(hold, service)
        for _ in range(10):
            await nursery.start(read_nothing, service)

        async def look_and_hang_up() -> None:
            async with open_stream(service) as stream:
                await stream.wait_for(b'"state": "running"')

        for _ in range(10):
            nursery.start_soon(look_and_hang_up)
        answer = await service.tick()
        summary = answer.json()
        assert answer.status_code == 200
        assert (summary["completed"], summary["total_evaluated"]) == (True, MENTORS)
        assert not service.logged("request_failed")
        nursery.cancel_scope.cancel()


async def read_nothing(service: Service, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    async with open_stream(service):
        task_status.started()
        await trio.sleep_forever()


@pytest.mark.parametrize("reads", [True, False], ids=["that read", "that read nothing"])
async def test_open_pages_do_not_keep_the_service_from_ending(
    reads: bool, start_service: StartService
) -> None:
    service = await start_service(DATABASE_URL=NOTHING_LISTENS, SCHEDULER_OPERATOR_TOKEN=TOKEN)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            await nursery.start(hold if reads else read_nothing, service)
        service.send(signal.SIGTERM)
        assert await service.exit_code() == 0
        assert service.logged("stopped")[0]["cut"] is False
        nursery.cancel_scope.cancel()


async def test_draining_is_the_last_that_an_open_page_hears_and_the_run_is_finished(
    start_service: StartService, database_url: str
) -> None:
    await seed(database_url, MENTORS)
    async with open_trigger_engine(lambda mentor_id: 0.3) as engine:
        service = await start_service(
            DATABASE_URL=database_url,
            SCHEDULER_TRIGGER_ENGINE=engine.url,
            SCHEDULER_OPERATOR_TOKEN=TOKEN,
        )
        summaries: list[dict[str, Any]] = []

        async def tick() -> None:
            summaries.append((await service.tick()).json())

        async with trio.open_nursery() as nursery, open_stream(service) as stream:
            nursery.start_soon(tick)
            await stream.wait_for(b'"state": "running"')
            await engine.wait_until_called(15)
            service.send(signal.SIGTERM)
            said = await stream.wait_for_end()
        last = [line for line in said.splitlines() if line.startswith(b"data: ")][-1]
        assert json.loads(last.removeprefix(b"data: "))["state"] == "draining"
        assert await service.exit_code() == 0
    assert summaries[0]["stop_reason"] == "draining"
    assert summaries[0]["total_evaluated"] >= 10
