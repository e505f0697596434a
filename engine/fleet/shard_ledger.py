"""This file is the ledger of shards: a row each, from the plan to what became of it, one statement per step.

As with runs, a check and its write are one statement. Moments go through here as seconds since 1970 on
Postgres's clock: the one clock that coordinator and workers have in common.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from engine.database import Database
from engine.errors import DatabaseUnavailable, StatementFailed
from engine.fleet.plan import PastShard
from engine.fleet.protocol import ACK_WAIT
from engine.fleet.shard import Shard, ShardResult
from engine.lease import FENCE_AFTER
from engine.low_water_mark import LowWaterMark
from engine.mentors.protocol import IdRange
from engine.readiness import check_ready
from engine.statements import Statement, load_statement
from engine.tally import Tally

# Seconds that a claim may take: two tries fit before its shard is to go to somebody else.
CLAIM_TIMEOUT = ACK_WAIT / 2

# Seconds that a shard's heartbeat may take. One that hangs, and its connection's end, leave time for another
# before the worker has to cut itself (SHARD_FENCE_AFTER), which costs every shard that it has in hand.
HEARTBEAT_TIMEOUT = 0.6

# Seconds for which the rows of shards are kept: coverage is asked for a month back at most. There are a
# hundred times as many of them as of runs.
RETENTION = 31 * 86_400.0

_PREVIOUS_SHARDS = load_statement("previous_shards")
_PLAN_SHARDS = load_statement("plan_shards")
_CLAIM_SHARD = load_statement("claim_shard")
_RECORD_SHARD_HEARTBEAT = load_statement("record_shard_heartbeat")
_FINISH_SHARD = load_statement("finish_shard")
_WITHDRAW_SHARDS = load_statement("withdraw_shards")


class Outcome(StrEnum):
    """What came of a claim. Only who has `claimed` may act."""

    CLAIMED = "claimed"
    HELD = "held"  # by a worker that lives
    ENDED = "ended"  # its run has its verdict, was taken over, or says nothing any more
    FINISHED = "finished"
    WITHDRAWN = "withdrawn"
    UNKNOWN = "unknown"  # no such run, or no such shard of it
    CONTRADICTED = "contradicted"  # the message says what the ledger does not


@dataclass(frozen=True, slots=True)
class Answer:
    """To a claim. `at` is that moment.

    `run_age`: seconds since the run's heartbeat, infinite of a run that is unknown. `held_for`: seconds
    until a shard that somebody holds may be taken, unless they hold on to it; else 0.
    """

    outcome: Outcome
    at: float
    run_age: float
    held_for: float


@dataclass(frozen=True, slots=True)
class Kept:
    """To a heartbeat. `run_age` as of an Answer; `is_wanted`: another worker has the delivery and waits."""

    run_age: float
    is_wanted: bool


class ShardLedger:
    """`scheduler.shards`. Every method raises DatabaseUnavailable and, but for the coordinator's three,
    StatementFailed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def previous_shards(self, run_id: UUID) -> list[PastShard]:
        """Of the run before this one, if that left something and had shards; in order.

        **Cancellation:** leaves nothing behind.
        """
        return [
            PastShard(IdRange(row["after_id"], row["until_id"]), row["low_water_mark"], row["is_completed"])
            for row in await self._fetch(_PREVIOUS_SHARDS, run_id)
        ]

    async def plan_shards(self, run_id: UUID, ranges: Sequence[IdRange]) -> float | None:
        """Write the plan down. Returns this moment, or None if the run has lost its lease.

        **Cancellation:** whether it was written is not known; writing the same again does no harm.
        """
        rows = await self._fetch(
            _PLAN_SHARDS,
            run_id,
            [each.after for each in ranges],
            [each.until for each in ranges],
            RETENTION,
        )
        return rows[0]["at"] if rows else None

    async def check_ready(self) -> None:
        """As `engine.readiness.check_ready`."""
        await check_ready(self._database)

    async def claim_shard(self, shard: Shard, worker: str, claim: UUID) -> Answer:
        """Take a shard, unless somebody has it, or nobody is to have it.

        **Cancellation:** whether it was claimed is not known; it can be claimed again when ACK_WAIT is
        over.
        """
        [row] = await self._database.fetch(
            *(_CLAIM_SHARD, shard.run_id, shard.index, shard.after, shard.until, shard.scenario_types),
            *(shard.hard_deadline_at, worker, claim, ACK_WAIT, FENCE_AFTER),
            answer_within=CLAIM_TIMEOUT,
        )
        run_age = math.inf if row["run_age"] is None else row["run_age"]
        return Answer(Outcome(row["outcome"]), row["at"], run_age, row["held_for"] or 0.0)

    async def record_shard_heartbeat(
        self, shard: Shard, claim: UUID, tally: Tally, low_water_mark: LowWaterMark
    ) -> Kept | None:
        """Keep the shard, and say how far it has come.

        None: the shard is lost, or the run is. **Cancellation:** whether it was recorded is not known.
        """
        rows = await self._database.fetch(
            *(_RECORD_SHARD_HEARTBEAT, shard.run_id, shard.index, claim, FENCE_AFTER),
            *(low_water_mark.last_id, low_water_mark.mentors, low_water_mark.evaluated),
            *(tally.evaluated, tally.errors.total(), tally.in_hand),
            *(tally.dispatched.total(), tally.suppressed.total()),
            answer_within=HEARTBEAT_TIMEOUT,
        )
        return Kept(rows[0]["run_age"], rows[0]["is_wanted"]) if rows else None

    async def finish_shard(self, result: ShardResult, claim: UUID, low_water_mark: LowWaterMark) -> bool:
        """Write what became of it. Returns False if it was lost: nothing was written.

        **Cancellation:** whether it was written is not known; writing it again does no harm.
        """
        rows = await self._database.fetch(
            *(_FINISH_SHARD, result.run_id, result.index, claim),
            None if result.completed else low_water_mark.last_id,
            *(result.stretch_mentors, result.stretch_evaluated),
            *(result.evaluated, sum(result.errors.values()), result.unprocessed),
            *(sum(result.dispatched.values()), sum(result.suppressed.values()), result.completed),
        )
        return bool(rows)

    async def withdraw_shards(self, run_id: UUID) -> set[int]:
        """Let no further shard be begun. Returns which ones have not been.

        **Cancellation:** whether they were withdrawn is not known; doing it again does no harm.
        """
        rows = await self._fetch(_WITHDRAW_SHARDS, run_id)
        return {row["shard_index"] for row in rows}

    async def _fetch(self, statement: Statement, *arguments: Any) -> Sequence[Any]:
        """For the coordinator. A refused statement, by a lock_timeout for example, is a ledger that is away
        for the moment: there is a budget to try again in, and what was done until then is not undone by it.
        """
        try:
            return await self._database.fetch(statement, *arguments)
        except StatementFailed as error:
            raise DatabaseUnavailable(str(error)) from None
