"""The whole of it: the real pg_cron fires, the service runs, its answer is on record."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import trio

from engine.embedded import EmbeddedPostgres
from tests.end_to_end.conftest import SECRET, StartService, command, notified_once_each, query, seed

MENTORS = 250
OTHER_SECRET = "f" * 64

# Seconds: pg_cron fires at the full minute.
PATIENCE = 100.0

ANSWERED = "select * from scheduler.invocations where answered_at is not null order by id"


async def test_a_job_of_pg_cron_has_everybody_notified_and_a_wrong_secret_is_reported_though_it_succeeded(
    open_cron_postgres: Callable[[], AbstractContextManager[EmbeddedPostgres]], start_service: StartService
) -> None:
    # Both in one minute, because a minute is what it takes.
    with open_cron_postgres() as well, open_cron_postgres() as ill:
        for postgres, secret in ((well, SECRET), (ill, OTHER_SECRET)):
            environment = {"SCHEDULER_ADMIN_DATABASE_URL": postgres.dsn, "SCHEDULER_SECRET": secret}
            assert command("migrate", "--with-example-tables", **environment).returncode == 0
            await query(postgres.dsn, "create extension pg_cron")
            await seed(postgres.dsn, MENTORS)
            service = await start_service(DATABASE_URL=postgres.dsn)  # with SECRET, whatever the database has
            installed = command(
                *("cron", "install", "--schedule", "* * * * *", "--with-plpython3u"),
                *("--url", f"{service.url}/run"),
                **environment,
            )
            assert installed.returncode == 0, installed.stderr
        answers = [await answer_of(postgres) for postgres in (well, ill)]

        assert (answers[0]["status_code"], answers[0]["error"]) == (200, None)
        assert answers[0]["invoked_by"] == "scheduler_cron"
        [run] = await query(well.dsn, "select * from scheduler.runs")
        assert answers[0]["run_id"] == run["id"]
        assert (run["verdict"], run["total_evaluated"]) == ("completed", MENTORS)
        assert await notified_once_each(well.dsn) == MENTORS
        status, report = cron_status(well)
        assert (status, report["wrong"]) == (0, None)
        assert report["invocations"][0]["verdict"] == "completed"

        assert (answers[1]["status_code"], answers[1]["error"]) == (401, "unauthorized")
        assert await notified_once_each(ill.dsn) == 0
        status, report = cron_status(ill)
        assert status == 1
        assert "refuses the secret (401)" in report["wrong"]
        assert [job["runs"][0]["status"] for job in report["jobs"]] == ["succeeded"]
        shown = command("cron", "status", DATABASE_URL=ill.dsn)
        assert "wrong: the service refuses the secret (401): run `cron install`" in shown.stdout
        for postgres, secret in ((well, SECRET), (ill, OTHER_SECRET)):
            assert secret not in (postgres.folder / "log").read_text()


async def answer_of(postgres: EmbeddedPostgres) -> Any:
    with trio.fail_after(PATIENCE):
        while not (rows := await query(postgres.dsn, ANSWERED)):  # noqa: ASYNC110 - nothing but asking tells
            await trio.sleep(0.2)
    # The row is there before pg_cron has written down how its job went.
    with trio.fail_after(PATIENCE):
        while not await query(  # noqa: ASYNC110
            postgres.dsn, "select from cron.job_run_details where end_time is not null"
        ):
            await trio.sleep(0.05)
    return rows[0]


def cron_status(postgres: EmbeddedPostgres) -> tuple[int, dict[str, Any]]:
    done = command("cron", "status", "--json", SCHEDULER_ADMIN_DATABASE_URL=postgres.dsn)
    return done.returncode, json.loads(done.stdout)
