"""A run carried out by a fleet, in virtual time: what its caller is told, whatever becomes of its workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import pytest
import trio
from nats.aio.msg import Msg
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from engine import FleetUnavailable, RunFailed, RunRequest, StopReason
from engine.database import RELEASE_TIMEOUT
from engine.errors import InvocationFailed
from engine.fleet import streams
from engine.fleet.in_process import InProcessFleet
from engine.fleet.jetstream import JetStream
from engine.fleet.protocol import ACK_WAIT, MAX_DELIVERIES, Gathering
from engine.fleet.shard import read_result, write
from engine.fleet.shard_lease import HEARTBEAT_PERIOD
from engine.fleet.streams import Names
from engine.freshness import measure_freshness
from engine.lease import FENCE_AFTER
from engine.ledger import LEASE
from engine.run_id import new_run_id
from engine.settings import SHARD_MARGIN
from engine.trigger.protocol import Evaluation
from tests.engine.fleet.silent_nats import SilentNats
from tests.engine.fleet.world import NotifyingEngine, World, run_to_its_end
from tests.fakes import FOREVER, FakeTriggerEngine, add_up, ids

# --- A run, whole ---


async def test_everybody_is_evaluated_once_and_the_summary_says_so(autojump_clock: MockClock) -> None:
    def act(chunk: list[UUID]) -> Evaluation:
        if chunk[0].int % 10 == 0:
            raise InvocationFailed("http_500")
        return Evaluation({"inactivity": 1}, {"expiry": 2})

    world = World(ids(500), FakeTriggerEngine(latency=lambda chunk: 0.01, act=act))
    async with world.open_worker("one"), world.open_worker("two"), world.open_scheduler() as scheduler:
        summary = await run_to_its_end(scheduler)
        assert (summary.total_evaluated, summary.total_errors, summary.total_unprocessed) == (450, 50, 0)
        assert (summary.total_dispatched, summary.total_suppressed) == (450, 900)
        assert (summary.completed, summary.stop_reason) == (True, StopReason.FINISHED)
        assert add_up(summary)
        totals = scheduler.measures.totals()
        assert totals.errors == {"http_500": 50}
        assert (totals.dispatched, totals.suppressed) == ({"inactivity": 450}, {"expiry": 900})
        assert totals.invocations.total == 500
        assert scheduler.measures.in_flight == 0
    assert set(world.engine.evaluated) == {id for id in ids(500) if id.int % 10}
    assert set(world.engine.evaluated.values()) == {1}
    assert {row.worker for row in world.shards_of()} == {"one", "two"}
    assert all(row.is_completed and row.deliveries == 1 for row in world.shards_of())
    [run] = world.database.runs
    assert run.verdict == "completed"
    assert (run.counts["stretch_mentors"], run.counts["stretch_evaluated"]) == (500, 450)


async def test_no_mentors_are_a_completed_run(autojump_clock: MockClock) -> None:
    world = World([])
    async with world.open_worker(), world.open_scheduler() as scheduler:
        summary = await run_to_its_end(scheduler)
    assert (summary.total_active_mentors, summary.completed) == (0, True)


async def test_only_the_scenario_types_asked_for_are_evaluated(autojump_clock: MockClock) -> None:
    world = World(ids(20))
    async with world.open_worker(), world.open_scheduler() as scheduler:
        await run_to_its_end(scheduler, scenario_types=("expiry",))
    assert {context.scenario_types for context in world.engine.contexts} == {("expiry",)}
    assert {context.run_id for context in world.engine.contexts} == {world.database.runs[0].id}


@pytest.mark.parametrize(("at_once", "workers"), [(1, 1), (5, 1), (5, 4), (3, 2), (10, 3)])
async def test_the_invocations_in_flight_of_all_workers_together_stay_within_the_cap(
    at_once: int, workers: int, autojump_clock: MockClock
) -> None:
    engine = FakeTriggerEngine(latency=lambda chunk: 0.1)
    world = World(ids(300), engine, fleet_shards_at_once=at_once)
    async with world.open_scheduler() as scheduler, trio.open_nursery() as nursery:
        for number in range(workers):
            nursery.start_soon(world.worker(str(number), shards_at_once=10).work)
        assert (await run_to_its_end(scheduler)).completed
        nursery.cancel_scope.cancel()
    assert 10 // at_once * min(at_once, 3) <= engine.peak_in_flight <= 10


async def test_a_dry_run_stays_in_this_process(autojump_clock: MockClock) -> None:
    world = World(ids(10), trigger_engine_dry_run=True)
    async with world.open_scheduler() as scheduler:
        assert (await run_to_its_end(scheduler, dry_run=True)).total_evaluated == 10
    assert world.database.shards == []


async def test_a_live_run_shows_what_its_shards_have_finished(autojump_clock: MockClock) -> None:
    world = World(ids(100), FakeTriggerEngine(latency=lambda chunk: 1.0), fleet_shards=10)
    async with world.open_worker(), world.open_scheduler() as scheduler:
        started = await scheduler.start(RunRequest())
        seen = []
        while not started.has_ended:
            await trio.sleep(1.5)
            if scheduler.live_run:
                seen.append(scheduler.live_run.evaluated)
        assert seen == sorted(seen)
        assert len(set(seen)) >= 2
        assert world.database.runs[0].counts["total_evaluated"] == 100


# --- The budget ---


async def test_past_the_soft_threshold_nothing_is_begun_and_who_is_left_is_counted(
    autojump_clock: MockClock,
) -> None:
    """Ten at once, a second each, shards of ten: what is in hand at 25 s ends at the end of its pages."""
    world = World(ids(400), FakeTriggerEngine(latency=lambda chunk: 1.0), fleet_shards=40, page_size=1)
    async with world.open_worker(), world.open_scheduler() as scheduler:
        began = trio.current_time()
        summary = await run_to_its_end(scheduler)
        assert trio.current_time() - began < 28.0
        assert max(world.engine.begun_at) - began < 26.5
    assert summary.stop_reason is StopReason.SOFT_THRESHOLD
    assert (summary.total_active_mentors, summary.remaining_known) == (400, True)
    assert summary.total_evaluated == sum(world.engine.evaluated.values()) >= 240
    assert add_up(summary)
    states = [row.state for row in world.shards_of()]
    assert set(states) == {"finished", "withdrawn"}
    assert states == sorted(states)


async def test_a_trigger_engine_that_hangs_is_cut_a_margin_before_the_hard_deadline(
    autojump_clock: MockClock,
) -> None:
    engine = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    world = World(ids(400), engine, invocation_timeout=60)
    async with world.open_worker(), world.open_scheduler() as scheduler:
        began = trio.current_time()
        summary = await run_to_its_end(scheduler)
        assert trio.current_time() - began == 28.0 - SHARD_MARGIN
    assert (summary.stop_reason, summary.total_evaluated) == (StopReason.HARD_DEADLINE, 0)
    assert (summary.total_unprocessed, summary.remaining_known) == (400, True)


async def test_a_shard_whose_count_is_cut_by_a_silent_database_still_answers_in_time(
    autojump_clock: MockClock,
) -> None:
    """Who was fetched is known from its result alone, which takes half a second to arrive."""

    class SlowFleet(InProcessFleet):
        def report(self, run_id: UUID, index: int, result: bytes) -> None:
            nursery.start_soon(self._report_later, run_id, index, result)

        async def _report_later(self, run_id: UUID, index: int, result: bytes) -> None:
            await trio.sleep(0.5)
            super().report(run_id, index, result)

    engine = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    world = World(ids(400), engine, fleet=SlowFleet(5), invocation_timeout=60, page_size=5)
    world.database.hangs = lambda statement, now: statement == "count_mentors"
    async with trio.open_nursery() as nursery, world.open_worker(), world.open_scheduler() as scheduler:
        summary = await run_to_its_end(scheduler)
    assert (summary.stop_reason, summary.remaining_known) == (StopReason.HARD_DEADLINE, False)
    assert summary.total_unprocessed >= 5 * 5


async def test_a_shard_that_nobody_tells_of_is_counted_and_the_answer_comes_at_the_hard_deadline(
    autojump_clock: MockClock,
) -> None:
    world = World(ids(400), FakeTriggerEngine(latency=lambda chunk: 1.0), fleet_shards_at_once=2)
    async with world.open_scheduler() as scheduler, world.open_worker("lost", shards_at_once=1) as lost:
        began = trio.current_time()
        started = await scheduler.start(RunRequest())
        await trio.sleep_until(began + 24.9)
        lost.cancel()  # past the soft threshold it is handed to nobody
        summary = await started.summary()
        assert trio.current_time() - began == 28.0
    assert summary.stop_reason is StopReason.HARD_DEADLINE
    assert (summary.total_active_mentors, summary.remaining_known) == (400, True)
    assert 0 < summary.total_evaluated < 400
    assert add_up(summary)


async def test_who_is_in_a_lost_shard_is_not_known_while_nobody_can_count(autojump_clock: MockClock) -> None:
    world = World(ids(400), FakeTriggerEngine(latency=lambda chunk: 1.0))
    world.database.hangs = lambda statement, now: statement == "count_mentors"
    async with world.open_scheduler() as scheduler, world.open_worker():
        began = trio.current_time()
        summary = await run_to_its_end(scheduler)
        assert trio.current_time() - began <= 29.0
    assert (summary.completed, summary.remaining_known) == (False, False)
    assert add_up(summary)


async def test_a_shard_has_its_budget_by_postgres_clock_and_none_that_is_late(
    autojump_clock: MockClock,
) -> None:
    """Postgres's clock is years ahead, and a statement takes half a second: every deadline is that early."""
    engine = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    world = World(ids(400), engine, invocation_timeout=60, fleet_shards=5)
    world.database.clock_offset = 1e8
    world.database.latency = 0.5
    ended = []
    async with world.open_worker(), world.open_scheduler() as scheduler:
        began = trio.current_time()
        started = await scheduler.start(RunRequest())
        while not ended and trio.current_time() < began + 40:
            await trio.sleep(0.25)
            ended = [trio.current_time()] if engine.in_flight == 0 and engine.begun_at else []
        await started.summary()
    assert 25.0 < ended[0] - began <= 28.0 - SHARD_MARGIN + 0.25


