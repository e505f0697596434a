"""This file is GET /healthz and /readyz: is the process alive, and could a run begin?"""

from __future__ import annotations

import math

import trio
from quart import Blueprint, Response

from engine import Scheduler, SchedulerError
from web.answers import refusal

# Seconds that an answer of /readyz is good for: anyone may ask, and each question is a statement.
READINESS_LASTS = 1.0


def health_blueprint(scheduler: Scheduler) -> Blueprint:
    blueprint = Blueprint("health", __name__)
    readiness = _Readiness(scheduler)

    @blueprint.get("/healthz")
    async def get_healthz() -> dict[str, str]:
        return {"status": "alive"}

    @blueprint.get("/readyz")
    async def get_readyz() -> Response | dict[str, str]:
        reason = await readiness.reason_against()
        return {"status": "ready"} if reason is None else _not_ready(reason)

    return blueprint


def _not_ready(reason: str) -> Response:
    return refusal(503, "not_ready", reason, {"Retry-After": str(math.ceil(READINESS_LASTS))})


class _Readiness:
    """The last answer, and one question at a time however many ask."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._asking = trio.Lock()
        self._good_until = float("-inf")
        self._reason: str | None = None

    async def reason_against(self) -> str | None:
        async with self._asking:
            if trio.current_time() >= self._good_until:
                try:
                    await self._scheduler.check_ready()
                except SchedulerError as error:
                    self._reason = str(error)
                else:
                    self._reason = None
                self._good_until = trio.current_time() + READINESS_LASTS
            return self._reason
