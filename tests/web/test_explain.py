"""POST /explain: who may, whom it is about, and what is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from quart.typing import TestClientProtocol as Client
from structlog.testing import capture_logs
from werkzeug.datastructures import Headers

from engine import (
    DatabaseUnavailable,
    Explanation,
    MentorNotFound,
    NotReady,
    Outcome,
    ScenarioExplanation,
    StatementFailed,
    Visit,
)
from tests.fakes import RUN_ID
from tests.web.conftest import KEY, SECRET, TOKEN, FakeScheduler, make_settings
from tests.web.test_run import assert_refused
from web.app import create_app

OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
JSON = OPERATOR | {"Content-Type": "application/json"}
MENTOR = UUID("5eed0000-0000-4000-8000-00000000000a")
BODY = json.dumps({"mentor_id": str(MENTOR)})
AT = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)

EXPLANATION = Explanation(
    mentor_id=MENTOR,
    status="active",
    created_at=AT,
    has_user=True,
    assignment_statuses=("active", "ended"),
    is_reached=True,
    hindrances=(),
    remarks=(),
    last_visit=Visit(RUN_ID, AT),
    scenarios=(
        ScenarioExplanation(
            scenario_type="inactivity",
            outcome=Outcome.SUPPRESSED,
            enabled=True,
            is_due=True,
            payload={"last_activity": "2026-11-02"},
            error=None,
            facts={"words": "The last activity was long ago."},
            params={"days": 14},
            cooldown="7 days",
            is_cooling=True,
            cooldown_until=AT,
            last_sent_at=AT,
            last_payload={"last_activity": "2026-11-02"},
            last_run_id=RUN_ID,
        ),
    ),
)


async def test_the_operator_is_told_everything_as_json_in_its_documented_order(
    client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.explanations[MENTOR] = EXPLANATION
    response = await client.post("/explain", headers=JSON, data=BODY)
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    body = json.loads(await response.get_data(as_text=True))
    assert body == EXPLANATION.as_json()
    assert list(body)[:2] == ["mentor_id", "status"]
    assert (body["mentor_id"], body["created_at"]) == (str(MENTOR), "2026-11-26T09:30:00+00:00")
    assert body["last_visit"] == {"run_id": str(RUN_ID), "started_at": "2026-11-26T09:30:00+00:00"}
    [scenario] = body["scenarios"]
    assert (scenario["outcome"], scenario["last_run_id"]) == ("suppressed", str(RUN_ID))


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="missing"),
        pytest.param([("Authorization", "Bearer ")], id="empty"),
        pytest.param([("Authorization", f"Bearer {TOKEN}x")], id="wrong"),
        pytest.param([("Authorization", f"Bearer {KEY}")], id="the service role key"),
        pytest.param([("X-Scheduler-Secret", SECRET)], id="the shared secret"),
        pytest.param([("Authorization", f"Bearer {TOKEN}")] * 2, id="given twice"),
    ],
)
async def test_nobody_but_the_operator_may_ask_and_the_body_is_not_read_before(
    headers: list[tuple[str, str]], client: Client, scheduler: FakeScheduler
) -> None:
    response = await client.post("/explain", headers=Headers(headers), data=b"not read")
    await assert_refused(response, 401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="scenario-scheduler"'
    assert scheduler.explained == []


async def test_there_is_nobody_to_ask_while_no_operator_token_is_set(scheduler: FakeScheduler) -> None:
    client = create_app(scheduler, make_settings(operator_token=None)).test_client()
    for authorization in ("", "Bearer ", "Bearer None", f"Bearer {TOKEN}"):
        response = await client.post("/explain", headers={"Authorization": authorization}, data=BODY)
        await assert_refused(response, 404, "not_found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_another_method_is_405_before_anything_else(method: str, client: Client) -> None:
    await assert_refused(await client.open("/explain", method=method), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        (JSON, b" " * 16_385, 413, "body_too_large"),
        (OPERATOR, b"{}", 415, "unsupported_media_type"),
        (JSON, b"{", 400, "malformed_json"),
        (JSON, b"", 422, "invalid_body"),
        (JSON, b"[]", 422, "invalid_body"),
        (JSON, b"{}", 422, "invalid_body"),
        (JSON, b'{"mentor_id": null}', 422, "invalid_body"),
        (JSON, b'{"mentor_id": "somebody"}', 422, "invalid_body"),
        (JSON, b'{"mentor_id": 7}', 422, "invalid_body"),
        (JSON, BODY[:-1].encode() + b', "dry_run": true}', 422, "invalid_body"),
    ],
)
async def test_a_body_that_can_not_be_used_is_refused(
    headers: dict[str, str], body: bytes, status: int, code: str, client: Client, scheduler: FakeScheduler
) -> None:
    await assert_refused(await client.post("/explain", headers=headers, data=body), status, code)
    assert scheduler.explained == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (MentorNotFound("Nobody."), 404, "mentor_not_found"),
        (NotReady("Run migrate.", 5.0), 503, "not_ready"),
        (DatabaseUnavailable("Gone."), 503, "database_unavailable"),
        (StatementFailed("explain", "XX000"), 500, "internal"),
    ],
)
async def test_an_answer_that_can_not_be_given_is_said_why(
    error: Exception, status: int, code: str, client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.error = error
    await assert_refused(await client.post("/explain", headers=JSON, data=BODY), status, code)


@pytest.mark.parametrize("error", [None, MentorNotFound("Nobody."), StatementFailed("explain", "XX000")])
async def test_no_id_of_whom_it_is_about_gets_into_the_log(
    error: Exception | None, client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.explanations[MENTOR] = EXPLANATION
    scheduler.error = error
    with capture_logs() as logs:
        await client.post("/explain", headers=JSON, data=BODY)
    assert str(MENTOR) not in str(logs)
    assert MENTOR.hex not in str(logs)
