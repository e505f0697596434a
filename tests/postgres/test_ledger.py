"""The ledger: what its statements promise. The model of tests/model_database.py is held to the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import trio

from engine.chunk import Chunk
from engine.database import Database
from engine.errors import RunInProgress, StatementFailed
from engine.ledger import LEASE, RETENTION, Ledger, Verdict
from engine.low_water_mark import LowWaterMark
from engine.run_id import new_run_id
from engine.statements import load_statement
from engine.tally import StopReason, Summary, Tally, summarise
from engine.trigger.protocol import Evaluation
from tests.model_database import ModelDatabase, decoded
from tests.postgres.conftest import query, wait_until_blocked

HARD_DEADLINE = 28.0

COVERING_RUNS = load_statement("covering_runs")


class PostgresWorld:
    """The ledger on Postgres, and a look into its table."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def rows(self) -> Sequence[dict[str, Any]]:
        found = await query(self.database, "select * from scheduler.runs order by started_at, id")
        return [decoded(dict(row)) for row in found]

    async def pass_time(self, seconds: float) -> None:
        await query(
            self.database,
            "update scheduler.runs set started_at = started_at - make_interval(secs => $1), "
            "heartbeat_at = heartbeat_at - make_interval(secs => $1), "
            "finished_at = finished_at - make_interval(secs => $1), "
            "hard_deadline_at = hard_deadline_at - make_interval(secs => $1)",
            seconds,
        )

    async def disable(self, scenario_type: str) -> None:
        await query(
            self.database,
            "update scheduler.scenario_evaluation_config set enabled = false where scenario_type = $1",
            scenario_type,
        )


class ModelWorld:
    """The same of the model."""

    def __init__(self) -> None:
        self.database = ModelDatabase()

    async def rows(self) -> Sequence[dict[str, Any]]:
        return [vars(row) | decoded(row.counts) for row in self.database.runs]

    async def pass_time(self, seconds: float) -> None:
        self.database.clock_offset += seconds

    async def disable(self, scenario_type: str) -> None:
        self.database.scenario_types[scenario_type] = False


World = PostgresWorld | ModelWorld


@pytest.fixture
async def postgres_world(database: Database) -> PostgresWorld:
    return PostgresWorld(database)


@pytest.fixture(params=["postgres", "model"])
async def world(request: pytest.FixtureRequest, database: Database) -> World:
    return PostgresWorld(database) if request.param == "postgres" else ModelWorld()


@pytest.fixture
def ledger(world: World) -> Ledger:
    return Ledger(world.database)


async def begin(ledger: Ledger, *types: str, run_id: UUID | None = None) -> tuple[UUID, UUID | None]:
    """The run's id, and where it starts."""
    run_id = run_id or new_run_id()
    return run_id, await ledger.begin_run(run_id, types or None, HARD_DEADLINE)


