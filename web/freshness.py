"""This file is GET /freshness: is everybody being reached? For an uptime monitor, which sees the status."""

from __future__ import annotations

import math
from typing import Any

from quart import Blueprint, Response, jsonify

from engine import DatabaseUnavailable, Freshness, Scheduler, SchedulerError
from web.cached import Cached

# Seconds that an answer is good for.
FRESHNESS_LASTS = 1.0


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
    async def get_freshness() -> Response:
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