# --- Workers that come and go ---


async def test_nobody_is_missed_or_notified_twice_when_a_worker_is_killed(autojump_clock: MockClock) -> None:
    engine = NotifyingEngine(latency=lambda chunk: 0.1)
    world = World(ids(600), engine)
    async with (
        world.open_scheduler() as scheduler,
        world.open_worker("one", shards_at_once=3) as one,
        world.open_worker("two", shards_at_once=3),
    ):
        started = await scheduler.start(RunRequest())
        await trio.sleep(1.55)
        killed_at = trio.current_time()
        lost = {row.shard_index for row in world.shards_of() if (row.state, row.worker) == ("running", "one")}
        assert lost
        one.cancel()
        again_at: dict[int, float] = {}
        while lost - again_at.keys():
            await trio.sleep(0.01)
            for row in world.shards_of():
                if row.shard_index in lost and row.deliveries == 2:
                    again_at.setdefault(row.shard_index, trio.current_time())
        assert max(again_at.values()) - killed_at <= ACK_WAIT + 1.0
        summary = await started.summary()
    assert (summary.total_evaluated, summary.completed) == (600, True)
    assert set(engine.evaluated) == set(ids(600))
    # Told as sent by this run, and sent once.
    assert summary.total_dispatched == engine.notifications == 600
    assert summary.total_suppressed == 0


