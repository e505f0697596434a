"""Never two workers at one mentor, never two runs at once: whoever is killed, or cut off from whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from trio.testing import MockClock

from engine import RunRequest
from engine.errors import DatabaseUnavailable, NotNow
from engine.fleet.protocol import Delivery, Workplace
from engine.fleet.shard_ledger import ShardLedger
from engine.ledger import LEASE
from engine.trigger.protocol import Evaluation, RunContext
from tests.engine.fleet.world import World
from tests.fakes import FOREVER, FakeTriggerEngine, ids
from tests.model_database import ModelDatabase

Window = tuple[float, float]  # from when, and for how long


def is_within(windows: Sequence[Window]) -> bool:
    return any(begin < trio.current_time() < begin + length for begin, length in windows)


class WatchingEngine(FakeTriggerEngine):
    """Notes whoever is evaluated by two at once, and the runs that act at once."""

    def __init__(self, seconds: float) -> None:
        super().__init__(latency=lambda chunk: seconds)
        self.at_work: Counter[UUID] = Counter()
        self.runs_at_work: Counter[UUID] = Counter()
        self.collisions: list[str] = []

    @asynccontextmanager
    async def open_session(self, context: RunContext) -> AsyncIterator[Any]:
        async with super().open_session(context):
            yield _Session(self, context.run_id)


class _Session:
    def __init__(self, engine: WatchingEngine, run_id: UUID) -> None:
        self._engine = engine
        self._run_id = run_id

    async def evaluate(self, mentor_ids: Sequence[UUID]) -> Evaluation:
        engine = self._engine
        engine.at_work.update(mentor_ids)
        engine.runs_at_work[self._run_id] += 1
        if any(engine.at_work[id] > 1 for id in mentor_ids):
            engine.collisions.append(f"one mentor twice at {trio.current_time()}")
        if len([run for run, count in engine.runs_at_work.items() if count]) > 1:
            engine.collisions.append(f"two runs at {trio.current_time()}")
        try:
            return await engine.evaluate(mentor_ids)
        finally:
            engine.at_work.subtract(mentor_ids)
            engine.runs_at_work[self._run_id] -= 1


class CutOff:
    """The database as somebody sees it who can't reach it at times; half of what is asked takes effect."""

    def __init__(self, database: ModelDatabase, windows: Sequence[Window]) -> None:
        self._database = database
        self._windows = windows
        self._asked = 0

    async def fetch(self, *arguments: Any, **how: Any) -> Any:
        if is_within(self._windows):
            self._asked += 1
            if self._asked % 2:
                await self._database.fetch(*arguments, **how)
            else:
                await trio.lowlevel.checkpoint()
            raise DatabaseUnavailable("It can't be reached from here.")
        return await self._database.fetch(*arguments, **how)


class Unheard:
    """A fleet that does not hear at times that somebody lives, so that it hands the shard to another."""

    def __init__(self, workplace: Workplace, windows: Sequence[Window]) -> None:
        self._workplace = workplace
        self._windows = windows

    async def take(self) -> Delivery:
        delivery = await self._workplace.take()
        keep = delivery.keep

        async def keep_if_heard() -> bool:
            return not is_within(self._windows) and await keep()

        delivery.keep = keep_if_heard  # type: ignore[method-assign]
        return delivery


# About as long as a shard's lease and a run's.
windows = st.lists(st.tuples(st.floats(0, 25), st.floats(2.0, 9.0)), max_size=3)
workers = st.tuples(st.floats(0, 10), st.one_of(st.just(FOREVER), st.floats(1, 30)), windows, windows)


@settings(max_examples=30, deadline=None)
@given(
    lives=st.lists(workers, min_size=2, max_size=3),
    coordinators=st.lists(st.one_of(st.just(FOREVER), st.floats(0.5, 20.0)), min_size=1, max_size=4),
    seconds=st.sampled_from([0.05, 0.7, 4.0]),
    statement_latency=st.sampled_from([0.0, 0.05, 0.4]),
)
def test_no_mentor_is_evaluated_by_two_at_once_and_no_two_runs_act_at_once(
    lives: list[tuple[float, float, list[Window], list[Window]]],
    coordinators: list[float],
    seconds: float,
    statement_latency: float,
) -> None:
    async def main() -> None:
        engine = WatchingEngine(seconds)
        world = World(ids(60), engine, fleet_shards=6, page_size=4, soft_threshold=15.0, hard_deadline=18.0)
        world.database.latency = statement_latency

        async def live(
            number: int, comes_at: float, stays: float, cut_off: list[Window], unheard: list[Window]
        ) -> None:
            await trio.sleep(comes_at)
            with trio.move_on_after(stays):
                seen: Any = CutOff(world.database, cut_off)
                await world.worker(
                    str(number),
                    shards_at_once=3,
                    ledger=ShardLedger(seen),
                    workplace=Unheard(world.fleet, cut_off + unheard),  # type: ignore[arg-type]
                ).work()

        async with trio.open_nursery() as nursery:
            for number, how in enumerate(lives):
                nursery.start_soon(live, number, *how)
            for stays in coordinators:
                async with world.open_scheduler() as scheduler:
                    with trio.move_on_after(stays):
                        ended = 0
                        while ended < 3:  # as ticks would
                            try:
                                started = await scheduler.start(RunRequest())
                            except NotNow:
                                await trio.sleep(0.3)
                            else:
                                await started.summary()
                                ended += 1
            await trio.sleep(LEASE)
            nursery.cancel_scope.cancel()
        assert engine.collisions == []
        assert engine.peak_in_flight <= 10

    with capture_logs():
        trio.run(main, clock=MockClock(autojump_threshold=0))
