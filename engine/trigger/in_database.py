"""This file is the trigger engine inside Postgres: `scheduler.evaluate`, one call per chunk."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import trio

from engine.database import Database
from engine.errors import DatabaseUnavailable, InvocationFailed, StatementFailed
from engine.last_look import look_at_deadline
from engine.statements import Statement, load_statement
from engine.trigger.protocol import Evaluation, RunContext

_EVALUATE = load_statement("evaluate")
_EVALUATE_AND_COUNT = load_statement("evaluate_and_count")

# Calls of `scheduler.evaluate` at once, of a run and of those who come over HTTP each: more than two to four
# only contend with one another for the same processors (11 us a mentor at two to four, on two cores; of the
# processors' time, two take as much as five), and
# every one costs the user's Postgres a connection.
EVALUATIONS_AT_ONCE = 4

# Seconds between two tries of a call while Postgres is away. The call bears its run's id, so that a try whose
# answer was lost is told `dispatched` for what it sent.
RECONNECT_PAUSE = 0.25

# SQLSTATE classes that one row's data can cause: 21 cardinality, 22 data, 23 constraint, P0 raised by a
# scenario function.
_DATA_ERRORS = ("21", "22", "23", "P0")
_CONFLICT = "40"
_QUERY_CANCELED = "57014"


@dataclass(frozen=True, slots=True)
class MentorResult:
    """Scenario types dispatched to one mentor, and those a cooldown suppressed."""

    mentor_id: UUID
    dispatched: Sequence[str]
    suppressed: Sequence[str]


class InDatabaseTriggerEngine:
    """Implements TriggerEngine; a session has no state, because the pool has the connections.

    Bounds nothing by itself: whoever waits in here waits on the time-out of an invocation.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def evaluate(
        self,
        mentor_ids: Sequence[UUID],
        *,
        scenario_types: Sequence[str] | None,
        dry_run: bool,
        run_id: UUID | None,
    ) -> list[MentorResult]:
        """Evaluate these mentors; those with nothing due are not in the answer.

        `scenario_types` None: every enabled one. `run_id` None: no retry of this call can be told from
        another call. Raises DatabaseUnavailable, and StatementFailed with 22023 for a scenario type that
        does not exist.

        **Cancellation:** ends the call on the server; it either took effect as a whole or not at all.
        """
        rows = await self._fetch(_EVALUATE, mentor_ids, scenario_types, dry_run, run_id)
        return [MentorResult(*row) for row in rows]

    async def count(self, mentor_ids: Sequence[UUID], context: RunContext) -> Evaluation:
        """The same for a run, which wants to know how many and not who. Raises and cancels as `evaluate`."""
        rows = await self._fetch(
            *(_EVALUATE_AND_COUNT, mentor_ids, context.scenario_types, context.dry_run, context.run_id),
            None if context.overrides is None else json.dumps(context.overrides),
        )
        return Evaluation(
            {row["scenario_type"]: row["dispatched"] for row in rows if row["dispatched"]},
            {row["scenario_type"]: row["suppressed"] for row in rows if row["suppressed"]},
        )

    async def _fetch(
        self, statement: Statement, mentor_ids: Sequence[UUID], *arguments: Any
    ) -> Sequence[Any]:
        # The caller knows how long an invocation may take. A tuple, because asyncpg takes a third longer to
        # see that a list can be an array.
        return await self._database.fetch(statement, tuple(mentor_ids), *arguments, answer_within=math.inf)

    @asynccontextmanager
    async def open_session(self, context: RunContext) -> AsyncIterator[_Session]:
        yield _Session(self, context)


class _Session:
    def __init__(self, trigger_engine: InDatabaseTriggerEngine, context: RunContext) -> None:
        self._trigger_engine = trigger_engine
        self._context = context

    async def evaluate(self, mentor_ids: Sequence[UUID]) -> Evaluation:
        while True:
            try:
                return await self._trigger_engine.count(mentor_ids, self._context)
            except DatabaseUnavailable:
                # A restart of Postgres costs no mentor an error: the invocation's time-out ends the waiting.
                await trio.sleep(RECONNECT_PAUSE)
                await look_at_deadline()
            except StatementFailed as error:
                raise _invocation_failed(error.sqlstate) from error


def _invocation_failed(sqlstate: str) -> InvocationFailed:
    if sqlstate == _QUERY_CANCELED:
        return InvocationFailed("timeout")
    return InvocationFailed(
        f"sql_{sqlstate.lower()}",
        retryable=sqlstate.startswith(_CONFLICT),
        bisectable=sqlstate.startswith(_DATA_ERRORS),
    )