async def test_a_worker_that_comes_late_finds_what_waits(autojump_clock: MockClock) -> None:
    world = World(ids(50))
    async with world.open_scheduler() as scheduler:
        started = await scheduler.start(RunRequest())
        await trio.sleep(20.0)
        assert not started.has_ended
        async with world.open_worker():
            assert (await started.summary()).completed


async def test_without_a_worker_the_run_says_that_the_fleet_was_away(autojump_clock: MockClock) -> None:
    world = World(ids(50))
    async with world.open_scheduler() as scheduler:
        began = trio.current_time()
        with capture_logs() as logs:
            summary = await run_to_its_end(scheduler)
        assert trio.current_time() - began == 25.0
    assert (summary.stop_reason, summary.total_unprocessed) == (StopReason.FLEET_UNAVAILABLE, 50)
    assert "no_worker" in {line["event"] for line in logs}


async def test_a_shard_that_no_worker_survives_costs_its_own_mentors_and_no_others(
    autojump_clock: MockClock,
) -> None:
    def act(chunk: list[UUID]) -> Evaluation:
        if chunk[0].int == 7:
            raise ZeroDivisionError
        return Evaluation()

    world = World(ids(100), FakeTriggerEngine(act=act), fleet_shards=10)
    async with world.open_worker(), world.open_scheduler() as scheduler:
        with capture_logs() as logs:
            summary = await run_to_its_end(scheduler)
    assert (summary.total_evaluated, summary.total_unprocessed) == (90, 10)
    assert (summary.stop_reason, summary.remaining_known) == (StopReason.HARD_DEADLINE, True)
    assert len([line for line in logs if line["event"] == "shard_failed"]) == MAX_DELIVERIES
    assert add_up(summary)


