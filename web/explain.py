"""This file is POST /explain: why did this one person not get it? For the operator; it writes nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from quart import Blueprint, Response, request

from engine import Scheduler
from web.answers import Refused
from web.auth import Credential, unauthorized
from web.json_body import StrictModel, read_json_body

MAX_BODY_BYTES = 16 * 1024


class ExplainBody(StrictModel):
    """Who it is about; not in the path, which ends up in the logs of whatever stands before the service."""

    mentor_id: UUID


def explain_blueprint(scheduler: Scheduler, operator: Credential) -> Blueprint:
    blueprint = Blueprint("explain", __name__)

    @blueprint.post("/explain")
    async def post_explain() -> Response | dict[str, Any]:
        if not operator.opens_with_bearer(request.headers.getlist("Authorization")):
            return unauthorized("Bearer")
        body = await read_json_body(ExplainBody, MAX_BODY_BYTES)
        if body is None:
            raise Refused(422, "invalid_body", "The body must name a mentor_id.")
        return (await scheduler.explain(body.mentor_id)).as_json()

    return blueprint
