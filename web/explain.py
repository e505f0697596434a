"""This file is POST /explain: why did this one person not get it? For the operator; it writes nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from quart import Blueprint

from engine import Scheduler
from web.answers import Refused
from web.auth import Operator
from web.json_body import StrictModel, read_json_body

MAX_BODY_BYTES = 16 * 1024


class ExplainBody(StrictModel):
    """Who it is about; not in the path, which ends up in the logs of whatever stands before the service."""

    mentor_id: UUID


def explain_blueprint(scheduler: Scheduler, operator: Operator) -> Blueprint:
    blueprint = Blueprint("explain", __name__)
    blueprint.before_request(operator.refuse_others)

    @blueprint.post("/explain")
    async def post_explain() -> dict[str, Any]:
        body = await read_json_body(ExplainBody, MAX_BODY_BYTES)
        if body is None:
            raise Refused(422, "invalid_body", "The body must name a mentor_id.")
        return (await scheduler.explain(body.mentor_id)).as_json()

    return blueprint
