"""GET /openapi.json: whole, valid and true to the code. conftest.py holds every other answer against it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from quart.typing import TestClientProtocol as Client

import web
from engine import OverridesUnsupported, SchedulerError
from tests.web.conftest import FakeScheduler, make_settings
from tests.web.documented import FOR_BROWSERS, document_of
from tests.web.test_login import cookies_of, post_login
from web import answers
from web.answers import error_code_of
from web.app import create_app

FOLDER = Path(web.__file__).parent


@pytest.fixture
def app(scheduler: FakeScheduler) -> Any:
    return create_app(scheduler, make_settings())


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


def codes_of(document: dict[str, Any], operation: dict[str, Any]) -> set[tuple[int, str]]:
    """Every status and error code that is documented for the operation."""
    return {
        (int(status), code)
        for status, response in operation["responses"].items()
        for content in response["content"].values()
        for code in _enums(document, content["schema"])
    }


def _enums(document: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    yield from schema.get("properties", {}).get("error", {}).get("enum", [])
    for part in schema.get("anyOf", []):
        yield from _enums(document, part)


def refusals_in(path: Path) -> set[tuple[int, str]]:
    """Every `Refused(status, code, …)` and `refusal(status, code, …)` in the file, by its source."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {
        (call.args[0].value, call.args[1].value)
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id in ("Refused", "refusal")
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[1], ast.Constant)
    }


# --- The document ---


async def test_anyone_may_read_the_document_and_it_is_valid(client: Client) -> None:
    response = await client.get("/openapi.json")
    assert (response.status_code, response.content_type) == (200, "application/json")
    document = await response.get_json()
    assert document["openapi"] == "3.1.0"
    validate(document)


async def test_every_route_is_documented_or_for_browsers_alone(app: Any) -> None:
    routes = {
        f"{method} {rule.rule}" for rule in app.url_map.iter_rules() for method in rule.methods - {"HEAD"}
    }
    documented = {name.replace("{run_id}", "<run_id>") for name, _ in operations_of(document_of(app))}
    assert documented | FOR_BROWSERS == routes
    assert not documented & FOR_BROWSERS


async def test_what_is_switched_off_is_not_in_the_document(scheduler: FakeScheduler) -> None:
    app = create_app(scheduler, make_settings(operator_token=None, service_role_key=None))
    document = document_of(app)
    assert set(document["paths"]) == {
        "/healthz",
        "/readyz",
        "/freshness",
        "/metrics",
        "/openapi.json",
        "/run",
    }
    assert document["paths"]["/metrics"]["get"]["security"] == []
    assert "401" not in document["paths"]["/metrics"]["get"]["responses"]
    assert set(document["components"]["securitySchemes"]) == {"sharedSecret"}


async def test_every_operation_says_what_it_is_and_every_answer_what_it_means(app: Any) -> None:
    for name, operation in operations_of(document_of(app)):
        assert operation["summary"].endswith((".", "?")), name
        for status, response in operation["responses"].items():
            assert response["description"].endswith("."), f"{name} {status}"
            assert response["content"], f"{name} {status}"


async def test_a_body_is_documented_as_strictly_as_it_is_read(app: Any) -> None:
    document = document_of(app)
    bodies = {name: o["requestBody"] for name, o in operations_of(document) if "requestBody" in o}
    assert {name: body["required"] for name, body in bodies.items()} == {
        "POST /run": False,
        "POST /trigger-engine": True,
        "POST /explain": True,
    }
    for body in bodies.values():
        assert list(body["content"]) == ["application/json"]
        assert body["content"]["application/json"]["schema"]["additionalProperties"] is False
        assert "examples" in str(body)


