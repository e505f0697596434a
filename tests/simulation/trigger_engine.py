"""This file is the trigger engine over HTTP as a world has it, and the stream that leads to it.

What is around it is the product's own, the default transport included, down to the bytes on the stream. The
built-in one sends as scheduler.evaluate does, at most once in a cooldown. A foreign one sends whatever it is
asked to.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import outcome
import trio

from engine.errors import InvocationFailed
from engine.trigger.direct import DirectTransport, _Connection
from engine.trigger.protocol import Evaluation
from engine.trigger.transport import Answer
from tests.simulation.plan import BUILT_IN, SCENARIO_TYPES
from tests.simulation.process import Call, Process
from tests.simulation.weather import (
    BAD_REQUEST,
    BROKEN,
    CUT,
    ENGINE_HANGS,
    ENGINE_LATE,
    FOREIGN_ID,
    MENTOR_ERROR,
    MISSING,
    OVERSIZE,
    RESET,
    RESET_AFTER,
    STATUSES,
    TOO_MANY,
    TOO_MANY_AFTER,
    TWICE,
    UNAVAILABLE,
    UNAVAILABLE_AFTER,
    WRONG_SHAPE,
)
from tests.simulation.witness import ANSWERED, BISECTABLE, FINAL, POISONED, RETRYABLE

if TYPE_CHECKING:
    from tests.simulation.world import World

# Seconds after which an invocation that was long given up may still be acted on.
LATEST = 20.0

# What spec.md, section 5, says of these statuses; of the others, nothing: they are errors.
_MEANING = {
    BAD_REQUEST: BISECTABLE,
    BROKEN: BISECTABLE,
    TOO_MANY: RETRYABLE,
    TOO_MANY_AFTER: RETRYABLE,
    UNAVAILABLE: RETRYABLE,
    UNAVAILABLE_AFTER: RETRYABLE,
}

Results = list[dict[str, Any]]


@dataclass(frozen=True)
class Request:
    run_id: UUID
    mentor_ids: Sequence[UUID]
    scenario_types: Sequence[str] | None
    dry_run: bool
    is_for_many: bool


@dataclass(frozen=True)
class Exchange:
    """`said` before the connection is cut, or all of it; nothing: it is reset.

    `evaluated`: of whom the answer says so, in a way that has to be understood. None: of nobody. `outcome`
    and `retry_after`: what the contract says of such an answer.
    """

    said: bytes
    outcome: str
    evaluated: Sequence[UUID] | None = None
    counts: Evaluation = field(default_factory=Evaluation)
    retry_after: float = 0.0


def _answered(
    status: int, body: bytes, outcome: str, retry_after: str | None = None, **seen: Any
) -> Exchange:
    field_line = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
    head = f"HTTP/1.1 {status} So\r\n{field_line}Content-Length: {len(body)}\r\n\r\n"
    return Exchange(head.encode() + body, outcome, retry_after=float(retry_after or 0), **seen)


class Server:
    def __init__(self, world: World) -> None:
        self._world = world

    def receive(self, call: Call, request: Request) -> None:
        world = self._world
        latency = world.plan.engine_latency.draw(world.rng)
        fault = world.weather.of_invocation()
        if fault == ENGINE_LATE:
            world.agenda.after(world.rng.uniform(0.0, LATEST), self._act, request)
        elif fault == RESET:
            world.agenda.after(latency / 2, call.deliver, outcome.Value(Exchange(b"", RETRYABLE)))
        elif fault in STATUSES:
            retry_after = None
            if fault in (TOO_MANY_AFTER, UNAVAILABLE_AFTER):
                retry_after = str(world.rng.choice((0, 1, 5, 12, 3600)))
            exchange = _answered(STATUSES[fault], b"{}", _MEANING.get(fault, FINAL), retry_after)
            world.agenda.after(latency / 2, call.deliver, outcome.Value(exchange))
        elif fault != ENGINE_HANGS:
            world.agenda.after(latency / 2, self._act_and_answer, call, request, latency / 2, fault)

    def _act_and_answer(self, call: Call, request: Request, latency: float, fault: str | None) -> None:
        world = self._world
        if not world.plan.poison.isdisjoint(request.mentor_ids):
            exchange = _answered(500, b"oops", POISONED)
        else:
            skipped: set[UUID] = set()
            if fault == MENTOR_ERROR:
                skipped.add(world.rng.choice(request.mentor_ids))
            exchange = _answer(request, self._act(request, skipped), fault, world)
        world.agenda.after(latency, call.deliver, outcome.Value(exchange))

    def _act(self, request: Request, skipped: set[UUID] = frozenset()) -> Results:  # type: ignore[assignment]
        """What is to be said of each mentor, in the order they were asked about."""
        world = self._world
        mentor_ids = [each for each in request.mentor_ids if each not in skipped]
        types = request.scenario_types or SCENARIO_TYPES
        if world.plan.engine == BUILT_IN:
            types = world.database.enabled_of(types)
            answers = world.database.model.evaluate(
                mentor_ids, request.scenario_types, dry_run=request.dry_run, run_id=request.run_id
            )
        else:
            due = {each: [kind for kind in types if world.is_due(each, kind)] for each in mentor_ids}
            answers = {each: (kinds, []) for each, kinds in due.items()}
        world.witness.acted(request.run_id, mentor_ids, types)
        results: Results = []
        for mentor_id in request.mentor_ids:
            dispatched, suppressed = answers.get(mentor_id, ([], []))
            results.append(
                {"mentor_id": str(mentor_id), "error": "no"}
                if mentor_id in skipped
                else {"mentor_id": str(mentor_id), "dispatched": dispatched, "suppressed": suppressed}
            )
        return results


def _answer(request: Request, results: Results, fault: str | None, world: World) -> Exchange:
    rng = world.rng
    if fault == RESET_AFTER:
        return Exchange(b"", RETRYABLE)
    if fault == CUT:
        return Exchange(b"HTTP/1.1 200 So\r\nContent-Le", FINAL)
    if fault == OVERSIZE:
        return Exchange(b"HTTP/1.1 200 So\r\nContent-Length: 1000000000\r\n\r\n", FINAL)
    if fault == WRONG_SHAPE:
        body = rng.choice((b"", b"[]", b"{}", b'{"results": 1}', b"\xff", b"null"))
        return _answered(200, body, BISECTABLE)
    if fault == FOREIGN_ID:
        wrong = [dict(each) for each in results]
        wrong[rng.randrange(len(wrong))]["mentor_id"] = str(UUID(int=rng.getrandbits(128)))
        return _answered(200, _body(request, wrong), FINAL)
    said = list(results)
    if fault == MISSING and request.is_for_many:
        said.pop(rng.randrange(len(said)))
    if fault == TWICE and request.is_for_many:
        said.append(rng.choice(said))
    # An error takes the whole chunk's place where there is no list for it.
    told = Counter(each["mentor_id"] for each in said)
    good = [each for each in said if told[each["mentor_id"]] == 1 and "error" not in each]
    counts = Evaluation(
        Counter(kind for each in good for kind in each["dispatched"]),
        Counter(kind for each in good for kind in each["suppressed"]),
    )
    evaluated = [UUID(each["mentor_id"]) for each in good]
    return _answered(200, _body(request, said), ANSWERED, evaluated=evaluated, counts=counts)


def _body(request: Request, results: Results) -> bytes:
    return json.dumps({"results": results} if request.is_for_many else results[0]).encode()


class SimulatedTransport(DirectTransport):
    """The product's own, in one process, but for the stream."""

    def __init__(self, world: World, process: Process, url: str) -> None:
        super().__init__(url)
        self._world = world
        self._process = process

    @asynccontextmanager
    async def open_connection(self, headers: Mapping[str, str]) -> AsyncIterator[_SimulatedConnection]:
        run_id = UUID(headers["X-Run-Id"])
        self._world.witness.session_opened(self._process, run_id)
        connection = _SimulatedConnection(self._endpoint, None, headers)
        connection.world, connection.process = self._world, self._process
        try:
            yield connection
        finally:
            connection.close()
            self._world.witness.session_closed(self._process, run_id)