async def test_a_shard_told_twice_counts_once_and_the_first_time(autojump_clock: MockClock) -> None:
    """As when a worker was frozen after its last invocation, and another one did the shard meanwhile."""

    class Repeating(InProcessFleet):
        def report(self, run_id: UUID, index: int, result: bytes) -> None:
            super().report(run_id, index, result)
            later = read_result(result).model_copy(update={"evaluated": 10_000})
            super().report(run_id, index, write(later))
            super().report(run_id, index, result)

    world = World(ids(100), fleet=Repeating(5))
    async with world.open_worker(), world.open_scheduler() as scheduler:
        summary = await run_to_its_end(scheduler)
    assert (summary.total_evaluated, summary.total_active_mentors) == (100, 100)


async def test_a_result_that_can_not_be_is_refused_and_logged(autojump_clock: MockClock) -> None:
    class Lying(InProcessFleet):
        def report(self, run_id: UUID, index: int, result: bytes) -> None:
            right = read_result(result)
            foreign = right.model_copy(update={"run_id": UUID(int=7)})
            another = right.model_copy(update={"index": right.index + 1})
            unplanned = right.model_copy(update={"index": 77})
            for lie in (b"garbage", b'{"version": 2}', write(foreign), write(another)):
                super().report(run_id, index, lie)
            super().report(run_id, 77, write(unplanned))
            super().report(run_id, index, result)

    world = World(ids(100), fleet=Lying(5), fleet_shards=4)
    async with world.open_worker(), world.open_scheduler() as scheduler:
        with capture_logs() as logs:
            summary = await run_to_its_end(scheduler)
    assert (summary.total_evaluated, summary.completed) == (100, True)
    reasons = {line["reason"] for line in logs if line["event"] == "result_refused"}
    assert reasons == {"malformed", "other_version", "of_another_shard"}


# --- The coordinator ---


async def test_a_drain_withdraws_what_waits_and_lets_what_is_under_way_finish(
    autojump_clock: MockClock,
) -> None:
    world = World(ids(400), FakeTriggerEngine(latency=lambda chunk: 0.5), fleet_shards=40)
    async with world.open_worker(), world.open_scheduler() as scheduler:
        began = trio.current_time()
        started = await scheduler.start(RunRequest())
        await trio.sleep(3.2)
        scheduler.drain()
        summary = await started.summary()
        # Shards of ten, two at once, half a second each: those in hand are over before long.
        assert trio.current_time() - began <= 3.2 + 2.5
    assert (summary.stop_reason, summary.partial) == (StopReason.DRAINING, True)
    assert (summary.total_active_mentors, summary.remaining_known) == (400, True)
    assert summary.total_evaluated == sum(world.engine.evaluated.values()) > 0
    assert summary.total_evaluated % 10 == 0
    assert add_up(summary)


