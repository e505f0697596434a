"""GET /healthz and /readyz."""

from __future__ import annotations

import trio
from quart.typing import TestClientProtocol as Client
from trio.testing import MockClock

from engine import DatabaseUnavailable
from tests.web.conftest import FakeScheduler
from tests.web.test_run import assert_refused


async def test_healthz_speaks_for_the_process_alone(client: Client, scheduler: FakeScheduler) -> None:
    scheduler.error = DatabaseUnavailable("Postgres is away.")
    response = await client.get("/healthz")
    assert (response.status_code, await response.get_json()) == (200, {"status": "alive"})
    assert scheduler.readiness_checks == 0


async def test_readyz_is_asked_of_the_database_once_a_second_however_many_ask(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client.get, "/readyz")
    assert scheduler.readiness_checks == 1

    scheduler.error = DatabaseUnavailable("Postgres is away.")
    await trio.sleep(0.5)
    assert (await client.get("/readyz")).status_code == 200
    await trio.sleep(0.5)
    assert await assert_refused(await client.get("/readyz"), 503, "not_ready") == "Postgres is away."
    assert scheduler.readiness_checks == 2
