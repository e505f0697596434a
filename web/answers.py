"""This file is how the service says no: an error code and a sentence, as JSON, whatever went wrong."""

from __future__ import annotations

import math
from typing import NamedTuple

import structlog
from quart import Response, jsonify, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from engine import (
    DatabaseUnavailable,
    Draining,
    DryRunUnsupported,
    FleetUnavailable,
    MentorNotFound,
    NotNow,
    NotReady,
    OverridesUnsupported,
    RunFailed,
    RunInProgress,
    SchedulerError,
    StatementFailed,
    UnknownScenarioType,
)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds; what a restart of Postgres takes.
DATABASE_RETRY_AFTER = 5.0

_STATUS_AND_CODE: dict[type[SchedulerError], tuple[int, str]] = {
    DryRunUnsupported: (422, "dry_run_unsupported"),
    OverridesUnsupported: (422, "overrides_unsupported"),
    UnknownScenarioType: (422, "unknown_scenario_type"),
    MentorNotFound: (404, "mentor_not_found"),
    RunInProgress: (409, "run_in_progress"),
    Draining: (503, "draining"),
    NotReady: (503, "not_ready"),
    FleetUnavailable: (503, "fleet_unavailable"),
    DatabaseUnavailable: (503, "database_unavailable"),
    StatementFailed: (500, "internal"),
    RunFailed: (500, "internal"),
}

_INTERNAL = "Something went wrong here; its cause is in the log of the service."


class ErrorCode(NamedTuple):
    """One way to say no, and whether Retry-After is said with it."""

    status: int
    code: str
    retry_after: bool = False


def error_code_of(kind: type[SchedulerError]) -> ErrorCode:
    """What becomes of an error of the engine's."""
    return ErrorCode(
        *_STATUS_AND_CODE.get(kind, (500, "internal")), issubclass(kind, NotNow | DatabaseUnavailable)
    )


class Refused(Exception):
    """An answer other than the one asked for, raised anywhere below a route."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


def refusal(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """The one shape of every error body."""
    response: Response = jsonify(error=code, detail=detail)
    response.status_code = status
    response.headers.update(headers or {})
    return response


def route_at_hand() -> str:
    """The path of the request, for the log, as its route was written: what stands in it may be an id."""
    return request.url_rule.rule if request.url_rule else "none"


def register_error_answers(app: QuartTrio) -> None:
    """From here on no answer of the application is anything but JSON, and none holds a traceback."""

    @app.errorhandler(Refused)
    async def refused(error: Refused) -> Response:
        if error.status >= 500:
            log.warning("request_refused", path=route_at_hand(), code=error.code, reason=error.detail)
        return refusal(error.status, error.code, error.detail)

    @app.errorhandler(SchedulerError)
    async def scheduler_error(error: SchedulerError) -> Response:
        status, code, _ = error_code_of(type(error))
        say = log.error if status == 500 else log.warning
        say("request_refused", path=route_at_hand(), code=code, reason=str(error))
        headers = {}
        if isinstance(error, NotNow):
            headers = {"Retry-After": str(math.ceil(error.retry_after))}
        elif isinstance(error, DatabaseUnavailable):
            headers = {"Retry-After": str(math.ceil(DATABASE_RETRY_AFTER))}
        return refusal(status, code, _INTERNAL if status == 500 else str(error), headers)

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Response:
        """What the framework refuses by itself: 404, 405."""
        code = (error.name or "error").lower().replace(" ", "_")
        detail = {
            404: "There is nothing here; the paths are in the README.",
            405: "This path does not take this method; the Allow header says which.",
        }.get(error.code or 500, "The request can't be answered as it is; see the status.")
        headers = {name: value for name, value in error.get_headers() if name == "Allow"}
        return refusal(error.code or 500, code, detail, headers)

    @app.errorhandler(Exception)
    async def bug(error: Exception) -> Response:
        log.error("request_failed", exc_info=error)
        return refusal(500, "internal", _INTERNAL)

    @app.after_request
    async def private(response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        # A page has said its own already; whatever else is looked at in a browser is no page.
        response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        return response