async def test_what_a_killed_coordinator_left_is_resumed_by_the_next_one_each_shard_at_its_mark(
    autojump_clock: MockClock,
) -> None:
    engine = NotifyingEngine(latency=lambda chunk: 1.0)
    world = World(ids(400), engine, fleet_shards=4, fleet_shards_at_once=2, page_size=5)
    async with world.open_worker():
        async with world.open_scheduler() as killed:
            await killed.start(RunRequest())
            await trio.sleep(6.5)
        killed_at = trio.current_time()
        await trio.sleep(LEASE + 0.5)
        # The workers have cut themselves before anybody could have begun another run.
        assert max(engine.begun_at) < killed_at + FENCE_AFTER + HEARTBEAT_PERIOD < killed_at + LEASE
        assert engine.in_flight == 0
        marks = [row.low_water_mark for row in world.shards_of()]
        assert [mark is not None for mark in marks] == [True, True, False, False]
        engine.chunks.clear()
        engine.latency = lambda chunk: 0.01
        async with world.open_scheduler() as scheduler:
            summary = await run_to_its_end(scheduler)
    assert [run.verdict for run in world.database.runs] == ["abandoned", "completed"]
    assert summary.total_evaluated == 400
    first = [row.after_id for row in world.shards_of()][:2]
    assert first == marks[:2]
    assert engine.notifications == 400


async def test_of_a_run_that_lost_its_lease_no_shard_goes_on(autojump_clock: MockClock) -> None:
    world = World(ids(400), FakeTriggerEngine(latency=lambda chunk: 0.5))
    async with world.open_worker(), world.open_scheduler() as scheduler:
        started = await scheduler.start(RunRequest())
        await trio.sleep(3.2)
        world.database.runs[0].verdict = "abandoned"
        lost_at = trio.current_time()
        summary = await started.summary()
        await trio.sleep(5.0)
        assert max(world.engine.begun_at) <= lost_at + HEARTBEAT_PERIOD
    assert (summary.stop_reason, summary.partial) == (StopReason.LEASE_LOST, True)
    assert add_up(summary)


async def test_a_run_that_lost_its_lease_before_its_plan_was_written_has_no_shards(
    autojump_clock: MockClock,
) -> None:
    world = World(ids(40))
    sample = world.database._sample_mentors

    def lose_lease(size: int) -> list[dict[str, object]]:
        world.database.runs[0].verdict = "abandoned"
        return sample(size)

    world.database._sample_mentors = lose_lease  # type: ignore[method-assign]
    async with world.open_worker(), world.open_scheduler() as scheduler:
        began = trio.current_time()
        summary = await run_to_its_end(scheduler)
        assert trio.current_time() == began
    assert (summary.stop_reason, summary.total_unprocessed) == (StopReason.LEASE_LOST, 40)
    assert (world.shards_of(), world.engine.chunks) == ([], [])


async def test_a_bug_in_the_coordinator_costs_its_run_and_no_other(autojump_clock: MockClock) -> None:
    world = World(ids(50))
    async with world.open_worker(), world.open_scheduler() as scheduler:
        world.database._plan_shards = None  # type: ignore[method-assign,assignment]
        with capture_logs(), pytest.raises(RunFailed):
            await run_to_its_end(scheduler)
        del world.database._plan_shards
        assert (await run_to_its_end(scheduler)).completed


async def test_a_run_that_is_cut_leaves_no_task_and_its_workers_stop(autojump_clock: MockClock) -> None:
    world = World(ids(400), FakeTriggerEngine(latency=lambda chunk: 0.5))
    async with world.open_worker():
        async with world.open_scheduler() as scheduler:
            started = await scheduler.start(RunRequest())
            await trio.sleep(2.2)
        assert started.has_ended
        await trio.sleep(FENCE_AFTER + HEARTBEAT_PERIOD)
        assert world.engine.in_flight == 0
        assert world.engine.open_sessions == 0


# --- Postgres, or the fleet, goes away ---


@pytest.mark.parametrize("away_for", [1.0, 3.0, 6.0])
async def test_postgres_may_be_away_for_a_while(away_for: float, autojump_clock: MockClock) -> None:
    engine = NotifyingEngine(latency=lambda chunk: 0.1)
    world = World(ids(600), engine)
    async with world.open_worker(), world.open_scheduler() as scheduler:
        began = trio.current_time()
        world.database.away = lambda now: began + 2.05 < now < began + 2.05 + away_for
        summary = await run_to_its_end(scheduler)
    assert summary.total_active_mentors == summary.total_evaluated == 600
    assert summary.total_dispatched == engine.notifications == 600


