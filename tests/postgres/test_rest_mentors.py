"""Mentors over REST from a stand-in for PostgREST: its cap, its refusals, and what a run makes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from engine import RunRequest, load_settings, open_scheduler
from engine.database import Database
from engine.errors import DatabaseUnavailable
from engine.fleet.plan import plan
from engine.mentors.protocol import IdRange, MentorSource
from engine.mentors.rest import open_rest_mentors
from tests.fakes import ids
from tests.postgres.conftest import FOREIGN_KEY, REST_KEY, add_assignment, add_mentor, query
from tests.postgrest import Postgrest, open_postgrest


@asynccontextmanager
async def mentors_of(postgrest: Postgrest, key: str = REST_KEY) -> AsyncIterator[MentorSource]:
    async with open_rest_mentors(postgrest.url, key, ["active"]) as mentors:
        yield mentors


async def test_a_cap_below_the_page_size_ends_no_walk(database: Database) -> None:
    for mentor_id in ids(8):
        await add_mentor(database, id=mentor_id)
    await query(database, FOREIGN_KEY)
    seen: list[list[UUID]] = []
    stretch = IdRange()
    async with (
        open_postgrest(database, key=REST_KEY, max_rows=3) as postgrest,
        mentors_of(postgrest) as mentors,
    ):
        while not (page := await mentors.fetch_page(stretch, 100)).is_last:
            seen.append(list(page.mentor_ids))
            stretch = IdRange(after=page.mentor_ids[-1])
        assert await mentors.count(IdRange()) == 8
    assert seen == [ids(8)[:3], ids(8)[3:6], ids(8)[6:]]


async def test_shards_are_cut_between_the_lowest_id_and_the_highest(database: Database) -> None:
    """However close together they lie, as ids that somebody counted."""
    for mentor_id in ids(8):
        await add_mentor(database, id=mentor_id)
    await query(database, FOREIGN_KEY)
    async with open_postgrest(database, key=REST_KEY) as postgrest, mentors_of(postgrest) as mentors:
        shards = plan(await mentors.sample(64), 4)
        assert [await mentors.count(each) for each in shards] == [2, 2, 2, 2]


async def test_of_nobody_there_is_no_sample(postgrest: Postgrest) -> None:
    async with mentors_of(postgrest) as mentors:
        assert list(await mentors.sample(64)) == []


async def sentence_of(postgrest: Postgrest, key: str = REST_KEY) -> str:
    """What is said of a page, and of a count."""
    async with mentors_of(postgrest, key) as mentors:
        with pytest.raises(DatabaseUnavailable) as of_a_page:
            await mentors.fetch_page(IdRange(after=UUID(int=1)), 10)
        with pytest.raises(DatabaseUnavailable) as of_a_count:
            await mentors.count(IdRange(after=UUID(int=1)))
    assert str(of_a_page.value) == str(of_a_count.value)
    assert key not in str(of_a_page.value)
    return str(of_a_page.value)


async def test_a_wrong_key_is_said(postgrest: Postgrest) -> None:
    assert "check SCHEDULER_SERVICE_ROLE_KEY" in await sentence_of(postgrest, "another-key")


async def test_a_url_that_leads_elsewhere_is_said(postgrest: Postgrest) -> None:
    postgrest.url = postgrest.url.removesuffix("/v1")
    assert "check that SCHEDULER_MENTOR_SOURCE is the whole URL" in await sentence_of(postgrest)


@pytest.mark.parametrize(
    ("ddl", "sentence"),
    [
        ("alter table public.assignments drop constraint assignments_mentor_id_fkey", "no foreign key from"),
        ("drop table public.assignments cascade", "no foreign key from assignments to peer_mentors"),
        (FOREIGN_KEY, "several foreign keys between assignments and peer_mentors"),
        ("drop table public.peer_mentors cascade", "it knows no peer_mentors there"),
        ("alter table public.assignments rename status to state", "a column is missing"),
        ("alter table public.peer_mentors rename status to state", "a column is missing"),
        (
            "alter table public.assignments drop constraint assignments_mentor_id_fkey; "
            "drop view scheduler.mentors cascade; drop view scheduler.assignments cascade; "
            "alter table public.peer_mentors alter id type bigint using 1; "
            "alter table public.assignments alter mentor_id type bigint using 1; " + FOREIGN_KEY,
            "a column has another type; the ids have to be uuid",
        ),
    ],
)
async def test_tables_that_postgrest_can_not_read_as_asked_are_a_sentence(
    ddl: str, sentence: str, database: Database, postgrest: Postgrest
) -> None:
    for statement in ddl.split("; "):
        await query(database, statement)
    assert sentence in await sentence_of(postgrest)


# The whole service


async def summary_over(database_url: str, **settings: object) -> dict[str, object]:
    """Of a dry run, which leaves everything as it was for the next."""
    async with open_scheduler(load_settings(database_url=database_url, **settings)) as scheduler:
        started = await scheduler.start(RunRequest(dry_run=True))
        summary = (await started.summary()).as_json()
        assert await scheduler.count_mentors() == summary["total_active_mentors"]
    return {name: value for name, value in summary.items() if name not in ("run_id", "duration_ms")}


@pytest.mark.parametrize("page_size", [100, 250, 2_000])
async def test_a_run_over_rest_has_the_same_summary_as_one_over_postgres(
    page_size: int, database: Database, database_url: str, postgrest: Postgrest
) -> None:
    for number in range(250):
        mentor = await add_mentor(database, last_activity=30 if number % 3 else 0)
        if number % 7 == 0:
            await add_assignment(database, mentor.id)
    for _ in range(10):
        await add_mentor(database, status="paused")
        await add_mentor(database, assignment="ended")
    over_postgres = await summary_over(database_url, page_size=page_size)
    over_rest = await summary_over(
        database_url, page_size=page_size, mentor_source=postgrest.url, service_role_key=REST_KEY
    )
    assert over_rest == over_postgres
    assert (over_rest["total_evaluated"], over_rest["stop_reason"]) == (250, "finished")
    assert over_rest["total_dispatched"] == 166
    # Every page that holds somebody, an empty one, and the count.
    assert len(postgrest.requests) == {100: 3, 250: 1, 2_000: 1}[page_size] + 2


async def test_a_run_whose_rest_api_refuses_the_key_says_so_once_and_shows_no_key(
    database: Database, database_url: str, postgrest: Postgrest
) -> None:
    mentor = await add_mentor(database, last_activity=30)
    budget = {"soft_threshold": 0.3, "hard_deadline": 0.5, "platform_limit": 2.5, "page_size": 1}
    rest = {"mentor_source": postgrest.url, "service_role_key": "another-key"}
    with capture_logs() as logs:
        async with open_scheduler(load_settings(database_url=database_url, **budget, **rest)) as scheduler:
            summary = await (await scheduler.start(RunRequest())).summary()
    assert (summary.stop_reason, summary.total_evaluated) == ("database_unavailable", 0)
    assert not summary.remaining_known
    [warning] = [line for line in logs if line["event"] == "page_not_fetched"]
    assert "check SCHEDULER_SERVICE_ROLE_KEY" in warning["reason"]
    for hidden in ("another-key", REST_KEY, str(mentor.id)):
        assert hidden not in str(logs)
