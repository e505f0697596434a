"""What is wrong with the tick, in one line: the nearest cause, and the mend."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.run_id import new_run_id
from engine.tick.diagnosis import describe_first_ticks, diagnose
from engine.tick.jobs import TICK
from engine.tick.status import Invocation, JobRun, JobStatus, TickStatus

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)

JOB = JobStatus(
    name=TICK,
    schedule="*/5 * * * *",
    command="select scheduler.invoke()",
    active=True,
    scenario_types=None,
    runs=[JobRun(started_at=NOW, age=10.0, status="succeeded", message="1 row")],
)


def job(age: float, scenario_type: str | None = None, **changes: Any) -> JobStatus:
    """A job that succeeded so many seconds ago, for one scenario or for all, but for the changes."""
    run = JobRun(started_at=NOW - timedelta(seconds=age), age=age, status="succeeded", message="1 row")
    own: dict[str, Any] = {"runs": [run]}
    if scenario_type is not None:
        own |= {"name": f"{TICK} {scenario_type}", "scenario_types": [scenario_type]}
    return replace(JOB, **(own | changes))


def failed(message: str | None, status: str = "failed") -> JobRun:
    return JobRun(started_at=NOW, age=10.0, status=status, message=message)


NEVER_RAN = replace(JOB, runs=[])


def invocation(minutes_ago: int = 0, **changes: Any) -> Invocation:
    """A tick that was answered with a completed run's summary, but for the changes."""
    answered: dict[str, Any] = {
        "id": 100 - minutes_ago,
        "invoked_at": NOW - timedelta(minutes=minutes_ago),
        "age": 60.0 * minutes_ago,
        "is_overdue": False,
        "scenario_types": None,
        "answered_at": NOW,
        "status_code": 200,
        "error": None,
        "run_id": new_run_id(),
        "verdict": "completed",
    }
    return Invocation(**(answered | changes))


def refused(status_code: int, error: str | None = None, minutes_ago: int = 0) -> Invocation:
    return invocation(minutes_ago, status_code=status_code, error=error, run_id=None, verdict=None)


WELL = TickStatus(
    database="app",
    cron_database="app",
    pg_cron="1.6",
    pg_net="0.20",
    plpython3u=False,
    vault=True,
    url="https://scheduler.example/run",
    timeout_ms=45_000,
    has_fallback_secret=False,
    installed_at=NOW - timedelta(days=9),
    installed_age=9 * 86_400.0,
    enabled_types=["expiry", "inactivity"],
    has_purge=True,
    jobs=[JOB],
    invocations=[invocation()],
)

UNANSWERED = {"answered_at": None, "status_code": None, "run_id": None, "verdict": None}