async def test_postgres_that_stays_away_ends_the_run_and_every_shard(autojump_clock: MockClock) -> None:
    world = World(ids(600), FakeTriggerEngine(latency=lambda chunk: 0.1))
    async with world.open_worker(), world.open_scheduler() as scheduler:
        began = trio.current_time()
        world.database.away = lambda now: now > began + 2.05
        summary = await run_to_its_end(scheduler)
        assert trio.current_time() - began <= 2.0 + FENCE_AFTER + 1.0
        assert max(world.engine.begun_at) < began + 2.05 + FENCE_AFTER
    assert summary.stop_reason is StopReason.DATABASE_UNAVAILABLE
    assert not summary.remaining_known
    assert add_up(summary)


async def test_postgres_that_is_away_before_the_plan_is_waited_for(autojump_clock: MockClock) -> None:
    world = World(ids(60))
    async with world.open_worker(), world.open_scheduler() as scheduler:
        began = trio.current_time()
        world.database.away = lambda now: began < now < began + 4.0
        started = await scheduler.start(RunRequest())
        assert (await started.summary()).completed


@pytest.mark.parametrize("what", ["previous_shards", "plan_shards", "withdraw_shards"])
async def test_a_statement_that_postgres_refuses_is_tried_again_within_the_budget(
    what: str, autojump_clock: MockClock
) -> None:
    """As a statement_timeout or a lock_timeout does, for a while, in the plan or at the soft threshold."""
    world = World(ids(400), FakeTriggerEngine(latency=lambda chunk: 1.0), page_size=1, fleet_shards=40)
    async with world.open_worker(), world.open_scheduler() as scheduler:
        began = trio.current_time()
        world.database.refuses = lambda statement, now: (
            statement == what and (now < began + 3.0 or began + 25.0 <= now < began + 26.0)
        )
        summary = await run_to_its_end(scheduler)
    assert summary.stop_reason in (StopReason.SOFT_THRESHOLD, StopReason.HARD_DEADLINE)
    assert (summary.total_active_mentors, summary.remaining_known) == (400, True)
    assert summary.total_evaluated >= 200


@pytest.mark.parametrize("what", ["previous_shards", "plan_shards"])
async def test_a_plan_that_postgres_keeps_refusing_ends_the_run_as_when_it_is_away(
    what: str, autojump_clock: MockClock
) -> None:
    world = World(ids(60))
    world.database.refuses = lambda statement, now: statement == what
    async with world.open_worker(), world.open_scheduler() as scheduler:
        summary = await run_to_its_end(scheduler)
    assert (summary.stop_reason, summary.total_unprocessed) == (StopReason.DATABASE_UNAVAILABLE, 60)


class AwayFleet(InProcessFleet):
    """One that can't be reached while `is_away`."""

    def __init__(self, is_away: Callable[[str, float], bool]) -> None:
        super().__init__(5)
        self.is_away = is_away
        self._epoch = 0.0

    async def begin(self) -> AwayFleet:
        self._epoch = trio.current_time()
        return self

    def check(self, what: str) -> None:
        if self.is_away(what, trio.current_time() - self._epoch):
            raise FleetUnavailable("The fleet is away.", 5.0)

    async def check_ready(self) -> None:
        self.check("check_ready")

    @asynccontextmanager
    async def open_gathering(self, run_id: UUID) -> AsyncIterator[Gathering]:
        self.check("open_gathering")
        async with super().open_gathering(run_id) as gathering:
            yield _AwayGathering(self, gathering)


class _AwayGathering:
    def __init__(self, fleet: AwayFleet, gathering: Gathering) -> None:
        self._fleet = fleet
        self._gathering = gathering
        self.next_result = gathering.next_result
        self.is_away = False

    async def submit(self, index: int, message: bytes) -> None:
        self._fleet.check("submit")
        await self._gathering.submit(index, message)

    async def withdraw(self) -> None:
        self._fleet.check("withdraw")
        await self._gathering.withdraw()


async def test_no_run_begins_while_the_fleet_is_away(autojump_clock: MockClock) -> None:
    fleet = await AwayFleet(lambda what, now: what == "check_ready").begin()
    world = World(ids(60), fleet=fleet, trigger_engine_dry_run=True)
    async with world.open_scheduler() as scheduler:
        with pytest.raises(FleetUnavailable) as refused:
            await scheduler.start(RunRequest())
        assert refused.value.retry_after > 0
        assert world.database.runs == []
        assert (await run_to_its_end(scheduler, dry_run=True)).completed


