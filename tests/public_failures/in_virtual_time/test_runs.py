"""What users of such systems complain of in public, part one: who was walked, who was not, and who was told.

Each scenario says whether the complaint would be true here. It is asked twice: as we are, when it must not
be, and with the mechanism against it switched off, when it must: else the test would prove nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

import engine.dispatcher
import engine.freshness
import engine.lease
import engine.scheduler
import engine.tick.diagnosis
from engine import RunInProgress, RunRequest, Scheduler
from engine.coverage import Coverage, covered_stretches
from engine.errors import DatabaseUnavailable, InvocationFailed
from engine.freshness import Freshness
from engine.ledger import LEASE, Ledger
from engine.mentors.protocol import Page
from engine.run import Progress
from engine.statements import Statement
from engine.tally import Tally
from engine.tick.diagnosis import diagnose
from engine.trigger.protocol import Evaluation
from engine.walk import Walk
from tests.engine.test_diagnosis import NEVER_RAN, UNANSWERED, WELL, invocation, job
from tests.engine.test_scheduler import open_model, run_to_its_end
from tests.fakes import FOREVER, FakeMentors, FakeTriggerEngine, Walkthrough, budget, ids
from tests.model_database import ModelDatabase
from tests.web.conftest import make_settings
from web.app import create_app

# --- Partial walks called finished ---


async def cut_at_the_soft_threshold(walkthrough: Walkthrough) -> None:
    """Nothing to do: it comes."""


async def paused(walkthrough: Walkthrough) -> None:
    await trio.sleep(3)
    walkthrough.progress.walk.stop(engine.walk.StopReason.DRAINING)


async def hanging(walkthrough: Walkthrough) -> None:
    walkthrough.trigger_engine.latency = lambda chunk: FOREVER


Cut = Callable[[Walkthrough], Any]


async def is_called_finished_with_somebody_left(cut: Cut, people: int) -> bool:
    mentors = FakeMentors(ids(people))
    walkthrough = Walkthrough(
        mentors, FakeTriggerEngine(latency=lambda chunk: 1.0), run_budget=budget(10.0, 60.0)
    )
    # An invocation that hangs is its own error after its time-out; here it is the budget that is over.
    walkthrough.limits = replace(walkthrough.limits, invocation_timeout=600.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut, walkthrough)
        summary = await walkthrough.run()
    assert summary.total_evaluated < people
    return summary.completed


# Without the one, the end of the channel is taken for the end of the people; without the other, whoever was
# fetched is taken for finished.
UNFETCHED = (Walk, "unfetched", property(lambda walk: ()))
IN_HAND = (Tally, "in_hand", property(lambda tally: 0))


@pytest.mark.parametrize(
    ("cut", "people", "without"),
    [(cut_at_the_soft_threshold, 1_000, UNFETCHED), (paused, 50, IN_HAND), (hanging, 5, IN_HAND)],
    ids=["cut at the soft threshold", "paused", "hanging"],
)
async def test_a_partial_walk_is_not_called_finished(
    cut: Cut, people: int, without: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """listmonk #1155 (finished: 3 of 786,210), listmonk #2591 (resumed, finished: 1,255 of 2,194)."""
    assert not await is_called_finished_with_somebody_left(cut, people)
    monkeypatch.setattr(*without)
    assert await is_called_finished_with_somebody_left(cut, people)


# --- Cursors advanced at fetch ---

# One page a budget and a bit: 20 mentors a page, ten at a time, some seconds each.
SMALL = {"soft_threshold": 2.5, "hard_deadline": 4.5, "platform_limit": 8.0, "page_size": 20}


def said_to_be_covered(database: ModelDatabase) -> set[UUID]:
    stretches = [
        stretch
        for row in database.runs
        for stretch in covered_stretches(
            row.started_after, row.low_water_mark, is_completed=row.verdict == "completed"
        )
    ]
    return {
        mentor_id
        for mentor_id in database.mentor_ids
        for stretch in stretches
        if (stretch.after is None or mentor_id > stretch.after)
        and (stretch.until is None or mentor_id <= stretch.until)
    }


async def lost_between_runs(how_it_ends: str) -> set[UUID]:
    """Whom the ledger has as finished, so that no later run begins with them, and nobody asked about."""
    database = ModelDatabase(ids(100))
    slow = FakeTriggerEngine(latency=lambda chunk: 3.0)
    async with open_model(database, slow, **SMALL) as scheduler:
        started = await scheduler.start(RunRequest())
        if how_it_ends == "killed":
            await trio.sleep(2.2)  # a heartbeat has said how far it is
        else:
            await started.summary()
    return said_to_be_covered(database) - set(slow.evaluated)


