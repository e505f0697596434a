"""The ledger read by an operator: what it says of a run, page by page, and what a page costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from engine.database import Database, open_database
from engine.errors import DatabaseUnavailable, NotReady
from engine.ledger import LEASE
from engine.run_record import RunRecord, find_run, list_runs
from engine.statements import Statement, load_statement
from tests.postgres.conftest import query, value

MANY = 20_000
MENTORS = [UUID("5eed0000-0000-4000-8000-00000000000a"), UUID("5eed0000-0000-4000-8000-00000000000b")]

# Buffers that one page may cost more than another: where the one before it ended is looked up, but for the
# first (4), and its rows begin anywhere on a page of the table, and of the index (2).
TOLERANCE = 6

LIST_RUNS = load_statement("list_runs")


def run_id(number: int) -> UUID:
    return UUID(int=0x0193 << 112 | number)


async def add_run(
    database: Database,
    number: int,
    verdict: str = "completed",
    *,
    started: float | None = None,
    silent: float = 0.0,
    changes: str = "",
) -> UUID:
    """A run that started, and was last heard of, so many seconds ago; by default one after the other."""
    stop_reason = {"completed": "'finished'", "partial": "'soft_threshold'"}.get(verdict, "null")
    finished = "null" if verdict in ("running", "abandoned") else "now()"
    await query(
        database,
        "insert into scheduler.runs (id, verdict, stop_reason, evaluated_types, started_at, heartbeat_at, "
        "finished_at, hard_deadline_at, remaining_known) "
        f"values ($1, $2, {stop_reason}, '{{expiry,inactivity}}', now() - make_interval(secs => $3), "
        f"now() - make_interval(secs => $4), {finished}, now(), $2 = 'completed')",
        *(run_id(number), verdict, 1000.0 - number if started is None else started, silent),
    )
    if changes:
        await query(database, f"update scheduler.runs set {changes} where id = $1", run_id(number))
    return run_id(number)


async def latest(database: Database, *, before: UUID | None = None, limit: int = 100) -> list[RunRecord]:
    return await list_runs(database, before=before, limit=limit, lease=LEASE)


async def listed(database: Database, **how: Any) -> list[UUID]:
    return [record.run_id for record in await latest(database, **how)]


async def only(database: Database) -> RunRecord:
    """The one run there is, which listing and finding must agree on."""
    [record] = await latest(database)
    found = await find_run(database, record.run_id, lease=LEASE)
    assert found is not None
    moving = {"duration_ms"} if record.verdict == "running" else set()
    for field in set(record.as_json()) - moving:
        assert getattr(found, field) == getattr(record, field)
    return record


# --- Pages ---


async def test_runs_are_listed_newest_first_whatever_their_ids(database: Database) -> None:
    for number, started in ((1, 10.0), (2, 30.0), (3, 20.0)):
        await add_run(database, number, started=started)
    assert await listed(database) == [run_id(1), run_id(3), run_id(2)]


async def test_an_empty_ledger_has_no_runs(database: Database) -> None:
    assert await listed(database) == []
    assert await find_run(database, run_id(1), lease=LEASE) is None


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_put_together_are_every_run_once_also_of_runs_that_began_at_the_same_time(
    limit: int, database: Database
) -> None:
    for number in range(1, 8):
        await add_run(database, number, started=100.0)
    await query(database, "update scheduler.runs set started_at = '2026-11-23' where id > $1", run_id(2))
    expected = await listed(database)
    pages = [await listed(database, limit=limit)]
    while pages[-1] and len(pages) <= len(expected):
        pages.append(await listed(database, before=pages[-1][-1], limit=limit))
    assert len(expected) == 7
    assert [run for page in pages for run in page] == expected
    assert {len(page) for page in pages[:-2]} <= {limit}


async def test_a_page_after_a_run_that_is_gone_is_empty_and_not_the_first_one_again(
    database: Database,
) -> None:
    await add_run(database, 1)
    assert await listed(database, before=run_id(2)) == []


async def test_a_run_that_begins_meanwhile_changes_no_later_page(database: Database) -> None:
    for number in (1, 2, 3):
        await add_run(database, number)
    [newest] = await listed(database, limit=1)
    await add_run(database, 4)
    assert await listed(database, before=newest) == [run_id(2), run_id(1)]


# --- What it says of a run ---


async def test_a_run_is_told_with_all_its_counts(database: Database) -> None:
    await add_run(
        database,
        1,
        "partial",
        changes="total_evaluated = 90, total_errors = 8, total_unprocessed = 2, duration_ms = 25012, "
        "total_dispatched = 3, total_suppressed = 4, "
        "scenario_types = '{expiry}', evaluated_types = '{expiry}', remaining_known = true, "
        "stretch_mentors = 80, stretch_evaluated = 75, "
        """dispatched = '{"expiry": 3}', suppressed = '{"expiry": 4}', errors = '{"timeout": 8}'""",
    )
    record = (await only(database)).as_json()
    for instant in ("started_at", "heartbeat_at", "finished_at"):
        assert datetime.fromisoformat(record.pop(instant)).utcoffset() == timedelta(0)
    assert json.loads(json.dumps(record)) == {
        "run_id": str(run_id(1)),
        "verdict": "partial",
        "stop_reason": "soft_threshold",
        "scenario_types": ["expiry"],
        "evaluated_types": ["expiry"],
        "resumed": False,
        "duration_ms": 25012,
        "total_active_mentors": 100,
        "total_evaluated": 90,
        "total_dispatched": 3,
        "total_suppressed": 4,
        "total_errors": 8,
        "total_unprocessed": 2,
        "remaining_known": True,
        "stretch_mentors": 80,
        "stretch_evaluated": 75,
        "dispatched": {"expiry": 3},
        "suppressed": {"expiry": 4},
        "errors": {"timeout": 8},
        "total_shards": 0,
        "total_workers": 0,
        "total_redelivered": 0,
    }


async def test_a_record_is_json_in_the_order_of_its_fields(database: Database) -> None:
    await add_run(database, 1, "running")
    record = await only(database)
    as_json = record.as_json()
    assert list(as_json) == list(RunRecord.__dataclass_fields__)
    assert json.loads(json.dumps(as_json)) == as_json
    assert (record.scenario_types, record.finished_at) == (None, None)


async def test_no_record_holds_a_mentors_id(database: Database) -> None:
    marks = f"started_after = '{MENTORS[0]}', low_water_mark = '{MENTORS[1]}'"
    for number, verdict in enumerate(("running", "partial", "failed", "abandoned"), start=1):
        await add_run(database, number, verdict, changes=marks)
    told = await latest(database)
    found = [await find_run(database, record.run_id, lease=LEASE) for record in told]
    records = [record for record in told + found if record is not None]
    assert len(records) == 8
    for record in records:
        assert record.resumed
        for said in (json.dumps(record.as_json()), repr(record)):
            assert not any(form in said for mentor in MENTORS for form in (str(mentor), mentor.hex))


@pytest.mark.parametrize(("mark", "resumed"), [("null", False), (f"'{MENTORS[0]}'", True)])
async def test_a_run_that_began_where_another_left_off_is_resumed(
    mark: str, resumed: bool, database: Database
) -> None:
    # Whether it has a mark of its own says nothing about that.
    await add_run(database, 1, "partial", changes=f"started_after = {mark}, low_water_mark = '{MENTORS[1]}'")
    assert (await only(database)).resumed is resumed


@pytest.mark.parametrize("verdict", ["completed", "partial", "failed", "abandoned"])
async def test_a_verdict_that_was_written_stays_however_long_ago(verdict: str, database: Database) -> None:
    await add_run(database, 1, verdict, started=86_400.0, silent=80_000.0)
    assert (await only(database)).verdict == verdict


@pytest.mark.parametrize(
    ("silent", "verdict"), [(0.0, "running"), (LEASE - 2, "running"), (LEASE + 0.1, "abandoned")]
)
async def test_a_running_run_that_nobody_holds_is_abandoned_before_the_next_one_says_so(
    silent: float, verdict: str, database: Database
) -> None:
    await add_run(database, 1, "running", started=20.0, silent=silent)
    assert (await only(database)).verdict == verdict
    assert await value(database, "select verdict from scheduler.runs") == "running"


async def test_the_lease_is_the_callers(database: Database) -> None:
    run = await add_run(database, 1, "running", started=60.0, silent=30.0)
    for lease, verdict in ((29.0, "abandoned"), (40.0, "running")):
        [record] = await list_runs(database, before=None, limit=1, lease=lease)
        found = await find_run(database, run, lease=lease)
        assert found is not None
        assert (record.verdict, found.verdict) == (verdict, verdict)


# --- How long it took ---


async def test_a_running_run_has_taken_the_time_until_now(database: Database) -> None:
    await add_run(database, 1, "running", started=5.0, silent=1.0)
    assert 5_000 <= (await only(database)).duration_ms < 9_000


@pytest.mark.parametrize("verdict", ["running", "abandoned"])
async def test_an_abandoned_run_took_until_its_last_heartbeat(verdict: str, database: Database) -> None:
    await add_run(database, 1, verdict, started=60.0, silent=40.0)
    record = await only(database)
    assert (record.verdict, record.duration_ms) == ("abandoned", 20_000)


async def test_a_finished_run_took_what_the_service_has_measured(database: Database) -> None:
    await add_run(database, 1, "completed", started=60.0, changes="duration_ms = 7")
    assert (await only(database)).duration_ms == 7


async def test_a_run_that_began_a_moment_after_the_question_has_taken_no_time(database: Database) -> None:
    await add_run(database, 1, "running", started=-1.0)
    assert (await only(database)).duration_ms == 0


# --- What can go wrong ---


async def test_a_database_that_is_not_migrated_is_said_to_be_with_the_mend(empty_database_url: str) -> None:
    async with open_database(empty_database_url) as database:
        for reading in (latest(database), find_run(database, run_id(1), lease=LEASE)):
            with pytest.raises(NotReady, match="scenario-scheduler migrate"):
                await reading


async def test_a_database_that_is_away_is_said_to_be() -> None:
    async with open_database("postgresql://nobody@127.0.0.1:1/nowhere") as database:
        with pytest.raises(DatabaseUnavailable):
            await latest(database)


# --- What a page costs ---


@pytest.fixture
async def many(database: Database) -> Database:
    """A run every five minutes for ten weeks."""
    await query(
        database,
        "insert into scheduler.runs (id, verdict, stop_reason, evaluated_types, started_at, heartbeat_at, "
        "finished_at, hard_deadline_at, remaining_known) "
        "select ('01930000' || lpad(to_hex(i), 24, '0'))::uuid, 'completed', 'finished', '{expiry}', "
        "t, t, t, t, true "
        f"from generate_series(1, {MANY}) i "
        f"cross join lateral (select now() + (i - {MANY}) * interval '5 min') at(t)",
    )
    return database


async def plan_of(
    database: Database, before: UUID | None, limit: int, plan_cache_mode: str
) -> dict[str, Any]:
    """The plan of a page, as it was executed."""
    async with database.open_transaction() as transaction:
        await query(transaction, f"set local plan_cache_mode = {plan_cache_mode}")
        prepare = f"prepare page (uuid, bigint, double precision) as {LIST_RUNS.sql}"
        await transaction.execute(Statement("prepare", prepare))
        arguments = f"nullif('{before}', 'None')::uuid, {limit}, {LEASE}"
        for _ in range(2):  # the first reads what the planner wants to know from the catalog
            [row] = await query(
                transaction, f"explain (analyze, buffers, timing off, format json) execute page({arguments})"
            )
        await query(transaction, "deallocate page")
    [plan] = json.loads(row[0])
    found: dict[str, Any] = plan["Plan"]
    return found


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize("limit", [51, 501])
@pytest.mark.parametrize("plan_cache_mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("statistics", ["fresh", "none"])
async def test_a_page_costs_the_same_wherever_it_is_and_sorts_nothing(
    many: Database, limit: int, plan_cache_mode: str, statistics: str
) -> None:
    if statistics == "fresh":
        await query(many, "vacuum (analyze) scheduler.runs")
    cost = {}
    for before in (None, run_id(MANY - 100), run_id(MANY // 2), run_id(1_000)):
        plan = await plan_of(many, before, limit, plan_cache_mode)
        assert plan["Actual Rows"] == limit
        for node in nodes(plan):
            tables = {below["Relation Name"] for below in nodes(node) if "Relation Name" in below}
            assert "Sort" not in node["Node Type"] or tables == {"shards"}  # of one run, and none is there
            if node.get("Relation Name") == "runs":
                assert node["Index Name"] in ("runs_started_at", "runs_pkey")
            elif tables == {"shards"}:
                assert "Relation Name" not in node or node["Actual Loops"] == 0
        cost[before] = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    assert max(cost.values()) <= min(cost.values()) + TOLERANCE, cost