@pytest.mark.parametrize("what", ["open_gathering", "submit"])
async def test_a_fleet_that_is_away_for_a_while_is_waited_for(what: str, autojump_clock: MockClock) -> None:
    fleet = await AwayFleet(lambda asked, now: asked == what and now < 6.0).begin()
    world = World(ids(60), fleet=fleet)
    async with world.open_worker(), world.open_scheduler() as scheduler:
        assert (await run_to_its_end(scheduler)).completed


@pytest.mark.parametrize("what", ["open_gathering", "submit"])
async def test_a_fleet_that_stays_away_ends_the_run_at_the_soft_threshold(
    what: str, autojump_clock: MockClock
) -> None:
    fleet = await AwayFleet(lambda asked, now: asked in (what, "withdraw")).begin()
    world = World(ids(60), fleet=fleet)
    async with world.open_worker(), world.open_scheduler() as scheduler:
        began = trio.current_time()
        summary = await run_to_its_end(scheduler)
        assert trio.current_time() - began == 25.0
    assert (summary.stop_reason, summary.total_unprocessed) == (StopReason.FLEET_UNAVAILABLE, 60)
    assert summary.remaining_known


@pytest.mark.parametrize(
    ("silent", "answer_at"),
    [
        ((), 28.0),
        (("withdraw_shards",), 28.0 + RELEASE_TIMEOUT),
        (("withdraw_shards", "count_mentors", "finish_run"), 28.5 + RELEASE_TIMEOUT + 0.5),
    ],
)
async def test_the_answer_waits_for_no_farewell_to_a_fleet_that_went_silent(
    silent: tuple[str, ...], answer_at: float, autojump_clock: MockClock
) -> None:
    """With Postgres silent as well, its count and its last write are given up, as in any run."""
    nats = SilentNats()
    async with trio.open_nursery() as beside:
        fleet = JetStream(nats.as_connection, Names("a"), beside, shards_at_once=5, replicas=1)
        world = World(ids(60), fleet=fleet)
        world.database.hangs = lambda statement, now: statement in silent
        async with world.open_scheduler() as scheduler:
            began = trio.current_time()
            started = await scheduler.start(RunRequest())
            await trio.sleep_until(began + 1.0)
            for row in world.shards_of():
                row.state = "running"  # by workers that are cut off as well
            nats.is_silent = True
            summary = await started.summary()
            assert trio.current_time() == began + answer_at
        assert streams.delete_gathering in nats.asked
        assert summary.remaining_known == ("count_mentors" not in silent)
        assert summary.total_unprocessed == (60 if summary.remaining_known else 0)
        assert add_up(summary)


async def test_a_result_that_has_arrived_waits_for_no_acknowledgement(autojump_clock: MockClock) -> None:
    nats, run_id = SilentNats(), new_run_id()
    async with trio.open_nursery() as beside:
        fleet = JetStream(nats.as_connection, Names("a"), beside, shards_at_once=5, replicas=1)
        async with fleet.open_gathering(run_id) as gathering:
            nats.is_silent = True
            subject = Names("a").result(run_id, 7)
            nats.messages = [Msg(cast(Any, None), subject, reply="$JS.ACK", data=b"result")]
            with trio.fail_after(0.1):
                assert await gathering.next_result() == (7, b"result")
            await wait_all_tasks_blocked()
        assert streams.acknowledge in nats.asked
        beside.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("back_at", "stop_reason"), [(99.0, StopReason.FLEET_UNAVAILABLE), (20.0, StopReason.HARD_DEADLINE)]
)
async def test_a_fleet_that_is_away_when_results_are_missing_is_why_the_run_ended(
    back_at: float, stop_reason: StopReason, autojump_clock: MockClock
) -> None:
    nats = SilentNats()
    async with trio.open_nursery() as beside:
        fleet = JetStream(nats.as_connection, Names("a"), beside, shards_at_once=5, replicas=1)
        world = World(ids(60), fleet=fleet)
        async with world.open_scheduler() as scheduler:
            began = trio.current_time()
            started = await scheduler.start(RunRequest())
            await trio.sleep_until(began + 1.0)
            for row in world.shards_of():
                row.state = "running"
            nats.go_away()
            with trio.move_on_at(began + back_at):
                await started.ended()
            nats.come_back()
            summary = await started.summary()
            assert trio.current_time() == began + 28.0
        beside.cancel_scope.cancel()
    assert (summary.stop_reason, summary.total_unprocessed) == (stop_reason, 60)


