"""What every MentorSource promises: one suite over the fake of the virtual-time tests, Postgres, and REST.

`rest` is a stand-in for PostgREST, see tests/postgrest.py. For the real one beside it set:

- `POSTGREST_URL`, where it listens, or a gateway before it;
- `POSTGREST_KEY`, a token for a role that may read everything;
- `POSTGREST_DATABASE_URL`, the database behind it, as the owner of its tables. It is emptied, so its name has
  to end with `_test`. It needs the tables of `engine/sql/example_tables.sql` and a foreign key from
  `assignments.mentor_id` to `peer_mentors.id`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from engine.database import Database, open_database
from engine.mentors.postgres import PostgresMentors
from engine.mentors.protocol import IdRange, MentorSource
from engine.mentors.rest import open_rest_mentors
from tests.fakes import FakeMentors, ids
from tests.postgres.conftest import FOREIGN_KEY, REST_KEY, add_assignment, add_mentor, query, value
from tests.postgrest import open_postgrest

TEN = ids(10)
EVERYBODY = IdRange()
OVER_REST = ["rest", "postgrest"] if os.environ.get("POSTGREST_URL") else ["rest"]


@pytest.fixture(params=["fake", "postgres", *OVER_REST])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


real = pytest.mark.parametrize("kind", ["postgres", *OVER_REST], indirect=True)
over_rest = pytest.mark.parametrize("kind", OVER_REST, indirect=True)


@pytest.fixture
async def tables(kind: str, database: Database) -> AsyncIterator[Database]:
    """Where mentors are to be put, empty."""
    if kind != "postgrest":
        await query(database, FOREIGN_KEY)
        yield database
        return
    async with open_database(os.environ["POSTGREST_DATABASE_URL"]) as behind:
        assert (await value(behind, "select current_database()::text")).endswith("_test")
        await query(behind, "truncate public.peer_mentors, public.assignments, public.activities cascade")
        yield behind


@asynccontextmanager
async def open_source(
    kind: str, tables: Database, statuses: Sequence[str] = ("active",)
) -> AsyncIterator[MentorSource]:
    if kind == "postgres":
        yield PostgresMentors(tables, statuses)
    elif kind == "rest":
        async with (
            open_postgrest(tables, key=REST_KEY) as postgrest,
            open_rest_mentors(postgrest.url, REST_KEY, statuses) as mentors,
        ):
            yield mentors
    else:
        url, key = os.environ["POSTGREST_URL"], os.environ["POSTGREST_KEY"]
        async with open_rest_mentors(url, key, statuses) as mentors:
            yield mentors


@pytest.fixture
async def source(kind: str, tables: Database) -> AsyncIterator[MentorSource]:
    """Over the ids 1 to 10."""
    if kind == "fake":
        yield FakeMentors(TEN)
        return
    for mentor_id in reversed(TEN):
        await add_mentor(tables, id=mentor_id)
    async with open_source(kind, tables) as mentors:
        yield mentors


async def walk(source: MentorSource, stretch: IdRange = EVERYBODY, page_size: int = 100) -> list[UUID]:
    """Everybody in the stretch, as a run comes by them."""
    seen: list[UUID] = []
    while True:
        page = await source.fetch_page(stretch, page_size)
        assert len(page.mentor_ids) <= page_size
        seen += page.mentor_ids
        if page.is_last:
            return seen
        stretch = IdRange(page.mentor_ids[-1], stretch.until)


def at(number: int) -> UUID:
    return UUID(int=number)


@pytest.mark.parametrize(
    ("stretch", "found"),
    [
        (IdRange(), TEN),
        (IdRange(after=at(4)), TEN[4:]),
        (IdRange(until=at(4)), TEN[:4]),
        (IdRange(after=at(2), until=at(4)), TEN[2:4]),
        (IdRange(after=at(10)), []),
        (IdRange(after=at(4), until=at(4)), []),
        (IdRange(after=at(6), until=at(4)), []),
        (IdRange(until=at(0)), []),
        (IdRange(after=UUID(int=2**128 - 1)), []),
    ],
)
async def test_a_stretch_begins_behind_its_first_id_and_ends_with_its_last(
    stretch: IdRange, found: list[UUID], source: MentorSource
) -> None:
    assert await walk(source, stretch) == found
    assert await source.count(stretch) == len(found)


async def test_a_page_holds_the_first_mentors_of_its_stretch(source: MentorSource) -> None:
    page = await source.fetch_page(IdRange(after=at(2)), 3)
    assert (list(page.mentor_ids), page.is_last) == (TEN[2:5], False)


async def test_a_full_page_is_never_the_last(source: MentorSource) -> None:
    page = await source.fetch_page(IdRange(after=at(5)), 5)
    assert (list(page.mentor_ids), page.is_last) == (TEN[5:], False)
    behind_it = await source.fetch_page(IdRange(after=at(10)), 5)
    assert (list(behind_it.mentor_ids), behind_it.is_last) == ([], True)


@pytest.mark.parametrize("page_size", range(1, 13))
async def test_pages_put_together_are_everybody_once(page_size: int, source: MentorSource) -> None:
    assert await walk(source, page_size=page_size) == TEN


@real
async def test_only_active_mentors_with_an_eligible_assignment_are_walked_and_each_once(
    kind: str, tables: Database
) -> None:
    walked = await add_mentor(tables)
    for status in ("paused", "deactivated", None):
        await add_mentor(tables, status=status)
    await add_mentor(tables, assignment="ended")
    await add_mentor(tables, assignment=None)
    without = await add_mentor(tables)
    await query(tables, "delete from public.assignments where mentor_id = $1", without.id)
    for status in ("active", "active", "ended"):
        await add_assignment(tables, walked.id, status)
    async with open_source(kind, tables) as source:
        assert await walk(source) == [walked.id]
        assert await source.count(IdRange()) == 1


# With what PostgREST's grammar reserves, what URLs do, and what SQL does.
STATUSES = [
    "on leave",
    " led ",
    "a,b",
    "(x)",
    'she said "yes"',
    "back\\slash",
    '\\"',
    '"',
    "a.b:c",
    "100%25",
    "a+b&c=d#e?f/g",
    "é 中 \U0001f600",
    "null",
    "{a}",
    "'; drop table public.assignments; --",
]


@real
@pytest.mark.parametrize("status", STATUSES)
async def test_an_eligible_status_may_be_any_text(status: str, kind: str, tables: Database) -> None:
    mentor = await add_mentor(tables, assignment=status)
    for other in ("active", status.strip() + "x", status.replace("\\", ""), status.strip('" ')):
        if other != status:
            await add_mentor(tables, assignment=other)
    async with open_source(kind, tables, [status]) as source:
        assert await walk(source) == [mentor.id]
        assert await source.count(IdRange()) == 1


@real
async def test_a_mentor_with_any_of_the_eligible_statuses_is_walked(kind: str, tables: Database) -> None:
    mentors = [await add_mentor(tables, assignment=status) for status in STATUSES]
    await add_mentor(tables, assignment="ended")
    async with open_source(kind, tables, STATUSES) as source:
        assert await walk(source) == sorted(mentor.id for mentor in mentors)


async def add_ten_thousand(tables: Database) -> None:
    """Ids random; a fifth of them not active, a tenth without an eligible assignment, some with several."""
    await query(
        tables,
        "insert into public.peer_mentors (id, status) select gen_random_uuid(), "
        "case when i % 10 = 0 then 'paused' when i % 10 = 1 then 'deactivated' else 'active' end "
        "from generate_series(1, 10000) i",
    )
    await query(
        tables,
        "insert into public.assignments (id, mentor_id, status) "
        "select gen_random_uuid(), m.id, case when m.n % 9 = 0 and nth = 0 then 'ended' else 'active' end "
        "from (select id, row_number() over (order by id) as n from public.peer_mentors) m "
        "cross join lateral generate_series(0, case when m.n % 7 = 0 then 3 else 0 end) nth",
    )
    await query(tables, "analyze public.peer_mentors, public.assignments")


@over_rest
async def test_ten_thousand_mentors_come_by_in_the_same_order_from_rest_and_from_postgres(
    kind: str, tables: Database
) -> None:
    """Pages of 100, and pages above the 1,000 rows at which Supabase caps an answer."""
    await add_ten_thousand(tables)
    postgres = PostgresMentors(tables, ["active"])
    in_order = await walk(postgres, page_size=2_500)
    assert 6_000 < len(in_order) < 8_000
    assert in_order == sorted(in_order)
    halfway = IdRange(after=in_order[3_333], until=in_order[5_555])
    async with open_source(kind, tables) as rest:
        for page_size in (100, 1_000, 2_500):
            assert await walk(rest, page_size=page_size) == in_order
        assert await walk(rest, halfway, 1_500) == in_order[3_334:5_556]
        assert await rest.count(IdRange()) == await postgres.count(IdRange()) == len(in_order)
        assert await rest.count(halfway) == await postgres.count(halfway) == 2_222
