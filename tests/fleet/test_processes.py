"""Real servers, a real Postgres, real processes: what a fleet promises when one of them is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import StartService, notified_once_each, query, seed, start_service
from tests.fleet.nats_server import NatsServers, open_nats_servers
from tests.fleet.processes import StartWorker, open_workers

__all__ = ["start_service"]


@pytest.fixture(scope="module")
def _nats() -> Iterator[NatsServers]:
    with open_nats_servers() as servers:
        yield servers


@pytest.fixture
async def nats(_nats: NatsServers) -> NatsServers:
    await _nats.wait_until_up()
    return _nats


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    with open_workers(tmp_path) as start:
        yield start


async def test_a_run_goes_to_the_workers_and_reaches_everybody_once(
    nats: NatsServers, database_url: str, start_service: StartService, start_worker: StartWorker
) -> None:
    await seed(database_url, 500)
    settings = {"DATABASE_URL": database_url, "SCHEDULER_FLEET": nats.url}
    workers = [await start_worker(**settings) for _ in range(2)]
    service = await start_service(**settings)
    answer = await service.tick()
    summary = answer.json()
    assert (answer.status_code, summary["completed"], summary["total_evaluated"]) == (200, True, 500)
    assert await notified_once_each(database_url) == 500
    done = await query(database_url, "select worker, count(*) from scheduler.shards group by 1")
    assert {row["worker"] for row in done} == {worker.name for worker in workers}
