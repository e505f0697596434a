"""The scheduler on a real Postgres: runs, what they refuse, and what a bug or a lost database costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import trio

import engine.runner
from engine import (
    DatabaseUnavailable,
    Draining,
    DryRunUnsupported,
    NotReady,
    RunFailed,
    RunInProgress,
    RunRequest,
    Scheduler,
    StartedRun,
    StopReason,
    UnknownScenarioType,
    load_settings,
    open_scheduler,
)
from engine.database import Database
from engine.run import Limits
from engine.settings import ANSWER_MARGIN
from tests.faults.proxy import open_fault_proxy
from tests.postgres.conftest import add_mentor, count_notifications, query, value, wait_until_blocked

OpenScheduler = Callable[..., AbstractAsyncContextManager[Scheduler]]

NOTHING_LISTENS = "postgresql://nobody@127.0.0.1:1/nowhere"


def open_on(url: str, **settings: Any) -> AbstractAsyncContextManager[Scheduler]:
    return open_scheduler(load_settings(database_url=url, **settings))


async def run_to_its_end(scheduler: Scheduler, **request: Any) -> dict[str, Any]:
    started = await scheduler.start(RunRequest(**request))
    return (await started.summary()).as_json()


@asynccontextmanager
async def evaluations_held_up(database: Database, sessions: int = 1) -> AsyncIterator[Callable[[], Any]]:
    """As long as the block lasts, whoever wants to write a cooldown waits."""
    async with database.open_transaction() as transaction:
        await query(transaction, "lock table scheduler.cooldowns in exclusive mode")

        async def wait() -> None:
            await wait_until_blocked(database, sessions)

        yield wait


async def add_idle_mentors(database: Database, mentors: int) -> None:
    """Each is due one `inactivity` and nothing else."""
    for _ in range(mentors):
        await add_mentor(database, last_activity=30)


@pytest.mark.parametrize("page_size", [1, 7, 25, 100])
async def test_everybody_is_evaluated_once_whatever_the_page_size(
    page_size: int, database: Database, database_url: str
) -> None:
    await add_idle_mentors(database, 25)
    await add_mentor(database, last_activity=30, status="paused")
    await add_mentor(database, last_activity=30, assignment="ended")
    async with open_on(database_url, page_size=page_size) as scheduler:
        summary = await run_to_its_end(scheduler)
    assert (summary["total_evaluated"], summary["total_dispatched"]) == (25, 25)
    assert (summary["completed"], summary["stop_reason"]) == (True, "finished")
    assert await count_notifications(database) == 25


async def test_notifications_bear_the_id_of_their_run(database: Database, database_url: str) -> None:
    await add_idle_mentors(database, 1)
    async with open_on(database_url) as scheduler:
        summary = await run_to_its_end(scheduler)
    assert str(await value(database, "select run_id from scheduler.notifications")) == summary["run_id"]


async def test_one_broken_row_costs_one_error(database: Database, database_url: str) -> None:
    """A scenario of the user's own that divides by zero for one mentor out of 16, all in one chunk."""
    for number in range(16):
        await add_mentor(database, activities=number, last_activity=0)
    await query(
        database,
        "create function scheduler.scenario_ratio(mentor_ids uuid[], as_of timestamptz, params jsonb) "
        "returns table (mentor_id uuid, user_id uuid, payload jsonb) language sql stable as $$ "
        "select m.id, m.user_id, jsonb_build_object('ratio', 1 / (9 - count(a.*))) "
        "from unnest(mentor_ids) i(id) join scheduler.mentors m using (id) "
        "left join scheduler.activities a on a.user_id = m.user_id group by 1, 2 $$",
    )
    await query(
        database,
        "insert into scheduler.scenario_evaluation_config (scenario_type, cooldown) "
        "values ('ratio', '1 day')",
    )
    async with open_on(database_url) as scheduler:
        started = await scheduler.start(RunRequest(scenario_types=("ratio",)))
        summary = await started.summary()
    assert (summary.total_evaluated, summary.total_errors, summary.total_dispatched) == (15, 1, 15)
    assert started.progress.tally.errors == {"sql_22012": 1}
    assert summary.completed


async def test_a_second_run_is_refused_and_a_dry_run_is_not(database: Database, database_url: str) -> None:
    await add_idle_mentors(database, 3)
    async with open_on(database_url) as scheduler:
        async with evaluations_held_up(database) as held_up:
            first = await scheduler.start(RunRequest())
            await held_up()
            with pytest.raises(RunInProgress) as refused:
                await scheduler.start(RunRequest(scenario_types=("expiry",)))
            assert 0 < refused.value.retry_after <= 28
            assert (await run_to_its_end(scheduler, dry_run=True))["total_dispatched"] == 3
        assert (await first.summary()).total_dispatched == 3
        assert (await run_to_its_end(scheduler))["total_suppressed"] == 3


