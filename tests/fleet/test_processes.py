"""Real servers, a real Postgres, real processes: what a fleet promises when one of them is lost."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import trio

from engine import LEASE, load_settings
from engine.fleet.agreement import agreement_of
from engine.fleet.shard import MAX_MESSAGE_BYTES, Shard, write
from engine.lease import FENCE_AFTER
from tests.end_to_end.conftest import (
    PATIENCE,
    Service,
    StartService,
    open_trigger_engine,
    query,
    seed,
    start_service,
)
from tests.end_to_end.kill import AGE
from tests.fleet import failover, kill
from tests.fleet.losses import FleetOfProcesses, prepare_losses, ticking
from tests.fleet.nats_server import NatsServers, free_ports, open_nats_servers, publish
from tests.fleet.processes import StartWorker, open_workers

__all__ = ["start_service"]

# Once is enough for what is about processes; what their statements do is tested on both.
pytestmark = pytest.mark.parametrize("postgres_binaries", ["18"], indirect=True, ids=["postgres-18"])

SHORT_BUDGET = {
    "SCHEDULER_SOFT_THRESHOLD": "3",
    "SCHEDULER_HARD_DEADLINE": "5",
    "SCHEDULER_PLATFORM_LIMIT": "8",
}

WHOLE_BUDGET = {
    "SCHEDULER_SOFT_THRESHOLD": "25",
    "SCHEDULER_HARD_DEADLINE": "28",
    "SCHEDULER_PLATFORM_LIMIT": "30",
}

# Of a run's shards in order: whether, as the ledger says, the run before it had finished all of it.
DONE_BEFORE = """
select bool_and(exists (select
                          from scheduler.shards b
                         where b.run_id = $1
                           and (b.after_id is null or m.id > b.after_id)
                           and (b.until_id is null or m.id <= b.until_id)
                           and (b.is_completed or m.id <= b.low_water_mark))) as done
  from scheduler.shards s
  join scheduler.mentors m on (s.after_id is null or m.id > s.after_id)
                          and (s.until_id is null or m.id <= s.until_id)
 where s.run_id = $2
 group by s.shard_index
 order by s.shard_index
