"""This file is GET /freshness: is everybody being reached? For an uptime monitor, which sees the status."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import RootModel
from quart import Blueprint, Response, jsonify

from engine import DatabaseUnavailable, Freshness, NotReady, Scheduler, SchedulerError
from web.answers import ErrorCode
from web.cached import Cached
from web.openapi import describe

# Seconds that an answer is good for.
FRESHNESS_LASTS = 1.0


@dataclass(frozen=True, slots=True)
class Age:
    """Seconds since everybody was evaluated, null if that never was so."""

    age_seconds: float | None


@dataclass(frozen=True, slots=True)
class Fresh:
    """Everybody was evaluated for every enabled scenario within the limit."""

    status: Literal["fresh"]
    limit_seconds: float
    scenarios: dict[str, Age]


@dataclass(frozen=True, slots=True)
class NotFresh:
    """Somebody is not being reached."""

    error: Literal["stale", "never_covered"]
    detail: str
    limit_seconds: float
    scenarios: dict[str, Age]


@dataclass(frozen=True, slots=True)
class Unknown:
    """The database can't say."""

    error: Literal["database_unavailable", "not_ready"]
    detail: str


class NotKnownFresh(RootModel[NotFresh | Unknown]):
    """What there is instead of Fresh."""


def freshness_blueprint(scheduler: Scheduler) -> Blueprint:
    blueprint = Blueprint("freshness", __name__)

    async def body() -> dict[str, Any]:
        try:
            await scheduler.check_ready()
            return _body(await scheduler.measure_freshness())
        except DatabaseUnavailable as error:
            return {"error": "database_unavailable", "detail": str(error)}
        except SchedulerError as error:
            return {"error": "not_ready", "detail": str(error)}

    cached = Cached(body, FRESHNESS_LASTS)

    @blueprint.get("/freshness")
    @describe(
        Fresh,
        DatabaseUnavailable,
        NotReady,
        ErrorCode(503, "stale", retry_after=True),
        ErrorCode(503, "never_covered", retry_after=True),
        others={503: NotKnownFresh},
    )
    async def get_freshness() -> Response:
        """Is everybody being reached? For an uptime monitor, which sees the status."""
        answer = await cached.answer()
        response: Response = jsonify(answer)
        if "error" in answer:
            response.status_code = 503
            response.headers["Retry-After"] = str(math.ceil(FRESHNESS_LASTS))
        return response

    return blueprint


def _body(freshness: Freshness) -> dict[str, Any]:
    return {
        **_verdict(freshness),
        "limit_seconds": freshness.limit,
        "scenarios": {
            scenario_type: {"age_seconds": None if age is None else round(age, 1)}
            for scenario_type, age in freshness.ages.items()
        },
    }


def _verdict(freshness: Freshness) -> dict[str, str]:
    """The status, or an error's code and what to do about the scenario that is worst off."""
    if freshness.is_fresh:
        return {"status": "fresh"}
    if freshness.never_covered:
        return {
            "error": "never_covered",
            "detail": f"Not everybody was evaluated for the scenario {freshness.never_covered[0]} yet; if "
            "that stays so, check that something calls /run and how the last runs ended.",
        }
    oldest = freshness.stale[0]
    return {
        "error": "stale",
        "detail": f"It is {freshness.ages[oldest]:.0f} s since everybody was evaluated for the scenario "
        f"{oldest}, and {freshness.limit:.0f} s is the limit; check that something calls /run and how the "
        "last runs ended.",
    }
