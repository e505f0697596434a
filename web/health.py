"""This file is GET /healthz and /readyz: is the process alive, and could a run begin?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from quart import Blueprint, Response

from engine import NotReady, Scheduler, SchedulerError
from web.answers import refusal
from web.cached import Cached
from web.openapi import describe

# Seconds that an answer of /readyz is good for.
READINESS_LASTS = 1.0


@dataclass(frozen=True, slots=True)
class Alive:
    """The process is alive."""

    status: Literal["alive"]


@dataclass(frozen=True, slots=True)
class Ready:
    """The database answers and is migrated: a run could begin."""

    status: Literal["ready"]


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
    @describe(Alive)
    async def get_healthz() -> dict[str, str]:
        """Is the process alive?"""
        return {"status": "alive"}

    @blueprint.get("/readyz")
    @describe(Ready, NotReady)
    async def get_readyz() -> Response | dict[str, str]:
        """Could a run begin?"""
        reason = await readiness.answer()
        return {"status": "ready"} if reason is None else _not_ready(reason)

    return blueprint


def _not_ready(reason: str) -> Response:
    return refusal(503, "not_ready", reason, {"Retry-After": str(math.ceil(READINESS_LASTS))})
