"""What every MentorSource promises: one suite over the fake of the virtual-time tests, and over Postgres."""

from __future__ import annotations

from uuid import UUID

import pytest

from engine.database import Database
from engine.mentors.postgres import PostgresMentors
from engine.mentors.protocol import IdRange, MentorSource
from tests.fakes import FakeMentors, ids
from tests.postgres.conftest import add_mentor

TEN = ids(10)


@pytest.fixture(params=["fake", "postgres"])
async def source(request: pytest.FixtureRequest, database: Database) -> MentorSource:
    """Over the ids 1 to 10."""
    if request.param == "fake":
        return FakeMentors(TEN)
    for mentor_id in reversed(TEN):
        await add_mentor(database, id=mentor_id)
    return PostgresMentors(database, ["active"])


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
    page = await source.fetch_page(stretch, 100)
    assert (list(page.mentor_ids), page.is_last) == (found, True)
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
    seen: list[UUID] = []
    stretch = IdRange()
    while True:
        page = await source.fetch_page(stretch, page_size)
        seen += page.mentor_ids
        if page.is_last:
            break
        stretch = IdRange(after=page.mentor_ids[-1])
    assert seen == TEN
