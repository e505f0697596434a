"""A worker, in virtual time: whose shards it takes, what it refuses, and when it stops."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from engine import load_settings
from engine.errors import DatabaseUnavailable, FleetUnavailable, InvocationFailed, StatementFailed
from engine.fleet.agreement import agreement_of
from engine.fleet.in_process import InProcessFleet
from engine.fleet.protocol import ACK_WAIT, MAX_DELIVERIES, Gathering
from engine.fleet.shard import Shard, ShardResult, read_result, write
from engine.fleet.shard_lease import HEARTBEAT_PERIOD, SHARD_FENCE_AFTER
from engine.fleet.shard_ledger import ShardLedger
from engine.fleet.worker import PAUSE_AFTER_BUG
from engine.lease import FENCE_AFTER
from engine.ledger import Ledger
from engine.mentors.protocol import IdRange
from engine.run_id import new_run_id
from engine.tally import StopReason
from tests.engine.fleet.test_exclusion import WatchingEngine
from tests.engine.fleet.world import OVER_HTTP, World
from tests.fakes import FOREVER, FakeTriggerEngine, ids
from tests.model_database import ModelDatabase

HALVES = [IdRange(None, UUID(int=50)), IdRange(UUID(int=50), None)]


class Coordinated:
    """A run with two shards of fifty, as its coordinator would have begun it."""

    def __init__(self, world: World, gathering: Gathering, run_id: UUID, planned_at: float) -> None:
        self.world = world
        self.gathering = gathering
        self.run_id = run_id
        self.planned_at = planned_at

    def shard(self, index: int = 0, **otherwise: Any) -> Shard:
        fields = {
            "run_id": self.run_id,
            "index": index,
            "after": HALVES[index].after,
            "until": HALVES[index].until,
            "scenario_types": None,
            "soft_threshold_at": self.planned_at + 25.0,
            "hard_deadline_at": self.planned_at + 27.0,
            "max_concurrency": 1,
            "agreement": agreement_of(self.world.settings),
        }
        return Shard(**(fields | otherwise))

    async def submit(self, index: int = 0, **otherwise: Any) -> None:
        await self.gathering.submit(index, write(self.shard(index, **otherwise)))

    async def result(self) -> ShardResult:
        with trio.fail_after(60):
            return read_result((await self.gathering.next_result())[1])

    async def live(self) -> None:
        """Say once a second that the run lives."""
        while True:
            self.world.database.runs[-1].heartbeat_at = self.world.database.now
            await trio.sleep(1.0)


async def gather(world: World, run_id: UUID, *, task_status: trio.TaskStatus[Gathering]) -> None:
    async with world.fleet.open_gathering(run_id) as gathering:
        task_status.started(gathering)
        await trio.sleep_forever()


async def coordinate(world: World, nursery: trio.Nursery) -> Coordinated:
    run_id = new_run_id()
    await Ledger(world.database).begin_run(run_id, None, 28.0)
    planned_at = await ShardLedger(world.database).plan_shards(run_id, HALVES)
    assert planned_at is not None
    gathering = await nursery.start(gather, world, run_id)
    coordinated = Coordinated(world, gathering, run_id, planned_at)
    nursery.start_soon(coordinated.live)
    return coordinated


def slow(seconds: float = 0.1) -> FakeTriggerEngine:
    return FakeTriggerEngine(latency=lambda chunk: seconds)


# --- A shard, whole ---


async def test_a_worker_walks_its_shard_and_no_further(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)
    await run.submit(1)
    async with world.open_worker():
        result = await run.result()
        await wait_all_tasks_blocked()
    assert (result.index, result.evaluated, result.completed) == (1, 50, True)
    assert sorted(world.engine.evaluated) == ids(100)[50:]
    assert [row.state for row in world.shards_of()] == ["waiting", "finished"]


async def test_a_worker_has_as_many_invocations_in_flight_as_the_shard_has_a_share_and_no_more(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), slow())
    run = await coordinate(world, nursery)
    await run.submit(0, max_concurrency=3)
    async with world.open_worker():
        await run.result()
    assert world.engine.peak_in_flight == 3


async def test_the_budget_is_counted_from_an_answer_of_postgres_whatever_its_clock_says(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), slow(1.0))
    world.database.clock_offset = 1_000.0
    run = await coordinate(world, nursery)
    began = trio.current_time()
    await run.submit(0, soft_threshold_at=run.planned_at + 5.0, hard_deadline_at=run.planned_at + 7.5)
    with capture_logs() as logs:
        async with world.open_worker():
            result = await run.result()
    assert (result.stop_reason, result.evaluated + result.unprocessed) == (StopReason.HARD_DEADLINE, 50)
    assert max(world.engine.begun_at) < began + 7.5 <= trio.current_time() <= began + 8.0
    # Said once, and to no harm.
    assert [line["seconds"] for line in logs if line["event"] == "clock_skew"] == [-1_000.0]


async def test_a_clock_that_goes_right_is_not_spoken_of(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)
    await run.submit()
    with capture_logs() as logs:
        async with world.open_worker():
            await run.result()
    assert "clock_skew" not in {line["event"] for line in logs}


async def test_a_shard_that_is_begun_past_its_soft_threshold_only_counts(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)
    await run.submit(0, soft_threshold_at=run.planned_at)
    async with world.open_worker():
        result = await run.result()
    assert (result.evaluated, result.unprocessed, result.remaining_known) == (0, 50, True)
    assert result.stop_reason is StopReason.SOFT_THRESHOLD
    assert not world.engine.chunks


async def test_the_ledger_follows_a_shard_with_its_mark_and_counts(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), slow())
    run = await coordinate(world, nursery)
    await run.submit()
    async with world.open_worker("somebody"):
        await trio.sleep(2 * HEARTBEAT_PERIOD + 0.01)
        row = world.shards_of()[0]
        assert (row.state, row.worker, row.heartbeat_at) == (
            "running",
            "somebody",
            run.planned_at + 2 * HEARTBEAT_PERIOD,
        )
        assert 18 <= row.counts["total_evaluated"] <= 20
        assert row.low_water_mark is not None
        await run.result()


# --- What is refused ---


def of(run: Coordinated, **otherwise: Any) -> bytes:
    return json.dumps(json.loads(write(run.shard())) | otherwise).encode()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (lambda run: b"\xff garbage", "malformed"),
        (lambda run: b"", "malformed"),
        (lambda run: b"[" * 60_000, "malformed"),
        (lambda run: b" " * 100_000, "too_long"),
        (lambda run: b'{"version": 2}', "other_version"),
        (lambda run: of(run, index=1), "of_another_shard"),
        (lambda run: of(run, run_id=str(UUID(int=7))), "of_another_shard"),
        (lambda run: of(run, until=None), "contradicted"),
        (lambda run: of(run, scenario_types=["expiry"]), "contradicted"),
        (lambda run: of(run, hard_deadline_at=1e9), "contradicted"),
    ],
)
async def test_a_message_that_can_not_be_right_is_refused_logged_and_gone_and_the_worker_lives_on(
    message: Any, reason: str, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)
    with capture_logs() as logs:
        async with world.open_worker():
            await run.gathering.submit(0, message(run))
            await trio.sleep(3 * ACK_WAIT)
            assert not world.engine.chunks
            await run.submit(1)
            assert (await run.result()).evaluated == 50
    [refused] = [line for line in logs if line["event"] == "shard_refused"]
    assert refused["reason"] == reason
    remedy = {"other_version": "versions", "contradicted": "SCHEDULER_FLEET_NAME"}.get(reason)
    assert ("remedy" in refused) == (remedy is not None)
    assert remedy is None or remedy in refused["remedy"]
    assert {line["log_level"] for line in logs if line["event"] == "shard_refused"} == {"warning"}


async def test_a_shard_of_a_foreign_run_is_refused(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)
    foreign = new_run_id()
    gathering = await nursery.start(gather, world, foreign)
    with capture_logs() as logs:
        async with world.open_worker():
            await gathering.submit(0, write(run.shard(run_id=foreign)))
            await trio.sleep(3 * ACK_WAIT)
    assert not world.engine.chunks
    [refused] = [line for line in logs if line["event"] == "shard_refused"]
    assert refused["reason"] == "unknown"
    assert "SCHEDULER_FLEET_NAME" in refused["remedy"]


async def test_a_shard_that_is_finished_is_refused_when_it_is_played_again(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)
    async with world.open_worker():
        await run.submit()
        await run.result()
        await wait_all_tasks_blocked()
        with capture_logs() as logs:
            run.gathering._submitted.clear()  # type: ignore[attr-defined]
            await run.submit()
            await trio.sleep(1.0)
    assert [line["reason"] for line in logs if line["event"] == "shard_refused"] == ["finished"]
    assert set(world.engine.evaluated.values()) == {1}


@pytest.mark.parametrize("how", ["ended", "abandoned", "silent", "withdrawn"])
async def test_a_shard_of_a_run_that_is_over_is_not_begun(
    how: str, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    async with trio.open_nursery() as coordinator:
        run = await coordinate(world, coordinator)
        await run.submit()
        coordinator.cancel_scope.cancel()
    if how == "silent":
        await trio.sleep(FENCE_AFTER + 0.1)
    elif how == "withdrawn":
        await ShardLedger(world.database).withdraw_shards(run.run_id)
    else:
        world.database.runs[0].verdict = "partial" if how == "ended" else "abandoned"
    with capture_logs() as logs:
        async with world.open_worker():
            await trio.sleep(3 * ACK_WAIT)
    assert not world.engine.chunks
    reason = "withdrawn" if how == "withdrawn" else "ended"
    assert [line["reason"] for line in logs if line["event"] == "shard_refused"] == [reason]


# --- When it stops ---


async def test_a_run_that_has_ended_is_noticed_at_the_next_heartbeat(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), slow())
    run = await coordinate(world, nursery)
    await run.submit()
    async with world.open_worker():
        await trio.sleep(1.55)
        world.database.runs[0].verdict = "partial"
        await trio.sleep(5.0)
    assert max(world.engine.begun_at) <= run.planned_at + 2.0
    assert world.engine.in_flight == 0


async def test_a_worker_whose_coordinator_is_silent_stops_before_another_run_can_begin(
    autojump_clock: MockClock,
) -> None:
    world = World(ids(100), slow(0.3))
    async with world.open_worker():
        async with trio.open_nursery() as coordinator:
            run = await coordinate(world, coordinator)
            await run.submit()
            await trio.sleep(2.5)
            coordinator.cancel_scope.cancel()
        last = world.database.runs[0].heartbeat_at
        await trio.sleep(20.0)
        assert last + 6.0 < world.engine.begun_at[-1] < last + FENCE_AFTER
        assert world.engine.in_flight == 0


@pytest.mark.parametrize("fails", ["away", "hangs"])
async def test_a_worker_that_loses_postgres_stops_before_its_shard_can_be_taken(
    fails: str, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), FakeTriggerEngine(latency=lambda chunk: FOREVER), invocation_timeout=60)
    run = await coordinate(world, nursery)
    await run.submit()
    async with world.open_worker():
        await trio.sleep(1.5)
        if fails == "away":
            world.database.away = lambda now: True
        else:
            world.database.hangs = lambda statement, now: True
        await trio.sleep_until(run.planned_at + 1.0 + SHARD_FENCE_AFTER + 0.01)
        assert world.engine.in_flight == 0
        assert world.engine.open_sessions == 0
        assert 1.0 + SHARD_FENCE_AFTER + 0.01 < 1.0 + ACK_WAIT


async def test_a_worker_that_loses_postgres_beside_a_silent_coordinator_stops_when_that_one_has_to(
    autojump_clock: MockClock,
) -> None:
    """Its last heartbeat found the run seven seconds old: another may begin before its shard can be taken."""
    world = World(ids(100), FakeTriggerEngine(latency=lambda chunk: FOREVER), invocation_timeout=60)
    async with world.open_worker():
        async with trio.open_nursery() as coordinator:
            run = await coordinate(world, coordinator)
            await run.submit()
            await trio.sleep(0.5)
            coordinator.cancel_scope.cancel()
        last = world.database.runs[0].heartbeat_at
        await trio.sleep_until(last + 7.5)
        assert world.engine.in_flight == 1
        world.database.hangs = lambda statement, now: True
        await trio.sleep_until(last + FENCE_AFTER + 0.01)
        assert world.engine.in_flight == 0


@pytest.mark.parametrize("frozen_for", [ACK_WAIT + 0.5, 30.0])
async def test_a_worker_that_was_frozen_past_ack_wait_and_woken_acts_no_more_and_tells_nothing(
    frozen_for: float, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Another one has the shard by then: this one's heartbeats, and its end, are the other's to write."""
    world = World(ids(100), slow())
    run = await coordinate(world, nursery)
    await run.submit()
    async with world.open_worker():
        await trio.sleep(1.55)
        invoked = len(world.engine.begun_at)
        autojump_clock.jump(frozen_for)  # nothing of this process runs meanwhile
        world.database.runs[0].heartbeat_at = world.database.now
        other = uuid4()
        world.database._claim_shard(
            *(run.run_id, 0, None, UUID(int=50), None, 0.0, "other", other, ACK_WAIT, FENCE_AFTER)
        )
        row = world.shards_of()[0]
        assert (row.worker, row.deliveries) == ("other", 2)
        with trio.move_on_after(ACK_WAIT - 0.1):  # then the other one is dead in its turn
            await run.gathering.next_result()
            pytest.fail("It told a result.")
        assert len(world.engine.begun_at) == invoked
        assert (row.claim, row.state) == (other, "running")


