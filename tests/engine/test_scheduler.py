"""Runs that follow one another, in virtual time, over a model of the database: lease, resume, verdict."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from engine import RunInProgress, RunRequest, Scheduler, StopReason, Summary, load_settings
from engine.database import RELEASE_TIMEOUT
from engine.errors import DatabaseUnavailable, Draining, InvocationFailed, NotReady, RunFailed
from engine.lease import FENCE_AFTER, HEARTBEAT_PERIOD, LONGEST_PAUSE
from engine.ledger import LEASE
from engine.mentors.postgres import PostgresMentors
from engine.parts import Parts
from engine.run_id import new_run_id
from engine.settings import ANSWER_MARGIN
from engine.trigger.protocol import Evaluation
from tests.fakes import FOREVER, FakeTriggerEngine, add_up, ids
from tests.model_database import ModelDatabase

OVER_HTTP = {"database_url": "postgresql://model@model/model", "trigger_engine": "http://127.0.0.1:1/"}


@asynccontextmanager
async def open_model(
    database: ModelDatabase, trigger_engine: FakeTriggerEngine, /, **given: Any
) -> AsyncIterator[Scheduler]:
    """A process: a scheduler over the model. Leaving the block kills it."""
    async with trio.open_nursery() as runs:
        mentors = PostgresMentors(database, ["active"])
        parts = Parts(database, mentors, trigger_engine, None)  # type: ignore[arg-type]
        yield Scheduler(load_settings(**(OVER_HTTP | given)), parts, runs)
        runs.cancel_scope.cancel()


async def run_to_its_end(scheduler: Scheduler, **request: Any) -> Summary:
    return await (await scheduler.start(RunRequest(**request))).summary()


def beats(database: ModelDatabase) -> list[float]:
    return [at for name, at in database.statements if name == "record_heartbeat"]


async def test_a_run_leaves_a_row_with_its_counts(autojump_clock: MockClock) -> None:
    database = ModelDatabase(ids(250))
    with capture_logs() as logs:
        async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 0.1)) as scheduler:
            summary = await run_to_its_end(scheduler)
    assert [line["event"] for line in logs] == ["run_started", "run_ended"]
    [row] = database.runs
    assert (row.id, row.verdict, row.stop_reason) == (summary.run_id, "completed", "finished")
    assert row.counts["total_evaluated"] == row.counts["stretch_evaluated"] == 250
    assert row.finished_at == trio.current_time()


async def test_a_run_says_once_a_second_that_it_lives_and_how_far_it_has_come(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(990))
    async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 0.04)) as scheduler:
        began = trio.current_time()
        started = await scheduler.start(RunRequest())
        await trio.sleep_until(began + 2.5)
        [row] = database.runs
        assert row.verdict == "running"
        assert row.heartbeat_at == began + 2.0
        assert 480 <= row.counts["total_evaluated"] <= 500
        assert 470 <= row.low_water_mark.int <= 500
        await started.summary()
    assert beats(database) == [began + seconds for seconds in (1.0, 2.0, 3.0)]


async def test_a_dry_run_leaves_no_row_and_runs_beside_another_one(autojump_clock: MockClock) -> None:
    database = ModelDatabase(ids(10))
    engine = FakeTriggerEngine(latency=lambda chunk: 3.0)
    async with open_model(database, engine, trigger_engine_dry_run=True) as scheduler:
        started = await scheduler.start(RunRequest())
        dry = await scheduler.start(RunRequest(dry_run=True))
        with pytest.raises(RunInProgress, match="dry run"):
            await scheduler.start(RunRequest(dry_run=True))
        assert (await dry.summary()).completed
        assert (await run_to_its_end(scheduler, dry_run=True)).completed
        await started.summary()
    assert [row.id for row in database.runs] == [started.context.run_id]


# Fair resume.


async def test_after_five_runs_whose_budget_reaches_30_percent_everybody_was_visited(
    autojump_clock: MockClock,
) -> None:
    """Mentors come and go in between, before the mark and behind it."""
    database = ModelDatabase(UUID(int=10 * number) for number in range(1, 1001))
    population = set(database.mentor_ids)
    engine = FakeTriggerEngine(latency=lambda chunk: 1.0)
    # Pages of ten, a second each: those begun within 29.5 s are 30 of 100.
    budget = {"soft_threshold": 29.5, "hard_deadline": 35.0, "platform_limit": 40.0, "page_size": 10}
    reached = []
    for number in range(5):
        async with open_model(database, engine, **budget) as scheduler:
            summary = await run_to_its_end(scheduler)
        assert add_up(summary)
        reached.append(summary.total_evaluated / summary.total_active_mentors)
        for leaving in (1000 * number + 70, 9000 - 1000 * number):
            database.remove_mentor(UUID(int=leaving))
            population.discard(UUID(int=leaving))
        database.add_mentor(UUID(int=2000 * number + 5))
        await trio.sleep(300)
    assert all(0.29 < share < 0.33 for share in reached)
    assert population <= set(engine.evaluated)


@settings(max_examples=60, deadline=None)
@given(
    mentors=st.integers(1, 60),
    reaches=st.lists(st.integers(1, 25), min_size=1, max_size=8),
    page_size=st.integers(1, 7),
)
def test_everybody_is_visited_within_the_promised_number_of_runs(
    mentors: int, reaches: list[int], page_size: int
) -> None:
    """⌈1/f⌉ + 1 runs, f the smallest share by which the mark advanced."""

    async def scenario() -> None:
        database = ModelDatabase(ids(mentors))
        engine = FakeTriggerEngine()
        marks: list[int] = []
        for number in range(1000):
            reach = reaches[number % len(reaches)]
            engine.latency = lambda chunk: 1.0
            budget = {"soft_threshold": reach - 0.5, "hard_deadline": reach + 10.0, "platform_limit": 100.0}
            before = sum(engine.evaluated.values())
            async with open_model(database, engine, page_size=page_size, max_concurrency=1, **budget) as each:
                summary = await run_to_its_end(each)
            marks.append(sum(engine.evaluated.values()) - before)
            if set(engine.evaluated) == set(ids(mentors)) or summary.completed:
                break
            await trio.sleep(60)
        assert set(engine.evaluated) == set(ids(mentors))
        smallest = min(marks) / mentors
        assert len(marks) <= math.ceil(1 / smallest) + 1

    trio.run(scenario, clock=MockClock(autojump_threshold=0))


async def test_a_run_that_resumes_counts_what_it_left_on_both_sides_of_the_wrap(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(100))
    engine = FakeTriggerEngine(latency=lambda chunk: 1.0)
    budget = {"soft_threshold": 3.5, "hard_deadline": 9.0, "platform_limit": 12.0, "page_size": 10}
    async with open_model(database, engine, **budget) as scheduler:
        first = await run_to_its_end(scheduler)
        second = await run_to_its_end(scheduler)
        third = await run_to_its_end(scheduler)
    for summary in (first, second, third):
        assert (summary.total_active_mentors, summary.remaining_known) == (100, True)
        assert summary.total_unprocessed == 100 - summary.total_evaluated
    assert first.total_evaluated == second.total_evaluated == 60
    assert [row.started_after for row in database.runs] == [None, UUID(int=60), UUID(int=20)]
    assert (third.stop_reason, third.partial) == (StopReason.SOFT_THRESHOLD, True)


async def test_a_killed_run_is_taken_over_where_its_last_heartbeat_was(autojump_clock: MockClock) -> None:
    database = ModelDatabase(ids(1000))
    engine = FakeTriggerEngine(latency=lambda chunk: 0.1)
    await trio.sleep(100)
    async with open_model(database, engine) as scheduler:
        await scheduler.start(RunRequest())
        await trio.sleep(5.5)
    [row] = database.runs
    assert row.verdict == "running"
    async with open_model(database, engine) as scheduler:
        with pytest.raises(RunInProgress) as refused:
            await scheduler.start(RunRequest())
        assert refused.value.retry_after == 28.0 - 5.5
        await trio.sleep(LEASE)
        summary = await run_to_its_end(scheduler)
    assert [row.verdict for row in database.runs] == ["abandoned", "completed"]
    assert 480 <= database.runs[1].started_after.int <= 500
    assert summary.total_evaluated == 1000
    assert set(engine.evaluated) == set(ids(1000))


# Losing the database.


async def test_a_run_without_a_database_for_less_than_the_fence_goes_on(autojump_clock: MockClock) -> None:
    database = ModelDatabase(ids(1000))
    async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 0.1)) as scheduler:
        began = trio.current_time()
        database.away = lambda now: 2.5 < now - began < 2.0 + FENCE_AFTER - HEARTBEAT_PERIOD
        summary = await run_to_its_end(scheduler)
    assert (summary.total_evaluated, summary.stop_reason) == (1000, StopReason.FINISHED)
    assert [row.verdict for row in database.runs] == ["completed"]


async def test_a_run_without_a_database_is_cut_before_anybody_can_take_over(
    autojump_clock: MockClock,
) -> None:
    """The last acknowledged heartbeat was sent at 2.0; the answer waits for the count and for the row."""
    database = ModelDatabase(ids(1000), latency=0.25)
    engine = FakeTriggerEngine(latency=lambda chunk: 0.1)
    async with open_model(database, engine) as scheduler:
        asked_at = trio.current_time()
        started = await scheduler.start(RunRequest(), asked_at=asked_at)
        begun_at = trio.current_time() - 0.25
        database.away = lambda now: now - begun_at > 2.5
        summary = await started.summary()
        cut_at = begun_at + 2.0 + FENCE_AFTER
        assert max(engine.begun_at) < cut_at
        assert trio.current_time() == pytest.approx(cut_at + 0.5 + 0.5, abs=1e-9)
    assert summary.stop_reason is StopReason.DATABASE_UNAVAILABLE
    assert (summary.partial, summary.remaining_known) == (True, False)
    assert summary.total_evaluated == sum(engine.evaluated.values())
    assert cut_at < database.runs[0].heartbeat_at + LEASE


async def test_a_run_that_lost_its_database_is_finished_in_the_ledger_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(1000))
    async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 0.1)) as scheduler:
        began = trio.current_time()
        database.away = lambda now: 2.5 < now - began < 20.0
        started = await scheduler.start(RunRequest())
        summary = await started.summary()
        assert database.runs[0].verdict == "running"
        with trio.fail_after(2000.0):
            await started.accounted_for()
    [row] = database.runs
    assert (row.verdict, row.stop_reason) == ("partial", "database_unavailable")
    assert row.counts["total_evaluated"] == summary.total_evaluated


async def test_a_verdict_whose_answer_was_lost_is_written_again_and_no_lease_is_lost(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(10), latency=0.2)
    with capture_logs() as logs:
        async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 0.3)) as scheduler:
            # finish_run is sent at 0.9 and takes effect at 1.0.
            database.away = lambda now: 1.05 < now < 1.2
            started = await scheduler.start(RunRequest())
            await started.accounted_for()
    names = [name for name, _ in database.statements]
    assert names.count("finish_run") == 2
    assert [row.verdict for row in database.runs] == ["completed"]
    events = [line["event"] for line in logs]
    assert "verdict_not_recorded" in events
    assert "lease_lost" not in events


async def test_a_verdict_is_tried_to_be_written_at_least_every_half_minute(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(10))
    async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 0.3)) as scheduler:
        database.away = lambda now: 0.2 < now < 1000.0
        started = await scheduler.start(RunRequest())
        with trio.fail_after(2000.0):
            await started.accounted_for()
        assert trio.current_time() < 1000.0 + LONGEST_PAUSE
    assert [row.verdict for row in database.runs] == ["completed"]


async def test_heartbeats_that_hang_are_given_up_and_sent_again(autojump_clock: MockClock) -> None:
    database = ModelDatabase(ids(500))
    async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 0.2)) as scheduler:
        began = trio.current_time()
        database.hangs = lambda name, now: name == "record_heartbeat" and 1.5 < now - began < 6.0
        summary = await run_to_its_end(scheduler)
    assert summary.completed
    assert beats(database) == [began + seconds for seconds in (1.0, 2.0, 4.5, 7.0, 8.0, 9.0)]


async def test_the_answer_waits_half_a_second_for_its_row_and_no_longer(autojump_clock: MockClock) -> None:
    database = ModelDatabase(ids(10))
    async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 0.3)) as scheduler:
        database.hangs = lambda name, now: name == "finish_run"
        began = trio.current_time()
        summary = await run_to_its_end(scheduler)
        assert trio.current_time() == began + 0.3 + 0.5
        assert summary.completed
        database.hangs = lambda name, now: False
        scheduler.drain()
        await scheduler.wait_until_idle()
    # A statement that hangs is given up after five seconds; a service that stops waits for two.
    assert [row.verdict for row in database.runs] == ["running"]


async def test_a_run_that_never_got_a_heartbeat_through_is_cut_as_well(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(1000))
    engine = FakeTriggerEngine(latency=lambda chunk: 0.1)
    async with open_model(database, engine, page_size=1000) as scheduler:
        began = trio.current_time()
        started = await scheduler.start(RunRequest())
        await wait_all_tasks_blocked()
        database.away = lambda now: True
        summary = await started.summary()
    assert summary.stop_reason is StopReason.DATABASE_UNAVAILABLE
    assert max(engine.begun_at) < began + FENCE_AFTER


async def test_whatever_hangs_the_answer_comes_within_its_margin(autojump_clock: MockClock) -> None:
    """Postgres goes silent just before the soft threshold: what is cut takes its time, and all of it fits."""
    database = ModelDatabase(ids(1000))
    engine = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    async with open_model(database, engine, invocation_timeout=60) as scheduler:
        began = trio.current_time()
        database.hangs = lambda name, now: now > began + 24.9
        summary = await run_to_its_end(scheduler)
        assert trio.current_time() == began + 28.0 + 0.5 + RELEASE_TIMEOUT + 0.5
        assert trio.current_time() < began + 28.0 + ANSWER_MARGIN
    assert (summary.stop_reason, summary.remaining_known) == (StopReason.HARD_DEADLINE, False)


async def test_a_service_that_stops_waits_for_a_verdict_that_was_not_taken_yet(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(10))
    async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 0.3)) as scheduler:
        began = trio.current_time()
        database.away = lambda now: 0.1 < now - began < 1.5
        await run_to_its_end(scheduler)
        await scheduler.wait_until_idle()
        assert trio.current_time() - began <= 0.8 + 2.0
    assert [row.verdict for row in database.runs] == ["completed"]


# Losing the lease.


async def test_a_run_whose_row_was_taken_stops_at_its_next_heartbeat(autojump_clock: MockClock) -> None:
    database = ModelDatabase(ids(1000))
    engine = FakeTriggerEngine(latency=lambda chunk: 0.1)
    async with open_model(database, engine) as scheduler:
        began = trio.current_time()
        started = await scheduler.start(RunRequest())
        await trio.sleep(2.55)
        database.runs[0].verdict = "abandoned"
        summary = await started.summary()
        assert trio.current_time() == began + 3.0
        assert max(engine.begun_at) < began + 3.0
    assert (summary.stop_reason, summary.partial) == (StopReason.LEASE_LOST, True)
    assert (summary.total_active_mentors, summary.remaining_known) == (1000, True)
    assert add_up(summary)


@pytest.mark.parametrize("frozen_for", [LEASE + 1, 100.0])
async def test_a_process_that_was_frozen_and_woken_finds_itself_cut(
    frozen_for: float, autojump_clock: MockClock
) -> None:
    """Another one has begun meanwhile: the first acts no more, and changes nothing in the ledger."""
    database = ModelDatabase(ids(1000))
    engine = FakeTriggerEngine(latency=lambda chunk: 0.1)
    async with open_model(database, engine) as frozen:
        started = await frozen.start(RunRequest())
        await trio.sleep(2.55)
        invoked = len(engine.begun_at)
        autojump_clock.jump(frozen_for)  # nothing of this process runs meanwhile
        other = new_run_id()
        database._begin_run(other, None, 28.0, LEASE)
        rows = [vars(row).copy() for row in database.runs]
        summary = await started.summary()
        assert len(engine.begun_at) == invoked
    assert (summary.stop_reason, summary.partial) == (StopReason.LEASE_LOST, True)
    assert add_up(summary)
    assert [vars(row) for row in database.runs] == rows
    assert [row["verdict"] for row in rows] == ["abandoned", "running"]


async def test_a_run_that_had_done_all_when_its_lease_was_lost_is_completed(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(10))
    async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 0.3)) as scheduler:
        started = await scheduler.start(RunRequest())
        database.runs[0].verdict = "abandoned"
        summary = await started.summary()
    assert (summary.completed, summary.stop_reason) == (True, StopReason.FINISHED)


# Beginnings and ends.


async def test_a_caller_who_is_cancelled_while_the_run_begins_leaves_it_running(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(10), latency=1.0)
    async with open_model(database, FakeTriggerEngine()) as scheduler:
        with trio.move_on_after(1.5) as hang_up:  # begin_run takes from 1 s to 2 s
            await run_to_its_end(scheduler)
        assert hang_up.cancelled_caught
        scheduler.drain()
        await scheduler.wait_until_idle()
    assert [row.verdict for row in database.runs] == ["partial"]


async def test_a_caller_who_is_cancelled_before_the_run_begins_leaves_none(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(10), latency=1.0)
    async with open_model(database, FakeTriggerEngine()) as scheduler:
        with trio.move_on_after(0.5):
            await run_to_its_end(scheduler)
        await trio.sleep(10)
    assert database.runs == []


async def test_a_drain_while_a_run_begins_waits_for_it_and_it_walks_nobody(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(10), latency=1.0)
    engine = FakeTriggerEngine()
    summaries: list[Summary] = []

    async def call(scheduler: Scheduler) -> None:
        summaries.append(await run_to_its_end(scheduler))

    async with open_model(database, engine) as scheduler, trio.open_nursery() as nursery:
        nursery.start_soon(call, scheduler)
        await trio.sleep(1.5)
        scheduler.drain()
        await scheduler.wait_until_idle()
        assert [row.verdict for row in database.runs] == ["partial"]
        with pytest.raises(Draining):
            await scheduler.start(RunRequest())
    [summary] = summaries
    assert (summary.stop_reason, summary.total_unprocessed) == (StopReason.DRAINING, 10)
    assert not engine.chunks
    assert [(row.verdict, row.stop_reason) for row in database.runs] == [("partial", "draining")]


async def test_a_beginning_that_hangs_is_refused_and_its_row_is_taken_over_in_time(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(10), latency=0.5)
    async with open_model(database, FakeTriggerEngine()) as scheduler:
        began = trio.current_time()
        # The answer to begin_run is lost after it took effect.
        database.away = lambda now: 0.9 <= now - began < 1.2
        with pytest.raises(DatabaseUnavailable):
            await scheduler.start(RunRequest())
        with pytest.raises(RunInProgress):
            await scheduler.start(RunRequest())
        await trio.sleep(LEASE)
        assert (await run_to_its_end(scheduler)).completed
    assert [row.verdict for row in database.runs] == ["abandoned", "completed"]


async def test_a_beginning_that_hangs_is_given_up_at_the_hard_deadline(autojump_clock: MockClock) -> None:
    database = ModelDatabase(ids(10))
    database.hangs = lambda name, now: name == "begin_run"
    budget = {"soft_threshold": 1.0, "hard_deadline": 2.0, "platform_limit": 4.0}
    async with open_model(database, FakeTriggerEngine(), **budget) as scheduler:
        began = trio.current_time()
        with pytest.raises(DatabaseUnavailable):
            await scheduler.start(RunRequest())
        assert trio.current_time() == began + 2.0 + RELEASE_TIMEOUT


async def test_a_bug_is_a_failed_run_in_the_ledger_and_the_next_one_works(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(100))

    def act(chunk: Sequence[UUID]) -> Evaluation:
        if chunk == [UUID(int=60)] and len(database.runs) == 1:
            raise ZeroDivisionError
        return Evaluation()

    engine = FakeTriggerEngine(latency=lambda chunk: 0.1, act=act)
    async with open_model(database, engine) as scheduler:
        with pytest.raises(RunFailed):
            await run_to_its_end(scheduler)
        summary = await run_to_its_end(scheduler)
    assert [(row.verdict, row.stop_reason) for row in database.runs] == [
        ("failed", None),
        ("completed", "finished"),
    ]
    assert 40 <= database.runs[1].started_after.int < 60
    assert summary.total_evaluated == 100


async def test_errors_count_into_the_stretch_but_not_as_evaluated(autojump_clock: MockClock) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        if chunk[0].int % 4 == 0:
            raise InvocationFailed("timeout")
        return Evaluation()

    database = ModelDatabase(ids(100))
    async with open_model(database, FakeTriggerEngine(act=act)) as scheduler:
        await run_to_its_end(scheduler)
    counts = database.runs[0].counts
    assert (counts["stretch_mentors"], counts["stretch_evaluated"]) == (100, 75)


# What is seen of a run under way.


async def test_a_run_under_way_is_seen_to_the_moment_and_no_longer_than_it_lasts(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(100))

    def act(chunk: Sequence[UUID]) -> Evaluation:
        if chunk[0].int == 3:
            raise InvocationFailed("timeout")
        return Evaluation(dispatched={"inactivity": 1}, suppressed={"expiry": 2})

    engine = FakeTriggerEngine(latency=lambda chunk: 1.0, act=act)
    async with open_model(database, engine) as scheduler:
        assert scheduler.live_run is None
        started = await scheduler.start(RunRequest(), asked_at=trio.current_time() - 0.5)
        await trio.sleep(2.5)
        live = scheduler.live_run
        assert live is not None
        assert (live.run_id, live.elapsed) == (started.context.run_id, 3.0)
        assert (live.evaluated, live.errors, live.dispatched, live.suppressed) == (19, 1, 19, 38)
        await started.summary()
        assert scheduler.live_run is None


async def test_a_dry_run_is_not_seen_as_the_run_under_way(autojump_clock: MockClock) -> None:
    engine = FakeTriggerEngine(latency=lambda chunk: 1.0)
    async with open_model(ModelDatabase(ids(10)), engine, trigger_engine_dry_run=True) as scheduler:
        dry = await scheduler.start(RunRequest(dry_run=True))
        await trio.sleep(0.5)
        assert scheduler.live_run is None
        await dry.summary()


async def test_whoever_waits_for_a_drain_is_told_at_once(autojump_clock: MockClock) -> None:
    async with (
        open_model(ModelDatabase([]), FakeTriggerEngine()) as scheduler,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(scheduler.wait_until_draining)
        await wait_all_tasks_blocked()
        assert not scheduler.is_draining
        scheduler.drain()
        assert scheduler.is_draining


@pytest.mark.parametrize("refused", ["begin_run", "enabled_scenario_types"])
async def test_a_statement_that_postgres_refuses_at_the_start_is_for_later_and_says_so(
    refused: str, autojump_clock: MockClock
) -> None:
    """As at a statement_timeout: nothing was begun, and the next tick may well be luckier."""
    database = ModelDatabase(ids(5))
    database.refuses = lambda name, now: name == refused
    async with open_model(database, FakeTriggerEngine(), trigger_engine="in-database") as scheduler:
        with pytest.raises(NotReady, match=rf"{refused} \(SQLSTATE 57014\)\..*statement_timeout") as refusal:
            await scheduler.start(RunRequest(scenario_types=("expiry",)))
        assert refusal.value.retry_after > 0
        assert database.runs == []
        await scheduler.wait_until_idle()
