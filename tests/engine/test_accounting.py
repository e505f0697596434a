"""For any mix of latencies, failures and hangs, the answer comes in time and its numbers add up."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from uuid import UUID

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.errors import InvocationFailed
from engine.run import Limits
from engine.tally import StopReason
from engine.trigger.protocol import Evaluation
from tests.fakes import FOREVER, FakeMentors, FakeTriggerEngine, Walkthrough, add_up, budget, ids

FAILURES = [
    InvocationFailed("timeout"),
    InvocationFailed("http_401"),
    InvocationFailed("http_500", bisectable=True),
    InvocationFailed("http_503", retryable=True),
    InvocationFailed("http_429", retryable=True, retry_after=3.0),
    InvocationFailed("connection_reset", retryable=True),
]

latencies = st.one_of(st.just(0.0), st.floats(0.001, 4.0), st.floats(4.0, 12.0), st.just(FOREVER))
behaviours = st.tuples(latencies, st.one_of(st.none(), st.none(), st.sampled_from(FAILURES)))


def in_virtual_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(max_examples=200, deadline=None)
@given(
    behaviour=st.lists(behaviours, min_size=1, max_size=12),
    mentors=st.integers(0, 120),
    page_size=st.integers(1, 50),
    chunk_size=st.integers(1, 10),
    max_concurrency=st.integers(1, 10),
    page_latency=latencies,
    count_latency=latencies,
    away=st.tuples(st.floats(0, 15), st.floats(0, 15)),
    drain_at=st.one_of(st.none(), st.floats(0, 11)),
)
def test_the_answer_comes_by_the_hard_deadline_and_the_accounting_identity_holds(
    behaviour: list[tuple[float, InvocationFailed | None]],
    mentors: int,
    page_size: int,
    chunk_size: int,
    max_concurrency: int,
    page_latency: float,
    count_latency: float,
    away: tuple[float, float],
    drain_at: float | None,
) -> None:
    def latency(chunk: Sequence[UUID]) -> float:
        return max(behaviour[mentor_id.int % len(behaviour)][0] for mentor_id in chunk)

    def act(chunk: Sequence[UUID]) -> Evaluation:
        for mentor_id in chunk:
            if failure := behaviour[mentor_id.int % len(behaviour)][1]:
                raise failure
        return Evaluation(dispatched={"inactivity": len(chunk)})

    async def main() -> None:
        source = FakeMentors(
            ids(mentors),
            page_latency=page_latency,
            count_latency=count_latency,
            away=lambda now: away[0] < now < away[1],
        )
        engine = FakeTriggerEngine(latency=latency, act=act)
        limits = Limits(
            page_size=page_size,
            mentors_per_invocation=chunk_size,
            max_concurrency=max_concurrency,
            invocation_timeout=5.0,
        )
        walk = Walkthrough(source, engine, limits=limits, run_budget=budget(8.0, 10.0))
        async with trio.open_nursery() as nursery:
            if drain_at is not None:

                @nursery.start_soon
                async def drain_later() -> None:
                    await trio.sleep(drain_at)
                    walk.progress.walk.stop(StopReason.DRAINING)

            summary = await walk.run()
            answered_at = trio.current_time()
            nursery.cancel_scope.cancel()

        assert answered_at <= 10.5
        if count_latency == 0.0 and away[0] >= away[1]:
            assert answered_at <= 10.0
            assert summary.remaining_known
        assert add_up(summary)
        assert summary.completed == (summary.total_unprocessed == 0 and summary.remaining_known)
        assert summary.completed == (summary.stop_reason is StopReason.FINISHED)
        if summary.remaining_known:
            assert summary.total_active_mentors == mentors
        assert summary.total_evaluated == engine.evaluated.total() == summary.total_dispatched
        assert all(times == 1 for times in engine.evaluated.values())
        assert engine.peak_in_flight <= max_concurrency
        assert (engine.in_flight, engine.open_sessions) == (0, 0)
        prefix = walk.progress.low_water_mark.last_id
        assert (prefix.int if prefix else 0) <= summary.total_evaluated + summary.total_errors

    in_virtual_time(main)