@pytest.mark.parametrize(
    "status",
    [
        WELL,
        replace(WELL, pg_net=None, plpython3u=True),
        replace(WELL, invocations=[invocation(verdict="partial")]),
        replace(WELL, jobs=[job(2 * 300.0 + 60.0)]),
        replace(WELL, jobs=[job(1e6, schedule="0 8 1 * *")], invocations=[invocation(17_000)]),
        replace(WELL, jobs=[NEVER_RAN], invocations=[invocation(11)]),
        replace(WELL, jobs=[NEVER_RAN], invocations=[invocation(4000)], installed_age=660.0),
        replace(WELL, invocations=[invocation(**UNANSWERED), invocation(5)]),
        replace(WELL, invocations=[invocation(**UNANSWERED)]),  # the first tick, under way
        replace(WELL, invocations=[refused(409, "run_in_progress"), invocation(5)]),
        replace(WELL, invocations=[invocation(), refused(401, "unauthorized", 5)]),  # mended since
    ],
    ids=[
        "well",
        "plpython3u",
        "partial",
        "one late",
        "monthly",
        "pg_cron keeps no runs",
        "installed again",
        "under way",
        "first under way",
        "one 409",
        "mended",
    ],
)
def test_nothing_is_wrong_while_runs_are_carried_out(status: TickStatus) -> None:
    assert diagnose(status) is None


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (replace(WELL, pg_cron=None), "is not in this database: run `create extension pg_cron`"),
        (
            replace(WELL, pg_cron=None, cron_database="postgres"),
            "can be in the database postgres alone, and this is app: set cron.database_name to app",
        ),
        (replace(WELL, pg_cron=None, cron_database=None), "with shared_preload_libraries = 'pg_cron' before"),
        (replace(WELL, jobs=[]), "no job ticks this database: run `cron install`"),
        (replace(WELL, url=None), "no URL to post to: run `cron install`"),
        (replace(WELL, pg_net=None), "create extension pg_net"),
        (replace(WELL, jobs=[replace(JOB, active=False)]), f"the job {TICK} is switched off"),
        (
            replace(WELL, jobs=[job(10.0, "expiry")]),
            "no job ticks the scenario inactivity: run `cron install --per-scenario`",
        ),
        (
            replace(WELL, jobs=[job(10.0, "expiry"), job(10.0, "inactivity")], enabled_types=["inactivity"]),
            f"the job {TICK} expiry ticks the scenario expiry, which is not enabled",
        ),
        (
            replace(WELL, jobs=[replace(JOB, runs=[failed("ERROR: no such role\nCONTEXT: x")])]),
            f"pg_cron could not run the job {TICK}: ERROR: no such role",
        ),
        (
            replace(WELL, jobs=[replace(JOB, runs=[failed(None, "running"), failed("ERROR: always")])]),
            f"pg_cron could not run the job {TICK}: ERROR: always",
        ),
        (
            replace(WELL, jobs=[job(2 * 300.0 + 61.0)], invocations=[invocation(12)]),
            f"pg_cron has not run the job {TICK} for 11 minutes, though its schedule is */5 * * * *",
        ),
        (
            replace(WELL, jobs=[NEVER_RAN], invocations=[invocation(3 * 24 * 60)]),
            f"pg_cron has not run the job {TICK} for 3 days",
        ),
        (
            replace(WELL, jobs=[NEVER_RAN], invocations=[invocation(12)]),
            f"pg_cron has not run the job {TICK} for 12 minutes",
        ),
        (
            replace(WELL, jobs=[NEVER_RAN], invocations=[], installed_age=661.0),
            f"no tick so far of the job {TICK}, though it was installed 11 minutes ago",
        ),
        (
            replace(
                WELL,
                jobs=[job(10.0, "expiry"), job(10.0, "inactivity", runs=[])],
                invocations=[invocation(scenario_types=["expiry"])],
                installed_age=10_000.0,
            ),
            f"no tick so far of the job {TICK} inactivity, though it was installed 3 hours ago",
        ),
        (
            replace(WELL, invocations=[invocation(is_overdue=True, **UNANSWERED)]),
            "select net.worker_restart()",
        ),
        (
            replace(WELL, invocations=[invocation(error="timeout", status_code=None, run_id=None)]),
            "did not answer the last tick (timeout): look whether it runs",
        ),
        (
            replace(WELL, invocations=[invocation(error="no\nroute", status_code=None, run_id=None)]),
            "did not answer the last tick (no route): look whether it runs",
        ),
        (replace(WELL, invocations=[refused(401, "unauthorized")]), "refuses the secret (401)"),
        (replace(WELL, invocations=[refused(403)]), "proxy or firewall"),
        (replace(WELL, invocations=[refused(404, "not_found")]), "must end in /run"),
        (replace(WELL, invocations=[refused(422, "unknown_scenario_type")]), "(422, unknown_scenario_type)"),
        (replace(WELL, invocations=[refused(500, "internal")]), "its log says why"),
        (replace(WELL, invocations=[refused(503, "database_unavailable")]), "(503, database_unavailable)"),
        (replace(WELL, invocations=[refused(302)]), "the URL redirects (302), which is not followed"),
        (replace(WELL, invocations=[refused(418)]), "answered the last tick with 418"),
        (replace(WELL, invocations=[refused(200)]), "somebody else answers at the URL"),
        (replace(WELL, invocations=[invocation(verdict=None)]), "the service works in another database"),
        (replace(WELL, invocations=[invocation(verdict="failed")]), "the last run failed"),
        (
            replace(WELL, invocations=[refused(409), refused(409, None, 5)]),
            "make the schedule's interval longer",
        ),
    ],
)
def test_the_nearest_cause_is_said_in_one_line_with_its_mend(status: TickStatus, said: str) -> None:
    wrong = diagnose(status)
    assert wrong is not None
    assert said in wrong
    assert "\n" not in wrong


def test_a_tick_under_way_does_not_hide_that_the_one_before_was_refused() -> None:
    status = replace(WELL, invocations=[invocation(**UNANSWERED), refused(401, "unauthorized", 5)])
    assert "refuses the secret" in str(diagnose(status))


def test_a_run_under_way_does_not_hide_that_the_tick_before_was_answered_by_somebody_else() -> None:
    status = replace(WELL, invocations=[refused(409, "run_in_progress"), refused(200, None, 5)])
    assert "somebody else answers" in str(diagnose(status))


def of_jobs(*invocations: Invocation) -> TickStatus:
    """Two jobs, one for each scenario, that tick as they should."""
    return replace(WELL, jobs=[job(10.0, "expiry"), job(10.0, "inactivity")], invocations=invocations)


def only(scenario_type: str, invocation: Invocation) -> Invocation:
    return replace(invocation, scenario_types=[scenario_type])


def test_a_scenario_that_always_fails_is_not_hidden_by_another_that_is_well() -> None:
    status = of_jobs(only("expiry", invocation()), only("inactivity", refused(500, "internal", 1)))
    assert diagnose(status) == f"{TICK} inactivity: the service failed (500): its log says why"


def test_refusals_during_a_run_are_in_a_row_only_if_they_are_of_the_same_job() -> None:
    alternating = [
        only("expiry", refused(409)),
        only("inactivity", refused(409, None, 1)),
        only("expiry", invocation(5)),
        only("inactivity", invocation(6)),
    ]
    assert diagnose(of_jobs(*alternating)) is None
    twice = [*alternating[:2], only("expiry", refused(409, None, 5)), alternating[3]]
    assert "longer than a run takes" in str(diagnose(of_jobs(*twice)))


def test_what_became_of_a_job_that_was_taken_away_is_not_held_against_the_others() -> None:
    well = [only("expiry", invocation(1)), only("inactivity", invocation(2))]
    assert diagnose(of_jobs(refused(401), only("milestone", refused(422)), *well)) is None


def test_a_tick_that_is_still_to_come_is_not_wrong_and_is_said() -> None:
    installed = replace(WELL, jobs=[NEVER_RAN], invocations=[], installed_age=660.0)
    assert diagnose(installed) is None
    assert describe_first_ticks(installed) == "the first tick is still to come"
    assert describe_first_ticks(WELL) is None
    added = replace(of_jobs(only("expiry", invocation())), installed_age=660.0)
    added = replace(added, jobs=[added.jobs[0], replace(added.jobs[1], runs=[])])
    assert diagnose(added) is None
    assert describe_first_ticks(added) == f"still to come is the first tick of: {TICK} inactivity"
