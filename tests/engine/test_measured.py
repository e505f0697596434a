"""A trigger engine that is measured: what is in flight, and how long each took, however it ended."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from engine.errors import InvocationFailed
from engine.trigger.measured import Invocations, MeasuredTriggerEngine
from engine.trigger.protocol import Evaluation, RunContext
from tests.fakes import FOREVER, RUN_ID, FakeTriggerEngine, ids

CONTEXT = RunContext(RUN_ID)


def filled(invocations: Invocations) -> dict[float, int]:
    """The buckets that are not empty, by their upper bound."""
    bounds = (*invocations.durations.bounds, float("inf"))
    return {bound: count for bound, count in zip(bounds, invocations.durations.counts, strict=True) if count}


async def test_a_measured_engine_answers_and_asks_as_the_one_inside(autojump_clock: MockClock) -> None:
    answer = Evaluation(dispatched={"inactivity": 2})
    engine = FakeTriggerEngine(act=lambda chunk: answer)
    async with MeasuredTriggerEngine(engine, Invocations()).open_session(CONTEXT) as session:
        assert engine.open_sessions == 1
        assert await session.evaluate(ids(2)) is answer
    assert (engine.open_sessions, engine.contexts, engine.chunks) == (0, [CONTEXT], [ids(2)])


async def test_an_invocation_is_in_flight_until_it_ends_and_then_in_its_bucket(
    autojump_clock: MockClock,
) -> None:
    invocations = Invocations()
    engine = MeasuredTriggerEngine(FakeTriggerEngine(latency=lambda chunk: 0.2), invocations)
    async with (
        engine.open_session(CONTEXT) as one,
        engine.open_session(CONTEXT) as other,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(one.evaluate, ids(1))
        nursery.start_soon(other.evaluate, ids(1))
        await trio.sleep(0.1)
        assert (invocations.in_flight, filled(invocations)) == (2, {})
    assert (invocations.in_flight, filled(invocations)) == (0, {0.25: 2})
    assert invocations.durations.sum == pytest.approx(0.4)


@pytest.mark.parametrize("error", [InvocationFailed("http_500"), ZeroDivisionError()], ids=repr)
async def test_an_invocation_that_fails_is_measured_and_raises(
    error: Exception, autojump_clock: MockClock
) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        raise error

    invocations = Invocations()
    engine = MeasuredTriggerEngine(FakeTriggerEngine(latency=lambda chunk: 0.2, act=act), invocations)
    async with engine.open_session(CONTEXT) as session:
        with pytest.raises(type(error)):
            await session.evaluate(ids(1))
    assert (invocations.in_flight, filled(invocations)) == (0, {0.25: 1})


async def test_an_invocation_that_is_cut_is_measured_until_then(autojump_clock: MockClock) -> None:
    invocations = Invocations()
    engine = MeasuredTriggerEngine(FakeTriggerEngine(latency=lambda chunk: FOREVER), invocations)
    async with engine.open_session(CONTEXT) as session:
        with trio.move_on_after(7.0):
            await session.evaluate(ids(1))
    assert (invocations.in_flight, filled(invocations)) == (0, {float("inf"): 1})
    assert invocations.durations.sum == 7.0
