"""The whole service, on a real Postgres, over real HTTP."""

from __future__ import annotations

import signal
from uuid import UUID

import httpx
import pytest
import trio

from tests.end_to_end.conftest import (
    KEY,
    SECRET,
    Service,
    StartService,
    notified_once_each,
    open_trigger_engine,
    query,
    seed,
)


async def test_50_mentors_seeded_are_50_evaluation_requests_each_exactly_once(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 50)
    async with open_trigger_engine() as engine:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=engine.url)
        answer = await service.tick()
        heard = [UUID(mentor_id) for mentor_id in engine.report.mentor_ids]
    assert answer.status_code == 200
    assert (answer.json()["total_evaluated"], answer.json()["completed"]) == (50, True)
    active = [row["id"] for row in await query(database_url, "select id from public.peer_mentors")]
    assert sorted(heard) == sorted(active)


async def test_500_mentors_are_all_reached(database_url: str, start_service: StartService) -> None:
    await seed(database_url, 500)
    async with open_trigger_engine(lambda mentor_id: 0.02) as engine:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=engine.url)
        answer = await service.tick()
        assert len(set(engine.report.mentor_ids)) == len(engine.report.mentor_ids) == 500
        assert engine.report.peak_in_flight == 10
    assert (answer.json()["total_evaluated"], answer.json()["total_unprocessed"]) == (500, 0)


async def test_a_tick_notifies_and_the_next_one_is_suppressed(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 250)
    service = await start_service(DATABASE_URL=database_url)
    first, second = (await service.tick()).json(), (await service.tick()).json()
    assert (first["total_evaluated"], first["total_dispatched"], first["total_suppressed"]) == (250, 250, 0)
    assert (second["total_evaluated"], second["total_dispatched"], second["total_suppressed"]) == (
        250,
        0,
        250,
    )
    assert await notified_once_each(database_url) == 250


async def test_a_dry_run_says_what_would_go_out_and_writes_nothing(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 20)
    service = await start_service(DATABASE_URL=database_url)
    summary = (await service.tick(dry_run=True)).json()
    assert summary["total_dispatched"] == 20
    assert await notified_once_each(database_url) == 0


async def test_a_run_of_some_scenario_types_evaluates_no_other(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 20)
    service = await start_service(DATABASE_URL=database_url)
    assert (await service.tick(scenario_types=["expiry"])).json()["total_dispatched"] == 0
    assert (await service.tick(scenario_types=["inactivity"])).json()["total_dispatched"] == 20
    refused = await service.tick(scenario_types=["inactivity", "birthday"])
    assert (refused.status_code, refused.json()["error"]) == (422, "unknown_scenario_type")
    assert "expiry, inactivity, milestone" in refused.json()["detail"]


@pytest.mark.parametrize("in_database", [True, False], ids=["in-database", "over HTTP"])
async def test_nothing_personal_and_no_secret_is_logged_or_answered(
    in_database: bool, database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 500)
    async with open_trigger_engine() as engine:
        trigger_engine = {} if in_database else {"SCHEDULER_TRIGGER_ENGINE": engine.url}
        service = await start_service(DATABASE_URL=database_url, **trigger_engine)
        ran = await service.tick()
        answers = [
            ran,
            await service.tick(secret="0" * 64),
            await service.tick(scenario_types=["birthday"] if in_database else []),
            await service.get("/readyz"),
        ]
        service.send(signal.SIGTERM)
        assert await service.exit_code() == 0
    assert ran.json()["total_evaluated"] == 500
    assert service.logged("run_ended")
    said = service.log() + "".join(answer.text + str(answer.headers) for answer in answers)
    people = await query(database_url, "select id, user_id from public.peer_mentors")
    assert len(people) == 500
    password = httpx.URL(database_url).password
    for kept in [SECRET, KEY, password, *(str(value) for row in people for value in row.values())]:
        assert kept not in said


