"""A process that was frozen in mid-pass, after the dispatcher's look at the deadline, acts no more."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpcore
import httpx
import pytest
import trio
from trio.testing import MockClock

from engine.errors import DatabaseUnavailable
from engine.trigger.direct import DirectTransport, _Connection
from engine.trigger.in_database import RECONNECT_PAUSE, InDatabaseTriggerEngine
from engine.trigger.protocol import RunContext
from engine.trigger.via_httpx import HttpxTransport
from tests.fakes import RUN_ID, ids

URL = "http://127.0.0.1:1/"
DEADLINE = 5.0
CONNECTING = 1.0


class FrozenBeforeItsNextStep(trio.abc.Instrument):
    """From `at` on this task's next step comes when its time is up, in the same pass of the loop."""

    def __init__(self, clock: MockClock, at: float) -> None:
        self._clock, self._at = clock, at
        self._task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self._at <= trio.current_time() < DEADLINE:
            self._clock.jump(DEADLINE - trio.current_time())


async def freeze(clock: MockClock, at: float, act: Callable[[], Any]) -> None:
    trio.lowlevel.add_instrument(FrozenBeforeItsNextStep(clock, at))
    with trio.move_on_at(DEADLINE) as cut:
        await act()
    assert cut.cancelled_caught
    assert trio.current_time() == DEADLINE


async def test_a_call_is_not_made_again_by_a_process_woken_past_its_deadline(
    autojump_clock: MockClock,
) -> None:
    asked_at = []

    class Database:
        async def fetch(self, *arguments: Any, **how: Any) -> Sequence[Any]:
            asked_at.append(trio.current_time())
            raise DatabaseUnavailable("gone")

    trigger_engine = InDatabaseTriggerEngine(Database())  # type: ignore[arg-type]
    async with trigger_engine.open_session(RunContext(RUN_ID)) as session:
        await freeze(autojump_clock, 2 * RECONNECT_PAUSE, lambda: session.evaluate(ids(1)))
    assert asked_at == [0.0, RECONNECT_PAUSE]


class Sent(list[bytes]):
    """A stream that keeps what is sent, and is never answered."""

    async def send_all(self, data: bytes) -> None:
        self.append(data)

    async def receive_some(self, size: int) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    def is_readable(self) -> bool:
        return False

    def close(self) -> None:
        pass


@asynccontextmanager
async def direct(sent: Sent) -> AsyncIterator[Any]:
    class Connection(_Connection):
        async def _connect(self) -> Any:
            await trio.sleep(CONNECTING)
            self._socket = self._stream = sent  # type: ignore[assignment]
            return sent

    yield Connection(DirectTransport(URL)._endpoint, None, {})


@asynccontextmanager
async def via_httpx(sent: Sent) -> AsyncIterator[Any]:
    class Stream(httpcore.AsyncNetworkStream):
        async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
            await sent.send_all(buffer)

        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
            return await sent.receive_some(max_bytes)

        async def aclose(self) -> None:
            pass

        def get_extra_info(self, info: str) -> None:
            return None

    class Backend(httpcore.AsyncNetworkBackend):
        async def connect_tcp(self, *arguments: Any, **how: Any) -> Stream:
            await trio.sleep(CONNECTING)
            return Stream()

    async with HttpxTransport(URL, ssl.create_default_context()).open_connection({}) as connection:
        pool = httpx.AsyncHTTPTransport()
        pool._pool = httpcore.AsyncConnectionPool(network_backend=Backend())
        connection._connection._pool = pool
        yield connection


@asynccontextmanager
async def via_asks(sent: Sent) -> AsyncIterator[Any]:
    try:
        import asks  # noqa: F401
    except ImportError:
        pytest.skip("asks is not installed: pip install --no-deps asks==3.0.0 async_generator")
    from engine.trigger.via_asks import AsksTransport

    class Stream:
        async def send(self, data: bytes) -> None:
            await sent.send_all(data)

        async def receive(self, max_bytes: int) -> bytes:
            return await sent.receive_some(max_bytes)

        async def aclose(self) -> None:
            pass

    async def connect() -> None:
        await trio.sleep(CONNECTING)
        connection._stream = Stream()

    async with AsksTransport(URL, ssl.create_default_context()).open_connection({}) as connection:
        connection._connect = connect  # type: ignore[method-assign]
        yield connection


@pytest.mark.parametrize("transport", [direct, via_httpx, via_asks])
async def test_a_request_does_not_leave_over_a_connection_that_was_opened_past_its_deadline(
    transport: Callable[[Sent], Any], autojump_clock: MockClock
) -> None:
    sent = Sent()
    async with transport(sent) as connection:
        await freeze(autojump_clock, CONNECTING, lambda: connection.post({}, b"{}", 100))
    assert sent == []


@pytest.mark.parametrize("transport", [direct, via_httpx, via_asks])
async def test_a_request_leaves_as_soon_as_it_is_connected(
    transport: Callable[[Sent], Any], autojump_clock: MockClock
) -> None:
    sent = Sent()
    async with transport(sent) as connection:
        with trio.move_on_at(CONNECTING + 0.5):
            await connection.post({}, b"{}", 100)
    assert b"".join(sent).endswith(b"\r\n\r\n{}")
