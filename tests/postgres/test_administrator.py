"""Who migrates: what it takes, and what somebody else can't lay in the way of it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import trio

from engine import MigrationError, grant_rights, migrate, set_service_password
from engine.database import Database, open_database
from engine.embedded import EmbeddedPostgres
from engine.migrations import load_migrations
from tests.attempts import execute
from tests.postgres.conftest import query, value

OpenPostgres = Callable[..., AbstractContextManager[EmbeddedPostgres]]

NAMES = [migration.script.name for migration in load_migrations()]

# As on a hosted Postgres: no superuser, but it makes roles, and owns the databases and what is in them.
ADMINISTRATORS = """
    create role first login createrole password 'a';
    create role second login createrole password 'a';
"""


@asynccontextmanager
async def opened(
    postgres: EmbeddedPostgres, database: str, role: str | None = None
) -> AsyncIterator[Database]:
    parts = urlsplit(postgres.dsn)._replace(path=f"/{database}")
    if role is not None:
        parts = parts._replace(netloc=f"{role}:a@127.0.0.1:{postgres.port}")
    async with open_database(parts.geturl()) as database_opened:
        yield database_opened


async def run_script(database: Database, sql: str) -> None:
    async with database.open_transaction() as transaction:
        await execute(transaction, sql)


async def test_an_administrator_who_is_no_superuser_migrates_many_databases_at_once_and_keeps_them(
    open_own_postgres: OpenPostgres,
) -> None:
    databases = [f"of_first_{number}" for number in range(4)]
    with open_own_postgres() as postgres:
        async with opened(postgres, "postgres") as superuser:
            await run_script(superuser, ADMINISTRATORS)
            for name in databases:
                await query(superuser, f"create database {name} owner first")
            await query(superuser, "create database of_second owner second")

        async def migrate_one(name: str) -> None:
            async with opened(postgres, name, "first") as database:
                assert await migrate(database, with_example_tables=True) == NAMES

        async with trio.open_nursery() as nursery:
            for name in databases:
                nursery.start_soon(migrate_one, name)

        async with opened(postgres, databases[0], "first") as database:
            assert await migrate(database) == []
            assert await grant_rights(database) == []
            # What is the owner's stays the administrator's to change.
            await run_script(
                database,
                "create table public.visits as select * from public.activities;"
                "alter table public.visits enable row level security;"
                "drop view scheduler.activities;"
                "create view scheduler.activities as select user_id, activity_date from public.visits;"
                "update scheduler.scenario_evaluation_config set enabled = false;"
                "create function scheduler.scenario_birthday(uuid[], timestamptz, jsonb) "
                "returns table (mentor_id uuid, user_id uuid, payload jsonb) language sql stable "
                "as 'select null::uuid, null::uuid, null::jsonb where false'",
            )
            assert await grant_rights(database) == [
                "scheduler.activities belongs to scheduler_owner",
                "scheduler_service reads scheduler.activities",
                "scheduler_owner reads public.visits",
                "scheduler_owner sees every row of public.visits, by a policy",
            ]
            await set_service_password(database, secrets.token_hex(16))
            assert await value(database, "select usesuper from pg_user where usename = current_user") is False

        # Somebody else, in another database of the server, whose roles are there already.
        async with opened(postgres, "of_second", "second") as database:
            if postgres.version < 16:  # CREATEROLE is enough to take part in any role but a superuser's
                assert await migrate(database, with_example_tables=True) == NAMES
                return
            with pytest.raises(MigrationError, match="who made them has to grant them to it"):
                await migrate(database, with_example_tables=True)
            async with opened(postgres, databases[0], "first") as of_first:
                for role in ("scheduler_owner", "scheduler_service", "scheduler_cron"):
                    await query(of_first, f"grant {role} to second")
            assert NAMES[-1] in await migrate(database, with_example_tables=True)


# Whoever may create in `public` lays functions there that fit better than Postgres's own: these take exactly
# what is given, and no `variadic "any"`.
TRAPS = """
    grant create on schema public to {mallory};
    create table public.sprung (by name);
    grant insert on public.sprung to public;
    set local role {mallory};
    create function public.spring(answer text) returns text language plpgsql as
      'begin insert into public.sprung values (current_user); return answer; end';
    create function public.format(text, regrole) returns text language sql as
      'select public.spring(pg_catalog.format($1, $2::text))';
    create function public.format(text, regclass) returns text language sql as
      'select public.spring(pg_catalog.format($1, $2::text))';
    create function public.format(text, text) returns text language sql as
      'select public.spring(pg_catalog.format($1, variadic array[$2]))';
    create function public.pg_has_role(regrole, text) returns boolean language sql as
      'select public.spring(''true'')::boolean';
    create function public.unnest(text[]) returns setof text language sql as
      'select public.spring(each) from pg_catalog.unnest($1) each';
    reset role
