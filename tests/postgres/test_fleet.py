"""A run in shards over a real Postgres: a fleet within the process, the engine in the database."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import trio

import engine.fleet.attempt
import engine.fleet.shard_ledger
from engine import (
    ConfigurationError,
    RunInProgress,
    RunRequest,
    Scheduler,
    StopReason,
    Summary,
    grant_rights,
    load_settings,
    open_scheduler,
    open_worker,
    service_database_url,
    set_service_password,
)
from engine.budget import Budget
from engine.database import Database, open_database
from engine.errors import StatementFailed
from engine.migrations import load_migrations, migrate
from engine.run import Limits
from engine.settings import ANSWER_MARGIN
from engine.statements import Statement
from engine.tally import Tally, summarise
from engine.trigger.protocol import RunContext
from tests.postgres.conftest import count_notifications, query, value, wait_until, wait_until_blocked

MENTORS = 300
FINISHED = "select count(*) from scheduler.shards where state = 'finished'"


@pytest.fixture
async def many(database: Database) -> Database:
    """Each is due one `inactivity` and nothing else."""
    await query(
        database,
        "insert into public.peer_mentors (id, user_id, status, created_at) "
        "select md5('m' || i)::uuid, md5('u' || i)::uuid, 'active', now() - interval '1 year' "
        f"from generate_series(1, {MENTORS}) i",
    )
    await query(
        database,
        "insert into public.assignments (id, mentor_id, status, expires_at) "
        "select md5('a' || i)::uuid, md5('m' || i)::uuid, 'active', '2099-01-01' "
        f"from generate_series(1, {MENTORS}) i",
    )
    return database


@asynccontextmanager
async def open_fleet_on(url: str, **given: Any) -> AsyncIterator[Scheduler]:
    settings = {"database_url": url, "fleet": "in-process", "fleet_shards": 12, "page_size": 10}
    async with open_scheduler(load_settings(**(settings | given))) as scheduler:
        yield scheduler


async def test_a_run_in_shards_reaches_everybody_once_and_the_ledger_has_it(
    many: Database, database_url: str
) -> None:
    """As the role that the service logs in as."""
    password = secrets.token_hex(16)
    await grant_rights(many)
    await set_service_password(many, password)
    async with open_fleet_on(service_database_url(database_url, password)) as scheduler:
        summary = await (await scheduler.start(RunRequest())).summary()
        assert (summary.total_active_mentors, summary.total_evaluated) == (MENTORS, MENTORS)
        assert (summary.completed, summary.total_dispatched) == (True, MENTORS)
        assert await count_notifications(many) == MENTORS
        shards = await scheduler.list_shards(summary.run_id)
        assert sum(shard.total_evaluated for shard in shards) == MENTORS
        assert {shard.state for shard in shards} == {"finished"}
        # By a sample of all of them, as so few are.
        assert [shard.total_evaluated for shard in shards] == [MENTORS // 12] * 12
        assert (await scheduler.measure_freshness()).is_fresh
        record = await scheduler.find_run(summary.run_id)
        assert record is not None
        assert (record.verdict, record.stretch_mentors, record.stretch_evaluated) == (
            "completed",
            MENTORS,
            MENTORS,
        )
        assert not record.resumed
        again = await (await scheduler.start(RunRequest())).summary()
        assert (again.completed, again.total_suppressed) == (True, MENTORS)
        # As if the first of its shards had been cut in the middle.
        await query(many, "update scheduler.runs set verdict = 'partial', stop_reason = 'draining'")
        cut = "is_completed = false, low_water_mark = $1 where run_id = $2 and shard_index = 0"
        mark = await value(many, "select id from public.peer_mentors order by id offset 7 limit 1")
        await query(many, f"update scheduler.shards set {cut}", mark, again.run_id)
        resumed = await (await scheduler.start(RunRequest())).summary()
        assert (resumed.completed, resumed.total_suppressed) == (True, MENTORS)
        record = await scheduler.find_run(resumed.run_id)
        assert record is not None
        assert record.resumed
        assert (await scheduler.list_runs(before=None, limit=1))[0].resumed
        first = "select after_id from scheduler.shards where run_id = $1 and shard_index = 0"
        assert await value(many, first, resumed.run_id) == mark
    assert await count_notifications(many) == MENTORS


async def test_a_partial_run_is_resumed_and_a_stop_reason_of_its_own_is_storable(
    many: Database, database_url: str
) -> None:
    """Whoever wants to notify waits: of the shards in hand nothing comes, and the others are not begun."""
    margin = {"platform_limit": 3.2 + ANSWER_MARGIN}
    short = {"soft_threshold": 1.0, "hard_deadline": 3.2, "invocation_timeout": 10.0} | margin
    async with open_fleet_on(database_url, **short) as scheduler:
        async with many.open_transaction() as transaction:
            await query(transaction, "lock table scheduler.cooldowns in exclusive mode")
            started = await scheduler.start(RunRequest())
            await wait_until_blocked(many, 5)
            summary = await started.summary()
        assert (summary.total_evaluated, summary.total_unprocessed) == (0, MENTORS)
        assert (summary.stop_reason, summary.remaining_known) == (StopReason.HARD_DEADLINE, True)
        # Those in hand told it first, and then the ledger.
        await wait_until(many, lambda count: count == 5, FINISHED)
        states = [shard.state for shard in await scheduler.list_shards(summary.run_id)]
        assert states == ["finished"] * 5 + ["withdrawn"] * 7
        resumed = await (await scheduler.start(RunRequest())).summary()
        assert (resumed.completed, resumed.total_dispatched) == (True, MENTORS)
    assert await count_notifications(many) == MENTORS
    await query(many, "update scheduler.runs set verdict = 'partial', stop_reason = 'fleet_unavailable'")
    with pytest.raises(StatementFailed, match="23514"):
        await query(many, "update scheduler.runs set stop_reason = 'bored'")


async def test_what_a_killed_process_left_is_resumed_by_another_one(
    many: Database, database_url: str
) -> None:
    """Once its lease is over, which is brought forward here."""
    async with many.open_transaction() as transaction:
        await query(transaction, "lock table scheduler.cooldowns in exclusive mode")
        async with open_fleet_on(database_url) as killed:
            await killed.start(RunRequest())
            await wait_until_blocked(many, 5)
    assert await value(many, "select verdict from scheduler.runs") == "running"
    await query(many, "update scheduler.runs set heartbeat_at = heartbeat_at - interval '1 minute'")
    async with open_fleet_on(database_url) as scheduler:
        summary = await (await scheduler.start(RunRequest())).summary()
        records = await scheduler.list_runs(before=None, limit=10)
    assert [record.verdict for record in records] == ["completed", "abandoned"]
    assert [record.resumed for record in records] == [False, False]  # nothing had been finished
    assert (summary.completed, summary.total_dispatched) == (True, MENTORS)


async def test_two_fleets_over_one_database_begin_one_run(many: Database, database_url: str) -> None:
    async with open_fleet_on(database_url) as one, open_fleet_on(database_url) as other:
        async with many.open_transaction() as transaction:
            await query(transaction, "lock table scheduler.cooldowns in exclusive mode")
            started = await one.start(RunRequest())
            await wait_until_blocked(many, 1)
            with pytest.raises(RunInProgress):
                await other.start(RunRequest())
        assert (await started.summary()).completed


async def test_no_evaluation_that_hangs_keeps_the_ledger_from_its_connection(
    many: Database, database_url: str
) -> None:
    """Five shards, each with its page, its heartbeat and its evaluation, and whoever asks meanwhile."""
    async with open_fleet_on(database_url) as scheduler:
        async with many.open_transaction() as transaction:
            await query(transaction, "lock table scheduler.cooldowns in exclusive mode")
            started = await scheduler.start(RunRequest())
            await wait_until_blocked(many, 5)
            with trio.fail_after(5):
                await scheduler.check_ready()
                assert len(await scheduler.list_runs(before=None, limit=10)) == 1
        assert (await started.summary()).completed


@pytest.mark.parametrize(
    ("settings", "at_once"),
    [
        ({}, 1),  # of four evaluations in the database, five shards have one each
        ({"fleet_shards_at_once": 2}, 2),
        ({"fleet_shards_at_once": 1}, 4),
        ({"fleet_shards_at_once": 1, "max_concurrency": 3}, 3),
        ({"trigger_engine": "http://127.0.0.1:1/"}, 2),
        ({"trigger_engine": "http://127.0.0.1:1/", "max_concurrency": 30}, 6),
    ],
)
async def test_each_shard_has_its_share_of_the_invocations_in_flight(
    settings: dict[str, Any], at_once: int, many: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()

    async def look(context: RunContext, budget: Budget, limits: Limits, *parts: Any) -> Summary:
        seen.add(limits.max_concurrency)
        return summarise(
            Tally(), unfetched=0, ended_by=StopReason.FINISHED, duration=0.0, run_id=context.run_id
        )

    monkeypatch.setattr(engine.fleet.attempt, "run", look)
    async with open_fleet_on(database_url, **settings) as scheduler:
        await (await scheduler.start(RunRequest())).summary()
    assert seen == {at_once}


async def test_a_service_that_stops_writes_down_what_its_last_shards_have_told(
    many: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = engine.fleet.shard_ledger._FINISH_SHARD
    slowly = finish.sql.replace("where run_id", "where pg_sleep(0.3) is not null and run_id")
    monkeypatch.setattr(engine.fleet.shard_ledger, "_FINISH_SHARD", Statement(finish.name, slowly))
    async with open_fleet_on(database_url, fleet_shards=2) as scheduler:
        summary = await (await scheduler.start(RunRequest())).summary()
        assert summary.completed
        scheduler.drain()
        await scheduler.wait_until_idle()
    assert await value(many, FINISHED) == 2


async def test_a_worker_needs_the_url_of_a_fleet(database_url: str) -> None:
    for fleet in (None, "in-process"):
        with pytest.raises(ConfigurationError, match="SCHEDULER_FLEET"):
            async with open_worker(load_settings(database_url=database_url, fleet=fleet)):
                pass


async def test_the_migration_keeps_what_covered(empty_database_url: str) -> None:
    """`covers` is made anew: of runs that were there before, it says what it said."""
    marks = [None, UUID(int=5)]
    async with open_database(empty_database_url) as database:
        before = [each for each in load_migrations() if each.version < "20261126000030"]
        await migrate(database, with_example_tables=True)
        async with database.open_transaction() as transaction:
            await transaction.execute(Statement("drop", "drop schema scheduler cascade"))
            await transaction.execute(Statement("views", "create schema scheduler"))
            for each in before:
                await transaction.execute(each.script)
        for number, mark in enumerate(marks):
            await query(
                database,
                "insert into scheduler.runs (id, hard_deadline_at, finished_at, verdict, stop_reason, "
                "low_water_mark, evaluated_types) values ($1, now(), now(), 'partial', 'draining', $2, '{}')",
                *(UUID(int=number), mark),
            )
        [shards] = [each for each in load_migrations() if each.version == "20261126000030"]
        async with database.open_transaction() as transaction:
            await transaction.execute(shards.script)
        rows = await query(database, "select covers, is_sharded from scheduler.runs order by id")
        assert [tuple(row) for row in rows] == [(False, False), (True, False)]
