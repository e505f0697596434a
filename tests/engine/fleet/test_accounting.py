"""For any mix of workers that come, go, hang and lose Postgres, a fleet's run answers in time and adds up."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from uuid import UUID

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from trio.testing import MockClock

from engine import RunRequest, StopReason
from engine.database import RELEASE_TIMEOUT
from engine.errors import InvocationFailed
from engine.trigger.protocol import Evaluation
from tests.engine.fleet.world import NotifyingEngine, World
from tests.fakes import FOREVER, add_up, ids

latencies = st.sampled_from([0.0, 0.01, 0.3, 2.0, 12.0, FOREVER])
behaviours = st.tuples(latencies, st.sampled_from([None, None, None, "error", "bug"]))
# When it comes, and for how long it stays.
lives = st.tuples(st.floats(0, 10), st.one_of(st.just(FOREVER), st.floats(0, 15)))


def in_virtual_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with capture_logs():
        trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(max_examples=100, deadline=None)
@given(
    behaviour=st.lists(behaviours, min_size=1, max_size=6),
    mentors=st.integers(0, 80),
    shards=st.integers(1, 12),
    shards_at_once=st.integers(1, 4),
    page_size=st.integers(1, 20),
    workers=st.lists(lives, max_size=3),
    statement_latency=st.sampled_from([0.0, 0.0, 0.2, 1.5]),
    away=st.tuples(st.floats(0, 15), st.floats(0, 12)),
    drain_at=st.one_of(st.none(), st.none(), st.floats(0, 11)),
)
def test_a_fleets_answer_comes_in_time_and_the_accounting_identity_holds(
    behaviour: list[tuple[float, str | None]],
    mentors: int,
    shards: int,
    shards_at_once: int,
    page_size: int,
    workers: list[tuple[float, float]],
    statement_latency: float,
    away: tuple[float, float],
    drain_at: float | None,
) -> None:
    class Engine(NotifyingEngine):
        def _notify(self, chunk: Sequence[UUID]) -> Evaluation:
            what = behaviour[chunk[0].int % len(behaviour)][1]
            if what == "error":
                raise InvocationFailed("http_401")
            if what == "bug":
                raise ZeroDivisionError
            return super()._notify(chunk)

    def latency(chunk: Sequence[UUID]) -> float:
        return behaviour[chunk[0].int % len(behaviour)][0]

    async def main() -> None:
        world = World(
            ids(mentors),
            Engine(latency=latency),
            fleet_shards=shards,
            fleet_shards_at_once=shards_at_once,
            page_size=page_size,
            soft_threshold=8.0,
            hard_deadline=10.0,
            max_concurrency=8,
        )

        async def live(number: int, comes_at: float, stays: float) -> None:
            await trio.sleep(comes_at)
            with trio.move_on_after(stays):
                await world.worker(str(number), shards_at_once=3).work()

        async with trio.open_nursery() as nursery, world.open_scheduler() as scheduler:
            for number, (comes_at, stays) in enumerate(workers):
                nursery.start_soon(live, number, comes_at, stays)
            began = trio.current_time()
            started = await scheduler.start(RunRequest())
            world.database.latency = statement_latency
            world.database.away = lambda now: began + away[0] < now < began + away[0] + away[1]
            if drain_at is not None:
                nursery.start_soon(_drain, scheduler, drain_at)
            summary = await started.summary()
            answered_at = trio.current_time() - began
            nursery.cancel_scope.cancel()

        # The count, cut statements, and the last write.
        assert answered_at <= 10.0 + 0.5 + RELEASE_TIMEOUT + 0.5
        assert add_up(summary)
        assert summary.completed == (summary.total_unprocessed == 0 and summary.remaining_known)
        assert summary.completed == (summary.stop_reason is StopReason.FINISHED)
        if summary.remaining_known:
            assert summary.total_active_mentors == mentors
        else:
            assert summary.total_active_mentors <= mentors
        assert summary.total_evaluated <= len(world.engine.evaluated)
        assert summary.total_dispatched == summary.total_evaluated
        assert world.engine.notifications == len(world.engine.notified_by) >= summary.total_evaluated
        assert world.engine.peak_in_flight <= 8
        assert (world.engine.in_flight, world.engine.open_sessions) == (0, 0)

    in_virtual_time(main)


async def _drain(scheduler: Any, at: float) -> None:
    await trio.sleep(at)
    scheduler.drain()
