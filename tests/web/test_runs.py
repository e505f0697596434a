"""GET /runs and /runs/<id>: who may, which page, and what is told of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from quart.typing import TestClientProtocol as Client
from werkzeug.datastructures import Headers

from engine import DatabaseUnavailable, NotReady, RunRecord, StatementFailed
from tests.web.conftest import KEY, SECRET, TOKEN, FakeScheduler, make_settings
from tests.web.states import shards_of
from tests.web.test_run import assert_refused
from web.app import create_app

OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
STARTED_AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)


def run_id(number: int) -> UUID:
    return UUID(int=0x0193 << 112 | number)


def record(number: int, verdict: str = "completed") -> RunRecord:
    started_at = STARTED_AT + timedelta(minutes=5 * number)
    return RunRecord(
        run_id=run_id(number),
        verdict=verdict,
        stop_reason=None if verdict == "running" else "finished",
        scenario_types=None,
        evaluated_types=("expiry", "inactivity"),
        resumed=False,
        started_at=started_at,
        heartbeat_at=started_at + timedelta(seconds=3),
        finished_at=None if verdict == "running" else started_at + timedelta(seconds=3),
        duration_ms=2_710,
        total_active_mentors=500,
        total_evaluated=498,
        total_dispatched=61,
        total_suppressed=12,
        total_errors=2,
        total_unprocessed=0,
        remaining_known=True,
        stretch_mentors=500,
        stretch_evaluated=498,
        dispatched={"inactivity": 61},
        suppressed={"expiry": 12},
        errors={"timeout": 2},
        total_shards=0,
        total_workers=0,
        total_redelivered=0,
    )


@pytest.fixture
def records(scheduler: FakeScheduler) -> list[RunRecord]:
    """More than anybody may ask for at once, newest first."""
    scheduler.records = [record(number) for number in range(600, 0, -1)]
    return scheduler.records


async def get(client: Client, path: str) -> dict:
    response = await client.get(path, headers=OPERATOR)
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    return await response.get_json()


# --- Who may ---


@pytest.mark.parametrize("path", ["/runs", f"/runs/{run_id(1)}", "/runs/nonsense", "/runs?limit=0"])
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="missing"),
        pytest.param([("Authorization", "Bearer ")], id="empty"),
        pytest.param([("Authorization", f"Bearer {TOKEN}x")], id="wrong"),
        pytest.param([("Authorization", f"Bearer {KEY}")], id="the service role key"),
        pytest.param([("Authorization", f"Bearer {SECRET}")], id="the shared secret"),
        pytest.param([("X-Scheduler-Secret", SECRET)], id="the shared secret in its header"),
        pytest.param([("Authorization", f"Basic {TOKEN}")], id="another scheme"),
        pytest.param([("Authorization", f"Bearer {TOKEN}")] * 2, id="given twice"),
    ],
)
async def test_nobody_but_the_operator_may_read_the_ledger(
    headers: list[tuple[str, str]], path: str, client: Client, scheduler: FakeScheduler
) -> None:
    response = await client.get(path, headers=Headers(headers))
    detail = await assert_refused(response, 401, "unauthorized")
    assert detail == "The credential is missing or wrong."
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="scenario-scheduler"'
    assert scheduler.listings == []


@pytest.mark.parametrize("path", ["/runs", f"/runs/{run_id(1)}"])
async def test_there_is_no_ledger_to_read_while_no_operator_token_is_set(
    path: str, scheduler: FakeScheduler
) -> None:
    client = create_app(scheduler, make_settings(operator_token=None)).test_client()
    for authorization in ("", "Bearer ", "Bearer None", f"Bearer {TOKEN}"):
        response = await client.get(path, headers={"Authorization": authorization})
        await assert_refused(response, 404, "not_found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/runs", f"/runs/{run_id(1)}"])
async def test_the_ledger_can_only_be_read(method: str, path: str, client: Client) -> None:
    await assert_refused(await client.open(path, method=method, headers=OPERATOR), 405, "method_not_allowed")


async def test_the_operators_token_opens_neither_run_nor_trigger_engine(
    client: Client, scheduler: FakeScheduler
) -> None:
    headers = OPERATOR | {"X-Scheduler-Secret": TOKEN}
    for path in ("/run", "/trigger-engine"):
        await assert_refused(await client.post(path, headers=headers), 401, "unauthorized")
    assert (scheduler.requests, scheduler.invocations) == ([], [])


# --- Which page ---


async def test_runs_are_answered_as_the_ledger_has_them_newest_first(
    client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.records = [record(2, "running"), record(1)]
    response = await client.get("/runs", headers=OPERATOR)
    body = json.loads(await response.get_data(as_text=True))
    assert body == {
        "runs": [json.loads(json.dumps(each.as_json())) for each in scheduler.records],
        "next": None,
    }
    assert list(body["runs"][0]) == list(scheduler.records[0].as_json())
    assert body["runs"][0]["started_at"] == "2026-11-23T10:10:00+00:00"


async def test_an_empty_ledger_is_no_runs_and_no_next_page(client: Client) -> None:
    assert await get(client, "/runs") == {"runs": [], "next": None}


async def test_a_page_is_fifty_runs_unless_it_is_said_otherwise(
    client: Client, records: list[RunRecord]
) -> None:
    body = await get(client, "/runs")
    assert [each["run_id"] for each in body["runs"]] == [str(each.run_id) for each in records[:50]]
    assert body["next"] == str(records[49].run_id)


@pytest.mark.parametrize("limit", [1, 7, 500])
async def test_pages_by_their_next_are_every_run_once(
    limit: int, client: Client, records: list[RunRecord]
) -> None:
    seen, pages, path = [], 0, f"/runs?limit={limit}"
    while path:
        body = await get(client, path)
        seen += [each["run_id"] for each in body["runs"]]
        pages += 1
        path = body["next"] and f"/runs?limit={limit}&before={body['next']}"
    assert seen == [str(each.run_id) for each in records]
    assert pages == -(-600 // limit)


async def test_a_page_after_a_run_that_is_gone_is_the_last_and_empty(
    client: Client, records: list[RunRecord]
) -> None:
    assert await get(client, f"/runs?before={run_id(0)}") == {"runs": [], "next": None}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=1000",
        "limit=-1",
        "limit=%2B5",
        "limit=5.0",
        "limit=1_0",
        "limit=%D9%A5",
        "limit=ten",
        "limit=",
        "limit=5%0A",
        "limit=5&limit=5",
        "before=",
        "before=null",
        "before=7",
        f"before={run_id(1).hex}",
        f"before=%7B{run_id(1)}%7D",
        f"before={run_id(1)}&before={run_id(2)}",
        "after=7",
        "limit=5&offset=5",
        "Limit=5",
    ],
)
async def test_a_query_that_can_not_be_meant_is_422(
    query: str, client: Client, scheduler: FakeScheduler
) -> None:
    response = await client.get(f"/runs?{query}", headers=OPERATOR)
    await assert_refused(response, 422, "invalid_query")
    assert scheduler.listings == []


# --- One run ---


async def test_a_run_is_found_by_its_id_in_either_case(client: Client, records: list[RunRecord]) -> None:
    expected = json.loads(json.dumps(record(10).as_json())) | {"shards": []}
    for text in (str(run_id(10)), str(run_id(10)).upper()):
        assert await get(client, f"/runs/{text}") == expected


async def test_a_run_of_a_fleet_is_told_with_its_shards_and_counted_with_them(
    client: Client, scheduler: FakeScheduler
) -> None:
    fleets = replace(record(1), total_shards=3, total_workers=2, total_redelivered=1)
    scheduler.records = [fleets]
    scheduler.shards = {fleets.run_id: shards_of(["finished", "lost", "waiting"], redelivered=1)}
    alone = await get(client, f"/runs/{run_id(1)}")
    assert alone["shards"] == [
        json.loads(json.dumps(each.as_json())) for each in scheduler.shards[fleets.run_id]
    ]
    assert alone["shards"][1] == {
        "shard_index": 1,
        "state": "lost",
        "worker": "worker-b.example:1204",
        "deliveries": 2,
        "heartbeat_at": "2026-11-23T10:00:35.800000+00:00",
        "heartbeat_age": 4.2,
        "finished_at": None,
        "duration_ms": 2100,
        "is_completed": False,
        "total_active_mentors": 162,
        "total_evaluated": 150,
        "total_dispatched": 2,
        "total_suppressed": 18,
        "total_errors": 0,
        "total_unprocessed": 12,
        "share": 0.031,
    }
    [row] = (await get(client, "/runs"))["runs"]
    assert [row[f"total_{name}"] for name in ("shards", "workers", "redelivered")] == [3, 2, 1]
    assert "shards" not in row
    assert scheduler.shard_listings == [fleets.run_id]


@pytest.mark.parametrize(
    "text",
    [
        str(run_id(601)),
        "nonsense",
        "1",
        run_id(1).hex,
        f"{{{run_id(1)}}}",
        f"{run_id(1)}%0A",
        f"urn:uuid:{run_id(1)}",
    ],
)
async def test_a_run_that_the_ledger_does_not_have_is_404(
    text: str, client: Client, records: list[RunRecord]
) -> None:
    await assert_refused(await client.get(f"/runs/{text}", headers=OPERATOR), 404, "not_found")


# --- What can go wrong ---


@pytest.mark.parametrize("path", ["/runs", f"/runs/{run_id(1)}"])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DatabaseUnavailable("Postgres is away."), 503, "database_unavailable"),
        (NotReady("The database has no ledger.", 5.0), 503, "not_ready"),
        (StatementFailed("list_runs", "42501"), 500, "internal"),
    ],
    ids=str,
)
async def test_a_ledger_that_can_not_be_read_is_said_to_be(
    error: Exception, status: int, code: str, path: str, client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.error = error
    response = await client.get(path, headers=OPERATOR)
    await assert_refused(response, status, code)
    assert ("Retry-After" in response.headers) == (status == 503)
