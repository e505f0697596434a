"""`cron status` on the real pg_cron: what is read of jobs and invocations, and what is shown of it."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from engine.database import Database, open_database
from engine.embedded import EmbeddedPostgres
from engine.migrations import migrate
from engine.statements import Statement
from engine.tick.diagnosis import diagnose
from engine.tick.install import install_tick
from engine.tick.jobs import plan_jobs
from engine.tick.status import INVOCATIONS, read_tick_status
from tests.end_to_end.conftest import SECRET, command
from tests.tick.ticking import run_script

# In the night, so that pg_cron itself does nothing meanwhile.
SCHEDULE = "30 3 * * *"
TYPES = ["expiry", "inactivity", "milestone"]

# One run of every job, so many minutes ago.
RAN = """
    insert into cron.job_run_details (jobid, runid, username, status, return_message, start_time, end_time)
    select jobid, nextval('cron.runid_seq'), username, {status}, {message}, now() - interval '{ago}', now()
      from cron.job where username = 'scheduler_cron';
"""

_CREATE_OTHER = Statement("create_other", "create database other")

# Server text that rich would take for markup.
BRACKETS = "[/x] [bold]no [link=https://x.example]such"


@pytest.fixture
async def ticked(administrator: Database) -> Database:
    """Installed three days ago, with a job for each scenario; none has ticked."""
    await install(administrator, TYPES)
    await run_script(administrator, "update scheduler.settings set installed_at = now() - interval '3 days'")
    return administrator


async def install(database: Database, scenario_types: list[str] | None = None) -> None:
    await install_tick(
        database,
        url="http://127.0.0.1:1/run",
        secret=SECRET,
        platform_limit=30.0,
        jobs=plan_jobs(SCHEDULE, scenario_types),
        with_plpython3u=True,
    )


async def test_the_first_tick_is_awaited_after_installing_and_missed_once_the_schedule_is_over(
    administrator: Database, cron_postgres: EmbeddedPostgres
) -> None:
    await install(administrator)
    awaited = command("cron", "status", DATABASE_URL=cron_postgres.dsn)
    assert awaited.returncode == 0
    assert "all is well; the first tick is still to come" in awaited.stdout
    await run_script(administrator, "update scheduler.settings set installed_at = now() - interval '3 days'")
    missed = command("cron", "status", "--json", DATABASE_URL=cron_postgres.dsn)
    assert missed.returncode == 1
    assert "no tick so far of the job scenario-scheduler" in json.loads(missed.stdout)["wrong"]
    await install(administrator)
    assert diagnose(await read_tick_status(administrator)) is None


async def test_a_tick_that_has_stopped_is_wrong_though_pg_cron_has_no_run_on_record(
    ticked: Database,
) -> None:
    invoked = "insert into scheduler.invocations (scenario_types, invoked_at, answered_at, status_code) "
    each = "select array[t], now() - interval '{}', now(), 409 from unnest(array{}) t"
    await run_script(ticked, invoked + each.format("1 hour", TYPES))
    assert diagnose(await read_tick_status(ticked)) is None
    await run_script(ticked, "delete from scheduler.invocations where scenario_types = '{milestone}'")
    await run_script(ticked, invoked + each.format("50 hours", TYPES[2:]))
    assert "has not run the job scenario-scheduler milestone for 2 days" in str(
        diagnose(await read_tick_status(ticked))
    )


async def test_of_each_job_the_last_few_runs_are_read_latest_first(ticked: Database) -> None:
    for ago, status in ((40, "succeeded"), (30, "succeeded"), (20, "failed"), (10, "running")):
        await run_script(ticked, RAN.format(status=f"'{status}'", message="'said'", ago=f"{ago} minutes"))
    status = await read_tick_status(ticked)
    assert [job.scenario_types for job in status.jobs] == [[each] for each in TYPES]
    for job in status.jobs:
        assert [run.status for run in job.runs] == ["running", "failed", "succeeded"]
        assert [round(run.age or 0.0, -2) for run in job.runs] == [600.0, 1200.0, 1800.0]
    assert "could not run the job" in str(diagnose(status))


async def test_a_job_that_seldom_ticks_is_not_lost_behind_the_others(ticked: Database) -> None:
    await run_script(
        ticked,
        f"""
        insert into scheduler.invocations (scenario_types, invoked_at, answered_at, status_code)
        select array['milestone'], now() - interval '1 hour' * n, now(), 409 from generate_series(30, 32) n;
        insert into scheduler.invocations (scenario_types, invoked_at, answered_at, status_code, error)
        select array[t], now() - interval '1 minute' * n, now(), 503, 'draining'
          from generate_series(1, 40) n, unnest(array{TYPES[:2]}) t;
        """,
    )
    status = await read_tick_status(ticked)
    read = [each.age // 3600 for each in status.invocations if each.scenario_types == ["milestone"]]
    assert read == [30, 31]
    assert len(status.invocations) == INVOCATIONS + 2
    await run_script(
        ticked,
        "delete from scheduler.invocations where status_code = 503; "
        "update scheduler.settings set installed_at = now()",
    )
    assert "scenario-scheduler milestone: ticks come while" in str(diagnose(await read_tick_status(ticked)))


async def test_a_job_of_a_scenario_that_was_disabled_since_is_wrong(ticked: Database) -> None:
    await run_script(
        ticked,
        "update scheduler.scenario_evaluation_config set enabled = false where scenario_type = 'expiry'",
    )
    assert "ticks the scenario expiry, which is not enabled" in str(diagnose(await read_tick_status(ticked)))


@pytest.mark.parametrize(
    "broken",
    [
        RAN.format(status="'failed'", message=f"'{BRACKETS}'", ago="1 minute"),
        "insert into scheduler.invocations (scenario_types, answered_at, error) "
        f"select array[t], now(), '{BRACKETS}' from unnest(array{TYPES}) t",
    ],
    ids=["pg_cron", "pg_net"],
)
async def test_what_a_server_says_is_shown_as_it_stands_in_80_columns(
    ticked: Database, cron_postgres: EmbeddedPostgres, broken: str
) -> None:
    await run_script(ticked, broken)
    shown = command("cron", "status", DATABASE_URL=cron_postgres.dsn, COLUMNS="80")
    assert (shown.returncode, shown.stderr) == (1, "")
    *tables, conclusion = shown.stdout.splitlines()
    assert BRACKETS in conclusion
    assert "[/x]" in "\n".join(tables)
    assert max(map(len, tables)) <= 80


async def test_the_last_runs_of_each_job_are_shown_in_80_columns(
    ticked: Database, cron_postgres: EmbeddedPostgres
) -> None:
    for status in ("failed", "succeeded"):
        await run_script(ticked, RAN.format(status=f"'{status}'", message="'ERROR: x'", ago="1 minute"))
    shown = command("cron", "status", DATABASE_URL=cron_postgres.dsn, COLUMNS="80")
    assert shown.returncode == 0, shown.stdout
    assert shown.stdout.count("scenario-scheduler milestone") == 1
    assert (shown.stdout.count("succeeded"), shown.stdout.count("failed ERROR: x")) == (3, 3)
    assert max(map(len, shown.stdout.splitlines())) <= 80


async def test_where_pg_cron_cannot_be_both_databases_are_named(
    administrator: Database, cron_postgres: EmbeddedPostgres
) -> None:
    await administrator.fetch(_CREATE_OTHER)
    other = urlsplit(cron_postgres.dsn)._replace(path="/other").geturl()
    async with open_database(other) as database:
        await migrate(database, with_example_tables=True)
    for arguments in (("cron", "status"), ("cron", "install")):
        done = command(*arguments, DATABASE_URL=other, SCHEDULER_SECRET=SECRET)
        assert done.returncode == 1
        said = done.stdout + done.stderr
        assert "pg_cron can be in the database postgres alone, and this is other: set " in said


async def test_in_the_database_where_pg_cron_can_be_nothing_has_to_be_set(
    cron_postgres: EmbeddedPostgres,
) -> None:
    command("migrate", "--with-example-tables", DATABASE_URL=cron_postgres.dsn)
    for arguments in (("cron", "status"), ("cron", "install")):
        done = command(*arguments, DATABASE_URL=cron_postgres.dsn, SCHEDULER_SECRET=SECRET)
        assert done.returncode == 1
        assert "run `create extension pg_cron`" in done.stdout + done.stderr
        assert "database_name" not in done.stdout + done.stderr
