"""This file is a run under way as it is at one moment: whoever carries it out, and whoever looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import trio

from engine.run_record import RunRecord
from engine.shard_record import ShardRecord
from engine.started_run import StartedRun


@dataclass(frozen=True, slots=True)
class LiveRun:
    """Counts of mentors and notifications, and seconds since it was asked for."""

    run_id: UUID
    elapsed: float
    evaluated: int
    errors: int
    dispatched: int
    suppressed: int


def live_run_here(started: StartedRun) -> LiveRun:
    """Of this process: to the moment."""
    tally = started.progress.tally
    return LiveRun(
        run_id=started.context.run_id,
        elapsed=trio.current_time() - started.budget.started,
        evaluated=tally.evaluated,
        errors=tally.errors.total(),
        dispatched=tally.dispatched.total(),
        suppressed=tally.suppressed.total(),
    )


def live_run_elsewhere(record: RunRecord) -> LiveRun | None:
    """Of another process, as its last heartbeat left it in the ledger; None if that run has ended."""
    if record.verdict != "running":
        return None
    return LiveRun(
        run_id=record.run_id,
        elapsed=record.duration_ms / 1000,
        evaluated=record.total_evaluated,
        errors=record.total_errors,
        dispatched=record.total_dispatched,
        suppressed=record.total_suppressed,
    )


def live_run_with_shards(live: LiveRun, shards: Sequence[ShardRecord]) -> LiveRun:
    """The same as its workers have it, whose heartbeats are ahead of the results that the run has merged.

    What a lost worker has done does not count: its shard is done again.
    """
    heard = [shard for shard in shards if shard.state != "lost"]
    evaluated = sum(shard.total_evaluated for shard in heard)
    errors = sum(shard.total_errors for shard in heard)
    if evaluated + errors <= live.evaluated + live.errors:
        return live
    return replace(
        live,
        evaluated=evaluated,
        errors=errors,
        dispatched=sum(shard.total_dispatched for shard in heard),
        suppressed=sum(shard.total_suppressed for shard in heard),
    )
