"""GET /freshness."""

from __future__ import annotations

import pytest
import trio
from quart.typing import TestClientProtocol as Client
from trio.testing import MockClock

from engine import DatabaseUnavailable, Freshness, NotReady, SchedulerError, StatementFailed
from tests.web.conftest import FakeScheduler
from tests.web.test_run import assert_refused


async def test_freshness_says_the_age_of_each_scenario(client: Client, scheduler: FakeScheduler) -> None:
    scheduler.freshness = Freshness(900.0, {"expiry": 12.345, "inactivity": 900.0})
    response = await client.get("/freshness")
    assert response.status_code == 200
    assert await response.get_json() == {
        "status": "fresh",
        "limit_seconds": 900,
        "scenarios": {"expiry": {"age_seconds": 12.3}, "inactivity": {"age_seconds": 900}},
    }


async def test_freshness_without_a_scenario_is_fresh(client: Client) -> None:
    response = await client.get("/freshness")
    assert response.status_code == 200
    assert (await response.get_json())["scenarios"] == {}


async def test_freshness_past_the_limit_is_stale_and_names_the_oldest(
    client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.freshness = Freshness(900.0, {"expiry": 5.0, "inactivity": 1000.0, "milestone": 1234.56})
    response = await client.get("/freshness")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert await response.get_json() == {
        "error": "stale",
        "detail": "It is 1235 s since everybody was evaluated for the scenario milestone, and 900 s is the "
        "limit; check that something calls /run and how the last runs ended.",
        "limit_seconds": 900,
        "scenarios": {
            "expiry": {"age_seconds": 5},
            "inactivity": {"age_seconds": 1000},
            "milestone": {"age_seconds": 1234.6},
        },
    }


async def test_freshness_that_never_was_is_said_before_one_that_is_lost(
    client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.freshness = Freshness(900.0, {"expiry": 5000.0, "welcome": None})
    response = await client.get("/freshness")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert await response.get_json() == {
        "error": "never_covered",
        "detail": "Not everybody was evaluated for the scenario welcome yet; if that stays so, check that "
        "something calls /run and how the last runs ended.",
        "limit_seconds": 900,
        "scenarios": {"expiry": {"age_seconds": 5000}, "welcome": {"age_seconds": None}},
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DatabaseUnavailable("Postgres is away."), "database_unavailable"),
        (NotReady("The database is not migrated.", 5.0), "not_ready"),
    ],
)
async def test_freshness_is_unknown_while_no_run_could_begin(
    error: SchedulerError, code: str, client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.error = error
    response = await client.get("/freshness")
    assert await assert_refused(response, 503, code) == str(error)
    assert response.headers["Retry-After"] == "1"
    assert scheduler.freshness_measurements == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DatabaseUnavailable("Postgres is away."), "database_unavailable"),
        (StatementFailed("covering_runs", "42501"), "not_ready"),
    ],
)
async def test_freshness_is_unknown_while_the_ledger_can_not_be_read(
    error: SchedulerError,
    code: str,
    client: Client,
    scheduler: FakeScheduler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def measure_freshness() -> Freshness:
        await trio.lowlevel.checkpoint()
        raise error

    monkeypatch.setattr(scheduler, "measure_freshness", measure_freshness)
    assert await assert_refused(await client.get("/freshness"), 503, code) == str(error)


async def test_freshness_is_measured_once_a_second_however_many_ask_and_whatever_the_answer(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client.get, "/freshness")
    assert scheduler.freshness_measurements == 1

    scheduler.error = DatabaseUnavailable("Postgres is away.")
    await trio.sleep(0.5)
    assert (await client.get("/freshness")).status_code == 200
    await trio.sleep(0.5)
    assert (await client.get("/freshness")).status_code == 503
    assert scheduler.readiness_checks == 2

    scheduler.error = None
    await trio.sleep(0.5)
    assert (await client.get("/freshness")).status_code == 503
    await trio.sleep(0.5)
    assert (await client.get("/freshness")).status_code == 200
    assert scheduler.readiness_checks == 3


async def test_freshness_can_be_asked_for_and_nothing_else(client: Client) -> None:
    response = await client.post("/freshness")
    await assert_refused(response, 405, "method_not_allowed")
    assert (await client.options("/freshness")).status_code == 405
