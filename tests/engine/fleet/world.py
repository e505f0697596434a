"""A fleet in virtual time: processes that coordinate, and that work, over the model of the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import trio

from engine import RunRequest, Scheduler, Settings, Summary, load_settings
from engine.fleet.agreement import agreement_of
from engine.fleet.attempt import Means
from engine.fleet.coordinator import Coordinator
from engine.fleet.in_process import InProcessFleet
from engine.fleet.protocol import Fleet, Workplace
from engine.fleet.shard_ledger import ShardLedger
from engine.fleet.worker import Worker
from engine.mentors.postgres import PostgresMentors
from engine.parts import Parts
from engine.runner import limits_from
from engine.trigger.protocol import Evaluation
from tests.fakes import FakeTriggerEngine
from tests.model_database import ModelDatabase, ShardRow

OVER_HTTP = {
    "database_url": "postgresql://model@model/model",
    "trigger_engine": "http://127.0.0.1:1/",
    "fleet": "in-process",
}


class NotifyingEngine(FakeTriggerEngine):
    """Notifies each mentor once, and tells a retry of the same run so: as the built-in one does."""

    def __init__(self, **how: Any) -> None:
        super().__init__(act=self._notify, **how)
        self.notified_by: dict[UUID, UUID] = {}
        self.notifications = 0

    def _notify(self, chunk: Sequence[UUID]) -> Evaluation:
        run_id = self.contexts[-1].run_id
        told = {"dispatched": 0, "suppressed": 0}
        for mentor_id in chunk:
            self.notifications += mentor_id not in self.notified_by
            by_this_run = self.notified_by.setdefault(mentor_id, run_id) == run_id
            told["dispatched" if by_this_run else "suppressed"] += 1
        return Evaluation({"inactivity": told["dispatched"]}, {"inactivity": told["suppressed"]})


class World:
    """One database, one trigger engine, one fleet."""

    def __init__(
        self,
        mentor_ids: Sequence[UUID],
        engine: FakeTriggerEngine | None = None,
        *,
        fleet: Any = None,
        **given: Any,
    ) -> None:
        self.database = ModelDatabase(mentor_ids)
        self.engine = engine or FakeTriggerEngine()
        self.settings: Settings = load_settings(**(OVER_HTTP | given))
        self.fleet: Fleet = fleet or InProcessFleet(self.settings.fleet_shards_at_once)
        self.mentors = PostgresMentors(self.database, ["active"])

    @asynccontextmanager
    async def open_scheduler(self, *, sharded: bool = True) -> AsyncIterator[Scheduler]:
        """A process that coordinates. Leaving the block kills it."""
        coordinator = Coordinator(
            self.fleet,
            ShardLedger(self.database),
            self.mentors,
            self.settings.fleet_shards,
            self.settings.concurrency_per_shard,
            agreement_of(self.settings),
        )
        async with trio.open_nursery() as runs:
            parts = Parts(self.database, self.mentors, self.engine, None)  # type: ignore[arg-type]
            yield Scheduler(self.settings, parts, runs, coordinator if sharded else None)
            runs.cancel_scope.cancel()

    def worker(
        self, name: str = "one", *, shards_at_once: int = 5, workplace: Workplace | None = None, **means: Any
    ) -> Worker:
        parts = {
            "worker": name,
            "ledger": ShardLedger(self.database),
            "mentors": self.mentors,
            "trigger_engine": self.engine,
            "limits": limits_from(self.settings),
            "wall_clock": trio.current_time,
            "agreement": agreement_of(self.settings),
        }
        return Worker(workplace or self.fleet, Means(**(parts | means)), shards_at_once=shards_at_once)

    @asynccontextmanager
    async def open_worker(self, name: str = "one", **how: Any) -> AsyncIterator[trio.CancelScope]:
        """A process that works; cancelling the scope kills it, and so does leaving the block."""
        scope = trio.CancelScope()
        worker = self.worker(name, **how)

        async def work() -> None:
            with scope:
                await worker.work()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            yield scope
            scope.cancel()

    def shards_of(self, run: int = -1) -> list[ShardRow]:
        """Of the latest run, or of another one by its place."""
        return [row for row in self.database.shards if row.run_id == self.database.runs[run].id]


async def run_to_its_end(scheduler: Scheduler, **request: Any) -> Summary:
    return await (await scheduler.start(RunRequest(**request))).summary()
