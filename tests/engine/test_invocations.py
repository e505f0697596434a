"""What is known of invocations: how many are in flight, and how long each took, however it ended."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from engine.errors import InvocationFailed
from engine.run import Limits
from engine.trigger.protocol import Evaluation
from tests.fakes import FOREVER, FakeMentors, FakeTriggerEngine, Walkthrough, budget, ids


def filled(walk: Walkthrough) -> dict[float, int]:
    """The buckets that are not empty, by their upper bound."""
    durations = walk.progress.tally.invocations.durations
    bounds = (*durations.bounds, float("inf"))
    return {bound: count for bound, count in zip(bounds, durations.counts, strict=True) if count}


async def test_an_invocation_is_in_flight_until_it_ends_and_then_in_its_bucket(
    autojump_clock: MockClock,
) -> None:
    walk = Walkthrough(FakeMentors(ids(15)), FakeTriggerEngine(latency=lambda chunk: 0.2))
    invocations = walk.progress.tally.invocations
    async with trio.open_nursery() as nursery:
        nursery.start_soon(walk.run)
        await trio.sleep(0.1)
        assert (invocations.in_flight, filled(walk)) == (10, {})
        await trio.sleep(0.2)
        assert (invocations.in_flight, filled(walk)) == (5, {0.25: 10})
    assert (invocations.in_flight, filled(walk)) == (0, {0.25: 15})
    assert invocations.durations.sum == pytest.approx(15 * 0.2)


@pytest.mark.parametrize("retryable", [False, True])
async def test_an_invocation_that_fails_is_measured_and_so_is_its_retry(
    retryable: bool, autojump_clock: MockClock
) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        raise InvocationFailed("http_503", retryable=retryable)

    walk = Walkthrough(FakeMentors(ids(1)), FakeTriggerEngine(latency=lambda chunk: 0.2, act=act))
    await walk.run()
    assert walk.progress.tally.invocations.in_flight == 0
    assert filled(walk) == {0.25: 2 if retryable else 1}


async def test_an_invocation_that_a_bug_ends_is_no_longer_in_flight(autojump_clock: MockClock) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        raise ZeroDivisionError

    walk = Walkthrough(FakeMentors(ids(1)), FakeTriggerEngine(act=act))
    with pytest.raises(ExceptionGroup):
        await walk.run()
    assert (walk.progress.tally.invocations.in_flight, filled(walk)) == (0, {0.0005: 1})


async def test_an_invocation_that_times_out_took_as_long_as_it_was_waited_for(
    autojump_clock: MockClock,
) -> None:
    one_by_one = Limits(page_size=100, mentors_per_invocation=1, max_concurrency=1, invocation_timeout=3.0)
    engine = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    walk = Walkthrough(FakeMentors(ids(1)), engine, limits=one_by_one)
    await walk.run()
    assert (walk.progress.tally.invocations.in_flight, filled(walk)) == (0, {5.0: 1})
    assert walk.progress.tally.invocations.durations.sum == 3.0


async def test_an_invocation_that_the_hard_deadline_cuts_is_measured_until_then(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(page_size=100, mentors_per_invocation=1, max_concurrency=10, invocation_timeout=50.0)
    engine = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    walk = Walkthrough(FakeMentors(ids(20)), engine, limits=limits, run_budget=budget(5.0, 7.0))
    await walk.run()
    assert (walk.progress.tally.invocations.in_flight, filled(walk)) == (0, {float("inf"): 10})
    assert walk.progress.tally.invocations.durations.sum == 70.0
