"""More connections than anybody needs, slower ones than anybody should be, and no file descriptor left."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from tests.end_to_end.conftest import (
    PATIENCE,
    SECRET,
    Service,
    StartService,
    open_trigger_engine,
    seed,
)
from tests.end_to_end.test_adversity import adds_up, tick
from tests.faults.injected import count

ON_18 = pytest.mark.parametrize("postgres_binaries", ["18"], indirect=True, ids="postgres-{}".format)

# Of the connections that are closed by the service when it has waited long enough for them, 5 s.
TOO_LONG = 2 * PATIENCE

IDLE = 1_000

# Seconds between two bytes of a caller who does not want to come to an end.
DRIBBLE = 0.25

HEADER = b"POST /run HTTP/1.1\r\nHost: x\r\nX-Comment: "
BODY = (
    f"POST /run HTTP/1.1\r\nHost: x\r\nX-Scheduler-Secret: {SECRET}\r\n"
    "Content-Type: application/json\r\nContent-Length: 10000\r\n\r\n{"
).encode()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Two ends of a thousand connections, in this process and in the service that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = IDLE + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(
            f"A thousand connections take file descriptors: raise the hard limit to {needed} (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def until_files(service: Service, at_most: int) -> None:
    with trio.fail_after(TOO_LONG):
        while service.open_files() > at_most:  # noqa: ASYNC110 - nothing but looking tells
            await trio.sleep(0.05)


async def connect(service: Service) -> trio.SocketStream:
    where = urlsplit(service.url)
    assert where.hostname is not None
    assert where.port is not None
    return await trio.open_tcp_stream(where.hostname, where.port)


@asynccontextmanager
async def crowd(service: Service, callers: int) -> AsyncIterator[list[trio.SocketStream]]:
    """Connections that say nothing."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await connect(service)) for _ in range(callers)]


async def received_until_closed(stream: trio.SocketStream) -> bytes:
    """Whatever the service says until it closes, in order or not."""
    received = b""
    with suppress(trio.BrokenResourceError):
        async for data in stream:
            received += data
    return received


@ON_18
async def test_a_thousand_idle_connections_hold_up_no_run_and_are_closed(
    many_files: None, database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 300)
    async with open_trigger_engine(lambda mentor_id: 0.005) as engine:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=engine.url)
        assert (await service.tick()).json()["completed"]
        at_rest = service.open_files()
        async with crowd(service, IDLE) as callers:
            count("idle connection", IDLE)
            summary = (await service.tick()).json()
            with trio.fail_after(TOO_LONG):
                for caller in callers:
                    await received_until_closed(caller)
    assert (summary["total_evaluated"], summary["completed"]) == (300, True)
    await until_files(service, at_most=at_rest)
    assert (await service.get("/readyz")).status_code == 200
    assert "Traceback" not in service.log()


@ON_18
async def test_callers_who_dribble_their_header_or_their_body_are_closed_and_hold_up_nobody(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 300)
    answers: list[bytes] = []

    async def dribble(begin: bytes) -> None:
        count("slow loris")
        async with await connect(service) as stream, trio.open_nursery() as nursery:

            async def listen() -> None:
                answers.append(await received_until_closed(stream))
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            await stream.send_all(begin)
            with suppress(trio.BrokenResourceError):
                while True:
                    await trio.sleep(DRIBBLE)
                    await stream.send_all(b"x")

    async with open_trigger_engine(lambda mentor_id: 0.005) as engine:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=engine.url)
        with trio.fail_after(TOO_LONG):
            async with trio.open_nursery() as nursery:
                for begin in (HEADER, BODY) * 50:
                    nursery.start_soon(dribble, begin)
                summary = (await service.tick()).json()
    assert (summary["total_evaluated"], summary["completed"]) == (300, True)
    assert len(answers) == 100
    assert sum(b" 408 " in answer.partition(b"\r\n")[0] for answer in answers) == 50
    assert (await service.get("/healthz")).status_code == 200
    assert "Traceback" not in service.log()


@ON_18
async def test_a_crowd_that_takes_every_file_descriptor_ends_no_run_and_the_service_recovers_and_says_why(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 300)
    answers: list[httpx.Response] = []
    async with open_trigger_engine(lambda mentor_id: 0.05) as engine:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=engine.url)
        pid = service.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick, service, answers)
            await engine.wait_until_called(50)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (service.open_files() + 2, before[1]))
            count("file descriptors exhausted")
            async with crowd(service, 40):
                await until_logged(service, "Too many open files")
                with trio.fail_after(PATIENCE):
                    while not answers:  # noqa: ASYNC110
                        await trio.sleep(0.02)
        summary = answers[0].json()
        assert (summary["total_evaluated"], summary["total_errors"], summary["completed"]) == (300, 0, True)
        assert (await service.get("/readyz")).status_code == 200
        assert (await service.tick()).json()["completed"]


@ON_18
async def test_a_run_that_finds_no_file_descriptor_for_its_calls_says_so_and_the_next_one_makes_up_for_it(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 300)
    async with open_trigger_engine(lambda mentor_id: 0.005) as engine:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=engine.url)
        assert (await service.tick()).json()["completed"]
        pid = service.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        heard = len(engine.report.mentor_ids)
        # One for the caller, two for the ten dispatchers.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (await settled_files(service) + 3, before[1]))
        count("file descriptors exhausted")
        answer = await service.tick()
        summary = answer.json()
        assert answer.status_code == 200
        assert adds_up(summary)
        assert summary["total_evaluated"] == len(engine.report.mentor_ids) - heard
        assert summary["total_errors"] > 0
        assert service.logged("run_ended")[-1]["errors"] == {"out_of_files": summary["total_errors"]}
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        again = (await service.tick()).json()
        assert (again["total_evaluated"], again["total_errors"], again["completed"]) == (300, 0, True)
    assert "Traceback" not in service.log()


async def settled_files(service: Service) -> int:
    """How many it has open, once the connections of the tick before have ended, each when it likes."""
    seen = [service.open_files()]
    with trio.fail_after(PATIENCE):
        while len(seen) < 10 or len(set(seen[-10:])) > 1:
            await trio.sleep(0.02)
            seen.append(service.open_files())
    return seen[-1]


async def until_logged(service: Service, words: str) -> None:
    with trio.fail_after(PATIENCE):
        while words not in service.log():  # noqa: ASYNC110
            await trio.sleep(0.02)
