"""This file is what the ledger says of the shards of a run, for the operator who asks. It writes nothing.

Where a shard begins and how far it came are ids of mentors. These never get as far as a record.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    `shard_index` is its place in the order in which shards go out. `state` is `waiting`, `running`,
    `finished`, `withdrawn` (no worker began it, and none is to), or `lost`: its worker has been silent for so
    long that another may take it. `worker` has it, or had it last. `deliveries` are how often one took it:
    more than once where a worker was lost. `heartbeat_age` in seconds. `duration_ms` is since it was last
    taken, until now for a running one, until its last heartbeat for a lost one. The counts are those of its
    last heartbeat, or of its end; `share` is its part of what all shards of the run have found so far.
    `is_completed`: nobody in it was left.
    """

    shard_index: int
    state: str
    worker: str | None
    deliveries: int
    heartbeat_at: datetime | None
    heartbeat_age: float | None
    finished_at: datetime | None
    duration_ms: int | None
    is_completed: bool
    total_active_mentors: int
    total_evaluated: int
    total_dispatched: int
    total_suppressed: int
    total_errors: int
    total_unprocessed: int
    share: float

    def as_json(self) -> dict[str, Any]:
        """The fields in this order, ready for `json.dumps`; instants in ISO 8601, in UTC."""
        return asdict(self) | {
            "heartbeat_at": self.heartbeat_at and self.heartbeat_at.isoformat(),
            "finished_at": self.finished_at and self.finished_at.isoformat(),
        }


async def list_shards(database: Database, run_id: UUID, *, ack_wait: float) -> list[ShardRecord]:
    """In the order in which they go out; empty for a run that has none, and for one that is not known.

    `ack_wait` in seconds: a running one whose last heartbeat is older is lost. Raises as `Database.fetch`.

    **Cancellation:** leaves nothing behind.
    """
    return [ShardRecord(**dict(row)) for row in await database.fetch(_LIST_SHARDS, run_id, ack_wait)]


def idle_for(shards: Sequence[ShardRecord], run_age: float) -> float | None:
    """Seconds for which shards have waited, and nobody was heard of who works on any; None: none waits.

    `run_age` in seconds since the run began, for when nobody was heard of at all.
    """
    if not any(shard.state in ("waiting", "lost") for shard in shards):
        return None
    heard = [shard.heartbeat_age for shard in shards if shard.heartbeat_age is not None]
    return min([run_age, *heard])