async def test_who_may_call_is_documented(app: Any) -> None:
    operator = [{"operatorToken": []}, {"operatorSession": []}]
    assert {name: operation["security"] for name, operation in operations_of(document_of(app))} == {
        "GET /healthz": [],
        "GET /readyz": [],
        "GET /freshness": [],
        "GET /openapi.json": [],
        "POST /run": [{"sharedSecret": []}],
        "POST /trigger-engine": [{"serviceRoleKey": []}],
        "GET /metrics": operator,
        "GET /runs": operator,
        "GET /runs/{run_id}": operator,
        "POST /explain": operator,
    }


# --- It is true to the code ---


async def test_what_a_route_refuses_is_documented_for_it(app: Any) -> None:
    """By the source of the route's file, so that a new refusal can't be forgotten."""
    document = document_of(app)
    documented: dict[Path, set[tuple[int, str]]] = {}
    for rule in app.url_map.iter_rules():
        route = app.view_functions[rule.endpoint]
        for name, operation in operations_of(document):
            if name in {
                f"{method} {rule.rule}".replace("<", "{").replace(">", "}") for method in rule.methods
            }:
                file = Path(route.__code__.co_filename)
                documented.setdefault(file, set()).update(codes_of(document, operation))
    assert len(documented) == 8
    assert any(refusals_in(file) for file in documented)
    for file, codes in documented.items():
        assert refusals_in(file) <= codes, file.name


async def test_what_reading_a_body_refuses_is_documented_wherever_one_is_read(app: Any) -> None:
    refused = refusals_in(FOLDER / "json_body.py")
    assert len(refused) == 5
    document = document_of(app)
    for name, operation in operations_of(document):
        if "requestBody" in operation:
            assert refused <= codes_of(document, operation), name


async def test_what_refuses_is_a_file_of_a_route_or_known_here() -> None:
    refusing = {file.name for file in FOLDER.rglob("*.py") if refusals_in(file)}
    routes_of_programs = {"runs.py", "explain.py", "trigger_engine.py", "health.py"}
    routes_of_browsers = {"events.py", "pages.py"}
    below = {"answers.py", "auth.py", "json_body.py"}
    assert refusing == routes_of_programs | routes_of_browsers | below


async def test_every_error_of_the_engine_that_can_get_here_is_documented(app: Any) -> None:
    kinds: set[type[SchedulerError]] = set(answers._STATUS_AND_CODE)
    document = document_of(app)
    documented = {code for _, operation in operations_of(document) for code in codes_of(document, operation)}
    # Another configuration is tried from the command line alone.
    for kind in kinds - {OverridesUnsupported}:
        assert error_code_of(kind)[:2] in documented, kind


async def test_a_session_opens_what_is_documented_to_open_to_it_and_nothing_else(app: Any) -> None:
    document = document_of(app)
    client = app.test_client()
    cookie = cookies_of(await post_login(client))["scheduler_session"].partition(";")[0].partition("=")
    assert cookie[0] == document["components"]["securitySchemes"]["operatorSession"]["name"]
    headers = {"Cookie": "".join(cookie)}
    client = app.test_client(use_cookies=False)
    for name, operation in operations_of(document):
        method, path = name.replace("{run_id}", "x").split()
        response = await client.open(path, method=method, headers=headers)
        is_open = not operation["security"] or {"operatorSession": []} in operation["security"]
        assert (response.status_code != 401) is is_open, name


# --- quart-schema documents, and does nothing else ---


@pytest.mark.parametrize("path", ["/docs", "/redocs", "/scalar", "/openapi.yaml", "/openapi"])
async def test_there_are_no_pages_of_documentation(path: str, client: Client) -> None:
    assert (await client.get(path)).status_code == 404


async def test_options_is_off_on_every_path(app: Any, client: Client) -> None:
    for path in document_of(app)["paths"]:
        response = await client.options(path.replace("{run_id}", "x"))
        assert response.status_code == 405, path


async def test_the_application_is_left_as_it_was(app: Any) -> None:
    assert "QUART_SCHEMA" not in app.extensions
    for own in (type(app.json), type(app.make_response), app.test_client_class):
        assert not own.__module__.startswith("quart_schema")
