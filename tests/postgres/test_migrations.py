"""Migrations: each once, whoever runs them, and a sentence for whatever is in the way."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest
import trio

from engine import migrations
from engine.database import Database, open_database
from engine.errors import MigrationError
from engine.migrations import Migration, load_migrations, migrate, pending_migrations
from engine.statements import Statement
from tests.postgres.conftest import query, value, wait_until_running

NAMES = [migration.script.name for migration in load_migrations()]

OWN_TABLES = """
    create schema people;
    create table people.helper (
      number uuid primary key, person uuid not null, state text not null, joined timestamptz not null);
    create table people.placement (helper uuid not null, state text not null, until date);
    create table people.visit (person uuid not null, day date not null);
"""
THREE_VIEWS = """
    create schema scheduler;
    create view scheduler.mentors as
      select number as id, person as user_id, state as status, joined as created_at from people.helper;
    create view scheduler.assignments as
      select helper as mentor_id, state as status, until as expires_at from people.placement;
    create view scheduler.activities as
      select person as user_id, day as activity_date from people.visit;
"""


@pytest.fixture
async def bare(empty_database_url: str) -> AsyncIterator[Database]:
    """A database with nothing in it."""
    async with open_database(empty_database_url) as database:
        yield database


async def run_script(database: Database, sql: str) -> None:
    async with database.open_transaction() as transaction:
        await transaction.execute(Statement("script", sql))


async def has_schema(database: Database) -> bool:
    return await value(database, "select to_regnamespace('scheduler') is not null") is True


async def test_every_migration_is_applied_once_in_order(bare: Database) -> None:
    assert await pending_migrations(bare) == NAMES
    assert await migrate(bare, with_example_tables=True) == NAMES
    assert await pending_migrations(bare) == []
    assert await migrate(bare) == []
    assert await migrate(bare, with_example_tables=True) == []
    rows = await query(bare, "select version, name, checksum from scheduler.migrations order by applied_at")
    assert [tuple(row) for row in rows] == [
        (migration.version, migration.script.name, migration.checksum) for migration in load_migrations()
    ]


def test_migrations_bear_supabase_names_and_leave_transactions_to_the_runner() -> None:
    assert sorted(NAMES) == NAMES
    for migration in load_migrations():
        assert re.fullmatch(r"\d{14}_[a-z_]+", migration.script.name)
        statements = re.sub(r"\$\$.*?\$\$|--.*?\n", "", migration.script.sql, flags=re.S)
        assert not re.search(r"^\s*(begin|commit|rollback)\b", statements, flags=re.M)


async def test_two_at_once_apply_each_migration_once(empty_database_url: str) -> None:
    applied: list[str] = []

    async def run() -> None:
        async with open_database(empty_database_url) as database:
            applied.extend(await migrate(database, with_example_tables=True))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(run)
    assert sorted(applied) == NAMES


async def test_no_lock_is_left_on_the_session(empty_database_url: str) -> None:
    async with open_database(empty_database_url, max_connections=1) as database:
        await migrate(database, with_example_tables=True)
        held = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
        assert await value(database, held) == 0
        assert await value(database, "select current_setting('lock_timeout')") == "0"


async def test_a_migration_changed_after_it_was_applied_is_refused_before_anything_is_applied(
    bare: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(bare, with_example_tables=True)
    first, *rest = load_migrations()
    changed = replace(first, checksum="0" * 64)
    another = _migration("20991231000000_another", "create table public.another ()")
    monkeypatch.setattr(migrations, "load_migrations", lambda: (changed, *rest, another))
    for attempt in (migrate, pending_migrations):
        with pytest.raises(MigrationError, match=first.script.name):
            await attempt(bare)
    assert await value(bare, "select to_regclass('public.another') is null")


async def test_a_migration_that_fails_is_named_with_its_sqlstate_and_not_kept(
    bare: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = _migration("20991231000001_good", "create table public.good ()")
    bad = _migration("20991231000002_bad", "create table public.bad (); select 1 / 0")
    later = _migration("20991231000003_later", "create table public.later ()")
    monkeypatch.setattr(migrations, "load_migrations", lambda: (*load_migrations(), good, bad, later))
    with pytest.raises(MigrationError, match=r"20991231000002_bad .*22012"):
        await migrate(bare, with_example_tables=True)
    there = "select to_regclass('public.good') is not null, to_regclass('public.bad') is not null"
    assert tuple((await query(bare, there))[0]) == (True, False)
    assert await pending_migrations(bare) == ["20991231000002_bad", "20991231000003_later"]


def _migration(name: str, sql: str) -> Migration:
    return Migration(Statement(name, sql), name.partition("_")[0], "a checksum")


async def test_a_lock_that_is_not_to_be_had_gives_a_sentence(
    bare: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(bare, with_example_tables=True)
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "50ms")
    another = _migration("20991231000000_another", "alter table public.activities add column note text")
    monkeypatch.setattr(migrations, "load_migrations", lambda: (*load_migrations(), another))
    async with bare.open_transaction() as transaction:
        await query(transaction, "select from public.activities")
        with pytest.raises(MigrationError, match=r"20991231000000_another waited 50ms"):
            await migrate(bare)
    assert await migrate(bare) == ["20991231000000_another"]


async def test_without_tables_and_views_it_names_both_ways_on_and_keeps_nothing(bare: Database) -> None:
    with pytest.raises(MigrationError) as caught:
        await migrate(bare)
    message = str(caught.value)
    for part in (
        "public.activities",
        "public.assignments",
        "public.peer_mentors",
        "migrate --with-example-tables",
        "create view scheduler.mentors",
        "create view scheduler.assignments",
        "create view scheduler.activities",
    ):
        assert part in message
    assert not await has_schema(bare)


async def test_a_single_table_or_column_that_is_missing_is_named_alone(bare: Database) -> None:
    await run_script(bare, OWN_TABLES + THREE_VIEWS)
    await run_script(bare, "drop view scheduler.activities")
    with pytest.raises(MigrationError, match=r"reads: public\.activities is missing\."):
        await migrate(bare)
    await run_script(bare, "create view scheduler.activities as select person as user_id from people.visit")
    with pytest.raises(MigrationError, match=r"reads: activity_date of scheduler\.activities is missing\."):
        await migrate(bare)
    assert await value(bare, "select to_regclass('scheduler.migrations') is null")


async def test_tables_of_other_names_need_three_views_and_nothing_else(bare: Database) -> None:
    await run_script(bare, OWN_TABLES + THREE_VIEWS)
    assert await migrate(bare) == NAMES
    await run_script(
        bare,
        """
        insert into people.helper
        values ('00000000-0000-0000-0000-000000000001', gen_random_uuid(), 'active', '2020-01-01')
        """,
    )
    [row] = await query(
        bare, "select * from scheduler.evaluate(array['00000000-0000-0000-0000-000000000001']::uuid[])"
    )
    assert tuple(row) == (UUID(int=1), ["inactivity"], [])
    assert await value(bare, "select to_regclass('public.peer_mentors') is null")


async def test_a_postgres_that_is_too_old_is_refused(bare: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    major = await value(bare, "select current_setting('server_version_num')::int / 10000")
    monkeypatch.setattr(migrations, "OLDEST_POSTGRES", 1000)
    with pytest.raises(MigrationError, match=rf"This is Postgres {major}; the scheduler needs 1000 or newer"):
        await migrate(bare, with_example_tables=True)
    assert not await has_schema(bare)


async def test_what_supabase_has_applied_counts_as_applied(bare: Database) -> None:
    await run_script(
        bare,
        OWN_TABLES + "create schema supabase_migrations; "
        "create table supabase_migrations.schema_migrations (version text primary key, name text)",
    )
    await run_script(bare, THREE_VIEWS)
    for migration in load_migrations():
        await run_script(bare, migration.script.sql)
        await query(
            bare,
            "insert into supabase_migrations.schema_migrations values ($1, 'its own')",
            migration.version,
        )
    assert await pending_migrations(bare) == NAMES
    assert await migrate(bare) == []
    assert await pending_migrations(bare) == []


async def test_cancelling_keeps_no_part_of_a_migration(
    bare: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = _migration(
        "20991231000000_hangs", "create table public.part (); select pg_sleep(3600) /* 20991231 */"
    )
    monkeypatch.setattr(migrations, "load_migrations", lambda: (*load_migrations(), hangs))
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await migrate(bare, with_example_tables=True)

        nursery.start_soon(run)
        await wait_until_running(bare, "20991231")
        nursery.cancel_scope.cancel()
    assert await pending_migrations(bare) == ["20991231000000_hangs"]
    assert await value(bare, "select to_regclass('public.part') is null")