async def test_a_run_goes_on_when_its_caller_is_cancelled(database: Database, database_url: str) -> None:
    await add_idle_mentors(database, 3)
    async with open_on(database_url) as scheduler:
        async with evaluations_held_up(database) as held_up:
            first = await scheduler.start(RunRequest())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.summary)
                await held_up()
                nursery.cancel_scope.cancel()
        assert (await first.summary()).total_dispatched == 3


async def test_a_bug_costs_its_run_and_no_other(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_idle_mentors(database, 3)

    async def buggy(*arguments: object) -> None:
        raise ZeroDivisionError

    async with open_on(database_url) as scheduler:
        with monkeypatch.context() as patched:
            patched.setattr(engine.runner, "run", buggy)
            started = await scheduler.start(RunRequest())
            with pytest.raises(RunFailed):
                await started.summary()
        assert (await run_to_its_end(scheduler))["total_dispatched"] == 3


async def test_a_drain_refuses_new_runs_and_waits_for_the_one_under_way(
    database: Database, database_url: str
) -> None:
    await add_idle_mentors(database, 3)
    async with open_on(database_url, page_size=1) as scheduler:
        async with evaluations_held_up(database, sessions=3) as held_up:
            started = await scheduler.start(RunRequest())
            await held_up()
            scheduler.drain()
            with pytest.raises(Draining):
                await scheduler.start(RunRequest())
        await scheduler.wait_until_idle()
        summary = await started.summary()
    assert summary.total_evaluated == 3
    assert summary.completed


async def test_leaving_the_scheduler_cuts_the_run_under_way(database: Database, database_url: str) -> None:
    await add_idle_mentors(database, 3)
    async with evaluations_held_up(database) as held_up:
        async with open_on(database_url) as scheduler:
            started = await scheduler.start(RunRequest())
            await held_up()
        with pytest.raises(RunFailed):
            await started.summary()
    assert await count_notifications(database) == 0


@pytest.mark.parametrize("types", [("birthday",), ("expiry", "birthday"), ("milestone",)])
async def test_a_scenario_type_that_is_unknown_or_disabled_is_refused_naming_the_enabled_ones(
    types: tuple[str, ...], database: Database, database_url: str
) -> None:
    await query(
        database,
        "update scheduler.scenario_evaluation_config set enabled = false where scenario_type = 'milestone'",
    )
    async with open_on(database_url) as scheduler:
        with pytest.raises(UnknownScenarioType, match="enabled are: expiry, inactivity"):
            await scheduler.start(RunRequest(scenario_types=types))


async def test_a_trigger_engine_of_ones_own_has_scenario_types_of_its_own(database_url: str) -> None:
    async with open_on(database_url, trigger_engine="http://127.0.0.1:1/") as scheduler:
        assert (await run_to_its_end(scheduler, scenario_types=("birthday",)))["completed"]


async def test_a_dry_run_by_an_engine_that_may_not_honour_it_is_refused(database_url: str) -> None:
    async with open_on(database_url, trigger_engine="http://127.0.0.1:1/") as scheduler:
        with pytest.raises(DryRunUnsupported):
            await scheduler.start(RunRequest(dry_run=True))


async def test_a_database_that_is_not_migrated_is_not_ready(empty_database_url: str) -> None:
    async with open_on(empty_database_url) as scheduler:
        with pytest.raises(NotReady, match="scenario-scheduler migrate"):
            await scheduler.check_ready()
        with pytest.raises(NotReady, match="scenario-scheduler migrate"):
            await scheduler.start(RunRequest())


async def test_a_migrated_database_is_ready(database_url: str) -> None:
    async with open_on(database_url) as scheduler:
        await scheduler.check_ready()


async def test_a_database_that_is_away_is_found_out_at_the_start() -> None:
    async with open_on(NOTHING_LISTENS) as scheduler:
        with pytest.raises(DatabaseUnavailable):
            await scheduler.check_ready()
        with pytest.raises(DatabaseUnavailable):
            await scheduler.start(RunRequest())


async def until_evaluated(started: StartedRun, mentors: int) -> None:
    with trio.fail_after(10):
        while started.progress.tally.evaluated < mentors:  # noqa: ASYNC110 - looks on, as a progress bar does
            await trio.sleep(0.001)


async def test_connections_cut_in_mid_run_cost_nobody_anything(database: Database, database_url: str) -> None:
    await add_idle_mentors(database, 60)
    async with open_on(database_url, page_size=1) as scheduler:
        started = await scheduler.start(RunRequest())
        await until_evaluated(started, 5)
        cut = await value(
            database,
            "select count(pg_terminate_backend(pid)) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()",
        )
        summary = await started.summary()
    assert cut > 0
    assert (summary.total_evaluated, summary.total_errors, summary.completed) == (60, 0, True)
    assert await count_notifications(database) == 60


async def test_a_database_gone_silent_in_mid_run_does_not_hold_up_the_answer(
    database: Database, database_url: str
) -> None:
    await add_idle_mentors(database, 60)
    async with open_fault_proxy(database_url) as network:
        budget = {"soft_threshold": 1.0, "hard_deadline": 1.5, "platform_limit": 3.5}
        async with open_on(network.through(database_url), page_size=1, **budget) as scheduler:
            asked_at = trio.current_time()
            started = await scheduler.start(RunRequest(), asked_at=asked_at)
            await until_evaluated(started, 5)
            network.go_silent()
            summary = await started.summary()
            answered_after = trio.current_time() - asked_at
            closing_at = trio.current_time()
        closed_after = trio.current_time() - closing_at
    assert answered_after < 1.5 + ANSWER_MARGIN
    assert closed_after < 1.0
    assert summary.stop_reason is StopReason.HARD_DEADLINE
    assert (summary.remaining_known, summary.completed) == (False, False)
    assert summary.total_evaluated >= 5
    assert summary.total_active_mentors == (
        summary.total_evaluated + summary.total_errors + summary.total_unprocessed
    )


async def test_a_database_gone_silent_before_the_start_does_not_hold_up_the_answer(
    database: Database, database_url: str
) -> None:
    async with open_fault_proxy(database_url) as network:
        budget = {"soft_threshold": 0.5, "hard_deadline": 1.0, "platform_limit": 3.0}
        async with open_on(network.through(database_url), **budget) as scheduler:
            network.go_silent()
            asked_at = trio.current_time()
            with pytest.raises(DatabaseUnavailable):
                await scheduler.start(RunRequest(), asked_at=asked_at)
            assert trio.current_time() - asked_at < 1.0 + ANSWER_MARGIN


async def test_evaluations_slower_than_half_their_timeout_are_waited_for(
    database: Database, database_url: str
) -> None:
    """Nobody's time-out runs while somebody else has the connection."""
    await add_idle_mentors(database, 12)
    await query(
        database,
        "create function scheduler.scenario_slow(mentor_ids uuid[], as_of timestamptz, params jsonb) "
        "returns table (mentor_id uuid, user_id uuid, payload jsonb) language plpgsql stable as $$ "
        "begin perform pg_sleep(0.6); end $$",
    )
    await query(
        database,
        "insert into scheduler.scenario_evaluation_config (scenario_type, cooldown) values ('slow', '1 day')",
    )
    async with open_on(database_url, page_size=1, invocation_timeout=1.0) as scheduler:
        summary = await run_to_its_end(scheduler, scenario_types=("slow",))
    assert (summary["total_evaluated"], summary["total_errors"]) == (12, 0)


async def test_pages_that_postgres_refuses_end_the_run_with_what_was_done(
    database: Database, database_url: str
) -> None:
    """As a statement_timeout does, or a view that breaks on one row."""
    for number in range(1, 10):
        await add_mentor(database, id=UUID(int=number), last_activity=30)
    await query(
        database,
        "create or replace view scheduler.assignments as select mentor_id, "
        "case when mentor_id::text like '%7' then (1 / (expires_at - expires_at))::text else status end "
        "as status, expires_at from public.assignments",
    )
    budget = {"soft_threshold": 1.0, "hard_deadline": 1.5, "platform_limit": 3.5}
    async with open_on(database_url, page_size=1, **budget) as scheduler:
        summary = await run_to_its_end(scheduler)
    assert (summary["total_evaluated"], summary["total_dispatched"]) == (6, 6)
    assert summary["stop_reason"] == "database_unavailable"
    assert not summary["remaining_known"]


@pytest.mark.parametrize(
    ("settings", "at_once"),
    [
        ({}, 4),
        ({"max_concurrency": 2}, 2),
        ({"trigger_engine": "http://127.0.0.1:1/"}, 10),
        ({"trigger_engine": "http://127.0.0.1:1/", "max_concurrency": 30}, 30),
    ],
)
async def test_a_run_in_the_database_takes_four_connections_for_its_evaluations_and_no_more(
    settings: dict[str, Any], at_once: int, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Limits] = []

    async def look(context: object, budget: object, limits: Limits, *parts: object) -> None:
        seen.append(limits)
        raise ZeroDivisionError

    monkeypatch.setattr(engine.runner, "run", look)
    async with open_on(database_url, **settings) as scheduler:
        with pytest.raises(RunFailed):
            await run_to_its_end(scheduler)
    assert [limits.max_concurrency for limits in seen] == [at_once]
