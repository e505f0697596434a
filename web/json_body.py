"""This file reads a request's body, strictly: bounded in size, time and depth, and an object or nothing.

The framework's own reading is lenient in ways that hide a caller's mistake ("yes" becomes true), so what is
read here is checked against a pydantic model in strict mode.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

import trio
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from quart import request
from werkzeug.exceptions import RequestEntityTooLarge

from engine import SCENARIO_TYPE_PATTERN
from web.answers import ErrorCode, Refused

# Bytes of a request's body that wait for whoever may read them: more than any route takes. What comes beyond
# is dropped as it comes. Without a bound, memory fills as fast as a stranger can send, for as long as any
# answer takes: the framework goes on receiving, whether or not the route asks for the body.
BUFFER_BYTES = 128 * 1024

# Seconds for a body to arrive: it is a few hundred bytes from a neighbour.
BODY_TIMEOUT = 1.0

ScenarioType = Annotated[str, Field(pattern=SCENARIO_TYPE_PATTERN, examples=["inactivity"])]

# What `read_json_body` refuses, for the document.
BODY_CODES = (
    ErrorCode(413, "body_too_large"),
    ErrorCode(408, "body_timeout"),
    ErrorCode(415, "unsupported_media_type"),
    ErrorCode(400, "malformed_json"),
    ErrorCode(422, "invalid_body"),
)

ModelT = TypeVar("ModelT", bound="StrictModel")


class StrictModel(BaseModel):
    """No unknown keys, no conversions: "yes" is not true, "1" is not 1."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


async def read_json_body(model: type[ModelT], max_bytes: int) -> ModelT | None:
    """The request's body as the model, None if it is empty.

    Raises Refused: 413, 408, 415, 400, 422, in this order.

    **Cancellation:** the rest of the body is left unread.
    """
    body = await read_body(max_bytes)
    if not body:
        return None
    if request.mimetype != "application/json":
        raise Refused(
            415, "unsupported_media_type", "The body must be JSON, with Content-Type: application/json."
        )
    try:
        document = json.loads(body, object_pairs_hook=_without_repeated_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _malformed() from None
    if not isinstance(document, dict):
        raise Refused(422, "invalid_body", "The body must be a JSON object.")
    try:
        # As JSON once more, because pydantic takes a uuid or an instant from JSON text as what it is.
        return model.model_validate_json(json.dumps(document))
    except RecursionError:
        raise _malformed() from None
    except ValidationError as error:
        if error.errors(include_input=False, include_url=False)[0]["type"] == "json_invalid":
            raise _malformed() from None  # nested deeper than pydantic goes, which is less than Python's own
        raise Refused(422, "invalid_body", _explain(model, error)) from None


async def read_body(max_bytes: int) -> bytes:
    """The request's body as it came. Raises Refused: 413, 408.

    **Cancellation:** the rest of the body is left unread.
    """
    too_large = Refused(413, "body_too_large", f"The body is larger than {max_bytes} bytes.")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    body = bytearray()
    with trio.move_on_after(BODY_TIMEOUT) as reading:
        try:
            async for part in request.body:
                body += part
                if len(body) > max_bytes:
                    raise too_large
        except RequestEntityTooLarge:  # more than BUFFER_BYTES between two parts
            raise too_large from None
    if reading.cancelled_caught:
        raise Refused(408, "body_timeout", f"The body did not arrive within {BODY_TIMEOUT:g} s.")
    return bytes(body)


def _malformed() -> Refused:
    return Refused(400, "malformed_json", "The body is not JSON, or is nested too deep.")


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key is repeated")
    return document


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _explain(model: type[BaseModel], error: ValidationError) -> str:
    """One sentence on the first fault. Never what was sent: it may be an id."""
    fault = error.errors(include_input=False, include_url=False)[0]
    if fault["type"] == "extra_forbidden":
        return f"The body has an unknown key; known are: {', '.join(model.model_fields)}."
    where = ".".join(str(part) for part in fault["loc"]) or "The body"
    return f"{where}: {fault['msg'].removeprefix('Value error, ')}."