"""


@pytest.fixture
async def with_traps(empty_database_url: str) -> AsyncIterator[Database]:
    mallory = f"mallory_{uuid4().hex}"
    async with open_database(empty_database_url) as database:
        await run_script(database, f"create role {mallory}")
        await run_script(database, TRAPS.format(mallory=mallory))
        yield database
        await run_script(database, f"drop owned by {mallory}; drop role {mallory}")


async def test_who_may_create_in_public_has_nothing_run_as_the_administrator(with_traps: Database) -> None:
    await migrate(with_traps, with_example_tables=True)
    await grant_rights(with_traps)
    await set_service_password(with_traps, secrets.token_hex(16))
    assert list(await query(with_traps, "table public.sprung")) == []
    # The control: they are traps.
    await query(with_traps, "select format('%s', 'scheduler_owner'::regrole), format('%s', 'a'::text)")
    assert await value(with_traps, "select count(*) from public.sprung") == 2


async def test_the_migrations_are_safe_from_it_without_the_runner_too(with_traps: Database) -> None:
    # `supabase db push` runs the files by themselves.
    await run_script(
        with_traps,
        """
        create schema scheduler;
        create view scheduler.mentors as
          select null::uuid as id, null::uuid as user_id, '' as status, now() as created_at;
        create view scheduler.assignments as
          select null::uuid as mentor_id, '' as status, current_date as expires_at;
        create view scheduler.activities as select null::uuid as user_id, current_date as activity_date;
        """,
    )
    for migration in load_migrations():
        await run_script(with_traps, migration.script.sql)
    assert list(await query(with_traps, "table public.sprung")) == []


async def test_a_view_that_poses_as_supabases_is_not_read(
    database: Database, empty_database_url: str
) -> None:
    async with open_database(empty_database_url) as bare:
        await run_script(
            bare,
            "create schema supabase_migrations; create view supabase_migrations.schema_migrations as "
            "select version::text from (values (1 / (random() * 0)::int)) trap(version)",
        )
        assert await migrate(bare, with_example_tables=True) == NAMES


async def test_a_password_that_cant_be_set_is_not_in_the_log_either(
    database: Database, database_url: str, postgres_cluster: EmbeddedPostgres
) -> None:
    password, limited = f"in_{secrets.token_hex(16)}", f"limited_{uuid4().hex}"
    await query(database, f"create role {limited} login password 'a'")
    server = urlsplit(database_url).netloc.rpartition("@")[2]
    url = urlsplit(database_url)._replace(netloc=f"{limited}:a@{server}").geturl()
    async with open_database(url) as as_limited:
        with pytest.raises(MigrationError, match="password of scheduler_service can't be set") as caught:
            await set_service_password(as_limited, password)
    assert password not in repr(caught.value)
    log = (postgres_cluster.folder / "log").read_text()
    assert "the password of scheduler_service can't be set" in log
    assert password not in log
    await query(database, f"drop role {limited}")


async def test_a_setting_that_cant_be_is_refused_without_saying_the_secret(
    database: Database, postgres_cluster: EmbeddedPostgres
) -> None:
    secret = secrets.token_hex(32)
    await query(database, "insert into scheduler.settings (url) values ('https://example.org/run')")
    await query(database, "insert into scheduler.fallback_secret (secret) values ($1)", secret)
    for sql in (
        "update scheduler.settings set timeout_ms = 5",
        "update scheduler.settings set url = null",
        "insert into scheduler.fallback_secret (secret) values (null)",
        "insert into scheduler.fallback_secret (secret) select secret from scheduler.fallback_secret",
    ):
        with pytest.raises(Exception, match=r"SQLSTATE 23"):
            await query(database, sql)
    assert secret not in (postgres_cluster.folder / "log").read_text()