"""


def over_http(url: str) -> dict[str, str]:
    return {
        "SCHEDULER_TRIGGER_ENGINE": url,
        "SCHEDULER_SERVICE_ROLE_KEY": "a-key",
        "SCHEDULER_MENTORS_PER_INVOCATION": "1",
    }


def assert_true(summary: dict[str, Any], mentors: int) -> None:
    parts = summary["total_evaluated"] + summary["total_errors"] + summary["total_unprocessed"]
    assert parts == summary["total_active_mentors"] == mentors
    assert summary["remaining_known"]


async def tick_in_vain(service: Service) -> None:
    """Of a service that is killed before it answers."""
    with pytest.raises(httpx.TransportError):
        await service.tick()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    with open_workers(tmp_path) as start:
        yield start


async def test_a_run_goes_to_all_workers_and_reaches_everybody_once(
    nats: NatsServers, database_url: str, start_service: StartService, start_worker: StartWorker
) -> None:
    await prepare_losses(database_url, 500, 4.0)  # longer than a worker waits for streams that are not there
    fleet = FleetOfProcesses(database_url, start_service, start_worker, nats.url)
    service = await fleet.start_service()
    await fleet.staff(2)
    outcome = await fleet.reckon(await service.tick())
    assert not outcome.faults
    done = await query(database_url, "select distinct worker from scheduler.shards")
    assert {row["worker"] for row in done} == {worker.name for worker in fleet.workers}


# --- Losses ---


async def test_a_worker_killed_in_mid_shard_costs_nobody_anything(
    nats: NatsServers, database_url: str, start_service: StartService, start_worker: StartWorker
) -> None:
    """20 times by `python -m tests.fleet.kill`."""
    await prepare_losses(database_url, 1_000, kill.WALK)
    fleet = FleetOfProcesses(database_url, start_service, start_worker, nats.url)
    service = await fleet.start_service()
    chance = random.Random()
    for _ in range(2):
        outcome = await kill.kill_once(fleet, service, chance)
        assert not outcome.faults


async def test_a_leader_of_the_streams_killed_in_mid_run_leaves_the_merge_right(
    database_url: str, start_service: StartService, start_worker: StartWorker
) -> None:
    """Ten times by `python -m tests.fleet.failover`."""
    with open_nats_servers(3) as nats:
        await nats.wait_until_up()
        await prepare_losses(database_url, 1_000, failover.WALK)
        fleet = FleetOfProcesses(database_url, start_service, start_worker, nats.url)
        fleet.settings["SCHEDULER_FLEET_REPLICAS"] = "3"
        service = await fleet.start_service()
        await fleet.staff(2)
        outcome = await failover.fail_over_once(
            fleet, service, nats, random.choice(failover.STREAMS), random.Random()
        )
        assert not outcome.faults


async def test_a_worker_frozen_past_its_time_and_woken_does_nothing_more_and_each_shard_counts_once(
    nats: NatsServers, database_url: str, start_service: StartService, start_worker: StartWorker
) -> None:
    """Over HTTP, because that trigger engine counts its calls: each mentor of the frozen worker's shards once
    more than it had called by then, and not a call by it afterwards."""
    await seed(database_url, 200)
    async with open_trigger_engine(lambda mentor_id: 0.1) as engine:
        fleet = FleetOfProcesses(database_url, start_service, start_worker, nats.url)
        fleet.settings |= over_http(engine.url)
        service = await fleet.start_service()
        await fleet.staff(2)
        async with ticking(service) as answers:
            await fleet.wait_until_someone_works()
            frozen, shards = await fleet.freeze_one()
            called = Counter(engine.report.mentor_ids)
            await fleet.wait_for(
                "select count(*) = 0 from scheduler.shards where state = 'running' and worker = $1",
                frozen.name,
            )
            await fleet.wait_for(
                "select count(*) = 0 from scheduler.shards where state = 'running' "
                "and shard_index = any($1::int[])",
                shards,
            )
            frozen.send(signal.SIGCONT)
        summary = answers[0].json()
        assert summary["completed"]
        assert summary["total_evaluated"] == 200
        await frozen.wait_until_logged("shard_lost")
        frozen.send(signal.SIGTERM)
        assert await frozen.exit_code() == 0
        again = Counter(engine.report.mentor_ids) - called
        assert set(again.values()) == {1}
        assert len(Counter(engine.report.mentor_ids)) == 200


async def test_a_coordinator_killed_after_it_submitted_is_followed_by_another_process(
    nats: NatsServers, database_url: str, start_service: StartService, start_worker: StartWorker
) -> None:
    await prepare_losses(database_url, 1_000, 4.0)
    fleet = FleetOfProcesses(database_url, start_service, start_worker, nats.url)
    first, second = await fleet.start_service(), await fleet.start_service()
    await fleet.staff(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick_in_vain, first)
        await fleet.wait_until_someone_works(finished=2)
        first.process.kill()
    # Its lease is over sooner, but not before the workers, who hear nothing of it, have let go of its shards.
    await query(database_url, AGE, FENCE_AFTER)
    await fleet.wait_until_nobody_works()
    await query(database_url, AGE, LEASE - FENCE_AFTER)
    answer = await second.tick()
    outcome = await fleet.reckon(answer, all_by_this_one=False)
    assert not outcome.faults
    [abandoned, completed] = await query(
        database_url, "select id, verdict from scheduler.runs order by started_at"
    )
    assert (abandoned["verdict"], completed["verdict"]) == ("abandoned", "completed")
    # What was left waits no longer than what was done.
    done_first = [
        row["done"] for row in await query(database_url, DONE_BEFORE, abandoned["id"], completed["id"])
    ]
    assert done_first == sorted(done_first)
    assert 0 < sum(done_first) < len(done_first)


async def test_a_worker_told_to_stop_finishes_what_it_has_and_no_shard_is_begun_twice(
    nats: NatsServers, database_url: str, start_service: StartService, start_worker: StartWorker
) -> None:
    await prepare_losses(database_url, 1_000, 4.0)
    fleet = FleetOfProcesses(database_url, start_service, start_worker, nats.url)
    service = await fleet.start_service()
    await fleet.staff(2)
    async with ticking(service) as answers:
        await fleet.wait_until_someone_works()
        leaver, _ = await fleet.somebody_with_shards()
        leaver.send(signal.SIGTERM)
        assert await leaver.exit_code() == 0
        assert leaver.logged("draining")
        assert leaver.logged("stopped")[0]["cut"] is False
    outcome = await fleet.reckon(answers[0])
    assert not outcome.faults
    [most] = await query(database_url, "select max(deliveries) as times from scheduler.shards")
    assert most["times"] == 1


async def test_a_worker_told_twice_to_stop_stops_at_once(
    nats: NatsServers, database_url: str, start_service: StartService, start_worker: StartWorker
) -> None:
    await prepare_losses(database_url, 1_000, 40.0)
    fleet = FleetOfProcesses(database_url, start_service, start_worker, nats.url)
    fleet.settings |= SHORT_BUDGET
    service = await fleet.start_service()
    await fleet.staff(1)
    async with ticking(service) as answers:
        await fleet.wait_until_someone_works()
        [worker] = fleet.workers
        worker.send(signal.SIGTERM)
        await worker.wait_until_logged("draining")
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 1
        assert worker.logged("stopped")[0]["cut"] is True
    assert_true(answers[0].json(), 1_000)


async def test_with_several_workers_no_more_is_in_flight_than_the_setting_says(
    nats: NatsServers, database_url: str, start_service: StartService, start_worker: StartWorker
) -> None:
    await seed(database_url, 400)
    async with open_trigger_engine(lambda mentor_id: 0.05) as engine:
        fleet = FleetOfProcesses(database_url, start_service, start_worker, nats.url)
        fleet.settings |= over_http(engine.url)
        service = await fleet.start_service()
        await fleet.staff(3)
        answer = await service.tick()
        assert answer.json()["total_evaluated"] == 400
        assert len(set(engine.report.mentor_ids)) == len(engine.report.mentor_ids) == 400
        assert 5 < engine.report.peak_in_flight <= 10


# --- What should not be there ---


async def test_messages_that_should_not_be_there_are_refused_and_the_worker_lives(
    nats: NatsServers, database_url: str, start_service: StartService, start_worker: StartWorker
) -> None:
    await seed(database_url, 50)
    fleet = FleetOfProcesses(database_url, start_service, start_worker, nats.url)
    service = await fleet.start_service()
    await fleet.staff(1)
    [worker] = fleet.workers
    assert (await service.tick()).json()["total_evaluated"] == 50
    [run] = await query(
        database_url, "select id, extract(epoch from hard_deadline_at)::float8 as at from scheduler.runs"
    )
    [row] = await query(database_url, "select * from scheduler.shards where shard_index = 0")
    replayed = Shard(
        run_id=run["id"],
        index=0,
        after=row["after_id"],
        until=row["until_id"],
        scenario_types=None,
        soft_threshold_at=run["at"] - 4,
        hard_deadline_at=run["at"] - 1,
        max_concurrency=2,
        agreement=agreement_of(load_settings()),
    )
    foreign = replayed.model_copy(update={"run_id": uuid4()})
    other_version = json.loads(write(replayed)) | {"version": 2}
    await publish(nats, f"scheduler.shard.{run['id']}.0", write(replayed), **{"Nats-Msg-Id": "replayed"})
    await publish(nats, f"scheduler.shard.{run['id']}.1", write(replayed))
    await publish(nats, f"scheduler.shard.{foreign.run_id}.0", write(foreign))
    await publish(nats, f"scheduler.shard.{run['id']}.2", json.dumps(other_version).encode())
    await publish(nats, f"scheduler.shard.{run['id']}.3", b"\x00garbage\xff")
    await publish(nats, f"scheduler.shard.{run['id']}.4", b"[" * 60_000)
    await publish(nats, f"scheduler.shard.{run['id']}.5", b"x" * (MAX_MESSAGE_BYTES + 1))
    await publish(nats, "scheduler.shard.nonsense.0", write(replayed))
    refused = await worker.wait_until_logged("shard_refused", 8)
    assert sorted(line["reason"] for line in refused) == sorted(
        [
            "ended",
            "of_another_shard",
            "unknown",
            "other_version",
            "malformed",
            "malformed",
            "too_long",
            "subject",
        ]
    )
    with trio.fail_after(PATIENCE):
        while nats.streams("scheduler-shards")[0]["state"]["messages"]:  # noqa: ASYNC110
            await trio.sleep(0.02)  # nothing but asking tells
    await fleet.forget_runs()
    assert (await service.tick()).json()["total_evaluated"] == 50
    assert worker.is_alive
    assert not worker.logged("shard_failed")


# --- NATS away ---


async def test_while_nats_is_away_a_tick_is_told_to_come_again_and_nothing_is_begun(
    database_url: str, start_service: StartService
) -> None:
    [port] = free_ports(1)
    service = await start_service(DATABASE_URL=database_url, SCHEDULER_FLEET=f"nats://127.0.0.1:{port}")
    answer = await service.tick()
    assert answer.status_code == 503
    assert answer.json()["error"] == "fleet_unavailable"
    assert "check SCHEDULER_FLEET" in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    assert await query(database_url, "select from scheduler.runs") == []


async def test_nats_lost_in_mid_run_leaves_a_true_summary(
    database_url: str, start_service: StartService, start_worker: StartWorker
) -> None:
    with open_nats_servers() as nats:
        await nats.wait_until_up()
        await prepare_losses(database_url, 1_000, 4.0)
        fleet = FleetOfProcesses(database_url, start_service, start_worker, nats.url)
        fleet.settings |= SHORT_BUDGET
        service = await fleet.start_service()
        await fleet.staff(2)
        async with ticking(service) as answers:
            await fleet.wait_until_someone_works(finished=2)
            nats.servers[0].kill()
        summary = answers[0].json()
        assert_true(summary, 1_000)
        assert 0 < summary["total_evaluated"] < 1_000
        assert summary["partial"]
        assert summary["stop_reason"] == "fleet_unavailable"
        [sent] = await query(database_url, "select count(*) as n from scheduler.notifications")
        assert summary["total_dispatched"] <= sent["n"]
        assert all(worker.is_alive for worker in fleet.workers)
        nats.servers[0].start()
        await nats.wait_until_up()
        service = await fleet.start_service(**WHOLE_BUDGET)
        outcome = await fleet.reckon(await service.tick(), all_by_this_one=False)
        assert not outcome.faults
