"""What a Prometheus would see of the service, against what it answered itself."""

from __future__ import annotations

import secrets
from typing import Any

import trio

from tests.end_to_end.conftest import PATIENCE, Service, StartService, open_trigger_engine, query, seed
from tests.exposition import Series, parse


async def scrape(service: Service) -> Series:
    answer = await service.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.text)


def total(series: Series, name: str, part: str = "") -> float:
    return sum(value for each, value in series.items() if each.startswith(f"{name}{{") and part in each)


def assert_accounted_for(series: Series, *summaries: dict[str, Any]) -> None:
    for result, name in {
        "evaluated": "total_evaluated",
        "error": "total_errors",
        "unprocessed": "total_unprocessed",
        "": "total_active_mentors",
    }.items():
        expected = sum(summary[name] for summary in summaries)
        assert total(series, "scheduler_mentors_total", result) == expected
    for result in ("dispatched", "suppressed"):
        expected = sum(summary[f"total_{result}"] for summary in summaries)
        assert total(series, "scheduler_notifications_total", result) == expected
    assert total(series, "scheduler_errors_total") == sum(summary["total_errors"] for summary in summaries)
    assert total(series, "scheduler_runs_total") == len(summaries)
    assert series["scheduler_invocations_in_flight"] == series["scheduler_channel_depth"] == 0


async def test_500_mentors_over_http_and_their_errors_are_what_a_scrape_adds_up_to(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 500)
    rows = await query(database_url, "select id from public.peer_mentors order by id limit 20")
    slow = {row["id"] for row in rows}
    async with open_trigger_engine(lambda mentor_id: 2.0 if mentor_id in slow else 0.0) as engine:
        service = await start_service(
            DATABASE_URL=database_url,
            SCHEDULER_TRIGGER_ENGINE=engine.url,
            SCHEDULER_INVOCATION_TIMEOUT="0.7",
        )
        summary = (await service.tick()).json()
        series = await scrape(service)
    assert (summary["total_evaluated"], summary["total_errors"]) == (480, 20)
    assert_accounted_for(series, summary)
    assert series['scheduler_errors_total{class="timeout"}'] == 20
    assert series["scheduler_invocation_duration_seconds_count"] == 500
    assert series['scheduler_invocation_duration_seconds_bucket{le="0.5"}'] == 480
    assert series['scheduler_runs_total{verdict="completed"}'] == 1
    [line] = service.logged("first_error_of_class")
    assert (line["error_class"], line["run_id"]) == ("timeout", summary["run_id"])
    assert "SCHEDULER_INVOCATION_TIMEOUT" in line["remedy"]


async def test_500_mentors_in_the_database_are_what_a_scrape_adds_up_to(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 500)
    before = await scrape(await start_service(DATABASE_URL=database_url))  # which keeps its answer a second
    service = await start_service(DATABASE_URL=database_url)
    dry = (await service.tick(dry_run=True)).json()
    summaries = [(await service.tick()).json() for _ in range(2)]
    await service.tick(secret="0" * 64)
    series = await scrape(service)
    assert dry["total_dispatched"] == 500
    assert_accounted_for(before)
    assert_accounted_for(series, *summaries)
    assert series['scheduler_notifications_total{result="dispatched",scenario="inactivity"}'] == 500
    assert series['scheduler_notifications_total{result="suppressed",scenario="inactivity"}'] == 500
    assert series['scheduler_unauthorized_total{path="run"}'] == 1
    assert total(before, "scheduler_never_covered") == 3
    assert "scheduler_oldest_unvisited_seconds" not in before
    assert total(series, "scheduler_never_covered") == 0
    assert 0 <= series["scheduler_oldest_unvisited_seconds"] < PATIENCE


async def test_a_run_under_way_can_be_watched(database_url: str, start_service: StartService) -> None:
    await seed(database_url, 100)
    let_go = trio.Event()
    async with open_trigger_engine(lambda mentor_id: 0.0 if let_go.is_set() else 1.0) as engine:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE=engine.url)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.tick)
            await engine.wait_until_called(10)
            during = await scrape(service)
            let_go.set()
        after = await scrape(service)
    assert during["scheduler_invocations_in_flight"] == 10
    assert during["scheduler_channel_depth"] == 10
    assert total(during, "scheduler_runs_total") == 0
    assert total(after, "scheduler_mentors_total", "evaluated") == 100


async def test_metrics_are_served_while_postgres_is_away_and_whole_when_it_is_back(
    open_own_postgres, start_service: StartService
) -> None:
    with open_own_postgres() as postgres:
        postgres.stop_immediately()
        service = await start_service(DATABASE_URL=postgres.dsn)
        assert (await service.tick()).status_code == 503
        away = await scrape(service)
        postgres.start_again()
        unmigrated = await scrape(service)
    for series in (away, unmigrated):
        assert series["scheduler_database_up"] == 0
        assert total(series, "scheduler_runs_total") == 0
        assert not any(each.startswith("scheduler_freshness_seconds") for each in series)


async def test_metrics_are_the_operators_once_there_is_one(
    database_url: str, start_service: StartService
) -> None:
    token = secrets.token_hex(32)
    service = await start_service(DATABASE_URL=database_url, SCHEDULER_OPERATOR_TOKEN=token)
    refused = await service.get("/metrics")
    opened = await service.get("/metrics", token=token)
    assert (refused.status_code, opened.status_code) == (401, 200)
    assert parse(opened.text)['scheduler_unauthorized_total{path="operator"}'] == 1