def counted(mark: int | None) -> tuple[Tally, LowWaterMark]:
    """As many mentors as the mark's number, a third of them errors, one notification of each kind."""
    tally, low_water_mark = Tally(), LowWaterMark()
    if mark:
        tally.count_fetched(mark)
        errors = {"timeout": mark // 3}
        evaluated = tally.count_evaluation(mark, Evaluation({"inactivity": 1}, {"expiry": 1}, errors))
        low_water_mark.finish(Chunk(0, [UUID(int=number + 1) for number in range(mark)]), evaluated)
    return tally, low_water_mark


async def beat(ledger: Ledger, run_id: UUID, mark: int | None = None) -> bool:
    return await ledger.record_heartbeat(run_id, *counted(mark))


async def finish(
    ledger: Ledger, run_id: UUID, verdict: Verdict = Verdict.PARTIAL, mark: int | None = None
) -> bool:
    tally, low_water_mark = counted(mark)
    summary = summary_of(tally, run_id, unfetched=0 if verdict is Verdict.COMPLETED else 100)
    return await ledger.finish_run(run_id, verdict, summary, tally, low_water_mark)


def summary_of(tally: Tally, run_id: UUID, unfetched: int | None) -> Summary:
    return summarise(
        tally, unfetched=unfetched, ended_by=StopReason.SOFT_THRESHOLD, duration=1.5, run_id=run_id
    )


async def test_the_first_run_begins_at_the_lowest_id(ledger: Ledger, world: World) -> None:
    run_id, mark = await begin(ledger)
    assert mark is None
    [row] = await world.rows()
    assert (row["id"], row["verdict"], row["scenario_types"]) == (run_id, "running", None)
    assert row["evaluated_types"] == ["expiry", "inactivity", "milestone"]


async def test_a_disabled_scenario_is_not_among_those_that_a_run_evaluates(
    ledger: Ledger, world: World
) -> None:
    await world.disable("milestone")
    await begin(ledger)
    [row] = await world.rows()
    assert row["evaluated_types"] == ["expiry", "inactivity"]


@pytest.mark.parametrize("types", [(), ("expiry",)])
async def test_a_second_run_is_refused_for_what_is_left_of_the_holders_budget(
    types: tuple[str, ...], ledger: Ledger, world: World
) -> None:
    await begin(ledger)
    await world.pass_time(5)
    with pytest.raises(RunInProgress) as refused:
        await begin(ledger, *types)
    assert 20 < refused.value.retry_after <= HARD_DEADLINE - 5
    assert len(await world.rows()) == 1


async def test_whoever_is_refused_past_the_holders_budget_is_told_to_wait_a_second(
    ledger: Ledger, world: World
) -> None:
    run_id, _ = await begin(ledger)
    await world.pass_time(HARD_DEADLINE + 1)
    await beat(ledger, run_id)
    with pytest.raises(RunInProgress) as refused:
        await begin(ledger)
    assert refused.value.retry_after == 1.0


async def test_a_run_that_has_ended_gives_the_lease_back(ledger: Ledger) -> None:
    run_id, _ = await begin(ledger)
    assert await finish(ledger, run_id)
    await begin(ledger)


@pytest.mark.parametrize("verdict", [Verdict.PARTIAL, Verdict.FAILED])
async def test_a_run_that_was_not_completed_hands_its_low_water_mark_on(
    verdict: Verdict, ledger: Ledger
) -> None:
    run_id, _ = await begin(ledger)
    await finish(ledger, run_id, verdict, mark=30)
    assert (await begin(ledger))[1] == UUID(int=30)


async def test_a_completed_run_clears_the_low_water_mark(ledger: Ledger, world: World) -> None:
    for verdict in (Verdict.PARTIAL, Verdict.COMPLETED):
        run_id, _ = await begin(ledger)
        await finish(ledger, run_id, verdict, mark=30)
    assert (await begin(ledger))[1] is None
    assert (await world.rows())[1]["low_water_mark"] is None


async def test_the_runs_that_cover_are_those_with_nine_tenths_evaluated_newest_first(
    ledger: Ledger, world: World
) -> None:
    runs = []
    for failed in (10, 11, 0):
        run_id, _ = await begin(ledger, "expiry", "milestone")
        tally, low_water_mark = Tally(), LowWaterMark()
        tally.count_fetched(100)
        evaluated = tally.count_evaluation(100, Evaluation(errors={"timeout": failed}))
        low_water_mark.finish(Chunk(0, [UUID(int=number + 1) for number in range(100)]), evaluated)
        summary = summary_of(tally, run_id, unfetched=100)
        await ledger.finish_run(run_id, Verdict.PARTIAL, summary, tally, low_water_mark)
        runs.append(run_id)
        await world.pass_time(60)
    completed, _ = await begin(ledger)
    await finish(ledger, completed, Verdict.COMPLETED)
    await world.pass_time(60)
    await begin(ledger)

    async def covering(*scenario_types: str, last: Any = None, page_size: int = 10) -> Sequence[Any]:
        last_seen = (last["started_at"], last["id"]) if last else (None, None)
        return await world.database.fetch(COVERING_RUNS, *last_seen, scenario_types, page_size)

    found = await covering("milestone")
    assert [row["id"] for row in found] == [completed, runs[2], runs[0]]
    assert [row["is_completed"] for row in found] == [True, False, False]
    assert [row["low_water_mark"] for row in found] == [None, UUID(int=100), UUID(int=100)]
    assert found[1]["evaluated_types"] == ["expiry", "milestone"]
    assert [row["age"] // 60 for row in found] == [1, 2, 4]
    assert [row["id"] for row in await covering("inactivity")] == [completed]
    first = await covering("milestone", page_size=1)
    assert [row["id"] for row in await covering("milestone", last=first[0])] == [runs[2], runs[0]]


async def test_a_run_that_finished_nobody_hands_on_where_it_began(ledger: Ledger) -> None:
    for mark in (30, None, None):
        run_id, _ = await begin(ledger)
        await finish(ledger, run_id, mark=mark)
    assert (await begin(ledger))[1] == UUID(int=30)


async def test_a_mark_is_handed_to_runs_of_the_same_scenario_types_only(ledger: Ledger) -> None:
    for types, mark in (((), 10), (("expiry",), 20), (("expiry", "milestone"), 30)):
        run_id, _ = await begin(ledger, *types)
        await finish(ledger, run_id, mark=mark)
    for types, mark in (
        (("milestone",), None),
        (("expiry",), 20),
        (("expiry", "milestone"), 30),
        ((), 10),
    ):
        run_id, start = await begin(ledger, *types)
        assert start == (None if mark is None else UUID(int=mark))
        await finish(ledger, run_id)


async def test_a_heartbeat_keeps_the_lease(ledger: Ledger, world: World) -> None:
    run_id, _ = await begin(ledger)
    for _ in range(3):
        await world.pass_time(LEASE - 1)
        with pytest.raises(RunInProgress):
            await begin(ledger)
        assert await beat(ledger, run_id)


async def test_a_run_without_a_heartbeat_for_the_lease_is_abandoned_and_taken_over_at_its_mark(
    ledger: Ledger, world: World
) -> None:
    killed, _ = await begin(ledger)
    await beat(ledger, killed, mark=40)
    await world.pass_time(LEASE + 0.1)
    run_id, start = await begin(ledger)
    assert start == UUID(int=40)
    rows = await world.rows()
    assert [(row["id"], row["verdict"]) for row in rows] == [(killed, "abandoned"), (run_id, "running")]
    assert rows[0]["finished_at"] is None


async def test_a_take_over_is_told_of_once_and_no_other_beginning_is(world: World) -> None:
    told: list[str] = []
    ledger = Ledger(world.database, lambda: told.append("a run was abandoned"))
    await begin(ledger)
    with pytest.raises(RunInProgress):
        await begin(ledger)
    assert told == []
    await world.pass_time(LEASE + 0.1)
    await begin(ledger)
    with pytest.raises(RunInProgress):
        await begin(ledger)
    assert told == ["a run was abandoned"]


async def test_a_run_whose_lease_was_lost_writes_nothing_more(ledger: Ledger, world: World) -> None:
    frozen, _ = await begin(ledger)
    await beat(ledger, frozen, mark=40)
    await world.pass_time(LEASE + 0.1)
    await begin(ledger)
    before = await world.rows()
    assert not await beat(ledger, frozen, mark=50)
    assert not await finish(ledger, frozen, Verdict.COMPLETED, mark=60)
    assert await world.rows() == before


async def test_a_verdict_that_is_written_again_changes_nothing(ledger: Ledger, world: World) -> None:
    run_id, _ = await begin(ledger)
    await finish(ledger, run_id, mark=30)
    before = await world.rows()
    assert not await finish(ledger, run_id, Verdict.COMPLETED, mark=90)
    assert await world.rows() == before


@pytest.mark.parametrize("verdict", Verdict)
async def test_the_same_verdict_again_after_its_answer_was_lost_is_no_lost_lease(
    verdict: Verdict, ledger: Ledger, world: World
) -> None:
    run_id, _ = await begin(ledger)
    await finish(ledger, run_id, verdict, mark=30)
    before = await world.rows()
    assert await finish(ledger, run_id, verdict, mark=30)
    assert await world.rows() == before


@pytest.mark.parametrize("taking_over", [False, True])
async def test_of_twenty_runs_at_once_one_begins(taking_over: bool, ledger: Ledger, world: World) -> None:
    if taking_over:
        await begin(ledger)
        await world.pass_time(LEASE + 1)
    begun: list[UUID] = []
    refused: list[float] = []

    async def try_to_begin() -> None:
        try:
            run_id, _ = await begin(ledger)
        except RunInProgress as error:
            refused.append(error.retry_after)
        else:
            begun.append(run_id)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(try_to_begin)
    assert len(begun) == 1
    assert all(HARD_DEADLINE - 5 < each < HARD_DEADLINE + 5 for each in refused)
    verdicts = [row["verdict"] for row in await world.rows()]
    assert verdicts == ["abandoned", "running"] if taking_over else ["running"]


async def test_a_heartbeat_records_the_counts_and_the_mark(ledger: Ledger, world: World) -> None:
    run_id, _ = await begin(ledger)
    await beat(ledger, run_id, mark=30)
    [row] = await world.rows()
    assert row["low_water_mark"] == UUID(int=30)
    assert (row["stretch_mentors"], row["stretch_evaluated"]) == (30, 20)
    assert (row["total_evaluated"], row["total_errors"], row["total_unprocessed"]) == (20, 10, 0)
    assert (row["total_dispatched"], row["total_suppressed"]) == (1, 1)
    assert (row["dispatched"], row["suppressed"]) == ({"inactivity": 1}, {"expiry": 1})
    assert row["errors"] == {"timeout": 10}


async def test_the_rows_of_runs_older_than_the_retention_go(ledger: Ledger, world: World) -> None:
    kept = []
    for seconds in (RETENTION - 60, 120, 0):
        run_id, _ = await begin(ledger)
        await finish(ledger, run_id)
        kept.append(len(await world.rows()))
        await world.pass_time(seconds)
    assert kept == [1, 2, 2]
    assert (await world.rows())[-1]["id"] == run_id


# From here on, what only Postgres has.


async def test_the_verdict_is_recorded_with_the_summary(postgres_world: PostgresWorld) -> None:
    ledger = Ledger(postgres_world.database)
    run_id, _ = await begin(ledger)
    await finish(ledger, run_id, mark=30)
    [row] = await postgres_world.rows()
    assert (row["verdict"], row["stop_reason"], row["duration_ms"]) == ("partial", "soft_threshold", 1500)
    assert (row["total_active_mentors"], row["total_unprocessed"], row["remaining_known"]) == (130, 100, True)
    assert row["finished_at"] >= row["started_at"]


async def test_a_failed_run_has_no_stop_reason(postgres_world: PostgresWorld) -> None:
    ledger = Ledger(postgres_world.database)
    run_id, _ = await begin(ledger)
    await finish(ledger, run_id, Verdict.FAILED, mark=30)
    [row] = await postgres_world.rows()
    assert (row["verdict"], row["stop_reason"]) == ("failed", None)


LAST_RUN = """
    select scenario_type, last_run_evaluated, last_run_dispatched, last_run_suppressed
      from scheduler.scenario_evaluation_config order by scenario_type
"""


async def test_the_counts_of_the_last_run_stand_beside_each_scenario_that_it_evaluated(
    postgres_world: PostgresWorld,
) -> None:
    ledger = Ledger(postgres_world.database)
    run_id, _ = await begin(ledger, "expiry", "inactivity")
    await finish(ledger, run_id, mark=30)
    assert [tuple(row) for row in await query(postgres_world.database, LAST_RUN)] == [
        ("expiry", 20, 0, 1),
        ("inactivity", 20, 1, 0),
        ("milestone", None, None, None),
    ]


async def test_a_scenario_that_somebody_is_editing_does_not_hold_up_the_verdict(
    database: Database,
) -> None:
    ledger = Ledger(database)
    run_id, _ = await begin(ledger)
    async with database.open_transaction() as editing:
        await query(
            editing,
            "update scheduler.scenario_evaluation_config set cooldown = '2 days' "
            "where scenario_type = 'expiry'",
        )
        with trio.fail_after(5):
            assert await finish(ledger, run_id, mark=30)
    assert [row["last_run_evaluated"] for row in await query(database, LAST_RUN)] == [None, 20, 20]


async def test_whoever_waits_for_a_run_that_begins_at_the_same_moment_is_refused(database: Database) -> None:
    """Neither sees the other's row when it begins; the index does."""
    async with database.open_transaction() as first:
        await first.fetch(load_statement("begin_run"), new_run_id(), None, HARD_DEADLINE, LEASE)
        refused: list[RunInProgress] = []

        async def second() -> None:
            with pytest.raises(RunInProgress) as caught:
                await begin(Ledger(database))
            refused.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(second)
            await wait_until_blocked(database)
            await query(first, "commit")
            await query(first, "begin")
    assert [each.retry_after for each in refused] == [HARD_DEADLINE]


@asynccontextmanager
async def many_runs(database: Database, runs: int) -> AsyncIterator[None]:
    await query(
        database,
        "insert into scheduler.runs (id, verdict, stop_reason, started_at, finished_at, hard_deadline_at, "
        "evaluated_types, scenario_types, low_water_mark) "
        "select gen_random_uuid(), 'partial', 'soft_threshold', now() - make_interval(mins => i), now(), "
        "now(), '{expiry}', case when i % 100 = 7 then '{expiry}'::text[] end, gen_random_uuid() "
        "from generate_series(1, $1::int) i",
        runs,
    )
    await query(database, "analyze scheduler.runs")
    yield


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
async def test_beginning_a_run_costs_the_same_after_many_runs(plan: str, database: Database) -> None:
    statement = load_statement("begin_run")

    async def buffers() -> int:
        async with database.open_transaction() as transaction:
            await query(transaction, f"set local plan_cache_mode = {plan}")
            await query(
                transaction,
                f"prepare beginning (uuid, text[], double precision, double precision) as {statement.sql}",
            )
            [row] = await query(
                transaction,
                "explain (analyze, buffers, timing off, summary off, format json) execute beginning("
                "'00000000-0000-7000-8000-000000000001', '{milestone}', 28, 10)",
            )
            await query(transaction, "deallocate beginning")
            await query(transaction, "rollback")
            await query(transaction, "begin")
        root = json.loads(row[0])[0]["Plan"]
        return int(root["Shared Hit Blocks"] + root["Shared Read Blocks"])

    async with many_runs(database, 100):
        await buffers()
        few = await buffers()
    async with many_runs(database, 20_000):
        await buffers()
        assert await buffers() <= few + 20


@pytest.mark.parametrize(
    "nonsense",
    [
        "verdict = 'running', finished_at = now()",
        "verdict = 'completed', stop_reason = 'soft_threshold', finished_at = now()",
        "verdict = 'partial', finished_at = now()",
        "verdict = 'completed', stop_reason = 'finished', finished_at = now(), low_water_mark = id",
        "stretch_evaluated = 1",
        "verdict = 'great'",
        "errors = '[]'",
    ],
)
async def test_nonsense_can_not_be_stored(nonsense: str, database: Database) -> None:
    await begin(Ledger(database))
    with pytest.raises(StatementFailed, match="SQLSTATE 23514"):
        await query(database, f"update scheduler.runs set {nonsense}")
