"""This file is GET /healthz and /readyz: is the process alive, and could a run begin?"""

from __future__ import annotations

import math

from quart import Blueprint, Response

from engine import Scheduler, SchedulerError
from web.answers import refusal
from web.cached import Cached

# Seconds that an answer of /readyz is good for.
READINESS_LASTS = 1.0


def health_blueprint(scheduler: Scheduler) -> Blueprint:
    blueprint = Blueprint("health", __name__)

    async def reason_against() -> str | None:
        try:
            await scheduler.check_ready()
        except SchedulerError as error:
            return str(error)
        return None

    readiness = Cached(reason_against, READINESS_LASTS)

    @blueprint.get("/healthz")
    async def get_healthz() -> dict[str, str]:
        return {"status": "alive"}

    @blueprint.get("/readyz")
    async def get_readyz() -> Response | dict[str, str]:
        reason = await readiness.answer()
        return {"status": "ready"} if reason is None else _not_ready(reason)

    return blueprint


def _not_ready(reason: str) -> Response:
    return refusal(503, "not_ready", reason, {"Retry-After": str(math.ceil(READINESS_LASTS))})