def advance_at_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark is the last id of the last page, as it is wherever the cursor itself is what is kept."""

    def make_progress(walk: Walk) -> Progress:
        progress = Progress(walk)
        advance = walk.advance

        def advance_with_mark(page: Page) -> None:
            advance(page)
            if page.mentor_ids:
                mark = progress.low_water_mark
                mark.last_id = page.mentor_ids[-1]
                mark.mentors = mark.evaluated = mark.mentors + len(page.mentor_ids)

        walk.advance = advance_with_mark  # type: ignore[method-assign]
        progress.low_water_mark.finish = lambda chunk, evaluated: None  # type: ignore[method-assign]
        return progress

    monkeypatch.setattr(engine.scheduler, "Progress", make_progress)


@pytest.mark.parametrize("how_it_ends", ["killed", "cut by its budget"])
async def test_nobody_is_lost_between_a_fetch_and_a_kill(
    how_it_ends: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """listmonk #3022 (the checkpoint moves when a page is fetched), sidekiq #6405 (all but one is lost)."""
    assert await lost_between_runs(how_it_ends) == set()
    advance_at_fetch(monkeypatch)
    assert len(await lost_between_runs(how_it_ends)) >= 10


# --- Restarts from zero ---


async def never_reached_by_ten_runs() -> set[UUID]:
    database = ModelDatabase(ids(100))
    engine = FakeTriggerEngine(latency=lambda chunk: 1.0)
    for _ in range(10):
        async with open_model(database, engine, **SMALL) as scheduler:  # a new process each time
            assert (await run_to_its_end(scheduler)).partial
    return set(ids(100)) - set(engine.evaluated)


