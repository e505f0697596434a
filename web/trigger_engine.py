"""This file is POST /trigger-engine: the built-in trigger engine, for who invokes it over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self
from uuid import UUID

import trio
from pydantic import ConfigDict, Field, RootModel, model_validator
from quart import Blueprint, Response, request

from engine import (
    EVALUATIONS_AT_ONCE,
    MAX_MENTORS_OVER_HTTP,
    DatabaseUnavailable,
    InDatabaseTriggerEngine,
    StatementFailed,
)
from web.answers import ErrorCode, Refused
from web.auth import Credential, unauthorized
from web.json_body import BODY_CODES, ScenarioType, StrictModel, read_json_body
from web.openapi import EXAMPLE_ID, SERVICE_ROLE, describe

# A thousand ids are 39 kB.
MAX_BODY_BYTES = 64 * 1024

_NOT_MIGRATED = Refused(
    503, "not_ready", "A function or a table is missing in the database; run `scenario-scheduler migrate`."
)

# What a caller can do about it is in the status, by SQLSTATE: mend the request, ask again, or neither.
_REFUSALS = {
    "22023": Refused(422, "unknown_scenario_type", "scenario_types names one that is unknown here."),
    "3F": _NOT_MIGRATED,
    "42P01": _NOT_MIGRATED,
    "42883": _NOT_MIGRATED,
    "40": Refused(503, "conflict", "Another evaluation was in the way; ask again."),
    "57014": Refused(504, "timeout", "The evaluation took longer than the database allows."),
}


class InvocationBody(StrictModel):
    """One mentor or many, never both; the rest is the same for both."""

    # What the validator below checks, as JSON Schema says it.
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["mentor_id"], "properties": {"mentor_id": {"type": "string"}}},
                {"required": ["mentor_ids"], "properties": {"mentor_ids": {"type": "array"}}},
            ],
            "examples": [{"mentor_id": EXAMPLE_ID, "scenario_types": None, "dry_run": True, "run_id": None}],
        }
    )

    mentor_id: UUID | None = None
    mentor_ids: (
        Annotated[
            list[UUID],
            Field(min_length=1, max_length=MAX_MENTORS_OVER_HTTP, json_schema_extra={"uniqueItems": True}),
        ]
        | None
    ) = None
    scenario_types: Annotated[list[ScenarioType], Field(min_length=1, max_length=100)] | None = None
    dry_run: bool = False
    run_id: UUID | None = None

    @model_validator(mode="after")
    def _names_mentors_once(self) -> Self:
        if (self.mentor_id is None) == (self.mentor_ids is None):
            raise ValueError("give either mentor_id or mentor_ids")
        if self.mentor_ids is not None and len(set(self.mentor_ids)) < len(self.mentor_ids):
            raise ValueError("mentor_ids names a mentor twice")
        return self


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Scenario types dispatched to one mentor, and those a cooldown suppressed."""

    mentor_id: UUID
    dispatched: list[str]
    suppressed: list[str]


@dataclass(frozen=True, slots=True)
class AllEvaluated:
    """A result for every mentor, in the order asked for."""

    results: list[Evaluated]


class InvocationAnswer(RootModel[Evaluated | AllEvaluated]):
    """The result for `mentor_id`, or those for `mentor_ids`."""


def trigger_engine_blueprint(
    trigger_engine: InDatabaseTriggerEngine, service_role_key: Credential
) -> Blueprint:
    blueprint = Blueprint("trigger_engine", __name__)
    limiter = trio.CapacityLimiter(EVALUATIONS_AT_ONCE)

    @blueprint.post("/trigger-engine")
    @describe(
        InvocationAnswer,
        *BODY_CODES,
        *(ErrorCode(refused.status, refused.code) for refused in _REFUSALS.values()),
        DatabaseUnavailable,
        StatementFailed,
        by=SERVICE_ROLE,
        body=InvocationBody,
    )
    async def post_trigger_engine() -> Response | dict[str, Any]:
        """Evaluates the enabled scenarios for one mentor, or for many, and dispatches what is due.

        Who names `mentor_id` is answered with its result, who names `mentor_ids` with `results`.
        """
        if not service_role_key.opens_with_bearer(request.headers.getlist("Authorization")):
            return unauthorized("Bearer")
        body = await read_json_body(InvocationBody, MAX_BODY_BYTES)
        if body is None:
            raise Refused(422, "invalid_body", "The body must name a mentor_id, or mentor_ids.")
        if body.mentor_id is not None:
            [result] = await evaluate(body, [body.mentor_id])
            return result
        return {"results": await evaluate(body, body.mentor_ids or [])}

    async def evaluate(body: InvocationBody, mentor_ids: Sequence[UUID]) -> list[dict[str, Any]]:
        async with limiter:
            return await _evaluate(trigger_engine, body, mentor_ids)

    return blueprint


async def _evaluate(
    trigger_engine: InDatabaseTriggerEngine, body: InvocationBody, mentor_ids: Sequence[UUID]
) -> list[dict[str, Any]]:
    """A result for every mentor, in the order asked for, also for those with nothing due."""
    try:
        results = await trigger_engine.evaluate(
            mentor_ids, scenario_types=body.scenario_types, dry_run=body.dry_run, run_id=body.run_id
        )
    except StatementFailed as error:
        for prefix, refused in _REFUSALS.items():
            if error.sqlstate.startswith(prefix):
                raise refused from None
        raise
    due = {result.mentor_id: result for result in results}
    return [
        {
            "mentor_id": str(mentor_id),
            "dispatched": list(due[mentor_id].dispatched) if mentor_id in due else [],
            "suppressed": list(due[mentor_id].suppressed) if mentor_id in due else [],
        }
        for mentor_id in mentor_ids
    ]
