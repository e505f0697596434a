"""POST /run: who may, what may be said, and what is answered."""

from __future__ import annotations

import json

import pytest
import trio
from quart.typing import TestClientProtocol as Client
from trio.testing import MockClock

from engine import (
    DatabaseUnavailable,
    Draining,
    DryRunUnsupported,
    NotReady,
    RunFailed,
    RunInProgress,
    RunRequest,
    StatementFailed,
    UnknownScenarioType,
)
from tests.web.conftest import NEXT_SECRET, SECRET, SUMMARY, FakeScheduler, make_settings
from web.app import create_app

AUTHORIZED = {"X-Scheduler-Secret": SECRET}
JSON = AUTHORIZED | {"Content-Type": "application/json"}


async def assert_refused(response, status: int, code: str) -> str:
    """The one shape of every error. Returns its sentence."""
    assert response.status_code == status
    assert response.content_type == "application/json"
    body = await response.get_json()
    assert list(body) == ["error", "detail"]
    assert body["error"] == code
    assert body["detail"].endswith(".")
    return body["detail"]


async def test_a_tick_is_answered_with_the_summary_in_its_documented_order(
    client: Client,
) -> None:
    response = await client.post("/run", headers=AUTHORIZED)
    assert response.status_code == 200
    assert response.content_type == "application/json"
    body = await response.get_data(as_text=True)
    assert json.loads(body) == SUMMARY.as_json()
    assert list(json.loads(body)) == list(SUMMARY.as_json())


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="missing"),
        pytest.param([("X-Scheduler-Secret", "")], id="empty"),
        pytest.param([("X-Scheduler-Secret", "c3" * 32)], id="wrong"),
        pytest.param([("X-Scheduler-Secret", SECRET[:-1])], id="cut short"),
        pytest.param([("X-Scheduler-Secret", SECRET.upper())], id="upper case"),
        pytest.param([("X-Scheduler-Secret", SECRET), ("X-Scheduler-Secret", SECRET)], id="given twice"),
        pytest.param([("X-Scheduler-Secret", "ä" * 64)], id="not ASCII"),
        pytest.param([("Authorization", f"Bearer {SECRET}")], id="in another header"),
    ],
)
async def test_a_missing_or_wrong_secret_is_401_and_no_run(
    headers: list[tuple[str, str]], client: Client, scheduler: FakeScheduler
) -> None:
    from werkzeug.datastructures import Headers

    response = await client.post("/run", headers=Headers(headers), data=b"not read")
    detail = await assert_refused(response, 401, "unauthorized")
    assert detail == "The credential is missing or wrong."
    assert response.headers["WWW-Authenticate"] == 'SharedSecret realm="scenario-scheduler"'
    assert scheduler.requests == []


async def test_while_the_secret_is_rotated_both_open(scheduler: FakeScheduler) -> None:
    client = create_app(scheduler, make_settings(secret_next=NEXT_SECRET)).test_client()
    for secret in (SECRET, NEXT_SECRET):
        assert (await client.post("/run", headers={"X-Scheduler-Secret": secret})).status_code == 200
    assert (await client.post("/run", headers={"X-Scheduler-Secret": "c3" * 32})).status_code == 401


@pytest.mark.parametrize("given", ["", "None", "null"])
async def test_a_secret_that_is_not_set_matches_nothing(given: str, scheduler: FakeScheduler) -> None:
    client = create_app(scheduler, make_settings(secret=None)).test_client()
    assert (await client.post("/run", headers={"X-Scheduler-Secret": given})).status_code == 401


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
async def test_another_method_is_405_before_anything_else(method: str, client: Client) -> None:
    response = await client.open("/run", method=method)
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"
    if method != "HEAD":
        await assert_refused(response, 405, "method_not_allowed")


async def test_an_unknown_path_is_404_as_json(client: Client) -> None:
    await assert_refused(await client.get("/runs/../etc"), 404, "not_found")


async def test_what_a_caller_says_reaches_the_run(client: Client, scheduler: FakeScheduler) -> None:
    body = {
        "scenario_types": ["milestone", "expiry", "milestone"],
        "dry_run": True,
        "source": "pg_cron",
        "invoked_at": "2026-11-23T20:49:00.123456+00:00",
    }
    response = await client.post("/run", headers=JSON, data=json.dumps(body))
    assert response.status_code == 200
    assert scheduler.requests == [
        RunRequest(("expiry", "milestone"), True, "pg_cron", "2026-11-23T20:49:00.123456+00:00")
    ]


@pytest.mark.parametrize(
    ("headers", "body"),
    [(AUTHORIZED, b""), (JSON, b""), (JSON, b"{}"), (JSON, b'{"scenario_types": null}')],
)
async def test_an_empty_body_asks_for_everything(
    headers: dict[str, str], body: bytes, client: Client, scheduler: FakeScheduler
) -> None:
    assert (await client.post("/run", headers=headers, data=body)).status_code == 200
    assert scheduler.requests == [RunRequest()]


async def test_a_charset_in_the_content_type_is_fine(client: Client) -> None:
    headers = AUTHORIZED | {"Content-Type": "application/json; charset=utf-8"}
    assert (await client.post("/run", headers=headers, data=b"{}")).status_code == 200


