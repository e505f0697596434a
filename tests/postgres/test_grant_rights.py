"""`grant_rights`: the views read what is the user's, wherever that is and whosever, or it says why not."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import trio

from engine import (
    MigrationError,
    RunRequest,
    grant_rights,
    load_settings,
    open_scheduler,
    service_database_url,
    set_service_password,
)
from engine.database import Database, open_database
from tests.attempts import REFUSED, execute, logged_in_as, sqlstate_of
from tests.postgres.conftest import add_mentor, query, value, wait_until_blocked

VIEWS = ("scheduler.mentors", "scheduler.assignments", "scheduler.activities")
TABLES = ("public.peer_mentors", "public.assignments", "public.activities")
COUNT = "select count(*) from scheduler.activities"


async def run_script(database: Database, sql: str) -> None:
    async with database.open_transaction() as transaction:
        await execute(transaction, sql)


async def rows_for_the_service(database: Database, view: str = VIEWS[2]) -> int:
    async with logged_in_as(database, "scheduler_service") as service:
        return int(await value(service, f"select count(*) from {view}"))


async def close_by_row(database: Database) -> None:
    """Row-level security on every table of the user's, for its owner as well."""
    for table in TABLES:
        await run_script(
            database,
            f"alter table {table} enable row level security; alter table {table} force row level security",
        )


@pytest.fixture
async def one_mentor(database: Database) -> Database:
    await add_mentor(database, last_activity=30)
    return database


@pytest.fixture
async def other_owner(database: Database) -> AsyncIterator[str]:
    """A role that is nobody's, gone after the test."""
    name = f"somebody_{uuid4().hex}"
    await run_script(database, f"create role {name}")
    yield name
    await run_script(database, f"reassign owned by {name} to current_user; drop owned by {name}")
    await run_script(database, f"drop role {name}")


async def test_a_whole_run_as_scheduler_service_reaches_everybody_behind_row_level_security(
    database: Database, database_url: str
) -> None:
    for _ in range(25):
        await add_mentor(database, last_activity=30)
    await close_by_row(database)
    password = secrets.token_hex(16)
    await set_service_password(database, password)
    settings = load_settings(database_url=service_database_url(database_url, password), page_size=10)

    async def run() -> tuple[int, int, bool]:
        async with open_scheduler(settings) as scheduler:
            summary = await (await scheduler.start(RunRequest())).summary()
            freshness = await scheduler.measure_freshness()
        assert summary.completed
        return summary.total_evaluated, summary.total_dispatched, freshness.is_fresh

    # What makes the policies needed: without them nobody is there, and nothing fails.
    assert (await run())[:2] == (0, 0)
    assert await grant_rights(database) == [
        f"scheduler_owner sees every row of {table}, by a policy" for table in TABLES
    ]
    assert await run() == (25, 25, True)
    rows = await query(database, "select verdict, total_evaluated from scheduler.runs order by started_at")
    assert [tuple(row) for row in rows] == [("completed", 0), ("completed", 25)]
    assert await value(database, "select count(*) from scheduler.notifications") == 25
    # And not by having been let read the tables.
    async with logged_in_as(database, "scheduler_service") as service:
        for table in TABLES:
            assert await sqlstate_of(service, f"select from {table}") == REFUSED


async def test_granting_twice_changes_nothing_the_second_time(database: Database) -> None:
    await close_by_row(database)
    assert len(await grant_rights(database)) == 3
    assert await grant_rights(database) == []


async def test_of_two_at_once_the_second_finds_granted_what_the_first_has_granted(database: Database) -> None:
    await close_by_row(database)
    await run_script(database, "revoke all on public.activities from scheduler_owner")
    second: list[str] | None = None

    async def grant_second() -> None:
        nonlocal second
        second = await grant_rights(database)

    async with trio.open_nursery() as nursery, database.open_transaction() as transaction:
        assert len(await query(transaction, "select scheduler.grant_rights()")) == 4
        nursery.start_soon(grant_second)
        await wait_until_blocked(database)
    assert second == []


@pytest.mark.parametrize(
    "replace",
    [
        "create or replace view {view} as select {columns} from elsewhere.activity",
        "drop view {view}; create view {view} as select {columns} from elsewhere.activity",
        "create or replace view {view} with (security_invoker) as select {columns} from elsewhere.activity",
        "create view elsewhere.narrow as select * from elsewhere.activity; "
        "create or replace view {view} as select {columns} from elsewhere.narrow",
        "drop view {view}; create materialized view {view} as select {columns} from elsewhere.activity",
        "drop view {view}; create table {view} as select {columns} from elsewhere.activity",
        "drop view {view}; create table {view} as select {columns} from elsewhere.activity; "
        "alter table {view} enable row level security",
    ],
    ids=[
        *("replaced", "made again", "as its reader", "over a view"),
        *("materialized", "a table", "a table closed by row"),
    ],
)
@pytest.mark.parametrize("by_row", [False, True], ids=["open", "closed by row"])
async def test_a_view_that_was_replaced_reads_again_after_the_rights_were_granted(
    one_mentor: Database, replace: str, by_row: bool
) -> None:
    await run_script(
        one_mentor,
        "create schema elsewhere; "
        "create table elsewhere.activity with (fillfactor = 70) as select * from public.activities;"
        + ("alter table elsewhere.activity enable row level security;" if by_row else "")
        + replace.format(view=VIEWS[2], columns="user_id, activity_date"),
    )
    assert await grant_rights(one_mentor) != []
    assert await grant_rights(one_mentor) == []
    assert await rows_for_the_service(one_mentor) == 1
    async with logged_in_as(one_mentor, "scheduler_service") as service:
        [idle] = await query(service, "select id from scheduler.mentors")
        assert len(await query(service, "select * from scheduler.evaluate(array[$1]::uuid[])", idle["id"]))


