"""What an answer of the application is by /openapi.json, for every test of this folder."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from quart.wrappers import Request, Response
from quart_trio import QuartTrio

from web.openapi import make_document

# What only a browser uses, with a page of ours.
FOR_BROWSERS = {
    "GET /dashboard",
    "GET /dashboard/overview",
    "GET /dashboard/events",
    "GET /login",
    "POST /login",
    "POST /logout",
    "GET /static/<name>",
}


async def undocumented(app: QuartTrio, request: Request, response: Response) -> list[str]:
    """What of the answer is not in the document, one line each; nothing for a path that isn't in it."""
    said = f"{request.method} {request.path} {response.status_code}"
    operation = _operation(document_of(app), request)
    if operation is None:
        return []
    documented = operation["responses"].get(str(response.status_code))
    if documented is None:
        return [f"{said} is not documented"]
    faults = [
        f"{said}: no {name}"
        for name, header in documented.get("headers", {}).items()
        if header["required"] and name not in response.headers
    ]
    # A header that only some of the codes bear is in the document as well.
    if "Retry-After" in response.headers and "Retry-After" not in documented.get("headers", {}):
        faults.append(f"{said}: Retry-After is not documented")
    if response.mimetype not in documented["content"]:
        faults.append(f"{said}: {response.mimetype} is not documented")
    elif response.mimetype == "application/json" and request.method != "HEAD":
        schema = documented["content"]["application/json"]["schema"]
        body = json.loads(await response.get_data())
        faults += [f"{said}: {fault}" for fault in _faults(document_of(app), schema, body)]
    return faults


def document_of(app: QuartTrio) -> dict[str, Any]:
    """By which routes there are: hundreds of tests make an application each."""
    if _routes(app) not in _documents:
        _documents[_routes(app)] = json.loads(json.dumps(make_document(app)))
    return _documents[_routes(app)]


_documents: dict[frozenset[str], dict[str, Any]] = {}


def _routes(app: QuartTrio) -> frozenset[str]:
    return frozenset(rule.rule for rule in app.url_map.iter_rules())


def _operation(document: dict[str, Any], request: Request) -> dict[str, Any] | None:
    for path, operations in document["paths"].items():
        if re.fullmatch(re.sub(r"\\\{.*?\\\}", "[^/]+", re.escape(path)), request.path):
            # A method that the path doesn't take is refused as any of its operations says.
            return operations.get(request.method.lower(), next(iter(operations.values())))
    return None


def _faults(document: dict[str, Any], schema: dict[str, Any], body: Any) -> Iterator[str]:
    components = _closed(json.dumps(document["components"]))
    whole = _close(schema) | {"components": components}
    for error in Draft202012Validator(whole).iter_errors(body):
        yield f"{error.json_path}: {error.message}"


@functools.cache
def _closed(components: str) -> Any:
    return _close(json.loads(components))


def _close(schema: Any) -> Any:
    """Without room for keys that aren't documented. A client should have it, our own tests should not."""
    if isinstance(schema, list):
        return [_close(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _close(value) for name, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
