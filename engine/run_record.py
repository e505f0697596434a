"""This file is what the ledger says of a run, for the operator who asks. It reads, and writes nothing.

A row of the ledger knows where its run began and how far it came as ids of mentors. These never get as far as
a record: the statements leave them in the database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from engine.database import Database
from engine.errors import NotReady, StatementFailed
from engine.statements import Statement, load_statement

_LIST_RUNS = load_statement("list_runs")
_FIND_RUN = load_statement("find_run")

# No table, or one without a column that came later.
_UNDEFINED_TABLE, _UNDEFINED_COLUMN = "42P01", "42703"

# Seconds after which to ask again a database that is not migrated: somebody has to do it by hand.
_RETRY_AFTER = 5.0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the ledger has it, under way or ended. Nothing that names a mentor.

    `verdict` is `running`, `completed`, `partial`, `failed` or `abandoned`, which is a run whose service went
    away, or lost the database, before its end. `stop_reason` as in the summary, None for all but `completed`
    and `partial`. `scenario_types` as asked for, None for every enabled one; `evaluated_types` are those it
    then evaluates. `resumed`: it began where an earlier run had left off. `duration_ms` is until now for a
    running one, until its last heartbeat for an abandoned one. The total is what was found so far, and
    `total_unprocessed` a lower bound unless `remaining_known`. The stretch is what was finished without a
    gap, which is what coverage goes by. `dispatched` and `suppressed` are by scenario type, `errors` by
    class. `total_shards` is 0 for a run without a fleet, and for one so old that its shards were removed;
    `total_workers` took any of them, and `total_redelivered` of them were taken more than once.
    """

    run_id: UUID
    verdict: str
    stop_reason: str | None
    scenario_types: Sequence[str] | None
    evaluated_types: Sequence[str]
    resumed: bool
    started_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None
    duration_ms: int
    total_active_mentors: int
    total_evaluated: int
    total_dispatched: int
    total_suppressed: int
    total_errors: int
    total_unprocessed: int
    remaining_known: bool
    stretch_mentors: int
    stretch_evaluated: int
    dispatched: Mapping[str, int]
    suppressed: Mapping[str, int]
    errors: Mapping[str, int]
    total_shards: int
    total_workers: int
    total_redelivered: int

    def as_json(self) -> dict[str, Any]:
        """The fields in this order, ready for `json.dumps`; instants in ISO 8601, in UTC."""
        return asdict(self) | {
            "run_id": str(self.run_id),
            "started_at": self.started_at.isoformat(),
            "heartbeat_at": self.heartbeat_at.isoformat(),
            "finished_at": self.finished_at and self.finished_at.isoformat(),
        }


async def list_runs(database: Database, *, before: UUID | None, limit: int, lease: float) -> list[RunRecord]:
    """The latest runs, newest first, at most `limit`; those older than the run `before`, if one is named.

    Empty if there is no run `before`: it was the oldest of those that are kept, or there never was one.
    `lease` in seconds: a running one whose last heartbeat is older is abandoned. Raises NotReady,
    DatabaseUnavailable, StatementFailed.

    **Cancellation:** leaves nothing behind.
    """
    return [_record(row) for row in await _fetch(database, _LIST_RUNS, before, limit, lease)]


async def find_run(database: Database, run_id: UUID, *, lease: float) -> RunRecord | None:
    """One run, None if the ledger has none of this id. The rest as `list_runs`.

    **Cancellation:** leaves nothing behind.
    """
    rows = await _fetch(database, _FIND_RUN, run_id, lease)
    return _record(rows[0]) if rows else None


async def _fetch(database: Database, statement: Statement, *arguments: Any) -> Sequence[Any]:
    try:
        return await database.fetch(statement, *arguments)
    except StatementFailed as error:
        if error.sqlstate not in (_UNDEFINED_TABLE, _UNDEFINED_COLUMN):
            raise
        raise NotReady(
            "The database has no ledger that this version can read; run `scenario-scheduler migrate`.",
            _RETRY_AFTER,
        ) from error


def _record(row: Any) -> RunRecord:
    by_name = {name: json.loads(row[name]) for name in ("dispatched", "suppressed", "errors")}
    return RunRecord(**(dict(row) | by_name))