@pytest.mark.parametrize("between", ["", "create view elsewhere.narrower as select * from elsewhere.narrow;"])
async def test_a_view_that_reads_as_its_reader_is_named_wherever_it_is(
    one_mentor: Database, between: str
) -> None:
    await run_script(
        one_mentor,
        "create schema elsewhere; "
        "create view elsewhere.narrow with (security_invoker = on) as select * from public.activities;"
        + between
        + "create or replace view scheduler.activities as select user_id, activity_date "
        f"from elsewhere.{'narrower' if between else 'narrow'}",
    )
    await grant_rights(one_mentor)
    [line] = await grant_rights(one_mentor)
    assert line.startswith("elsewhere.narrow reads with the rights of its reader (security_invoker)")
    async with logged_in_as(one_mentor, "scheduler_service") as service:
        assert await sqlstate_of(service, COUNT) == REFUSED


async def test_a_materialized_view_does_not_have_what_it_was_made_from_opened(one_mentor: Database) -> None:
    await run_script(
        one_mentor,
        "create table public.visits as select * from public.activities; drop view scheduler.activities; "
        "create materialized view scheduler.activities as select user_id, activity_date from public.visits",
    )
    await grant_rights(one_mentor)
    readable = "select has_table_privilege('scheduler_owner', 'public.visits', 'select')"
    assert await value(one_mentor, readable) is False


async def test_a_view_that_is_gone_is_missed_in_a_sentence(database: Database) -> None:
    await run_script(database, "drop view scheduler.activities")
    with pytest.raises(MigrationError, match=r"scheduler\.activities one is missing; make"):
        await grant_rights(database)


async def test_nothing_but_reading_is_granted(database: Database) -> None:
    await grant_rights(database)
    granted = await query(
        database,
        """
        select c.relname, a.privilege_type from pg_class c cross join aclexplode(c.relacl) a
         where c.relnamespace = 'public'::regnamespace and a.grantee <> c.relowner
        """,
    )
    assert {tuple(row) for row in granted} == {(table.split(".")[1], "SELECT") for table in TABLES}


@pytest.mark.parametrize(
    "rights", ["", "grant select on public.activities to {}"], ids=["closed", "to be read, not to be lent"]
)
async def test_a_table_that_is_not_the_administrators_to_open_is_said_to_be_so(
    database: Database, other_owner: str, rights: str
) -> None:
    administrator = f"administrator_{uuid4().hex}"
    await run_script(
        database,
        f"create role {administrator} login password 'a'; grant scheduler_owner to {administrator}; "
        f"revoke all on public.activities from scheduler_owner; "
        f"alter table public.activities owner to {other_owner};" + rights.format(administrator),
    )
    url = await value(
        database, "select 'postgresql://' || $1 || ':a@127.0.0.1:' || inet_server_port()", administrator
    )
    name = await value(database, "select current_database()")
    async with open_database(f"{url}/{name}?sslmode=disable") as limited:
        with pytest.raises(
            MigrationError, match=r"can't be opened to scheduler_owner\. Let SCHEDULER_ADMIN_"
        ):
            await grant_rights(limited)
    await run_script(database, f"drop owned by {administrator}; drop role {administrator}")


async def test_a_table_of_somebody_elses_is_opened_by_a_superuser(
    one_mentor: Database, other_owner: str
) -> None:
    await run_script(
        one_mentor,
        f"""
        create schema elsewhere authorization {other_owner};
        create table elsewhere.activity as select * from public.activities;
        alter table elsewhere.activity owner to {other_owner};
        create or replace view scheduler.activities as select user_id, activity_date from elsewhere.activity
        """,
    )
    assert await grant_rights(one_mentor) == ["scheduler_owner reads elsewhere.activity"]
    assert await rows_for_the_service(one_mentor) == 1


async def test_a_policy_that_hides_rows_from_the_owner_all_the_same_is_named(one_mentor: Database) -> None:
    await close_by_row(one_mentor)
    await grant_rights(one_mentor)
    await run_script(
        one_mentor, "create policy mine on public.activities as restrictive using (current_user = 'app')"
    )
    assert await rows_for_the_service(one_mentor) == 0
    for _ in range(2):
        [line] = await grant_rights(one_mentor)
        assert line.startswith("public.activities has the restrictive policy mine")
    await run_script(one_mentor, "alter policy mine on public.activities to app")
    assert await grant_rights(one_mentor) == []
    assert await rows_for_the_service(one_mentor) == 1


async def test_names_that_need_quoting_are_quoted(one_mentor: Database) -> None:
    await run_script(
        one_mentor,
        """
        create schema "No ""Mean"" Feat";
        create table "No ""Mean"" Feat"."a; drop schema public cascade" as select * from public.activities;
        alter table "No ""Mean"" Feat"."a; drop schema public cascade" enable row level security;
        create or replace view scheduler.activities as
          select user_id, activity_date from "No ""Mean"" Feat"."a; drop schema public cascade"
        """,
    )
    assert len(await grant_rights(one_mentor)) == 2
    assert await rows_for_the_service(one_mentor) == 1
