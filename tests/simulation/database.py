"""This file is Postgres as a world has it: the model behind a network, and statements that can go wrong."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import outcome
import structlog
import trio

from engine.database import RELEASE_TIMEOUT, STATEMENT_TIMEOUT
from engine.errors import DatabaseUnavailable, StatementFailed
from engine.statements import Statement
from tests.model_database import ModelDatabase, Row
from tests.simulation.plan import SCENARIO_TYPES
from tests.simulation.process import Call, Process
from tests.simulation.weather import ANSWER_LOST, CANCELED, CONFLICT, HANGS, HANGS_AFTER, LATE, LOST

if TYPE_CHECKING:
    from tests.simulation.world import World

# Seconds after which a statement that was long given up may still take effect.
LATEST = 20.0

DIVISION_BY_ZERO = "22012"


class Server:
    """Postgres itself. What it does, it does in its own time, whatever became of who asked."""

    def __init__(self, world: World, model: ModelDatabase) -> None:
        self.model = model
        self._world = world

    def receive(self, call: Call, process: Process, name: str, arguments: tuple[Any, ...]) -> None:
        world = self._world
        is_evaluation = name == "evaluate_and_count"
        latency = (world.plan.engine_latency if is_evaluation else world.plan.database_latency).draw(
            world.rng
        )
        outage = world.outage_for(process)
        if outage is not None:
            if not outage.is_silent:
                world.agenda.after(latency / 2, call.deliver, _lost())
            return
        fault = world.weather.of_statement()
        if fault == LATE:
            world.agenda.after(world.rng.uniform(0.0, LATEST), self._take_effect, None, name, arguments)
        elif fault == LOST:
            world.agenda.after(latency / 2, call.deliver, _lost())
        elif fault in (CANCELED, CONFLICT):
            sqlstate = "57014" if fault == CANCELED else "40001"
            world.agenda.after(latency / 2, call.deliver, outcome.Error(StatementFailed(name, sqlstate)))
        elif fault != HANGS:
            world.agenda.after(
                latency / 2, self._take_effect, (call, process, latency, fault), name, arguments
            )

    def enabled_of(self, scenario_types: Sequence[str]) -> list[str]:
        return [each for each in scenario_types if self.model.scenario_types[each]]

    def _take_effect(self, asked: Any, name: str, arguments: tuple[Any, ...]) -> None:
        world = self._world
        call, process, latency, fault = asked or (None, None, 0.0, None)
        if call is not None and call.is_withdrawn:
            return
        result: outcome.Outcome[Sequence[Row]]
        if name == "evaluate_and_count" and not world.plan.poison.isdisjoint(arguments[0]):
            result = outcome.Error(StatementFailed(name, DIVISION_BY_ZERO))
        else:
            try:
                rows = self.model.execute(name, *arguments)
            except AssertionError:
                # A check of the table's.
                world.witness.violate(f"Postgres refuses a row: {traceback.format_exc(limit=-1)}")
                return
            world.witness.took_effect(name, arguments, rows)
            if name == "evaluate_and_count":
                mentor_ids, types, _, run_id, _ = arguments
                world.witness.acted(run_id, mentor_ids, self.enabled_of(types or SCENARIO_TYPES))
            result = outcome.Value(rows)
        if call is None or fault == HANGS_AFTER:
            return
        # Whoever is cut off by now does not hear what took effect.
        outage = world.outage_for(process)
        if outage is not None and outage.is_silent:
            return
        if fault == ANSWER_LOST or outage is not None:
            result = _lost()
        world.agenda.after(latency / 2, call.deliver, result)


class StatementCall(Call):
    """`is_withdrawn`: the server was told to end it before it took effect."""

    is_withdrawn = False


class Client:
    """Stands in for engine.database.Database, in one process."""

    def __init__(self, world: World, process: Process, max_connections: int) -> None:
        self.open_calls = 0
        self._connections = trio.Semaphore(max_connections)
        self._world = world
        self._process = process

    async def fetch(
        self, statement: Statement, *arguments: Any, answer_within: float = STATEMENT_TIMEOUT
    ) -> Sequence[Row]:
        witness = self._world.witness
        run_id = _run_id() if statement.name == "fetch_page" else None
        wrong = witness.asked(self._process, statement.name, arguments, run_id)
        try:
            with trio.move_on_after(answer_within):
                # As with the real one, the statement leaves in a later pass than it was asked for.
                async with self._connections:
                    return await self._ask(statement.name, arguments, wrong, run_id)
        finally:
            witness.gave_up(self._process, statement.name, arguments)
        raise DatabaseUnavailable("Postgres did not answer in time.")

    async def _ask(
        self, name: str, arguments: tuple[Any, ...], wrong: str | None, run_id: UUID | None
    ) -> Sequence[Row]:
        world, process = self._world, self._process
        call = StatementCall(process)
        world.witness.sent(process, name, arguments, wrong)
        if not process.is_dead:
            world.database.receive(call, process, name, arguments)
        self.open_calls += 1
        error: BaseException | None = None
        try:
            rows: Sequence[Row] = await call.answer()
            world.witness.received(process, run_id, name, arguments, rows)
            return rows
        except trio.Cancelled:
            await self._withdraw(call)
            raise
        except StatementFailed as failed:
            error = failed
            raise
        except DatabaseUnavailable as lost:
            error = lost
            raise
        finally:
            self.open_calls -= 1
            world.witness.ended(process, name, arguments, error)

    async def _withdraw(self, call: StatementCall) -> None:
        """End the query on the server, over a connection of its own, for as long as that may take."""
        world = self._world
        latency = world.plan.database_latency.draw(world.rng)
        with trio.CancelScope(shield=True):
            if world.outage_for(self._process) is not None:
                await trio.sleep(RELEASE_TIMEOUT)
                return
            await trio.sleep(min(latency / 2, RELEASE_TIMEOUT))
            call.is_withdrawn = True
            await trio.sleep(min(latency / 2, RELEASE_TIMEOUT - min(latency / 2, RELEASE_TIMEOUT)))


def _lost() -> outcome.Error:
    return outcome.Error(DatabaseUnavailable("The connection was lost."))


def _run_id() -> UUID | None:
    """Of the run in whose tasks this is, as its log lines have it."""
    run_id = structlog.contextvars.get_contextvars().get("run_id")
    return None if run_id is None else UUID(run_id)
