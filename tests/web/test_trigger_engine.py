"""POST /trigger-engine: the built-in trigger engine over HTTP."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from quart.typing import TestClientProtocol as Client

from engine import DatabaseUnavailable, StatementFailed
from engine.trigger.in_database import MentorResult
from tests.fakes import RUN_ID, ids
from tests.web.conftest import KEY, FakeScheduler, make_settings
from tests.web.test_run import assert_refused
from web.app import create_app

JSON = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
ONE, TWO, THREE = (str(mentor_id) for mentor_id in ids(3))


async def test_one_mentor_is_answered_with_what_was_dispatched_and_suppressed(
    client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.due = [MentorResult(UUID(ONE), ["inactivity"], ["expiry"])]
    body = {"mentor_id": ONE, "scenario_types": None, "dry_run": False, "run_id": str(RUN_ID)}
    response = await client.post("/trigger-engine", headers=JSON, data=json.dumps(body))
    assert await response.get_json() == {
        "mentor_id": ONE,
        "dispatched": ["inactivity"],
        "suppressed": ["expiry"],
    }
    assert scheduler.invocations == [
        ([UUID(ONE)], {"scenario_types": None, "dry_run": False, "run_id": RUN_ID})
    ]


async def test_many_mentors_are_each_answered_also_those_with_nothing_due(
    client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.due = [MentorResult(UUID(TWO), ["milestone"], [])]
    body = {"mentor_ids": [THREE, TWO], "scenario_types": ["milestone"], "dry_run": True}
    response = await client.post("/trigger-engine", headers=JSON, data=json.dumps(body))
    assert await response.get_json() == {
        "results": [
            {"mentor_id": THREE, "dispatched": [], "suppressed": []},
            {"mentor_id": TWO, "dispatched": ["milestone"], "suppressed": []},
        ]
    }
    assert scheduler.invocations == [
        ([UUID(THREE), UUID(TWO)], {"scenario_types": ["milestone"], "dry_run": True, "run_id": None})
    ]


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer "],
)
async def test_a_missing_or_wrong_key_is_401(
    authorization: str, client: Client, scheduler: FakeScheduler
) -> None:
    headers = JSON | {"Authorization": authorization}
    response = await client.post("/trigger-engine", headers=headers, data=json.dumps({"mentor_id": ONE}))
    await assert_refused(response, 401, "unauthorized")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert scheduler.invocations == []


async def test_there_is_no_trigger_engine_while_no_key_is_set(scheduler: FakeScheduler) -> None:
    client = create_app(scheduler, make_settings(service_role_key=None)).test_client()
    for authorization in ("Bearer ", "Bearer None", f"Bearer {KEY}"):
        response = await client.post("/trigger-engine", headers={"Authorization": authorization})
        await assert_refused(response, 404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"mentor_id": ONE, "mentor_ids": [ONE]},
        {"mentor_id": "not-a-uuid"},
        {"mentor_id": 7},
        {"mentor_ids": []},
        {"mentor_ids": [ONE, ONE]},
        {"mentor_ids": [str(UUID(int=number)) for number in range(1_001)]},
        {"mentor_id": ONE, "run_id": "x"},
        {"mentor_id": ONE, "scenario_types": []},
        {"mentor_id": ONE, "dry_run": "false"},
        {"mentor_id": ONE, "overrides": {}},
    ],
    ids=lambda body: ",".join(body) or "empty",
)
async def test_an_invocation_of_another_shape_is_422(
    body: dict[str, object], client: Client, scheduler: FakeScheduler
) -> None:
    response = await client.post("/trigger-engine", headers=JSON, data=json.dumps(body))
    detail = await assert_refused(response, 422, "invalid_body")
    assert ONE not in detail
    assert scheduler.invocations == []


async def test_a_thousand_mentors_are_one_invocation(client: Client) -> None:
    body = {"mentor_ids": [str(mentor_id) for mentor_id in ids(1_000)]}
    response = await client.post("/trigger-engine", headers=JSON, data=json.dumps(body))
    assert len((await response.get_json())["results"]) == 1_000


async def test_an_empty_body_is_422(client: Client) -> None:
    await assert_refused(await client.post("/trigger-engine", headers=JSON), 422, "invalid_body")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StatementFailed("evaluate", "22023"), 422, "unknown_scenario_type"),
        (StatementFailed("evaluate", "22P02"), 500, "internal"),
        (DatabaseUnavailable("Postgres is away."), 503, "database_unavailable"),
    ],
    ids=str,
)
async def test_what_postgres_refuses_is_answered_so_that_the_caller_knows_whether_to_ask_again(
    error: Exception, status: int, code: str, client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.error = error
    response = await client.post("/trigger-engine", headers=JSON, data=json.dumps({"mentor_id": ONE}))
    await assert_refused(response, status, code)
