"""`cron install`, `cron status` and `cron remove`, as typed."""

from __future__ import annotations

import json

import pytest

from engine.embedded import EmbeddedPostgres
from tests.doctor.pgbouncer import open_pgbouncer
from tests.end_to_end.conftest import SECRET, command, query

INSTALL = ("cron", "install", "--with-plpython3u")


@pytest.fixture
async def migrated(cron_postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    assert command("migrate", "--with-example-tables", DATABASE_URL=cron_postgres.dsn).returncode == 0
    await query(cron_postgres.dsn, "create extension pg_cron")
    return cron_postgres


async def test_install_says_what_it_did_and_remove_takes_all_of_it_away(migrated: EmbeddedPostgres) -> None:
    settings = {
        "SCHEDULER_ADMIN_DATABASE_URL": migrated.dsn,
        "SCHEDULER_SECRET": SECRET,
        "SCHEDULER_BIND": "127.0.0.1:8123",
    }
    for _ in range(2):
        installed = command(*INSTALL, **settings)
        assert installed.returncode == 0, installed.stderr
        assert "posts go to http://127.0.0.1:8123/run, and wait 45 s\n" in installed.stdout
        assert "job scenario-scheduler: */5 * * * *\n" in installed.stdout
        assert SECRET not in installed.stdout + installed.stderr
    removed = command("cron", "remove", **settings).stdout.splitlines()
    assert removed == [
        "removed the job scenario-scheduler",
        "removed the job scenario-scheduler purge",
        "forgot the URL",
        "forgot the secret in scheduler.fallback_secret",
        "removed scheduler.post_and_wait; the extension plpython3u stays",
    ]
    assert command("cron", "remove", **settings).stdout == "nothing to do: nothing was installed\n"
    assert [tuple(row) for row in await query(migrated.dsn, "select count(*) from cron.job")] == [(0,)]


async def test_per_scenario_makes_a_job_for_each_enabled_one_and_status_misses_one_added_since(
    migrated: EmbeddedPostgres,
) -> None:
    settings = {"DATABASE_URL": migrated.dsn, "SCHEDULER_SECRET": SECRET}
    assert command(*INSTALL, "--per-scenario", **settings).returncode == 0
    disable = "update scheduler.scenario_evaluation_config set enabled = $1 where scenario_type = 'expiry'"
    await query(migrated.dsn, disable, False)
    assert command(*INSTALL, "--per-scenario", **settings).returncode == 0
    jobs = json.loads(command("cron", "status", "--json", **settings).stdout)["jobs"]
    assert [(job["schedule"], job["command"]) for job in jobs] == [
        ("*/5 * * * *", "select scheduler.invoke('{inactivity}')"),
        ("1-59/5 * * * *", "select scheduler.invoke('{milestone}')"),
    ]
    await query(migrated.dsn, disable, True)
    status = command("cron", "status", **settings)
    assert status.returncode == 1
    assert "wrong: no job ticks the scenario expiry" in status.stdout
    await query(migrated.dsn, "update scheduler.scenario_evaluation_config set enabled = false")
    refused = command(*INSTALL, "--per-scenario", **settings)
    assert (refused.returncode, refused.stderr) == (
        1,
        "No scenario is enabled, so there is none to make a job for; enable one.\n",
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--schedule", "every day"], "pg_cron does not take the schedule 'every day'"),
        (["--schedule", "* * * * *", "--per-scenario"], "leave at least 3 minutes between two ticks"),
        (["--url", "http://scheduler.example/run"], "must be an https URL, or http to this machine"),
        (["--url", "http://localhost:x@evil.example/"], "must be an https URL, or http to this machine"),
        (
            ["--url", "https://scheduler.example:0/run"],
            "The port of the URL must be a number from 1 to 65535",
        ),
        (["--url", "https://_.example/run"], "The host of the URL must be of letters, digits"),
        (["--url", ""], "--url is empty; say where the database's server reaches POST /run"),
    ],
)
async def test_what_cannot_be_installed_is_refused_with_its_mend_and_changes_nothing(
    arguments: list[str], sentence: str, migrated: EmbeddedPostgres
) -> None:
    refused = command(*INSTALL, *arguments, DATABASE_URL=migrated.dsn, SCHEDULER_SECRET=SECRET)
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr
    for relation in ("cron.job", "scheduler.settings"):
        assert await query(migrated.dsn, f"select from {relation}") == []