class _SimulatedConnection(_Connection):
    """The product's own, but for what connects."""

    world: World
    process: Process
    refused: Callable[[], None]

    async def post(self, headers: Mapping[str, str], body: bytes, max_body_bytes: int) -> Answer:
        witness, process = self.world.witness, self.process
        request = _read(body)
        witness.tried(process, request.run_id, request.mentor_ids)

        def refused() -> None:
            witness.told(process, request.run_id, request.mentor_ids, RETRYABLE, 0.0)

        self.refused = refused
        try:
            return await super().post(headers, body, max_body_bytes)
        finally:
            witness.try_ended(process, request.run_id, request.mentor_ids)

    async def _connect(self) -> Any:
        """Waited for, as long as a round trip takes."""
        world = self.world
        call = Call(self.process)
        latency = world.plan.database_latency.draw(world.rng)
        if not self.process.is_dead:
            world.agenda.after(latency, call.deliver, outcome.Value(world.weather.of_connecting()))
        if await call.answer():
            self.refused()
            raise InvocationFailed("connection_refused", retryable=True)
        self._socket = self._stream = stream = _Stream(world, self.process)  # type: ignore[assignment]
        return stream


class _Stream:
    """What the default transport needs of a TcpStream. What is sent leaves at once."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._call: Call | None = None
        self._request: Request | None = None

    async def send_all(self, data: bytes) -> None:
        world, process = self._world, self._process
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        self._request = request = _read(body)
        self._call = Call(process)
        wrong = world.witness.begins(process, request.run_id, dry_run=request.dry_run)
        if wrong is not None:
            world.witness.violate(wrong)
        world.witness.keyed(process, request.run_id, request.mentor_ids, fields)
        world.witness.invoked(process, request.run_id, request.mentor_ids, dry_run=request.dry_run)
        if not process.is_dead:
            world.trigger_engine.receive(self._call, request)

    async def receive_some(self, max_bytes: int) -> bytes:
        call, self._call = self._call, None
        request = self._request
        if call is None or request is None:
            return b""  # cut
        witness, process = self._world.witness, self._process
        try:
            exchange: Exchange = await call.answer()
            witness.told(process, request.run_id, request.mentor_ids, exchange.outcome, exchange.retry_after)
            if exchange.evaluated is not None:
                witness.evaluated(process, request.run_id, exchange.evaluated, exchange.counts)
                witness.told_of(process, request.run_id, len(request.mentor_ids) - len(exchange.evaluated))
        finally:
            witness.invocation_ended(process, request.run_id, request.mentor_ids)
        if not exchange.said:
            raise trio.BrokenResourceError
        if self._world.engine_closes:
            return exchange.said.replace(b"Content-Length", b"Connection: close\r\nContent-Length", 1)
        return exchange.said

    def is_readable(self) -> bool:
        return False

    def close(self) -> None:
        pass


def _read(body: bytes) -> Request:
    asked = json.loads(body)
    return Request(
        UUID(asked["run_id"]),
        [UUID(each) for each in asked.get("mentor_ids") or [asked["mentor_id"]]],
        asked["scenario_types"],
        asked["dry_run"],
        is_for_many="mentor_ids" in asked,
    )