async def test_a_restart_goes_on_where_the_last_run_stopped(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """listmonk #2313: five copies for those up to I, and none for whoever comes behind J."""
    assert await never_reached_by_ten_runs() == set()

    async def begin_at_zero(self: Ledger, *run: Any) -> None:
        await begin_run(self, *run)

    begin_run = Ledger.begin_run
    monkeypatch.setattr(Ledger, "begin_run", begin_at_zero)
    assert len(await never_reached_by_ten_runs()) >= 20


# --- Crons that silently stop, and nobody told that nothing ran ---


@asynccontextmanager
async def watched(database: ModelDatabase) -> AsyncIterator[tuple[Scheduler, Callable[[], Any]]]:
    """A service, and what an uptime monitor sees of it: the status of GET /freshness."""
    async with open_model(database, FakeTriggerEngine()) as scheduler:
        client = create_app(scheduler, make_settings()).test_client()

        async def status() -> int:
            return int((await client.get("/freshness")).status_code)

        yield scheduler, status


async def the_monitor_stays_green_after_the_last_tick() -> bool:
    async with watched(ModelDatabase(ids(10))) as (scheduler, status):
        for _ in range(3):
            await run_to_its_end(scheduler)
            assert await status() == 200
            await trio.sleep(300)
        await trio.sleep(3600)  # and not one more: pg_cron is stopped, and so says nothing
        return await status() == 200


async def test_a_cron_that_silently_stops_turns_the_monitor_red(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """inngest #4387, good_job #1484: all is well with everything that runs, and nothing runs."""
    assert not await the_monitor_stays_green_after_the_last_tick()
    # Without: what the last run said is asked, and not how long ago.
    add = Coverage.add
    monkeypatch.setattr(Coverage, "add", lambda self, age, stretches: add(self, 0.0, stretches))
    assert await the_monitor_stays_green_after_the_last_tick()


STOPPED = replace(WELL, jobs=[job(7200.0)], invocations=[invocation(120)])
NEVER_STARTED = replace(WELL, jobs=[NEVER_RAN], invocations=[])


@pytest.mark.parametrize("status", [STOPPED, NEVER_STARTED], ids=["stopped", "never started"])
def test_a_job_that_pg_cron_does_not_run_is_named_though_nothing_has_failed(
    status: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_cron #240: 13 of 50 jobs no longer run, and cron.job_run_details has nothing about them."""
    assert "*/5 * * * *" in (diagnose(status) or "")
    # Without: only what has failed is looked for.
    monkeypatch.setattr(engine.tick.diagnosis, "_stopped", lambda status: None)
    assert diagnose(status) is None


async def the_monitor_is_green_though_nothing_ever_ran() -> bool:
    async with watched(ModelDatabase(ids(10))) as (_, status):
        await trio.sleep(86_400)
        return await status() == 200


async def test_a_service_that_never_ran_is_not_called_fresh(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """graphile/worker #177, bugsink #419: there is no event for what has not happened."""
    assert not await the_monitor_is_green_though_nothing_ever_ran()
    # Without: an alarm is something that a run raises.
    monkeypatch.setattr(Freshness, "never_covered", property(lambda freshness: ()))
    assert await the_monitor_is_green_though_nothing_ever_ran()


# --- Two leaders, and locks that expire in mid-run ---


class CutOffDatabase:
    """The database as one process sees it: for that one alone it can be away."""

    def __init__(self, database: ModelDatabase) -> None:
        self._database = database
        self.is_away = False

    async def fetch(self, statement: Statement, *arguments: Any, **how: Any) -> Any:
        if self.is_away:
            await trio.lowlevel.checkpoint()
            raise DatabaseUnavailable("cut off")
        return await self._database.fetch(statement, *arguments, **how)


async def there_are_two_leaders() -> bool:
    """One process loses its way to the database, and goes on believing that it is the one that runs."""
    database = ModelDatabase(ids(1000))
    view = CutOffDatabase(database)
    cut_off, other = (FakeTriggerEngine(latency=lambda chunk: 1.0) for _ in range(2))
    long = {"soft_threshold": 200.0, "hard_deadline": 210.0, "platform_limit": 220.0, "page_size": 1000}
    async with open_model(view, cut_off, **long) as first, open_model(database, other, **long) as second:
        await first.start(RunRequest())
        await trio.sleep(3.5)
        view.is_away = True
        while second.live_run is None:
            await trio.sleep(1)
            with suppress(RunInProgress):
                await second.start(RunRequest())
        taken_over_at = trio.current_time()
        await trio.sleep(20)
    return max(cut_off.begun_at) >= taken_over_at


async def test_whoever_has_lost_the_lease_no_longer_acts(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """oban #1488: a node without its lease believes itself the leader: for 19 days every cron runs twice."""
    assert not await there_are_two_leaders()
    # Without: only the database says who may act, to whom it can reach.
    monkeypatch.setattr(engine.lease, "FENCE_AFTER", FOREVER)
    assert await there_are_two_leaders()


async def copies_of_one_message() -> int:
    """A run of 100 seconds, a tick every eleven, each to a process of its own."""
    database = ModelDatabase(ids(100))
    trigger_engine = FakeTriggerEngine(latency=lambda chunk: 1.0)
    long = {"soft_threshold": 200.0, "hard_deadline": 210.0, "platform_limit": 220.0, "max_concurrency": 1}
    async with AsyncExitStack() as processes:
        for _ in range(9):
            scheduler = await processes.enter_async_context(open_model(database, trigger_engine, **long))
            with suppress(RunInProgress):
                await scheduler.start(RunRequest())
            await trio.sleep(LEASE + 1)
        await trio.sleep(200)
    return max(trigger_engine.evaluated.values())


async def test_a_lock_does_not_expire_in_mid_run(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """mautic #1737: the lock is thought dead after half an hour, in mid-run, and some get six copies."""
    assert await copies_of_one_message() == 1
    # Without: the lease is taken once and not kept.
    monkeypatch.setattr(engine.lease, "HEARTBEAT_PERIOD", FOREVER)
    monkeypatch.setattr(engine.lease, "FENCE_AFTER", FOREVER)
    assert await copies_of_one_message() >= 6


# --- Time-outs reported as success ---


async def evaluated_by_an_engine_that_never_answers() -> int:
    database = ModelDatabase(ids(10))
    with capture_logs():
        async with open_model(database, FakeTriggerEngine(latency=lambda chunk: FOREVER)) as scheduler:
            summary = await run_to_its_end(scheduler)
    assert summary.total_active_mentors == 10
    return summary.total_evaluated


async def test_a_timeout_is_not_reported_as_success(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """pg_net #74: the time was up, the request was never made, and the status says SUCCESS."""
    assert await evaluated_by_an_engine_that_never_answers() == 0
    # Without: what raises no error of its own has gone well.
    invoke = engine.dispatcher._invoke

    async def invoke_and_forget(*arguments: Any) -> Evaluation:
        try:
            return await invoke(*arguments)
        except InvocationFailed:
            return Evaluation()

    monkeypatch.setattr(engine.dispatcher, "_invoke", invoke_and_forget)
    assert await evaluated_by_an_engine_that_never_answers() == 10


def test_a_tick_whose_answer_never_came_is_not_taken_for_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_net #74, seen from the database: pg_cron says `succeeded`, since the SQL that posts has run."""
    status = replace(WELL, invocations=[invocation(5, **UNANSWERED | {"is_overdue": True}), invocation(10)])
    assert "has not brought an answer" in (diagnose(status) or "")
    # Without: pg_cron's own word is taken.
    monkeypatch.setattr(engine.tick.diagnosis, "_not_answered", lambda status: None)
    assert diagnose(status) is None