async def test_the_budget_counts_from_when_the_tick_came_in(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    await trio.sleep(7.5)
    await client.post("/run", headers=AUTHORIZED)
    assert scheduler.asked_at == [7.5]


@pytest.mark.parametrize("size", [16 * 1024 + 1, 1_000_000])
async def test_a_body_over_16_kib_is_413(size: int, client: Client, scheduler: FakeScheduler) -> None:
    response = await client.post("/run", headers=JSON, data=b" " * size)
    await assert_refused(response, 413, "body_too_large")
    assert scheduler.requests == []


async def test_a_body_of_16_kib_is_read(client: Client) -> None:
    assert (await client.post("/run", headers=JSON, data=b"{}".ljust(16 * 1024))).status_code == 200


async def test_a_body_over_16_kib_without_a_length_is_413(client: Client) -> None:
    async with client.request("/run", method="POST", headers=JSON) as connection:
        for _ in range(17):
            await connection.send(b" " * 1024)
        await connection.send_complete()
        body = json.loads(await connection.receive())
    assert (connection.status_code, body["error"]) == (413, "body_too_large")


async def test_a_body_that_does_not_arrive_within_a_second_is_408(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    async with client.request("/run", method="POST", headers=JSON) as connection:
        await connection.send(b"{")
        body = json.loads(await connection.receive())
    assert (connection.status_code, body["error"]) == (408, "body_timeout")
    assert trio.current_time() == 1.0
    assert scheduler.requests == []


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"]
)
async def test_a_body_that_does_not_say_it_is_json_is_415(content_type: str, client: Client) -> None:
    headers = AUTHORIZED | {"Content-Type": content_type}
    await assert_refused(
        await client.post("/run", headers=headers, data=b"{}"), 415, "unsupported_media_type"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b"\xff\xfe{}",
        b'{"dry_run": NaN}',
        b'{"source": "\xff"}',
        b'{"dry_run": true, "dry_run": false}',
        b"[" * 16_000,
        b'{"source":' + b"[" * 210 + b"]" * 210 + b"}",
        b'{"source":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"source":' * 1_600,
        b"{} {}",
    ],
)
async def test_what_is_not_json_or_nested_too_deep_is_400(body: bytes, client: Client) -> None:
    await assert_refused(await client.post("/run", headers=JSON, data=body), 400, "malformed_json")


@pytest.mark.parametrize(
    "body",
    [
        [],
        "text",
        7,
        None,
        {"dry_run": "yes"},
        {"dry_run": 1},
        {"dry_run": None},
        {"scenario_types": []},
        {"scenario_types": "inactivity"},
        {"scenario_types": [1]},
        {"scenario_types": ["Inactivity"]},
        {"scenario_types": ["inactivity\n"]},
        {"scenario_types": ["a" * 64]},
        {"scenario_types": ["inactivity"] * 101},
        {"unknown": 1},
        {"source": 7},
        {"source": "line\nbreak"},
        {"source": "x" * 65},
        {"invoked_at": "yesterday"},
        {"invoked_at": "2026-11-23"},
        {"invoked_at": "2026-11-23T20:49:00"},
        {"invoked_at": 7},
    ],
    ids=repr,
)
async def test_json_of_another_shape_is_422(body: object, client: Client, scheduler: FakeScheduler) -> None:
    await assert_refused(await client.post("/run", headers=JSON, data=json.dumps(body)), 422, "invalid_body")
    assert scheduler.requests == []


async def test_an_unknown_key_is_answered_with_the_known_ones_and_not_echoed(
    client: Client,
) -> None:
    response = await client.post("/run", headers=JSON, data=b'{"4cf4a5b0-personal": 1}')
    detail = await assert_refused(response, 422, "invalid_body")
    assert "scenario_types, dry_run, source, invoked_at" in detail
    assert "personal" not in detail


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (UnknownScenarioType("Enabled are: expiry."), 422, "unknown_scenario_type", None),
        (DryRunUnsupported("It might send."), 422, "dry_run_unsupported", None),
        (DatabaseUnavailable("Postgres is away."), 503, "database_unavailable", "5"),
        (NotReady("Migrate.", 5.0), 503, "not_ready", "5"),
        (Draining("Shutting down.", 5.0), 503, "draining", "5"),
        (RunInProgress("Another run.", 17.2), 409, "run_in_progress", "18"),
        (RunFailed("A bug."), 500, "internal", None),
        (StatementFailed("evaluate", "42883"), 500, "internal", None),
        (ZeroDivisionError("4cf4a5b0-a-mentors-id"), 500, "internal", None),
        (ExceptionGroup("bugs", [ZeroDivisionError("4cf4a5b0-a-mentors-id")]), 500, "internal", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_a_run_that_can_not_be_is_answered_with_its_reason(
    error: Exception,
    status: int,
    code: str,
    retry_after: str | None,
    client: Client,
    scheduler: FakeScheduler,
) -> None:
    scheduler.error = error
    response = await client.post("/run", headers=AUTHORIZED)
    detail = await assert_refused(response, status, code)
    assert response.headers.get("Retry-After") == retry_after
    if status == 500:
        assert detail == "Something went wrong here; its cause is in the log of the service."
    else:
        assert detail == str(error)


async def test_no_answer_is_kept_by_a_cache(client: Client) -> None:
    for response in (await client.post("/run", headers=AUTHORIZED), await client.get("/nothing")):
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
