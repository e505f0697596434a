"""This file is POST /run: the tick comes in, the summary goes out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import trio
from pydantic import Field, field_validator
from quart import Blueprint, Response, request

from engine import (
    Draining,
    DryRunUnsupported,
    FleetUnavailable,
    RunFailed,
    RunInProgress,
    RunRequest,
    Scheduler,
    Summary,
    UnknownScenarioType,
)
from web.auth import SECRET_HEADER, Credential, unauthorized
from web.json_body import BODY_CODES, ScenarioType, StrictModel, read_json_body
from web.openapi import DATABASE_CODES, SHARED_SECRET, describe

MAX_BODY_BYTES = 16 * 1024


_INSTANT: dict[str, Any] = {"format": "date-time", "examples": ["2026-11-23T20:49:00.123456+00:00"]}


class RunBody(StrictModel):
    """What a caller may say; all of it may be left out."""

    scenario_types: Annotated[list[ScenarioType], Field(min_length=1, max_length=100)] | None = None
    dry_run: bool = False
    source: Annotated[str, Field(pattern=r"^[ -~]{1,64}$", examples=["pg_cron"])] | None = None
    invoked_at: Annotated[str, Field(max_length=40, json_schema_extra=_INSTANT)] | None = None

    @field_validator("invoked_at")
    @classmethod
    def _is_an_instant(cls, value: str | None) -> str | None:
        if value is not None:
            fault = ValueError("must be an ISO 8601 instant, with its offset from UTC")
            try:
                if datetime.fromisoformat(value).tzinfo is None:
                    raise fault
            except ValueError:
                raise fault from None
        return value


def run_blueprint(scheduler: Scheduler, shared_secret: Credential) -> Blueprint:
    blueprint = Blueprint("run", __name__)

    @blueprint.post("/run")
    @describe(
        Summary,
        *BODY_CODES,
        *DATABASE_CODES,
        UnknownScenarioType,
        DryRunUnsupported,
        RunInProgress,
        Draining,
        FleetUnavailable,
        RunFailed,
        by=SHARED_SECRET,
        body=RunBody,
        body_required=False,
    )
    async def post_run() -> Response | dict[str, Any]:
        """One run: walks every mentor within the budget, and answers with the summary when it has ended.

        Without a body, or with `{}`, for all enabled scenarios. A caller who hangs up does not end the run.
        """
        asked_at = trio.current_time()
        if not shared_secret.opens_with_header(request.headers.getlist(SECRET_HEADER)):
            return unauthorized("SharedSecret")
        body = await read_json_body(RunBody, MAX_BODY_BYTES) or RunBody()
        types = None if body.scenario_types is None else tuple(sorted(set(body.scenario_types)))
        run_request = RunRequest(types, body.dry_run, body.source, body.invoked_at)
        started = await scheduler.start(run_request, asked_at=asked_at)
        return (await started.summary()).as_json()

    return blueprint