async def test_a_plan_that_takes_as_long_as_the_budget_is_nobodys_fault(autojump_clock: MockClock) -> None:
    world = World(ids(60), soft_threshold=2.0)
    world.database.latency = 0.6  # five statements until there is a plan
    async with world.open_worker(), world.open_scheduler() as scheduler:
        summary = await run_to_its_end(scheduler)
    assert (summary.stop_reason, summary.total_unprocessed) == (StopReason.SOFT_THRESHOLD, 60)
    assert summary.remaining_known


# --- From one run to the next ---


async def test_after_five_runs_whose_budget_reaches_30_percent_everybody_was_visited(
    autojump_clock: MockClock,
) -> None:
    """⌈1/f⌉ + 1 runs; each in a process of its own."""
    world = World(ids(800), FakeTriggerEngine(latency=lambda chunk: 1.0), page_size=1, fleet_shards=40)
    reached = []
    async with world.open_worker():
        for _ in range(5):
            async with world.open_scheduler() as scheduler:
                summary = await run_to_its_end(scheduler)
            assert add_up(summary)
            reached.append(summary.total_evaluated / 800)
            await trio.sleep(300)
    assert all(0.28 < share < 0.35 for share in reached)
    assert set(world.engine.evaluated) == set(ids(800))
    assert max(world.engine.evaluated.values()) <= 2


async def test_freshness_knows_what_the_shards_of_partial_runs_have_covered(
    autojump_clock: MockClock,
) -> None:
    world = World(ids(800), FakeTriggerEngine(latency=lambda chunk: 1.0), page_size=1, fleet_shards=40)
    fresh = []
    async with world.open_worker():
        for _ in range(5):
            async with world.open_scheduler() as scheduler:
                await run_to_its_end(scheduler)
            await trio.sleep(100)
            fresh.append((await measure_freshness(world.database, 900.0)).is_fresh)
    assert fresh == [False, False, False, True, True]


async def test_a_partial_run_without_a_fleet_is_resumed_by_one_with_it_and_the_other_way_round(
    autojump_clock: MockClock,
) -> None:
    world = World(ids(400), FakeTriggerEngine(latency=lambda chunk: 1.0), page_size=10, fleet_shards=40)
    async with world.open_worker():
        async with world.open_scheduler(sharded=False) as scheduler:
            await run_to_its_end(scheduler)
        mark = world.database.runs[0].low_water_mark
        async with world.open_scheduler() as scheduler:
            await run_to_its_end(scheduler)
        assert mark == world.shards_of()[0].after_id
        assert set(world.engine.evaluated) == set(ids(400))
        async with world.open_scheduler(sharded=False) as scheduler:
            assert (await run_to_its_end(scheduler)).total_evaluated > 200


@pytest.mark.parametrize(
    ("refused", "said"), [(("sample_mentors", "span_of_mentors"), 1), (("sample_mentors",), 0), ((), 0)]
)
async def test_that_one_shard_has_nearly_everybody_is_said(
    refused: tuple[str, ...], said: int, autojump_clock: MockClock
) -> None:
    """As where ids were counted, and Postgres has no time for a sample."""
    world = World(ids(1_200))
    world.database.refuses = lambda statement, now: statement in refused
    async with world.open_worker(), world.open_scheduler() as scheduler:
        with capture_logs() as logs:
            assert (await run_to_its_end(scheduler)).completed
    assert [line["event"] for line in logs].count("shards_uneven") == said


async def test_whoever_hangs_up_does_not_end_the_run(autojump_clock: MockClock) -> None:
    world = World(ids(60), FakeTriggerEngine(latency=lambda chunk: 0.5))
    async with world.open_worker(), world.open_scheduler() as scheduler:
        with trio.move_on_after(0.2):
            await run_to_its_end(scheduler)
        await wait_all_tasks_blocked()
        await scheduler.wait_until_idle()
    assert world.database.runs[0].verdict == "completed"
