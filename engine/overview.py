"""This file is what Postgres says of the runs at one moment: its clock, the latest of them, the freshness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.database import Database
from engine.freshness import Freshness, measure_freshness
from engine.run_record import RunRecord, list_runs
from engine.shard_record import ShardRecord, list_shards
from engine.statements import load_statement

_READ_CLOCK = load_statement("read_clock")


@dataclass(frozen=True, slots=True)
class Overview:
    """`runs` newest first, `shards` of the latest of them that has ended.

    `at` is on Postgres's clock, as every instant in them is.
    """

    at: datetime
    runs: Sequence[RunRecord]
    freshness: Freshness
    shards: Sequence[ShardRecord] = ()


async def read_overview(
    database: Database, *, limit: int, lease: float, ack_wait: float, freshness_limit: float
) -> Overview:
    """At most `limit` runs; the rest as `list_runs`, `list_shards` and `measure_freshness`.

    **Cancellation:** leaves nothing behind.
    """
    freshness = await measure_freshness(database, freshness_limit)
    runs = await list_runs(database, before=None, limit=limit, lease=lease)
    ended = next((record for record in runs if record.verdict != "running"), None)
    shards = (
        await list_shards(database, ended.run_id, ack_wait=ack_wait) if ended and ended.total_shards else ()
    )
    [row] = await database.fetch(_READ_CLOCK)
    return Overview(row["at"], runs, freshness, shards)