async def test_a_worker_that_is_killed_leaves_no_task(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), slow())
    run = await coordinate(world, nursery)
    await run.submit()
    async with world.open_worker():
        await trio.sleep(1.55)
    assert (world.engine.in_flight, world.engine.open_sessions) == (0, 0)
    assert world.shards_of()[0].state == "running"


# --- A shard that somebody has ---


async def test_a_shard_whose_worker_was_lost_is_done_again_when_ack_wait_is_over(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), slow())
    run = await coordinate(world, nursery)
    await run.submit()
    async with world.open_worker("one"):
        await trio.sleep(2.55)
    killed_at = trio.current_time()
    async with world.open_worker("two"):
        result = await run.result()
    row = world.shards_of()[0]
    assert (row.worker, row.deliveries, result.evaluated) == ("two", 2, 50)
    again_at = min(at for at in world.engine.begun_at if at > killed_at)
    assert killed_at + ACK_WAIT - HEARTBEAT_PERIOD <= again_at <= killed_at + ACK_WAIT


async def test_a_shard_that_another_one_still_holds_is_waited_for(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Its message came early, as when its holder reaches Postgres and not the fleet."""
    world = World(ids(100))
    run = await coordinate(world, nursery)
    holder = uuid4()
    claim = (run.run_id, 0, None, UUID(int=50), None, 0.0, "holder", holder, ACK_WAIT, FENCE_AFTER)
    world.database._claim_shard(*claim)
    await run.submit()
    async with world.open_worker():
        for _ in range(4):
            await trio.sleep(2.0)
            assert world.database._record_shard_heartbeat(run.run_id, 0, holder, FENCE_AFTER, None, *(0,) * 7)
            assert not world.engine.chunks
        last = trio.current_time()
        assert (await run.result()).evaluated == 50
        assert world.engine.begun_at[0] == last + ACK_WAIT
    assert world.shards_of()[0].deliveries == 2


class CutOff:
    """A fleet that hears nothing from this worker after a while, no sign of life and no result, and gives it
    none but its first shard.
    """

    def __init__(self, world: World, until: float) -> None:
        self.world = world
        self.until = until
        self.has_taken = False

    async def take(self) -> Any:
        if self.has_taken:
            await trio.sleep_forever()
        delivery = await self.world.fleet.take()  # type: ignore[attr-defined]
        self.has_taken = True
        keep, report = delivery.keep, delivery.report

        async def keep_if_heard() -> bool:
            return trio.current_time() < self.until and await keep()

        async def report_if_heard(result: bytes) -> None:
            if trio.current_time() >= self.until:
                raise FleetUnavailable("The fleet is away.", 5.0)
            await report(result)

        delivery.keep, delivery.report = keep_if_heard, report_if_heard
        return delivery


@pytest.mark.parametrize("latency", [0.1, 0.025])
async def test_a_worker_that_loses_only_the_fleet_lets_go_of_its_shard_when_another_has_it(
    latency: float, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Its heartbeats in the ledger would keep the other one waiting, for a result that nobody gets.

    It is still at its shard, or at telling the result.
    """
    world = World(ids(100), slow(latency))
    run = await coordinate(world, nursery)
    await run.submit()
    async with world.open_worker("cut off", workplace=CutOff(world, run.planned_at + 0.5)):
        await trio.sleep(0.1)
        async with world.open_worker("well"):
            assert (await run.result()).evaluated == 50
            await wait_all_tasks_blocked()
    assert trio.current_time() <= run.planned_at + 2 * ACK_WAIT + HEARTBEAT_PERIOD + 50 * latency + 0.01
    row = world.shards_of()[0]
    assert (row.worker, row.state, row.deliveries) == ("well", "finished", 2)


async def test_a_worker_that_loses_the_fleet_beside_everybody_else_goes_on_and_tells_its_result_later(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """As while another leader is elected: nobody is given its shard."""
    world = World(ids(100), slow())
    run = await coordinate(world, nursery)
    await run.submit()

    workplace = CutOff(world, run.planned_at + 0.5)
    async with world.open_worker(workplace=workplace):
        await trio.sleep(7.0)
        workplace.until = FOREVER
        assert (await run.result()).evaluated == 50
    assert set(world.engine.evaluated.values()) == {1}


@pytest.mark.parametrize("fails", ["hangs", "away"])
async def test_one_lost_heartbeat_costs_nothing(
    fails: str, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), slow())
    world.database.latency = 0.05
    run = await coordinate(world, nursery)
    lost: list[float] = []

    def lose(statement: str, now: float) -> bool:
        if statement == "record_shard_heartbeat" and now > run.planned_at + 2.0 and not lost:
            lost.append(now)
            return True
        return False

    if fails == "hangs":
        world.database.hangs = lose
    else:
        world.database.away = lambda now: run.planned_at + 2.0 < now < run.planned_at + 2.3
    await run.submit()
    with capture_logs() as logs:
        async with world.open_worker():
            assert (await run.result()).evaluated == 50
    assert set(world.engine.evaluated.values()) == {1}
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["heartbeat_not_recorded"]


@pytest.mark.parametrize("verdict", ["completed", "partial", "failed"])
async def test_no_shard_begins_while_a_worker_is_still_at_one_of_a_run_that_has_ended(
    verdict: str, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """As one that does a shard again whose worker died when it had told the result."""
    engine = WatchingEngine(0.4)
    world = World(ids(100), engine)
    run = await coordinate(world, nursery)
    await run.submit(0)
    async with world.open_worker("one"), world.open_worker("two"):
        await trio.sleep(1.5)
        assert engine.in_flight == 1
        world.database.runs[0].verdict = verdict
        ended_at = trio.current_time()
        following = await coordinate(world, nursery)
        await following.submit(0)
        await following.submit(1)
        await following.result()
        await following.result()
    assert engine.collisions == []
    begun_at = min(at for at in engine.begun_at if at > ended_at + HEARTBEAT_PERIOD)
    assert begun_at <= ended_at + ACK_WAIT


# --- Whether it is fit to take one ---


@pytest.mark.parametrize("fails", ["away", "hangs", "not_migrated"])
async def test_a_worker_takes_nothing_before_its_database_answers_and_is_migrated(
    fails: str, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """The shards are left to those that can claim them, of whom there are no more than are out at once."""
    world = World(ids(100))
    run = await coordinate(world, nursery)
    answers_from = run.planned_at + 6.5
    sick = ModelDatabase(ids(100))
    sick.runs, sick.shards = world.database.runs, world.database.shards
    if fails == "away":
        sick.away = lambda now: now < answers_from
    elif fails == "hangs":
        sick.hangs = lambda statement, now: now < answers_from
    else:
        migrated = sick._applied_migrations
        sick._applied_migrations = (  # type: ignore[method-assign]
            lambda: migrated() if trio.current_time() >= answers_from else []
        )
    await run.submit(0)
    with capture_logs() as logs:
        async with world.open_worker("sick", ledger=ShardLedger(sick)):
            await trio.sleep(4.0)
            async with world.open_worker("well"):
                assert (await run.result()).evaluated == 50
                await wait_all_tasks_blocked()
            assert trio.current_time() == run.planned_at + 4.0
            await run.submit(1)
            assert (await run.result()).evaluated == 50
    assert [row.worker for row in world.shards_of()] == ["well", "sick"]
    assert [line["event"] for line in logs if line["log_level"] != "info"] == ["not_taking"]


REFUSALS = [
    lambda: DatabaseUnavailable("Postgres is away."),
    *(partial(StatementFailed, "claim_shard", state) for state in ("42P01", "42501", "57014", "40001")),
]


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_shard_that_can_not_be_claimed_here_goes_to_another_in_time_and_no_further_one_is_taken(
    refusal: Callable[[], Exception], autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), fleet=InProcessFleet(1))
    run = await coordinate(world, nursery)

    class Sick(ShardLedger):
        async def claim_shard(self, *arguments: Any) -> Any:
            await trio.lowlevel.checkpoint()
            raise refusal()

    taken: list[int] = []

    class Watched:
        async def take(self) -> Any:
            delivery = await world.fleet.take()  # type: ignore[attr-defined]
            taken.append(delivery.index)
            return delivery

    await run.submit(0)
    async with world.open_worker("sick", ledger=Sick(world.database), workplace=Watched()):
        await trio.sleep(0.5)
        async with world.open_worker("well"):
            assert (await run.result()).evaluated == 50
            assert trio.current_time() <= run.planned_at + ACK_WAIT + 1.0
            await run.submit(1)
            await run.result()
            await wait_all_tasks_blocked()
        assert taken == [0]
        # Alone, it burns no shard's deliveries within a moment.
        run.gathering._submitted.clear()  # type: ignore[attr-defined]
        await run.submit(1)
        await trio.sleep_until(run.planned_at + 20.0)
        assert 1 <= len(taken) - 1 < MAX_DELIVERIES
    assert world.shards_of()[0].worker == "well"


async def test_a_claim_that_hangs_is_given_up_within_ack_wait(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), fleet=InProcessFleet(1))
    run = await coordinate(world, nursery)
    sick = ModelDatabase(ids(100))
    sick.hangs = lambda statement, now: statement == "claim_shard"
    await run.submit(0)
    async with world.open_worker("sick", ledger=ShardLedger(sick)):
        await trio.sleep(0.5)
        async with world.open_worker("well"):
            assert (await run.result()).evaluated == 50
            assert trio.current_time() <= run.planned_at + ACK_WAIT + 1.0


async def test_a_worker_whose_database_is_away_for_a_moment_claims_its_shard_then(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)
    async with world.open_worker():
        await wait_all_tasks_blocked()
        world.database.away = lambda now: now < run.planned_at + 1.5
        await run.submit()
        result = await run.result()
    assert trio.current_time() == run.planned_at + 2 * HEARTBEAT_PERIOD
    assert (result.evaluated, world.shards_of()[0].deliveries) == (50, 1)


async def test_a_shard_that_is_held_until_its_end_is_waited_for_no_longer(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)
    holder = uuid4()
    claim = (run.run_id, 0, None, UUID(int=50), None, 0.0, "holder", holder, ACK_WAIT, FENCE_AFTER)
    world.database._claim_shard(*claim)

    async def hold() -> None:
        while True:
            world.database._record_shard_heartbeat(run.run_id, 0, holder, FENCE_AFTER, None, *(0,) * 7)
            await trio.sleep(1.0)

    nursery.start_soon(hold)
    await run.submit(0, soft_threshold_at=run.planned_at + 4, hard_deadline_at=run.planned_at + 5)
    worker = world.worker()
    nursery.start_soon(worker.work)
    await trio.sleep_until(run.planned_at + 4.9)
    assert worker.in_hand == 1
    await trio.sleep_until(run.planned_at + 6.1)
    assert worker.in_hand == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trigger_engine", "https://another.example/"),
        ("eligible_assignment_statuses", ("active", "pending")),
    ],
)
async def test_a_worker_whose_settings_differ_leaves_the_shards_to_others_and_says_so_once(
    name: str, value: Any, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Else mentors would be passed over, or evaluated by another engine, and the run count as completed."""
    world = World(ids(100))
    run = await coordinate(world, nursery)
    otherwise = agreement_of(load_settings(**(OVER_HTTP | {name: value})))
    engine = FakeTriggerEngine()
    await run.submit(0)
    await run.submit(1)
    with capture_logs() as logs:
        async with world.open_worker("other", agreement=otherwise, trigger_engine=engine):
            await trio.sleep(0.25)
            async with world.open_worker("right"):
                assert {(await run.result()).index, (await run.result()).index} == {0, 1}
            assert trio.current_time() <= run.planned_at + 1.0
            await trio.sleep(2 * ACK_WAIT)
    assert not engine.chunks
    assert {row.worker for row in world.shards_of()} == {"right"}
    [said] = [line for line in logs if line["event"] == "settings_differ"]
    assert (said["log_level"], said["settings"]) == ("error", [f"SCHEDULER_{name.upper()}"])


async def test_a_worker_that_takes_nothing_because_its_settings_differ_drains_at_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)
    otherwise = agreement_of(load_settings(**(OVER_HTTP | {"mentors_per_invocation": 9})))
    worker = world.worker(agreement=otherwise)
    async with trio.open_nursery() as working:
        working.start_soon(worker.work)
        await run.submit(0)
        await trio.sleep(2.0)
        drained_at = trio.current_time()
        worker.drain()
    assert trio.current_time() == drained_at


async def test_whatever_happens_in_taking_a_worker_lives_on(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)

    class Broken:
        times = 2

        async def take(self) -> Any:
            await trio.lowlevel.checkpoint()
            self.times -= 1
            if self.times >= 0:
                raise ZeroDivisionError
            return await world.fleet.take()  # type: ignore[attr-defined]

    await run.submit(0)
    with capture_logs() as logs:
        async with world.open_worker(workplace=Broken()):
            assert (await run.result()).evaluated == 50
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["take_failed"] * 2
    assert trio.current_time() == run.planned_at + 2 * PAUSE_AFTER_BUG


async def test_who_was_not_answered_has_claimed_all_the_same(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    world.database.latency = 0.2
    run = await coordinate(world, nursery)
    async with world.open_worker():
        await trio.sleep(1.0)
        await run.submit()
        began = trio.current_time()
        # It takes effect at 0.1 s, and the answer is lost.
        world.database.away = lambda now: began + 0.15 < now < began + 0.25
        assert (await run.result()).evaluated == 50
    assert trio.current_time() - began < ACK_WAIT
    claims = [asked_at for name, asked_at in world.database.statements if name == "claim_shard"]
    assert (len(claims), world.shards_of()[0].deliveries) == (2, 1)


# --- What it has to tell ---


class Flaky(InProcessFleet):
    """Whose deliveries fail so often at one of their ends."""

    def __init__(self, what: str, times: int) -> None:
        super().__init__(5)
        self.what = what
        self.times = times

    async def take(self) -> Any:
        delivery = await super().take()
        working = getattr(delivery, self.what)

        async def fail(*arguments: Any) -> None:
            self.times -= 1
            if self.times >= 0:
                raise FleetUnavailable("The fleet is away.", 5.0)
            await working(*arguments)

        setattr(delivery, self.what, fail)
        return delivery


@pytest.mark.parametrize("what", ["report", "finish"])
async def test_a_result_is_told_when_the_fleet_is_back(
    what: str, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), fleet=Flaky(what, 12))
    run = await coordinate(world, nursery)
    await run.submit()
    async with world.open_worker():
        assert (await run.result()).evaluated == 50
        await trio.sleep(2 * ACK_WAIT)
    row = world.shards_of()[0]
    assert (row.state, row.deliveries) == ("finished", 1)
    assert set(world.engine.evaluated.values()) == {1}


async def test_a_result_that_can_not_be_told_in_time_is_given_up(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), fleet=Flaky("report", 1_000))
    run = await coordinate(world, nursery)
    await run.submit()
    with capture_logs() as logs:
        async with world.open_worker():
            await trio.sleep_until(run.planned_at + 29.0)
            assert "result_not_reported" in {line["event"] for line in logs}
    assert world.shards_of()[0].state == "running"


async def test_a_result_is_told_although_postgres_does_not_take_it(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)

    def away(*arguments: Any) -> Sequence[Any]:
        raise DatabaseUnavailable("Postgres is away.")

    world.database._finish_shard = away  # type: ignore[assignment,method-assign]
    await run.submit()
    async with world.open_worker():
        assert (await run.result()).evaluated == 50


@pytest.mark.parametrize("state", ["42501", "40001"])
@pytest.mark.parametrize("times", [2, 1_000])
async def test_a_shard_that_was_told_is_not_done_again_because_postgres_refuses_to_write_it_down(
    state: str, times: int, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)
    finish, refusals = world.database._finish_shard, [0]

    def refuse(*arguments: Any) -> Sequence[Any]:
        refusals[0] += 1
        if refusals[0] > times:
            return finish(*arguments)
        raise StatementFailed("finish_shard", state)

    world.database._finish_shard = refuse  # type: ignore[assignment,method-assign]
    await run.submit()
    with capture_logs() as logs:
        async with world.open_worker():
            assert (await run.result()).evaluated == 50
            await trio.sleep(4 * ACK_WAIT)
    assert set(world.engine.evaluated.values()) == {1}
    assert world.shards_of()[0].deliveries == 1
    assert world.shards_of()[0].state == ("finished" if times == 2 else "running")
    assert "shard_ended" in {line["event"] for line in logs}


async def test_a_bug_past_the_telling_does_not_have_the_shard_done_again(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)

    def fail(*arguments: Any) -> Sequence[Any]:
        raise ZeroDivisionError

    world.database._finish_shard = fail  # type: ignore[assignment,method-assign]
    await run.submit()
    async with world.open_worker():
        assert (await run.result()).evaluated == 50
        await trio.sleep(4 * ACK_WAIT)
    assert set(world.engine.evaluated.values()) == {1}


async def test_the_end_of_a_shard_is_logged_with_its_worker_and_its_errors(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    def act(chunk: Sequence[UUID]) -> Any:
        if chunk[0].int == 3:
            raise InvocationFailed("timeout")
        return FakeTriggerEngine().act(chunk)

    world = World(ids(100), FakeTriggerEngine(act=act))
    run = await coordinate(world, nursery)
    with capture_logs() as logs:
        async with world.open_worker("host:1"):
            await run.submit(0)
            await run.submit(1)
            await run.result()
            await run.result()
            await wait_all_tasks_blocked()
    told = {line["log_level"]: line for line in logs if line["event"] == "shard_ended"}
    assert (told["warning"]["worker"], told["warning"]["errors"]) == ("host:1", {"timeout": 1})
    assert (told["info"]["worker"], told["info"]["errors"]) == ("host:1", {})


async def test_a_bug_costs_its_shard_a_few_tries_and_no_other_anything(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    def act(chunk: Sequence[UUID]) -> Any:
        if chunk[0].int == 3:
            raise ZeroDivisionError
        return FakeTriggerEngine().act(chunk)

    world = World(ids(100), FakeTriggerEngine(act=act))
    run = await coordinate(world, nursery)
    with capture_logs() as logs:
        async with world.open_worker():
            await run.submit(0)
            await run.submit(1)
            assert (await run.result()).index == 1
            await trio.sleep(MAX_DELIVERIES * (ACK_WAIT + 1))
    assert len([line for line in logs if line["event"] == "shard_failed"]) == MAX_DELIVERIES
    assert world.shards_of()[0].deliveries == MAX_DELIVERIES


async def test_a_claim_that_was_refused_once_is_tried_again(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)
    claim = world.database._claim_shard

    def refuse(*arguments: Any) -> Sequence[Any]:
        world.database._claim_shard = claim  # type: ignore[method-assign]
        raise StatementFailed("claim_shard", "42501")

    world.database._claim_shard = refuse  # type: ignore[assignment,method-assign]
    await run.submit()
    with capture_logs() as logs:
        async with world.open_worker():
            assert (await run.result()).evaluated == 50
    assert trio.current_time() == run.planned_at + HEARTBEAT_PERIOD
    assert [line["event"] for line in logs if line["log_level"] != "info"] == ["shard_not_claimed"]


# --- The drain ---


async def test_a_worker_that_drains_finishes_what_it_has_and_takes_nothing_more(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100), slow())
    run = await coordinate(world, nursery)
    worker = world.worker(shards_at_once=1)
    async with trio.open_nursery() as working:
        working.start_soon(worker.work)
        await run.submit(0)
        await trio.sleep(1.0)
        await run.submit(1)
        assert worker.in_hand == 1
        worker.drain()
        worker.drain()
    assert (await run.result()).completed
    assert [row.state for row in world.shards_of()] == ["finished", "waiting"]


async def test_a_worker_that_drains_with_nothing_in_hand_ends_at_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    worker = world.worker()
    async with trio.open_nursery() as working:
        working.start_soon(worker.work)
        await trio.sleep(1.0)
        drained_at = trio.current_time()
        worker.drain()
    assert trio.current_time() == drained_at


async def test_a_worker_that_drains_hands_back_what_it_could_not_claim(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(ids(100))
    run = await coordinate(world, nursery)
    worker = world.worker()
    async with trio.open_nursery() as working:
        working.start_soon(worker.work)
        await wait_all_tasks_blocked()
        world.database.away = lambda now: True
        await run.submit()
        await trio.sleep(0.5)
        drained_at = trio.current_time()
        worker.drain()
    assert trio.current_time() == drained_at
    world.database.away = lambda now: False
    async with world.open_worker("two"):
        assert (await run.result()).evaluated == 50
