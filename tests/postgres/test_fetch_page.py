"""A page of mentors from Postgres: who is on it, and what it costs wherever it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from engine.database import Database
from engine.mentors.postgres import PostgresMentors
from engine.mentors.protocol import IdRange, Page
from engine.statements import Statement, load_statement
from tests.postgres.conftest import add_mentor, query

MENTORS = 20_000
LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)
CURSORS = {"early": UUID(int=1 << 120), "middle": UUID(int=1 << 127), "late": UUID(int=0xC0 << 120)}

# A page looks at mentors until it is full, two or three pages of an index each for their assignments. One in
# ten of them has no eligible one, and how many of these are among a hundred is chance: a dozen, more or less.
TOLERANCE = 0.15

FETCH_PAGE = load_statement("fetch_page")


@pytest.fixture
async def many(database: Database) -> Database:
    await query(
        database,
        "insert into public.peer_mentors (id, user_id, status, created_at) "
        "select md5('m' || i)::uuid, md5('u' || i)::uuid, "
        "case when i % 5 = 0 then 'paused' else 'active' end, '2020-01-01' "
        f"from generate_series(1, {MENTORS}) i",
    )
    await query(
        database,
        "insert into public.assignments select md5('a' || i)::uuid, md5('m' || i)::uuid, "
        f"case when i % 10 = 1 then 'ended' else 'active' end, '2099-01-01' "
        f"from generate_series(1, {MENTORS}) i",
    )
    return database


async def plan_of(
    database: Database, sql: str, cursor: UUID, page_size: int, plan_cache_mode: str
) -> dict[str, Any]:
    """The plan of a page from the cursor on, as it was executed."""
    async with database.open_transaction() as transaction:
        await query(transaction, f"set local plan_cache_mode = {plan_cache_mode}")
        prepare = f"prepare page (uuid, uuid, text[], bigint) as {sql}"
        await transaction.execute(Statement("prepare", prepare))
        arguments = f"'{cursor}', '{HIGHEST}', '{{active}}', {page_size}"
        for _ in range(2):  # the first reads what the planner wants to know from the catalog
            [row] = await query(
                transaction, f"explain (analyze, buffers, timing off, format json) execute page({arguments})"
            )
        await query(transaction, "deallocate page")
    [plan] = json.loads(row[0])
    found: dict[str, Any] = plan["Plan"]
    return found


def buffers(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def scans(plan: dict[str, Any]) -> Iterator[str]:
    if plan["Node Type"].endswith("Scan"):
        yield plan["Node Type"]
    for child in plan.get("Plans", ()):
        yield from scans(child)


async def vacuum(database: Database) -> None:
    await query(database, "vacuum (analyze) public.peer_mentors, public.assignments")


@pytest.mark.parametrize("page_size", [100, 2_000])
@pytest.mark.parametrize("plan_cache_mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("statistics", ["fresh", "none"])
async def test_a_page_costs_the_same_wherever_it_is_and_reads_indexes_alone(
    many: Database, page_size: int, plan_cache_mode: str, statistics: str
) -> None:
    if statistics == "fresh":
        await vacuum(many)
    cost = {}
    for name, cursor in CURSORS.items():
        plan = await plan_of(many, FETCH_PAGE.sql, cursor, page_size, plan_cache_mode)
        assert plan["Actual Rows"] == page_size
        assert set(scans(plan)) <= {"Index Scan", "Index Only Scan"}
        cost[name] = buffers(plan)
    assert max(cost.values()) <= min(cost.values()) * (1 + TOLERANCE), cost


@pytest.mark.parametrize(
    ("statistics", "instead"),
    [("fresh", ")"), ("none", "and a.mentor_id >= $1 and a.mentor_id <= $2)")],
    ids=["plainly", "with-bounds"],
)
async def test_left_to_join_a_page_would_cost_more_in_one_place_than_in_another(
    many: Database, statistics: str, instead: str
) -> None:
    # What `offset 0` is there for, and that the comparison above would notice its absence.
    if statistics == "fresh":
        await vacuum(many)
    sql = FETCH_PAGE.sql.replace("offset 0)", instead)
    assert sql != FETCH_PAGE.sql
    cost = [
        buffers(await plan_of(many, sql, cursor, 100, "force_custom_plan")) for cursor in CURSORS.values()
    ]
    assert max(cost) > min(cost) * (1 + TOLERANCE), cost


# --- Who is on it ---


async def test_the_first_and_the_last_id_there_can_be_are_reached(database: Database) -> None:
    for id in (HIGHEST, LOWEST, UUID(int=7)):
        await add_mentor(database, id=id)
    mentors = PostgresMentors(database, ["active"])
    ids = []
    stretch = IdRange()
    for _ in range(4):
        page = await mentors.fetch_page(stretch, 1)
        ids += page.mentor_ids
        stretch = IdRange(after=page.mentor_ids[-1] if page.mentor_ids else None)
        if page.is_last:
            break
    assert ids == [LOWEST, UUID(int=7), HIGHEST]
    assert await mentors.count(IdRange()) == 3
    assert await mentors.fetch_page(IdRange(after=HIGHEST), 1) == Page((), is_last=True)
    assert await mentors.count(IdRange(after=HIGHEST)) == 0


async def test_a_stretch_excludes_its_beginning_and_includes_its_end(database: Database) -> None:
    for id in range(1, 6):
        await add_mentor(database, id=UUID(int=id))
    mentors = PostgresMentors(database, ["active"])
    stretch = IdRange(after=UUID(int=1), until=UUID(int=4))
    assert await mentors.fetch_page(stretch, 10) == Page([UUID(int=id) for id in (2, 3, 4)], is_last=True)
    assert await mentors.count(stretch) == 3


async def test_a_page_that_is_full_is_not_the_last_and_a_shorter_one_is(database: Database) -> None:
    for id in range(1, 251):
        await add_mentor(database, id=UUID(int=id), last_activity=None)
    mentors = PostgresMentors(database, ["active"])
    pages = []
    stretch = IdRange()
    while not pages or not pages[-1].is_last:
        pages.append(await mentors.fetch_page(stretch, 100))
        stretch = IdRange(after=pages[-1].mentor_ids[-1])
    assert [len(page.mentor_ids) for page in pages] == [100, 100, 50]


async def test_only_active_mentors_with_an_eligible_assignment_are_walked_and_each_once(
    database: Database,
) -> None:
    walked = await add_mentor(database)
    for status in ("paused", "deactivated", None):
        await add_mentor(database, status=status)
    await add_mentor(database, assignment="ended")
    other = await add_mentor(database, assignment="on leave")
    without = await add_mentor(database)
    await query(database, "delete from public.assignments where mentor_id = $1", without.id)
    for _ in range(3):
        await query(
            database,
            "insert into public.assignments select gen_random_uuid(), $1, 'active', '2099-01-01'",
            walked.id,
        )
    for statuses, expected in (
        (["active"], {walked.id}),
        (["active", "on leave"], {walked.id, other.id}),
        (["nothing"], set()),
    ):
        mentors = PostgresMentors(database, statuses)
        page = await mentors.fetch_page(IdRange(), 10)
        assert sorted(page.mentor_ids) == sorted(expected)
        assert await mentors.count(IdRange()) == len(expected)
