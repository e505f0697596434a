"""This file is the trigger engine over HTTP: the wire contract, over any transport.

Promised: whatever comes back, however wrong, is an Evaluation of exactly the chunk that was asked about, or
an InvocationFailed. Not known here: sockets, retries, time.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import UUID

from engine.errors import InvocationFailed
from engine.out_of_files import is_out_of_files
from engine.retry_after import parse_retry_after
from engine.trigger.protocol import SCENARIO_TYPE_PATTERN, Evaluation, RunContext
from engine.trigger.transport import Answer, Transport, TransportConnection

# Bytes of an answer's body. A mentor's part is some 100 bytes and a name per scenario: a kilobyte holds
# fifteen scenarios with the longest names. The rest is for error pages of what stands in between.
MAX_BODY_BYTES = 64 * 1024
MAX_BODY_BYTES_PER_MENTOR = 1024

_RETRYABLE = frozenset({429, 502, 503, 504})
_BISECTABLE = frozenset({400, 413, 422, 500})

_SCENARIO_TYPE = re.compile(SCENARIO_TYPE_PATTERN)

_NOTHING_DUE = Evaluation()


class HttpTriggerEngine:
    """Implements TriggerEngine: one POST per chunk, `mentor_id` for a chunk of one, `mentor_ids` for more.

    `service_role_key` is sent as a bearer token; None sends no Authorization. The
    settings have seen to it that it can travel in a header.
    """

    def __init__(self, transport: Transport, service_role_key: str | None) -> None:
        self._transport = transport
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if service_role_key is not None:
            self._headers["Authorization"] = f"Bearer {service_role_key}"

    @asynccontextmanager
    async def open_session(self, context: RunContext) -> AsyncIterator[_Session]:
        headers = {**self._headers, "X-Run-Id": str(context.run_id)}
        async with self._transport.open_connection(headers) as connection:
            yield _Session(connection, context)


class _Session:
    """Implements TriggerEngineSession."""

    def __init__(self, connection: TransportConnection, context: RunContext) -> None:
        self._connection = connection
        self._run_id = str(context.run_id)
        # What follows the ids in every body of the run.
        self._rest = ", " + json.dumps(
            {
                "scenario_types": context.scenario_types,
                "dry_run": context.dry_run,
                "run_id": self._run_id,
            }
        ).removeprefix("{")

    async def evaluate(self, mentor_ids: Sequence[UUID]) -> Evaluation:
        ids = [str(mentor_id) for mentor_id in mentor_ids]
        if len(ids) == 1:
            body = f'{{"mentor_id": "{ids[0]}"{self._rest}'
        else:
            body = '{"mentor_ids": ' + json.dumps(ids) + self._rest
        try:
            answer = await self._connection.post(
                {"Idempotency-Key": f"{self._run_id}:{ids[0]}:{ids[-1]}:{len(ids)}"},
                body.encode("ascii"),
                MAX_BODY_BYTES + MAX_BODY_BYTES_PER_MENTOR * len(ids),
            )
        except InvocationFailed as failure:
            if is_out_of_files(failure):  # the trigger engine has not refused anything
                raise InvocationFailed("out_of_files", retryable=failure.retryable) from failure
            raise
        if answer.status != 200:
            raise _failure_of_status(answer)
        try:
            parsed = _parse(answer.body)
            return _read_one(parsed, ids[0]) if len(ids) == 1 else _read_many(parsed, ids)
        except InvocationFailed:
            # An answer about something else may be one to another question. The next one comes over a
            # connection on which nothing else was asked.
            await self._connection.drop()
            raise


def _failure_of_status(answer: Answer) -> InvocationFailed:
    status = answer.status
    if status in _RETRYABLE:
        retry_after = parse_retry_after(answer.retry_after, datetime.now(UTC))
        return InvocationFailed(f"http_{status}", retryable=True, retry_after=retry_after)
    if 300 <= status < 400:
        return InvocationFailed("redirect")
    return InvocationFailed(f"http_{status}", bisectable=status in _BISECTABLE)


def _wrong_shape() -> InvocationFailed:
    return InvocationFailed("wrong_shape", bisectable=True)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key is repeated")
    return members


# Python's decoder takes NaN, and the last of two equal keys, unless it is told otherwise. Made once: making
# one costs more than decoding an answer.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeated_keys)


def _parse(body: bytes) -> Any:
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):  # bad UTF-8 is a ValueError, too
        raise _wrong_shape() from None


def _read_one(parsed: Any, mentor_id: str) -> Evaluation:
    if _read_mentor_id(parsed) != mentor_id:
        raise InvocationFailed("foreign_id")
    if _has_error(parsed):
        return Evaluation(errors={"mentor_error": 1})
    dispatched, suppressed = _read_types(parsed, "dispatched"), _read_types(parsed, "suppressed")
    if not dispatched and not suppressed:
        return _NOTHING_DUE
    return Evaluation(dict.fromkeys(dispatched, 1), dict.fromkeys(suppressed, 1))


def _read_many(parsed: Any, mentor_ids: Sequence[str]) -> Evaluation:
    results = parsed.get("results") if isinstance(parsed, dict) else None
    if not isinstance(results, list):
        raise _wrong_shape()
    asked = set(mentor_ids)
    answered: set[str] = set()
    answered_twice: set[str] = set()
    for result in results:
        mentor_id = _read_mentor_id(result)
        if mentor_id not in asked:
            raise InvocationFailed("foreign_id")
        (answered_twice if mentor_id in answered else answered).add(mentor_id)

    dispatched: Counter[str] = Counter()
    suppressed: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for result in results:
        has_error = _has_error(result)
        mentor_dispatched = () if has_error else _read_types(result, "dispatched")
        mentor_suppressed = () if has_error else _read_types(result, "suppressed")
        if _read_mentor_id(result) in answered_twice:
            continue  # which of the two is true is anyone's guess
        if has_error:
            errors["mentor_error"] += 1
        dispatched.update(mentor_dispatched)
        suppressed.update(mentor_suppressed)
    if answered_twice:
        errors["mentor_answered_twice"] = len(answered_twice)
    if len(answered) < len(asked):
        errors["mentor_missing"] = len(asked) - len(answered)
    return Evaluation(dispatched, suppressed, errors)


def _read_mentor_id(result: Any) -> str:
    """The id in the form we send; UUIDs are equal in upper and lower case (RFC 9562, 4)."""
    mentor_id = result.get("mentor_id") if isinstance(result, dict) else None
    if not isinstance(mentor_id, str):
        raise _wrong_shape()
    return mentor_id.lower()


def _has_error(result: dict[str, Any]) -> bool:
    if "error" not in result:
        return False
    if not isinstance(result["error"], str):
        raise _wrong_shape()
    return True


def _read_types(result: dict[str, Any], name: str) -> list[str]:
    types = result.get(name)
    if not isinstance(types, list):
        raise _wrong_shape()
    for scenario_type in types:
        if not isinstance(scenario_type, str) or not _SCENARIO_TYPE.fullmatch(scenario_type):
            raise _wrong_shape()
    if len(types) > 1 and len(set(types)) != len(types):
        raise _wrong_shape()
    return types