async def test_what_is_missing_is_said_with_its_mend(cron_postgres: EmbeddedPostgres) -> None:
    settings = {"DATABASE_URL": cron_postgres.dsn, "SCHEDULER_SECRET": SECRET}
    said = [command(*arguments, **settings) for arguments in (("cron", "install"), ("cron", "status"))]
    assert [done.returncode for done in said] == [1, 1]
    assert all("run `scenario-scheduler migrate`" in done.stderr for done in said)

    command("migrate", "--with-example-tables", **settings)
    assert "run `create extension pg_cron`" in command("cron", "install", **settings).stderr
    assert "run `create extension pg_cron`" in command("cron", "status", **settings).stdout

    await query(cron_postgres.dsn, "create extension pg_cron")
    assert "run `create extension pg_net`" in command("cron", "install", **settings).stderr
    assert "no job ticks this database: run `cron install`" in command("cron", "status", **settings).stdout


async def test_without_the_right_to_it_the_tick_is_neither_changed_nor_shown(
    migrated: EmbeddedPostgres,
) -> None:
    command(*INSTALL, DATABASE_URL=migrated.dsn, SCHEDULER_SECRET=SECRET)
    service = {"DATABASE_URL": command("service-url", DATABASE_URL=migrated.dsn).stdout.strip()}
    for arguments in (INSTALL, ("cron", "status"), ("cron", "remove")):
        refused = command(*arguments, **service, SCHEDULER_SECRET="a" * 64)
        assert refused.returncode == 1
        assert "SCHEDULER_ADMIN_DATABASE_URL" in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    "url", ["postgresql://postgres:word@db.example/postgres", "postgresql:///postgres?host=db.example"]
)
def test_a_database_on_another_machine_is_not_told_to_call_its_own(url: str) -> None:
    refused = command("cron", "install", SCHEDULER_ADMIN_DATABASE_URL=url, SCHEDULER_SECRET=SECRET)
    assert refused.returncode == 3
    assert "say with --url where its server reaches POST /run" in refused.stderr


def test_a_port_that_is_left_open_can_not_be_called() -> None:
    refused = command(
        *("cron", "install"),
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/nowhere",
        SCHEDULER_SECRET=SECRET,
        SCHEDULER_BIND="127.0.0.1:0",
    )
    assert refused.returncode == 3
    assert "SCHEDULER_BIND leaves the port open" in refused.stderr


async def test_behind_a_pooler_in_transaction_mode_every_command_works_a_second_time(
    migrated: EmbeddedPostgres,
) -> None:
    async with open_pgbouncer(migrated.dsn, "transaction") as url:
        settings = {"SCHEDULER_ADMIN_DATABASE_URL": url, "SCHEDULER_SECRET": SECRET}
        for arguments in (("migrate",), INSTALL, ("cron", "status"), ("service-url",), ("cron", "remove")):
            for _ in range(2):
                assert command(*arguments, **settings).stderr == "", arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ("cron", "install"),
        ("cron", "status"),
        ("cron", "remove"),
        ("migrate",),
        ("service-url",),
        ("seed", "--mentors", "1"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("setting", ["SCHEDULER_ADMIN_DATABASE_URL", "DATABASE_URL"])
def test_a_database_that_can_not_be_used_is_said_by_the_name_of_its_setting(
    setting: str, arguments: tuple[str, ...]
) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nowhere"
    refused = command(*arguments, SCHEDULER_SECRET=SECRET, **{"DATABASE_URL": nowhere, setting: nowhere})
    assert refused.returncode == 1
    assert f"nobody listens there; check {setting} and that the server is up" in refused.stderr
