"""The service in bad conditions: killed, crowded, told to stop, frozen, without its Postgres."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any

import httpx
import pytest
import trio

from engine import LEASE, migrate, open_database
from engine.statements import Statement
from tests.end_to_end.conftest import (
    PATIENCE,
    Service,
    StartService,
    notified_once_each,
    open_trigger_engine,
    query,
    seed,
)
from tests.end_to_end.kill import (
    AGE,
    ENGINES,
    TAKE_THE_NET_AWAY,
    kill_and_run_again,
    prepare,
    tick_in_vain,
    walk_settings,
)
from tests.faults.injected import count

SOMEBODY_IS_NOTIFIED = "select from scheduler.notifications limit 1"
A_MARK_IS_RECORDED = "select from scheduler.runs where verdict = 'running' and low_water_mark is not null"

# Evaluations that are held up before they notify.
HELD_UP = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"

HOLD_UP = Statement("hold_up", "lock table scheduler.cooldowns in share mode")

# Connections at most: one each for pages, ledger, the remaining count and whoever asks whether it is ready;
# in the database also the evaluations.
OVER_HTTP, IN_DATABASE = 4, 8


async def rows_of(url: str) -> list[dict[str, Any]]:
    """The ledger, oldest run first."""
    return [dict(row) for row in await query(url, "select * from scheduler.runs order by started_at, id")]


async def until_there_is(url: str, sql: str) -> None:
    with trio.fail_after(PATIENCE):
        while not await query(url, sql):  # noqa: ASYNC110 - nothing but asking tells
            await trio.sleep(0.02)


async def until_connected(url: str, at_most: int) -> None:
    """Until no more sessions of services are left than these."""
    await until_there_is(
        url,
        "select from pg_stat_activity where application_name = 'scenario-scheduler' "
        f"having count(*) <= {at_most}",
    )


async def tick(service: Service, answers: list[httpx.Response]) -> None:
    answers.append(await service.tick())


def adds_up(summary: dict[str, Any]) -> bool:
    parts = ("total_evaluated", "total_errors", "total_unprocessed")
    return bool(summary["total_active_mentors"] == sum(summary[part] for part in parts))


# --- Killed ---


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_service_killed_in_mid_run_leaves_nobody_out_and_notifies_nobody_twice(
    engine: str, database_url: str, start_service: StartService
) -> None:
    """Before its first heartbeat, and behind a mark. All that `python -m tests.end_to_end.kill` looks at."""
    await prepare(database_url, 600, chunk=10, walk=2.5)
    settings = await walk_settings(engine, database_url, start_service, chunk=10)
    marks = []
    for moment in (SOMEBODY_IS_NOTIFIED, A_MARK_IS_RECORDED):
        outcome = await kill_and_run_again(
            start_service, settings, partial(until_there_is, database_url, moment), wait=False
        )
        assert outcome.faults == []
        assert (outcome.verdict, outcome.refused) == ("abandoned", 1)
        assert (outcome.notifications, outcome.fresh_evaluated) == (600, 600)
        marks.append(outcome.mark)
    assert 0 < marks[1] < 600


async def test_what_a_killed_service_had_begun_in_the_database_and_the_run_after_it_notify_once_together(
    database_url: str, start_service: StartService
) -> None:
    """Its calls outlive it, and end at the same time as the same ones of the fresh run."""
    await seed(database_url, 40)
    await query(database_url, TAKE_THE_NET_AWAY)
    settings = {"SCHEDULER_PAGE_SIZE": "10", "SCHEDULER_INVOCATION_TIMEOUT": "25"}
    killed = await start_service(DATABASE_URL=database_url, **settings)
    fresh = await start_service(DATABASE_URL=database_url, **settings)
    answers: list[httpx.Response] = []
    async with (
        open_database(database_url) as database,
        trio.open_nursery() as nursery,
        database.open_transaction() as holding,
    ):
        await holding.fetch(HOLD_UP)
        nursery.start_soon(tick_in_vain, killed)
        await until_there_is(database_url, f"{HELD_UP} having count(*) = 4")
        killed.send(signal.SIGKILL)
        await killed.exit_code()
        await query(database_url, AGE, LEASE)
        nursery.start_soon(tick, fresh, answers)
        await until_there_is(database_url, f"{HELD_UP} having count(*) = 8")
    assert await notified_once_each(database_url) == 40
    [answer] = answers
    assert (answer.json()["total_evaluated"], answer.json()["completed"]) == (40, True)
    assert [row["verdict"] for row in await rows_of(database_url)] == ["abandoned", "completed"]


# --- Crowded ---


async def test_of_twenty_ticks_at_once_on_two_services_one_runs_and_nineteen_are_refused(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 50)
    settings = {"DATABASE_URL": database_url, "SCHEDULER_INVOCATION_TIMEOUT": "25"}
    services = [await start_service(**settings) for _ in range(2)]
    answers: list[httpx.Response] = []
    async with (
        open_database(database_url) as database,
        trio.open_nursery() as nursery,
        database.open_transaction() as holding,
    ):
        # The run that begins can't notify, hence not end, until all others were refused.
        await holding.fetch(HOLD_UP)
        for service in services * 10:
            nursery.start_soon(tick, service, answers)
        with trio.fail_after(20):
            while len(answers) < 19:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert [row["verdict"] for row in await rows_of(database_url)] == ["running"]
    *refused, ran = answers
    assert [(each.status_code, each.json()["error"]) for each in refused] == [(409, "run_in_progress")] * 19
    assert all(1 <= int(each.headers["Retry-After"]) <= 28 for each in refused)
    assert (ran.status_code, ran.json()["total_dispatched"]) == (200, 50)
    assert await notified_once_each(database_url) == 50
    [row] = await rows_of(database_url)
    assert (str(row["id"]), row["verdict"]) == (ran.json()["run_id"], "completed")


# --- Told to stop ---


@pytest.mark.parametrize("hangs_up", [False, True], ids=["the caller waits", "the caller hung up"])
async def test_sigterm_in_mid_run_ends_it_with_what_is_in_flight_and_a_row_that_says_draining(
    hangs_up: bool, database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 200)
    answers: list[httpx.Response] = []
    async with open_trigger_engine(lambda mentor_id: 1.0) as engine:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=engine.url)
        async with trio.open_nursery() as calling:
            calling.start_soon(tick, service, answers)
            await engine.wait_until_called(21)  # the third second, ten a second
            if hangs_up:
                calling.cancel_scope.cancel()
            service.send(signal.SIGTERM)
        assert await service.exit_code() == 0
        heard = len(engine.report.mentor_ids)
    [row] = await rows_of(database_url)
    assert (row["verdict"], row["stop_reason"]) == ("partial", "draining")
    assert row["finished_at"] is not None
    assert 21 <= row["total_evaluated"] == heard < 100
    assert (row["total_active_mentors"], row["total_errors"], row["remaining_known"]) == (200, 0, True)
    if hangs_up:
        assert answers == []
    else:
        [answer] = answers
        summary = answer.json()
        assert (answer.status_code, summary["stop_reason"], summary["partial"]) == (200, "draining", True)
        assert {name: row[name] for name in summary.keys() & row.keys()} == {
            name: summary[name] for name in summary.keys() & row.keys()
        }


# --- Frozen ---


async def test_a_service_frozen_past_its_lease_is_taken_over_and_once_woken_does_nothing_more(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 400)
    of_frozen: list[httpx.Response] = []
    of_other: list[httpx.Response] = []
    running: list[int] = []

    async def look() -> None:
        while True:
            rows = await query(database_url, "select from scheduler.runs where verdict = 'running'")
            running.append(len(rows))
            await trio.sleep(0.1)

    async def tick_until_accepted() -> None:
        while not of_other or of_other[-1].status_code == 409:
            await trio.sleep(0.3)
            await tick(other, of_other)

    async with (
        open_trigger_engine(lambda mentor_id: 0.1) as frozens,
        open_trigger_engine(lambda mentor_id: 0.1) as others,
    ):
        frozen = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=frozens.url)
        other = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=others.url)
        async with trio.open_nursery() as looking:
            looking.start_soon(look)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick, frozen, of_frozen)
                await until_there_is(database_url, A_MARK_IS_RECORDED)
                frozen.send(signal.SIGSTOP)
                nursery.start_soon(tick_until_accepted)
                await others.wait_until_called(1)
                taken, holder = await rows_of(database_url)
                heard = len(frozens.report.mentor_ids)
                frozen.send(signal.SIGCONT)
            looking.cancel_scope.cancel()
        assert len(frozens.report.mentor_ids) == heard < 400
        assert set(others.report.mentor_ids) >= set(frozens.report.mentor_ids)
        assert (await frozen.get("/healthz")).status_code == 200

    assert (taken["verdict"], taken["finished_at"]) == ("abandoned", None)
    assert (holder["started_at"] - taken["heartbeat_at"]).total_seconds() > LEASE
    assert holder["started_after"] == taken["low_water_mark"] is not None
    after, completed = await rows_of(database_url)
    assert after == taken
    assert (completed["id"], completed["verdict"]) == (holder["id"], "completed")
    assert max(running) == 1

    [answer] = of_frozen
    summary = answer.json()
    assert (answer.status_code, summary["stop_reason"], summary["partial"]) == (200, "lease_lost", True)
    assert adds_up(summary)
    assert summary["run_id"] == str(taken["id"])
    assert frozen.logged("lease_lost")
    *refused, ran = of_other
    assert {each.status_code for each in refused} == {409}
    assert (ran.status_code, ran.json()["total_evaluated"], ran.json()["completed"]) == (200, 400, True)


# --- Without its Postgres ---


async def test_postgres_restarted_in_mid_run_costs_nobody_anything_and_the_row_says_completed(
    open_own_postgres, start_service: StartService
) -> None:
    answers: list[httpx.Response] = []
    with open_own_postgres() as postgres:
        url = postgres.dsn
        async with open_database(url) as database:
            await migrate(database, with_example_tables=True)
        await seed(url, 300)
        async with open_trigger_engine(lambda mentor_id: 0.1) as engine:
            service = await start_service(
                DATABASE_URL=url, SCHEDULER_TRIGGER_ENGINE=engine.url, SCHEDULER_PAGE_SIZE="20"
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick, service, answers)
                await engine.wait_until_called(50)
                postgres.stop_immediately()
                postgres.start_again()
                count("Postgres restarted, immediate")
            assert len(set(engine.report.mentor_ids)) == len(engine.report.mentor_ids) == 300
        summary = answers[0].json()
        assert (summary["total_evaluated"], summary["completed"]) == (300, True)
        [row] = await rows_of(url)
        assert (row["verdict"], row["total_evaluated"]) == ("completed", 300)
        await until_connected(url, at_most=OVER_HTTP)
        service.send(signal.SIGTERM)
        assert await service.exit_code() == 0
        await until_connected(url, at_most=0)
    assert "Traceback" not in service.log()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_postgres_restarted_in_mid_run_of_its_own_evaluations_notifies_everybody_once(
    mode: str, open_own_postgres, start_service: StartService
) -> None:
    answers: list[httpx.Response] = []
    with open_own_postgres() as postgres:
        url = postgres.dsn
        async with open_database(url) as database:
            await migrate(database, with_example_tables=True)
        await prepare(url, 300, chunk=5, walk=3.0)
        service = await start_service(**await walk_settings("in-database", url, start_service, chunk=5))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick, service, answers)
            await until_there_is(url, A_MARK_IS_RECORDED)
            postgres.stop() if mode == "fast" else postgres.stop_immediately()
            postgres.start_again()
            count(f"Postgres restarted, {mode}")
        summary = answers[0].json()
        assert (summary["total_evaluated"], summary["completed"]) == (300, True)
        # A call whose answer was lost is told what it sent, when it is made again.
        assert (summary["total_dispatched"], summary["total_suppressed"]) == (300, 0)
        assert await notified_once_each(url) == 300
        [row] = await rows_of(url)
        assert (row["verdict"], row["total_dispatched"]) == ("completed", 300)
        await until_connected(url, at_most=IN_DATABASE)
        service.send(signal.SIGTERM)
        assert await service.exit_code() == 0
        await until_connected(url, at_most=0)
    assert "Traceback" not in service.log()


async def test_postgres_away_for_longer_than_a_run_may_go_without_ends_it_and_its_row_is_finished_later(
    open_own_postgres, start_service: StartService
) -> None:
    answers: list[httpx.Response] = []
    with open_own_postgres() as postgres:
        url = postgres.dsn
        async with open_database(url) as database:
            await migrate(database, with_example_tables=True)
        await seed(url, 600)
        async with open_trigger_engine(lambda mentor_id: 0.05) as engine:
            service = await start_service(
                DATABASE_URL=url, SCHEDULER_TRIGGER_ENGINE=engine.url, SCHEDULER_PAGE_SIZE="20"
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick, service, answers)
                await until_there_is(url, A_MARK_IS_RECORDED)
                postgres.stop_immediately()
            heard = len(engine.report.mentor_ids)
            [answer] = answers
            summary = answer.json()
            assert answer.status_code == 200
            assert (summary["stop_reason"], summary["partial"]) == ("database_unavailable", True)
            assert (summary["total_evaluated"], summary["remaining_known"]) == (heard, False)
            assert summary["duration_ms"] < 20_000  # nine to ten seconds; the soft threshold is at 25
            assert 0 < heard < 600
            assert adds_up(summary)

            # Nobody asks for a run: it is the service that ended it who writes its verdict.
            postgres.start_again()
            await until_there_is(url, "select from scheduler.runs where verdict <> 'running'")
            [row] = await rows_of(url)
            assert (row["verdict"], row["stop_reason"]) == ("partial", "database_unavailable")
            assert (row["total_evaluated"], row["stretch_mentors"]) == (heard, heard)
            assert row["finished_at"] is not None

            await tick(service, answers)
            assert (answers[1].status_code, answers[1].json()["completed"]) == (200, True)
            assert len(set(engine.report.mentor_ids)) == 600
        assert (await rows_of(url))[1]["started_after"] == row["low_water_mark"]
        await until_connected(url, at_most=OVER_HTTP)
        service.send(signal.SIGTERM)
        assert await service.exit_code() == 0
        await until_connected(url, at_most=0)
    assert "Traceback" not in answer.text + service.log()
