"""This file is the ledger: the row of a run, from its beginning to its verdict, one statement per step.

The row that runs is the lease. Only one can, and every write names the run and asks that it still does: a run
whose row was taken from it learns so, and writes nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any
from uuid import UUID

from engine.database import Database
from engine.errors import RunInProgress
from engine.low_water_mark import LowWaterMark
from engine.statements import load_statement
from engine.tally import Summary, Tally

# Seconds after its last heartbeat for which a run keeps the lease. Heartbeats come once a second, and a run
# that can't write one cuts itself after eight (engine/lease.py); shorter would turn a slow disk into a
# take-over, longer is how long nobody is walked after a process was killed.
LEASE = 10.0

# Seconds that a heartbeat may take: three or four tries fit before a run has to cut itself.
HEARTBEAT_TIMEOUT = 2.0

# Seconds for which rows are kept: 26,000 of them at a tick every five minutes.
RETENTION = 90 * 86_400.0

# What whoever loses to a run that began this very moment is told, in seconds.
_RETRY_AFTER_AT_LEAST = 1.0

_BEGIN_RUN = load_statement("begin_run")
_RECORD_HEARTBEAT = load_statement("record_heartbeat")
_FINISH_RUN = load_statement("finish_run")


class Verdict(StrEnum):
    """What became of a run that has ended. `running` and `abandoned` are the database's own to say."""

    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"


class Ledger:
    """`scheduler.runs`. Every method raises DatabaseUnavailable and StatementFailed.

    `on_take_over` is called when a run was found to be abandoned, whether or not another then began.
    """

    def __init__(self, database: Database, on_take_over: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._on_take_over = on_take_over

    async def begin_run(
        self, run_id: UUID, scenario_types: Sequence[str] | None, hard_deadline: float
    ) -> UUID | None:
        """Take the lease. Returns the low-water mark to start behind; None is the beginning of the ids.

        `hard_deadline` in seconds from now. Raises RunInProgress.

        **Cancellation:** whether the run was begun is not known; its row is taken over once LEASE is over.
        """
        [row] = await self._database.fetch(_BEGIN_RUN, run_id, scenario_types, hard_deadline, LEASE)
        if row["abandoned_id"] is not None:
            self._on_take_over()
        if not row["is_begun"]:
            left = hard_deadline if row["retry_after"] is None else row["retry_after"]
            raise RunInProgress(
                "Another run is under way; ask again when its budget is over.",
                max(left, _RETRY_AFTER_AT_LEAST),
            )
        return row["started_after"]  # type: ignore[no-any-return]

    async def record_heartbeat(self, run_id: UUID, tally: Tally, low_water_mark: LowWaterMark) -> bool:
        """Keep the lease, and say how far the run has come. Returns False if the lease was lost.

        **Cancellation:** whether it was recorded is not known.
        """
        position = (low_water_mark.last_id, low_water_mark.mentors, low_water_mark.evaluated)
        rows = await self._database.fetch(
            *(_RECORD_HEARTBEAT, run_id, *position, *_counts(tally, tally.in_hand)),
            answer_within=HEARTBEAT_TIMEOUT,
        )
        return bool(rows)

    async def finish_run(
        self,
        run_id: UUID,
        verdict: Verdict,
        summary: Summary,
        tally: Tally,
        low_water_mark: LowWaterMark,
    ) -> bool:
        """Write the verdict, which gives the lease back. Returns False if it was lost: nothing was written.

        **Cancellation:** whether it was written is not known; writing it again does no harm, and returns
        True.
        """
        rows = await self._database.fetch(
            _FINISH_RUN,
            run_id,
            None if verdict is Verdict.COMPLETED else low_water_mark.last_id,
            low_water_mark.mentors,
            low_water_mark.evaluated,
            *_counts(tally, summary.total_unprocessed),
            verdict,
            None if verdict is Verdict.FAILED else summary.stop_reason,
            summary.remaining_known,
            summary.duration_ms,
            RETENTION,
        )
        return bool(rows)


def _counts(tally: Tally, unprocessed: int) -> tuple[Any, ...]:
    """The counts in the order in which both statements take them."""
    return (
        tally.evaluated,
        tally.errors.total(),
        unprocessed,
        tally.dispatched.total(),
        tally.suppressed.total(),
        json.dumps(tally.dispatched),
        json.dumps(tally.suppressed),
        json.dumps(tally.errors),
    )
