"""This file is GET /openapi.json: what each route takes and answers, written beside it with `describe`.

quart-schema makes the document, and that is all it is for. It is never given the application, into which it
would put its own JSON provider and its own `make_response`, and pages that load scripts from other hosts. Its
validation is not used either: a body is read by web/json_body.py, which is stricter.

Routes that only a browser uses, with a page of ours, are hidden from it: the pages, their forms, their files
and their event stream. What these take and answer changes with the page: nobody should write a client for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from typing import Any, TypeVar

from pydantic import BaseModel, RootModel
from quart import Blueprint, Quart, Response
from quart_schema import (
    Info,
    License,
    OpenAPIProvider,
    QuartSchema,
    document_querystring,
    document_request,
    document_response,
    hide,
    security_scheme,
)
from werkzeug.routing import BaseConverter, Rule

from engine import DatabaseUnavailable, NotReady, SchedulerError, StatementFailed
from web.answers import ErrorCode, error_code_of
from web.auth import SECRET_HEADER
from web.sessions import SESSION_COOKIE

RouteT = TypeVar("RouteT", bound=Callable[..., Any])

EXAMPLE_ID = "019ab0c5-7b1e-7c3a-9a64-0d5b7f0f6a11"

# Who may call an operation: any one of these.
SHARED_SECRET = ("sharedSecret",)
SERVICE_ROLE = ("serviceRoleKey",)
OPERATOR = ("operatorToken", "operatorSession")
ANYONE = ()

# What whoever asks the database may be told.
DATABASE_CODES = (DatabaseUnavailable, NotReady, StatementFailed)

_SECURITY_SCHEMES = {
    "sharedSecret": {
        "type": "apiKey",
        "in": "header",
        "name": SECRET_HEADER,
        "description": "SCHEDULER_SECRET, or SCHEDULER_SECRET_NEXT while it is being rotated.",
    },
    "serviceRoleKey": {"type": "http", "scheme": "bearer", "description": "SCHEDULER_SERVICE_ROLE_KEY."},
    "operatorToken": {"type": "http", "scheme": "bearer", "description": "SCHEDULER_OPERATOR_TOKEN."},
    "operatorSession": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "The session that logging in at /login with the operator token begins.",
    },
}

_DESCRIPTION = """\
Looks at every active mentor on a schedule, inside a hard time budget, and notifies nobody twice.

