"""The README's lists of commands, run as they stand there: only hosts, ports and passwords are others.

In place of tables of one's own there are those of the example, and the service is waited for.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from engine.database import open_database
from engine.embedded import EmbeddedPostgres
from engine.migrations import load_migrations
from engine.statements import Statement
from tests.doctor.conftest import free_port
from tests.end_to_end.conftest import ENVIRONMENT, StartService, query, seed
from tests.tick.pg_net_worker import work_off

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")

STAND_INS = [
    Path(__file__).with_name(name).read_text("utf-8")
    for name in ("pg_net_stand_in.sql", "vault_stand_in.sql")
]
EXAMPLE_TABLES = files("engine.sql").joinpath("example_tables.sql").read_text("utf-8")

# Where Supabase's command line keeps what it has applied.
PUSHED = """
    create schema supabase_migrations;
    create table supabase_migrations.schema_migrations (
      version text primary key, statements text[], name text);
"""
RECORD = "insert into supabase_migrations.schema_migrations (version, name) values ($1, $2)"

# What Supabase gives its `postgres`: no superuser, but the owner of the database and of what is in `public`,
# with pg_cron, pg_net and Vault to use and to pass on.
LIKE_SUPABASE = """
    create role supabase login createrole createdb bypassrls password 'a';
    alter database postgres owner to supabase;
    alter schema public owner to supabase;
    create extension pg_cron;
    grant usage on schema cron to supabase with grant option;
    grant all on all tables in schema cron to supabase;
    grant usage on schema net, vault to supabase with grant option;
    grant all on all tables in schema net to supabase with grant option;
    grant all on all tables in schema vault to supabase with grant option;
    grant all on all sequences in schema net to supabase with grant option;
    grant execute on all functions in schema net to supabase with grant option;
    grant execute on all functions in schema vault to supabase with grant option;
"""


def commands_under(heading: str) -> list[str]:
    """The blocks of a section that are commands, in their order."""
    [section] = [part for part in re.split(r"^## ", README, flags=re.M) if part.startswith(heading)]
    return re.findall(r"```\n(.*?)```", section, re.DOTALL)


def without(script: str, *beginnings: str) -> str:
    return "".join(line for line in script.splitlines(True) if not line.startswith(beginnings))


async def run_commands(script: str, **settings: str) -> str:
    """In a shell that ends at the first one that fails, with what it left running. Returns what was said."""
    environment = ENVIRONMENT | settings
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = await trio.run_process(
        ["bash", "-euc", f"trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{script}"],
        env=environment,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def broken_in(said: str) -> list[str]:
    """The checks that doctor shows as broken."""
    return re.findall(r"^✗ broken  (.*?)  ", said, flags=re.M)


async def execute(url: str, script: str) -> None:
    async with open_database(url) as database, database.open_transaction() as transaction:
        await transaction.execute(Statement("script", script))


@pytest.fixture(autouse=True)
def _psql() -> None:
    if shutil.which("psql") is None:
        pytest.skip("psql is not installed: apt-get install postgresql-client")


async def test_the_commands_for_a_postgres_of_ones_own_lead_to_a_service_that_is_called(
    cron_postgres: EmbeddedPostgres,
) -> None:
    address = f"127.0.0.1:{free_port()}"
    serving, calling = commands_under("On your own Postgres")
    serving = without(serving, "export SCHEDULER_ADMIN_DATABASE_URL=")
    example = "scenario-scheduler migrate --with-example-tables\nscenario-scheduler seed --mentors 50\n"
    serving = serving.replace("scenario-scheduler migrate\n", example)
    assert example in serving
    wait = f"until (exec 3<>/dev/tcp/{address.replace(':', '/')}) 2>/dev/null; do sleep 0.1; done\n"
    said = await run_commands(
        serving + wait + calling,
        SCHEDULER_ADMIN_DATABASE_URL=cron_postgres.dsn,
        SCHEDULER_BIND=address,
    )
    assert "all is well" in said
    assert "checks hold." in said
    [run] = await query(cron_postgres.dsn, "select verdict from scheduler.runs")
    assert run["verdict"] == "completed"


@pytest.mark.parametrize("by", ["migrate", "supabase db push"])
async def test_the_commands_for_supabase_work_for_an_administrator_like_its_postgres(
    by: str, cron_postgres: EmbeddedPostgres, start_service: StartService
) -> None:
    for script in (*STAND_INS, LIKE_SUPABASE):
        await execute(cron_postgres.dsn, script)
    parts = urlsplit(cron_postgres.dsn)
    administrator = parts._replace(netloc=f"supabase:a@127.0.0.1:{cron_postgres.port}").geturl()
    secured = "alter table public.peer_mentors enable row level security;"
    await execute(administrator, EXAMPLE_TABLES + secured)
    if by == "supabase db push":
        await execute(administrator, PUSHED)
        for migration in load_migrations():
            await execute(administrator, migration.script.sql)
            await query(administrator, RECORD, migration.version, migration.script.name)

    [commands] = commands_under("On Supabase")
    # The two extensions are there already: one is real, and one stands in.
    commands = without(commands, "export SCHEDULER_ADMIN_DATABASE_URL=", "psql ")
    preparing, install, doctor = re.split(r"^(?=scenario-scheduler (?:cron|doctor))", commands, flags=re.M)
    settings = {"SCHEDULER_ADMIN_DATABASE_URL": administrator}
    said = await run_commands(f"{preparing}echo url=$DATABASE_URL secret=$SCHEDULER_SECRET", **settings)
    [(url, secret)] = re.findall("url=(.*) secret=(.*)", said)
    await seed(cron_postgres.dsn, 30)
    service = await start_service(DATABASE_URL=url, SCHEDULER_SECRET=secret)
    settings |= {"DATABASE_URL": url, "SCHEDULER_SECRET": secret}
    settings["SCHEDULER_BIND"] = service.url.removeprefix("http://")
    assert "https://scheduler.example" in install
    said = await run_commands(install.replace("https://scheduler.example", service.url), **settings)
    assert "the secret is in Vault" in said
    # Its owner has opened the queue to everybody, and nobody else can close it: the one line that stays red.
    assert "pg_net: not allowed to close its queue" in said
    assert doctor == "scenario-scheduler doctor\n"
    said = await run_commands(f"{doctor.rstrip()} || true", **settings)
    assert broken_in(said) == ["pg_net's queue"], said
    assert "the first tick is still to come" in said

    # What the list leads to: the job's command, which pg_cron runs in its time, and its answer.
    await execute(administrator, "set role scheduler_cron; select scheduler.invoke()")
    async with open_database(cron_postgres.dsn) as database:
        assert await work_off(database) == 1
    said = await run_commands(f"scenario-scheduler cron status\n{doctor.rstrip()} || true", **settings)
    assert "all is well\n" in said
    assert broken_in(said) == ["pg_net's queue"], said
    [invocation] = await query(cron_postgres.dsn, "select status_code, run_id from scheduler.invocations")
    [run] = await query(cron_postgres.dsn, "select id, total_evaluated from scheduler.runs")
    assert (invocation["status_code"], invocation["run_id"]) == (200, run["id"])
    assert run["total_evaluated"] == 30