async def test_what_postgres_says_of_a_row_it_chokes_on_is_neither_logged_nor_answered(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 3)
    await query(
        database_url,
        "create or replace view scheduler.mentors as select id, user_id, status, "
        "(status || 'alice@example.org-4711')::timestamptz as created_at from public.peer_mentors",
    )
    service = await start_service(DATABASE_URL=database_url)
    ran = await service.tick()
    async with httpx.AsyncClient(trust_env=False) as client:
        [row] = await query(database_url, "select id from public.peer_mentors limit 1")
        mentor = row["id"]
        invoked = await client.post(
            f"{service.url}/trigger-engine",
            headers={"Authorization": f"Bearer {KEY}"},
            json={"mentor_id": str(mentor)},
        )
    assert ran.json()["total_errors"] == 3
    assert (invoked.status_code, invoked.json()["error"]) == (500, "internal")
    assert service.logged("request_refused")
    assert service.logged("run_ended")[0]["level"] == "warning"
    assert [line["error_class"] for line in service.logged("first_error_of_class")] == ["sql_22007"]
    for kept in ("alice", str(mentor)):
        assert kept not in service.log() + ran.text + invoked.text


async def test_a_caller_who_hangs_up_does_not_end_the_run(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 30)
    async with open_trigger_engine(lambda mentor_id: 0.5) as engine:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=engine.url)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.tick)
            await service.wait_until_logged("run_started")
            nursery.cancel_scope.cancel()
        ended = await service.wait_until_logged("run_ended")
    assert (ended["total_evaluated"], ended["stop_reason"]) == (30, "finished")


async def test_a_second_caller_is_told_that_a_run_is_in_progress(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 30)
    async with open_trigger_engine(lambda mentor_id: 0.5) as engine:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=engine.url)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.tick)
            await service.wait_until_logged("run_started")
            second = await service.tick()
    assert (second.status_code, second.json()["error"]) == (409, "run_in_progress")
    assert 20 <= int(second.headers["Retry-After"]) <= 28


async def test_sigterm_drains_and_the_caller_still_gets_the_summary(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 200)
    answers: list[httpx.Response] = []
    async with open_trigger_engine(lambda mentor_id: 1.0) as engine:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=engine.url)

        async def tick() -> None:
            answers.append(await service.tick())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            await engine.wait_until_called(10)
            service.send(signal.SIGTERM)
            await service.wait_until_logged("draining")
            refused = await service.tick()
            unauthorized = await service.tick(secret="0" * 64)
        assert await service.exit_code() == 0
    [answer] = answers
    summary = answer.json()
    assert (answer.status_code, summary["stop_reason"], summary["partial"]) == (200, "draining", True)
    assert (summary["total_active_mentors"], summary["remaining_known"]) == (200, True)
    assert (refused.status_code, refused.json()["error"]) == (503, "draining")
    assert unauthorized.status_code == 401


async def test_a_second_signal_ends_at_once(database_url: str, start_service: StartService) -> None:
    await seed(database_url, 20)
    async with open_trigger_engine(lambda mentor_id: 4.5) as engine:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=engine.url)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tick_cut_short, service)
            await engine.wait_until_called(10)
            service.send(signal.SIGTERM)
            await service.wait_until_logged("draining")
            service.send(signal.SIGTERM)
            assert await service.exit_code() == 1
    assert not service.logged("run_ended")


async def _tick_cut_short(service: Service) -> None:
    with pytest.raises(httpx.TransportError):
        await service.tick()


async def test_a_service_without_its_database_says_so_and_serves_when_it_is_back(
    open_own_postgres, start_service: StartService
) -> None:
    with open_own_postgres() as postgres:
        url = postgres.dsn
        postgres.stop_immediately()
        service = await start_service(DATABASE_URL=url)
        assert (await service.get("/healthz")).status_code == 200
        assert (await service.get("/readyz")).status_code == 503
        answer = await service.tick()
        assert (answer.status_code, answer.json()["error"]) == (503, "database_unavailable")
        assert "Retry-After" in answer.headers

        postgres.start_again()
        answer = await service.tick()
        assert (answer.status_code, answer.json()["error"]) == (503, "not_ready")
        assert "scenario-scheduler migrate" in answer.json()["detail"]