Only what is switched on is here: operations for which no key or no token is set answer 404 and are left out.
Every error is `{"error": "<code>", "detail": "<sentence>"}`; the codes of each status are listed with it.
OPTIONS is off. What is not HTTP is refused with a bare 400 before it gets here.
"""

# What each code says, wherever it occurs.
_MEANINGS = {
    "body_timeout": "the body did not arrive within a second",
    "body_too_large": "the body is too large",
    "conflict": "another evaluation was in the way; ask again",
    "database_unavailable": "Postgres, or what the mentors are read from instead, can't be reached",
    "draining": "the service is shutting down",
    "dry_run_unsupported": "the trigger engine is not known to honour a dry run",
    "fleet_unavailable": "what carries shards to workers can't be reached",
    "internal": "a bug, or a statement that Postgres refused; its cause is in the log of the service",
    "invalid_body": "the body is not of the documented shape",
    "invalid_query": "the query is not as documented",
    "malformed_json": "the body is not JSON, or is nested too deep",
    "mentor_not_found": "there is no mentor of this id",
    "method_not_allowed": "the path takes another method than the one sent",
    "never_covered": "not everybody was evaluated yet for some scenario",
    "not_found": "there is nothing of this id",
    "not_ready": "the database is not as this version needs it; it has to be migrated",
    "run_in_progress": "another run is under way",
    "stale": "for some scenario it is too long since everybody was evaluated",
    "timeout": "the evaluation took longer than the database allows",
    "unauthorized": "the credential is missing, wrong or given twice",
    "unknown_scenario_type": "a scenario type is unknown or disabled",
    "unsupported_media_type": "the body does not say that it is JSON",
}

# Headers that a status always bears; Retry-After goes by the code.
_HEADERS = {
    401: {"WWW-Authenticate": "Which credential it takes."},
    405: {"Allow": "The methods that the path takes."},
}
_RETRY_AFTER = "Seconds after which to ask again."

_PATH_PARAMETERS = {
    "run_id": {
        "description": "The id of a run, as `POST /run` and `GET /runs` give it.",
        "schema": {"type": "string", "format": "uuid", "examples": [EXAMPLE_ID]},
    }
}

_CODES, _BODY_REQUIRED, _MEDIA_TYPE = "_openapi_codes", "_openapi_body_required", "_openapi_media_type"


def describe(
    answer: type,
    *codes: ErrorCode | type[SchedulerError],
    by: Iterable[str] = ANYONE,
    body: type[BaseModel] | None = None,
    body_required: bool = True,
    query: type[BaseModel] | None = None,
    others: dict[int, type] | None = None,
    media_type: str = "application/json",
) -> Callable[[RouteT], RouteT]:
    """What a route answers with 200, the errors it may answer instead, who may call it, and what it takes.

    The route's docstring is its summary and description. 405 and 500 go without saying, and so does 401
    unless anyone may call. `others`: bodies of errors that have more than a code and a sentence, by status.
    """
    schemes: list[dict[str, list[str]]] = [{name: []} for name in by]
    own = [code if isinstance(code, ErrorCode) else error_code_of(code) for code in codes]
    common = [ErrorCode(405, "method_not_allowed"), ErrorCode(500, "internal")]
    refused = [ErrorCode(401, "unauthorized")] if schemes else []

    def decorate(route: RouteT) -> RouteT:
        setattr(route, _CODES, sorted({*own, *common, *refused}))
        setattr(route, _BODY_REQUIRED, body_required)
        setattr(route, _MEDIA_TYPE, media_type)
        if media_type == "application/json":
            document_response(answer)(route)
        for status, model in (others or {}).items():
            document_response(model, status)(route)
        if body is not None:
            document_request(body)(route)
        if query is not None:
            document_querystring(query)(route)
        return security_scheme(schemes)(route)

    return decorate


class Document(RootModel[dict[str, Any]]):
    """An OpenAPI 3.1 document."""


def for_browsers(route: RouteT) -> RouteT:
    """Leave the route out: it is for a page of ours, and this says so where `describe` would stand."""
    return hide(route)


def openapi_blueprint(app: Quart) -> Blueprint:
    """GET /openapi.json, of every route that `app` has when it is first asked for."""
    blueprint = Blueprint("openapi", __name__)

    @cache
    def document() -> bytes:
        return json.dumps(make_document(app)).encode()

    @blueprint.get("/openapi.json")
    @describe(Document)
    async def get_openapi() -> Response:
        """This document."""
        return Response(document(), content_type="application/json")

    return blueprint


def make_document(app: Quart) -> dict[str, Any]:
    """The document, of the routes that `app` has by now: 17 ms, once in the life of a process."""
    app.config.setdefault("QUART_SCHEMA_CONVERSION_PREFERENCE", "pydantic")
    app.config.setdefault("QUART_SCHEMA_CONVERT_CASING", False)
    about = Info(
        title="scenario-scheduler",
        version=version("scenario-scheduler"),
        description=_DESCRIPTION,
        license=License(name="MIT", identifier="MIT"),
    )
    return _Provider(app, QuartSchema(info=about)).schema()


class _Provider(OpenAPIProvider):
    """quart-schema's, with the errors, and without the descriptions and headers that it can't write."""

    def schema(self) -> dict[str, Any]:
        document = super().schema()
        document["info"]["license"] = document["info"]["license"].schema()
        operations = [each for path in document["paths"].values() for each in path.values()]
        used = {name for operation in operations for scheme in operation["security"] for name in scheme}
        document["components"]["securitySchemes"] = {
            name: scheme for name, scheme in _SECURITY_SCHEMES.items() if name in used
        }
        return document

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        paths, components = super().build_paths(rule)
        route = self._app.view_functions[rule.endpoint]
        for operations in paths.values():
            for operation in operations.values():
                _complete(operation, route)
        return paths, components

    def build_path_parameter(self, name: str, converter: BaseConverter) -> dict[str, Any]:
        return super().build_path_parameter(name, converter) | _PATH_PARAMETERS[name]

    def operation_id(self, method: str, path: str, func: Callable[..., Any]) -> str:
        return func.__name__


def _complete(operation: dict[str, Any], route: Callable[..., Any]) -> None:
    responses = {str(status): response for status, response in operation["responses"].items()}
    media_type = getattr(route, _MEDIA_TYPE)
    if media_type != "application/json":
        text = {media_type: {"schema": {"type": "string"}}}
        responses["200"] = {"description": "What was asked for.", "content": text}
    by_status: dict[int, list[ErrorCode]] = {}
    for code in getattr(route, _CODES):
        by_status.setdefault(code.status, []).append(code)
    for status, codes in by_status.items():
        responses[str(status)] = _error_response(codes) | {
            # A body with more to it than a code and a sentence has a model of its own.
            name: value
            for name, value in responses.get(str(status), {}).items()
            if name == "content"
        }
    operation["responses"] = dict(sorted(responses.items()))
    if "requestBody" in operation:
        operation["requestBody"]["required"] = getattr(route, _BODY_REQUIRED)


def _error_response(codes: list[ErrorCode]) -> dict[str, Any]:
    headers = {
        name: {"required": True, "description": meaning, "schema": {"type": "string"}}
        for name, meaning in _HEADERS.get(codes[0].status, {}).items()
    }
    if any(code.retry_after for code in codes):
        headers["Retry-After"] = {
            "required": all(code.retry_after for code in codes),
            "description": _RETRY_AFTER,
            "schema": {"type": "integer", "minimum": 0},
        }
    schema = {
        "type": "object",
        "required": ["error", "detail"],
        "additionalProperties": False,
        "properties": {
            "error": {"type": "string", "enum": [code.code for code in codes]},
            "detail": {"type": "string", "description": "A sentence for whoever operates the service."},
        },
    }
    return {
        "description": "; ".join(f"`{code.code}`: {_MEANINGS[code.code]}" for code in codes) + ".",
        "content": {"application/json": {"schema": schema}},
        **({"headers": headers} if headers else {}),
    }
