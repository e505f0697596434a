"""This file is what an operator asks of the scheduler: is it ready, what did it do, was everybody reached."""

from __future__ import annotations

from uuid import UUID

from engine.database import Database
from engine.explanation import Explanation, explain
from engine.fleet.protocol import ACK_WAIT
from engine.freshness import Freshness, measure_freshness
from engine.ledger import LEASE
from engine.mentors.protocol import IdRange, MentorSource
from engine.overview import Overview, read_overview
from engine.readiness import check_ready
from engine.run_record import RunRecord, find_run, list_runs
from engine.settings import Settings
from engine.shard_record import ShardRecord, list_shards
from engine.statements import load_statement

_SCENARIO_TYPES = load_statement("enabled_scenario_types")


class Reader:
    """Asks the database, and changes nothing. The Scheduler is one."""

    def __init__(self, settings: Settings, database: Database, mentors: MentorSource) -> None:
        self._settings = settings
        self._database = database
        self._mentors = mentors

    async def check_ready(self) -> None:
        """Raises DatabaseUnavailable or NotReady, which say what to do, unless a run could begin.

        **Cancellation:** leaves nothing behind.
        """
        await check_ready(self._database)

    async def count_mentors(self) -> int:
        """How many mentors a walk would find at this moment. Raises and cancels as MentorSource.count."""
        return await self._mentors.count(IdRange())

    async def measure_freshness(self) -> Freshness:
        """Is everybody being reached? Raises and cancels as `engine.freshness.measure_freshness`."""
        return await measure_freshness(self._database, self._settings.freshness_limit)

    async def read_overview(self, *, limit: int) -> Overview:
        """The latest runs, at most `limit`, and freshness. Raises as `check_ready`, and StatementFailed.

        **Cancellation:** leaves nothing behind.
        """
        await self.check_ready()
        return await read_overview(
            self._database,
            limit=limit,
            lease=LEASE,
            ack_wait=ACK_WAIT,
            freshness_limit=self._settings.freshness_limit,
        )

    async def list_runs(self, *, before: UUID | None, limit: int) -> list[RunRecord]:
        """Newest first, at most `limit`; the rest as `engine.run_record.list_runs`."""
        return await list_runs(self._database, before=before, limit=limit, lease=LEASE)

    async def find_run(self, run_id: UUID) -> RunRecord | None:
        """As `engine.run_record.find_run`."""
        return await find_run(self._database, run_id, lease=LEASE)

    async def list_shards(self, run_id: UUID) -> list[ShardRecord]:
        """Of a run that a fleet carried out, as `engine.shard_record.list_shards`."""
        return await list_shards(self._database, run_id, ack_wait=ACK_WAIT)

    async def explain(self, mentor_id: UUID) -> Explanation:
        """Why each scenario would or would not fire for one mentor, as `engine.explanation.explain`."""
        return await explain(self._database, self._mentors, self._settings, mentor_id)

    async def list_scenario_types(self) -> list[str]:
        """Those that a run evaluates unless it asks for others, in order. Raises as `Database.fetch`."""
        rows = await self._database.fetch(_SCENARIO_TYPES)
        return sorted(row["scenario_type"] for row in rows if row["enabled"])
