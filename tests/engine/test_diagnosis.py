"""What is wrong with the tick, in one line: the nearest cause, and the mend."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.run_id import new_run_id
from engine.tick.diagnosis import diagnose
from engine.tick.jobs import TICK
from engine.tick.status import Invocation, JobStatus, TickStatus

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)

JOB = JobStatus(
    name=TICK,
    schedule="*/5 * * * *",
    command="select scheduler.invoke()",
    active=True,
    started_at=NOW,
    age=10.0,
    status="succeeded",
    message="1 row",
)


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
    pg_cron="1.6",
    pg_net="0.20",
    plpython3u=False,
    vault=True,
    url="https://scheduler.example/run",
    timeout_ms=45_000,
    has_fallback_secret=False,
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
        replace(WELL, jobs=[replace(JOB, age=2 * 300.0 + 60.0)]),
        replace(WELL, jobs=[replace(JOB, schedule="0 8 1 * *", age=1e6)]),
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
        (replace(WELL, pg_cron=None), "create extension pg_cron"),
        (replace(WELL, jobs=[]), "no job ticks this database: run `cron install`"),
        (replace(WELL, url=None), "no URL to post to: run `cron install`"),
        (replace(WELL, pg_net=None), "create extension pg_net"),
        (replace(WELL, jobs=[replace(JOB, active=False)]), f"the job {TICK} is switched off"),
        (
            replace(WELL, jobs=[replace(JOB, name=f"{TICK} expiry")]),
            "no job ticks the scenario inactivity: run `cron install --per-scenario`",
        ),
        (
            replace(WELL, jobs=[replace(JOB, status="failed", message="ERROR: no such role\nCONTEXT: x")]),
            f"pg_cron could not run the job {TICK}: ERROR: no such role",
        ),
        (
            replace(WELL, jobs=[replace(JOB, age=2 * 300.0 + 61.0)]),
            f"pg_cron has not run the job {TICK} for 11 minutes, though its schedule is */5 * * * *",
        ),
        (replace(WELL, jobs=[replace(JOB, started_at=None, age=None)], invocations=[]), "no tick so far"),
        (
            replace(WELL, invocations=[invocation(is_overdue=True, **UNANSWERED)]),
            "select net.worker_restart()",
        ),
        (
            replace(WELL, invocations=[invocation(error="timeout", status_code=None, run_id=None)]),
            "did not answer the last tick (timeout): look whether it runs",
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
