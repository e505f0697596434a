"""This file is what the ledger says of the shards of a run, for the operator who asks.

Where a shard begins and how far it came are ids of mentors. These never get as far as a record. It
reads, and writes nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from engine.database import Database
from engine.statements import load_statement

_LIST_SHARDS = load_statement("list_shards")


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A shard as the ledger has it. Nothing that names a mentor.

    `shard_index` is its place in the order in which they went out. `state` is `waiting`, `running`,
    `finished` or `withdrawn`, which none was before a worker took it. `worker` is who has it, or had it
    last, and `deliveries` how often it was taken: more than once if a worker was lost. `is_completed`:
    nothing of it was left. The counts are those of its last heartbeat, or of its end.
    """

    shard_index: int
    state: str
    worker: str | None
    deliveries: int
    heartbeat_at: datetime | None
    finished_at: datetime | None
    is_completed: bool
    total_evaluated: int
    total_errors: int
    total_unprocessed: int
    total_dispatched: int
    total_suppressed: int

    def as_json(self) -> dict[str, Any]:
        """The fields in this order, ready for `json.dumps`; instants in ISO 8601, in UTC."""
        return asdict(self) | {
            "heartbeat_at": self.heartbeat_at and self.heartbeat_at.isoformat(),
            "finished_at": self.finished_at and self.finished_at.isoformat(),
        }


async def list_shards(database: Database, run_id: UUID) -> list[ShardRecord]:
    """In the order in which they went out; none of a run that has no shards. Raises as `Database.fetch`.

    **Cancellation:** leaves nothing behind.
    """
    return [ShardRecord(**dict(row)) for row in await database.fetch(_LIST_SHARDS, run_id)]
