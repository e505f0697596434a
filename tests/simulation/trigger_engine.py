"""This file is the trigger engine over HTTP as a world has it, and the transport that leads to it.

What is around it is the product's own, down to the bytes of a body. The built-in one sends as
scheduler.evaluate does, at most once in a cooldown. A foreign one sends whatever it is asked to.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import outcome

from engine.errors import InvocationFailed
from engine.trigger.protocol import Evaluation
from engine.trigger.transport import Answer
from tests.simulation.plan import BUILT_IN, SCENARIO_TYPES
from tests.simulation.process import Call, Process
from tests.simulation.weather import (
    CUT,
    ENGINE_HANGS,
    ENGINE_LATE,
    FOREIGN_ID,
    MENTOR_ERROR,
    MISSING,
    OVERSIZE,
    REDIRECT,
    REFUSED,
    RESET,
    RESET_AFTER,
    STATUSES,
    TOO_MANY_AFTER,
    TWICE,
    UNAVAILABLE_AFTER,
    WRONG_SHAPE,
)

if TYPE_CHECKING:
    from tests.simulation.world import World

# Seconds after which an invocation that was long given up may still be acted on.
LATEST = 20.0

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
    """`evaluated`: of whom the answer says so, in a way that has to be understood. None: of nobody."""

    answer: Answer | InvocationFailed
    evaluated: Sequence[UUID] | None = None
    counts: Evaluation = field(default_factory=Evaluation)


class Server:
    def __init__(self, world: World) -> None:
        self._world = world

    def receive(self, call: Call, request: Request) -> None:
        world = self._world
        latency = world.plan.engine_latency.draw(world.rng)
        fault = world.weather.of_invocation()
        if fault == ENGINE_LATE:
            world.agenda.after(world.rng.uniform(0.0, LATEST), self._act, request)
        elif fault in (REFUSED, RESET):
            error_class = "connection_refused" if fault == REFUSED else "connection_reset"
            failed = InvocationFailed(error_class, retryable=True)
            world.agenda.after(latency / 2, call.deliver, outcome.Value(Exchange(failed)))
        elif fault in STATUSES:
            retry_after = None
            if fault in (TOO_MANY_AFTER, UNAVAILABLE_AFTER):
                retry_after = str(world.rng.choice((0, 1, 5, 3600)))
            answer = Answer(STATUSES[fault], b"{}", retry_after)
            world.agenda.after(latency / 2, call.deliver, outcome.Value(Exchange(answer)))
        elif fault != ENGINE_HANGS:
            world.agenda.after(latency / 2, self._act_and_answer, call, request, latency / 2, fault)

    def _act_and_answer(self, call: Call, request: Request, latency: float, fault: str | None) -> None:
        world = self._world
        if not world.plan.poison.isdisjoint(request.mentor_ids):
            exchange = Exchange(Answer(500, b"oops"))
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
        return Exchange(InvocationFailed("connection_reset", retryable=True))
    if fault == CUT:
        return Exchange(InvocationFailed("connection_cut"))
    if fault == OVERSIZE:
        return Exchange(InvocationFailed("oversize_answer"))
    if fault == REDIRECT:
        return Exchange(Answer(307, b""))
    if fault == WRONG_SHAPE:
        return Exchange(Answer(200, rng.choice((b"", b"[]", b"{}", b'{"results": 1}', b"\xff", b"null"))))
    if fault == FOREIGN_ID:
        wrong = [dict(each) for each in results]
        wrong[rng.randrange(len(wrong))]["mentor_id"] = str(UUID(int=rng.getrandbits(128)))
        return Exchange(Answer(200, _body(request, wrong)))
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
    answer = Answer(200, _body(request, said))
    return Exchange(answer, [UUID(each["mentor_id"]) for each in good], counts)


def _body(request: Request, results: Results) -> bytes:
    return json.dumps({"results": results} if request.is_for_many else results[0]).encode()


class SimulatedTransport:
    """Implements Transport, in one process."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    @asynccontextmanager
    async def open_connection(self, headers: Mapping[str, str]) -> AsyncIterator[_Connection]:
        run_id = UUID(headers["X-Run-Id"])
        self._world.witness.session_opened(self._process, run_id)
        try:
            yield _Connection(self._world, self._process)
        finally:
            self._world.witness.session_closed(self._process, run_id)


class _Connection:
    """Implements TransportConnection. A post leaves at once, and no later than it was asked for."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def post(self, headers: Mapping[str, str], body: bytes, max_body_bytes: int) -> Answer:
        world, process = self._world, self._process
        asked = json.loads(body)
        mentor_ids = [UUID(each) for each in asked.get("mentor_ids") or [asked["mentor_id"]]]
        request = Request(
            UUID(asked["run_id"]),
            mentor_ids,
            asked["scenario_types"],
            asked["dry_run"],
            is_for_many="mentor_ids" in asked,
        )
        call = Call(process)
        wrong = world.witness.begins(process, request.run_id, mentor_ids, dry_run=request.dry_run)
        if wrong is not None:
            world.witness.violate(wrong)
        world.witness.invoked(process, request.run_id, mentor_ids, dry_run=request.dry_run)
        if not process.is_dead:
            world.trigger_engine.receive(call, request)
        try:
            exchange: Exchange = await call.answer()
            if exchange.evaluated is not None:
                world.witness.evaluated(process, request.run_id, exchange.evaluated, exchange.counts)
        finally:
            world.witness.invocation_ended(process, request.run_id, mentor_ids)
        if isinstance(exchange.answer, InvocationFailed):
            raise exchange.answer
        return exchange.answer

    async def drop(self) -> None:
        pass
