"""Freshness from the ledger: whose runs count, for which scenario, and what reading them costs."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

import engine.freshness
from engine.database import Database, open_database
from engine.errors import StatementFailed
from engine.freshness import PAGE_SIZE, measure_freshness
from engine.run_id import new_run_id
from engine.statements import Statement, load_statement
from tests.postgres.conftest import PATIENCE, query, value

SHIPPED = ["expiry", "inactivity", "milestone"]
LIMIT = 900.0

# They cut the circle of ids in three.
A, B, C = (UUID(int=third << 125) for third in (1, 3, 6))

STOP_REASONS = {"completed": "finished", "partial": "soft_threshold"}

COVERING_RUNS = load_statement("covering_runs")


async def add_run(
    database: Database,
    age: float,
    *,
    verdict: str = "completed",
    started_after: UUID | None = None,
    low_water_mark: UUID | None = None,
    evaluated_types: list[str] | None = None,
    evaluated: int = 100,
) -> None:
    """A run that began `age` seconds ago; so many of the hundred mentors of its stretch were evaluated."""
    await query(
        database,
        "insert into scheduler.runs (id, started_at, hard_deadline_at, finished_at, verdict, stop_reason, "
        "started_after, low_water_mark, evaluated_types, stretch_mentors, stretch_evaluated, "
        "remaining_known) values ($1, now() - make_interval(secs => $2), now(), "
        "case when $3 then now() end, $4, $5, "
        "$6, $7, $8, 100, $9, true)",
        *(new_run_id(), age, verdict not in ("running", "abandoned"), verdict, STOP_REASONS.get(verdict)),
        *(started_after, low_water_mark, SHIPPED if evaluated_types is None else evaluated_types, evaluated),
    )


async def disable(database: Database, *scenario_types: str) -> None:
    await query(
        database,
        "update scheduler.scenario_evaluation_config set enabled = false where scenario_type = any ($1)",
        scenario_types,
    )


async def ages(database: Database) -> dict[str, int | None]:
    """In seconds as the runs were added, so without the moments since."""
    freshness = await measure_freshness(database, LIMIT)
    rounded = {}
    for scenario_type, age in freshness.ages.items():
        rounded[scenario_type] = None if age is None else int(age // PATIENCE * PATIENCE)
    return rounded


def of_each(age: int | None) -> dict[str, int | None]:
    return dict.fromkeys(SHIPPED, age)


# --- Which runs count ---


async def test_before_the_first_run_nobody_was_ever_reached(database: Database) -> None:
    freshness = await measure_freshness(database, LIMIT)
    assert freshness.never_covered == tuple(SHIPPED)
    assert not freshness.is_fresh


async def test_a_completed_run_is_as_old_as_its_beginning_on_the_clock_of_postgres(
    database: Database,
) -> None:
    await add_run(database, 600)
    freshness = await measure_freshness(database, LIMIT)
    assert all(age is not None and 600 <= age < 600 + PATIENCE for age in freshness.ages.values())
    assert list(freshness.ages) == SHIPPED
    assert (freshness.limit, freshness.is_fresh) == (LIMIT, True)


async def test_a_run_within_the_limit_is_fresh_and_an_older_one_is_stale(database: Database) -> None:
    await add_run(database, LIMIT + 1)
    assert (await measure_freshness(database, LIMIT)).stale
    assert (await measure_freshness(database, LIMIT + PATIENCE)).is_fresh


async def test_a_run_begun_before_the_clock_was_set_back_has_no_negative_age(database: Database) -> None:
    await add_run(database, -3600)
    assert await ages(database) == of_each(0)


async def test_a_dead_engine_turns_it_red_though_every_run_completes(database: Database) -> None:
    for age in (100, 400, 700):
        await add_run(database, age, evaluated=0)
    assert await ages(database) == of_each(None)
    await add_run(database, 1000)
    assert await ages(database) == of_each(1000)
    assert not (await measure_freshness(database, LIMIT)).is_fresh


async def test_a_run_counts_if_nine_tenths_of_its_stretch_were_evaluated(database: Database) -> None:
    await add_run(database, 100, evaluated=89)
    await add_run(database, 200, evaluated=90)
    assert await ages(database) == of_each(200)


async def test_runs_that_are_partial_by_design_and_reach_everybody_together_stay_green(
    database: Database,
) -> None:
    for round in range(3):
        ago = 900 * round
        await add_run(database, ago + 0, verdict="partial", started_after=C, low_water_mark=A)
        await add_run(database, ago + 300, verdict="partial", started_after=B, low_water_mark=C)
        await add_run(database, ago + 600, verdict="partial", started_after=A, low_water_mark=B)
    assert await ages(database) == of_each(600)
    assert (await measure_freshness(database, LIMIT)).is_fresh


async def test_partial_runs_that_leave_a_gap_reach_nobody_for_sure(database: Database) -> None:
    await add_run(database, 0, verdict="partial", started_after=A, low_water_mark=B)
    await add_run(database, 300, verdict="partial", low_water_mark=A)
    assert await ages(database) == of_each(None)
    await add_run(database, 600)
    assert await ages(database) == of_each(600)


@pytest.mark.parametrize("verdict", ["running", "abandoned", "failed"])
async def test_what_a_run_had_finished_counts_whatever_becomes_of_it(
    database: Database, verdict: str
) -> None:
    await add_run(database, 100, verdict=verdict, started_after=A, low_water_mark=B)
    await add_run(database, 400, verdict="partial", started_after=B, low_water_mark=A)
    await add_run(database, 700)
    assert await ages(database) == of_each(400)


@pytest.mark.parametrize("verdict", ["running", "abandoned", "failed", "partial"])
async def test_a_run_that_finished_nothing_does_not_count(database: Database, verdict: str) -> None:
    await add_run(database, 100, verdict=verdict, started_after=A)
    await add_run(database, 400)
    assert await ages(database) == of_each(400)


# --- For which scenario ---


async def test_a_run_of_a_subset_counts_for_its_scenarios_alone(database: Database) -> None:
    await add_run(database, 100, evaluated_types=["inactivity"])
    await add_run(database, 400)
    assert await ages(database) == {"expiry": 400, "inactivity": 100, "milestone": 400}


async def test_stretches_of_different_subsets_add_up_for_a_scenario_that_both_evaluated(
    database: Database,
) -> None:
    partial = {"verdict": "partial"}
    await add_run(database, 100, **partial, started_after=A, low_water_mark=B, evaluated_types=["expiry"])
    await add_run(database, 200, **partial, started_after=B, low_water_mark=A, evaluated_types=SHIPPED[:2])
    assert await ages(database) == {"expiry": 200, "inactivity": None, "milestone": None}


async def test_a_disabled_scenario_does_not_matter(database: Database) -> None:
    await add_run(database, 100, evaluated_types=["inactivity"])
    await disable(database, "expiry", "milestone")
    assert await ages(database) == {"inactivity": 100}
    assert (await measure_freshness(database, LIMIT)).is_fresh


async def test_a_run_does_not_count_for_a_scenario_that_was_disabled_since_it_began(
    database: Database,
) -> None:
    """Whoever it walked in between was not evaluated for it."""
    await add_run(database, 60)
    await disable(database, "expiry")
    await query(database, "update scheduler.scenario_evaluation_config set enabled = true")
    assert await ages(database) == {"expiry": None, "inactivity": 60, "milestone": 60}
    await add_run(database, 0)
    assert await ages(database) == of_each(0)


async def test_a_scenario_that_stays_enabled_while_others_change_keeps_its_runs(database: Database) -> None:
    await add_run(database, 60)
    await query(database, "update scheduler.scenario_evaluation_config set enabled = true, params = params")
    assert await ages(database) == of_each(60)


async def test_where_no_scenario_is_enabled_nobody_waits(database: Database) -> None:
    await disable(database, *SHIPPED)
    freshness = await measure_freshness(database, LIMIT)
    assert (freshness.ages, freshness.is_fresh) == ({}, True)


async def test_a_scenario_enabled_a_moment_ago_is_never_covered_until_a_run_evaluates_it(
    database: Database,
) -> None:
    await disable(database, "milestone")
    await add_run(database, 100, evaluated_types=["expiry", "inactivity"])
    await query(database, "update scheduler.scenario_evaluation_config set enabled = true")
    assert await ages(database) == {"expiry": 100, "inactivity": 100, "milestone": None}
    await add_run(database, 0)
    assert await ages(database) == of_each(0)


# --- How they are read ---


async def test_runs_of_many_pages_are_read_to_the_last_also_those_of_one_moment(database: Database) -> None:
    # Each covers its slice of the ids, so one left out is a gap, and any one twice makes up for none.
    runs = 2 * PAGE_SIZE + PAGE_SIZE // 2
    marks = [UUID(int=(2**128 - 1) * number // runs) for number in range(1, runs + 1)]
    for number, (after, mark) in enumerate(zip([None, *marks], marks, strict=False)):
        age = 100 + 10 * (number // 90)
        await add_run(database, age, verdict="partial", started_after=after, low_water_mark=mark)
    await query(database, "update scheduler.runs set started_at = date_trunc('minute', started_at)")
    await add_run(database, 1000)
    oldest = await value(
        database,
        "select extract(epoch from now() - min(started_at))::float from scheduler.runs "
        "where verdict = 'partial'",
    )
    freshness = await measure_freshness(database, LIMIT)
    assert all(age is not None and oldest <= age < oldest + PATIENCE for age in freshness.ages.values())


async def test_a_page_begins_behind_the_run_last_seen(database: Database) -> None:
    for age in range(5):
        await add_run(database, age)
    await query(database, "update scheduler.runs set started_at = date_trunc('hour', now())")
    seen: list[UUID] = []
    last_seen = (None, None)
    for length in (2, 2, 1, 0):
        runs = await database.fetch(COVERING_RUNS, *last_seen, SHIPPED, 2)
        assert len(runs) == length
        seen += [row["id"] for row in runs]
        last_seen = (runs[-1]["started_at"], runs[-1]["id"]) if runs else last_seen
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == 5


async def test_runs_of_other_scenarios_between_do_not_end_the_reading(database: Database) -> None:
    for age in range(PAGE_SIZE + 10):
        await add_run(database, age / 10, evaluated_types=["milestone"])
    await add_run(database, 500)
    assert await ages(database) == {"expiry": 500, "inactivity": 500, "milestone": 0}


async def test_a_page_without_news_for_a_scenario_is_not_the_last_one_read(database: Database) -> None:
    for age in range(PAGE_SIZE):
        await add_run(database, age / 10, verdict="partial", started_after=A, low_water_mark=B)
    assert await ages(database) == of_each(None)
    await add_run(database, 500)
    assert await ages(database) == of_each(500)


async def test_a_ledger_that_is_not_there_is_a_refused_statement(empty_database_url: str) -> None:
    async with open_database(empty_database_url) as database:
        with pytest.raises(StatementFailed):
            await measure_freshness(database, LIMIT)


# --- What it costs ---


async def fill(database: Database, runs: int) -> None:
    """A run a minute that took a third of the circle; every other one of a subset, every third dead."""
    await query(database, "truncate scheduler.runs cascade")
    await query(database, "alter table scheduler.runs set (autovacuum_enabled = off)")
    await query(
        database,
        "insert into scheduler.runs (id, started_at, hard_deadline_at, finished_at, verdict, stop_reason, "
        "started_after, low_water_mark, evaluated_types, stretch_mentors, stretch_evaluated) "
        "select md5(i::text)::uuid, now() - i * interval '1 minute', now(), now(), 'partial', "
        "'soft_threshold', md5('a' || i)::uuid, md5('b' || i)::uuid, "
        "case when i % 2 = 0 then $2::text[] else '{inactivity}' end, "
        "100, case when i % 3 = 0 then 0 else 100 end "
        "from generate_series(1, $1::int) i",
        *(runs, SHIPPED),
    )


async def plan_of(database: Database, sql: str, last_seen: str, plan_cache_mode: str) -> dict[str, Any]:
    """The plan of a page behind the run last seen, as it was executed."""
    async with database.open_transaction() as transaction:
        await query(transaction, f"set local plan_cache_mode = {plan_cache_mode}")
        prepare = f"prepare page (timestamptz, uuid, text[], bigint) as {sql}"
        await transaction.execute(Statement("prepare", prepare))
        arguments = f"{last_seen}, '{{{','.join(SHIPPED)}}}', {PAGE_SIZE}"
        for _ in range(2):  # the first reads what the planner wants to know from the catalog
            [row] = await query(
                transaction, f"explain (analyze, buffers, timing off, format json) execute page({arguments})"
            )
        await query(transaction, "deallocate page")
    [plan] = json.loads(row[0])
    [scan] = plan["Plan"]["Plans"]
    assert plan["Plan"]["Actual Rows"] == PAGE_SIZE
    if scan["Node Type"] == "Result":  # which puts together what comes from below
        [scan] = [below for below in scan["Plans"] if below["Parent Relationship"] == "Outer"]
    return {
        "scan": (scan["Node Type"], scan.get("Index Name")),
        "buffers": scan["Shared Hit Blocks"] + scan["Shared Read Blocks"],
    }


FIRST_PAGE = "null, null"
LATER_PAGE = "now() - interval '1000 minutes', '00000000-0000-0000-0000-000000000000'"


@pytest.mark.parametrize("plan_cache_mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("statistics", ["fresh", "none"])
async def test_a_page_costs_the_same_however_many_runs_there_are_and_wherever_it_is(
    database: Database, plan_cache_mode: str, statistics: str
) -> None:
    cost = []
    for runs in (10_000, 40_000):
        await fill(database, runs)
        if statistics == "fresh":
            await query(database, "vacuum (analyze) scheduler.runs")
        for last_seen in (FIRST_PAGE, LATER_PAGE):
            plan = await plan_of(database, COVERING_RUNS.sql, last_seen, plan_cache_mode)
            assert plan["scan"] == ("Index Scan", "runs_covering")
            cost.append(plan["buffers"])
    # A page of the table more or less, by chance of where it begins, or of the index, for its height.
    assert max(cost) - min(cost) <= 4, cost
    assert max(cost) < PAGE_SIZE // 2, cost


async def test_left_to_guess_who_evaluated_what_a_page_would_read_the_whole_ledger(
    database: Database,
) -> None:
    # What `case` is there for, and that the comparison above would notice its absence.
    guessing = "r.evaluated_types && $3"
    sql = COVERING_RUNS.sql.replace(f"case when {guessing} then true else false end", guessing)
    assert sql != COVERING_RUNS.sql
    await fill(database, 40_000)
    plan = await plan_of(database, sql, FIRST_PAGE, "force_custom_plan")
    assert plan["scan"][0] == "Sort"
    assert plan["buffers"] > 1_000


@pytest.mark.parametrize(("limit", "age"), [(150.0, 600.0), (650.0, None)])
async def test_a_part_that_no_run_reaches_is_looked_for_so_far_back_and_past_the_limit(
    limit: float, age: float | None, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two statements of three runs each; a limit further back has the last two runs read as well."""
    monkeypatch.setattr(engine.freshness, "PAGE_SIZE", 3)
    monkeypatch.setattr(engine.freshness, "STATEMENTS_AT_MOST", 2)
    for number in range(1, 9):
        await add_run(database, 100.0 * number, verdict="partial", low_water_mark=UUID(int=7))
    freshness = await measure_freshness(database, limit)
    assert not freshness.is_fresh
    assert list(freshness.ages.values()) == [age and pytest.approx(age, abs=10.0)] * len(SHIPPED)
