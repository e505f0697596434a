"""What the benchmarks compare with: the floor, and the latencies it is made of."""

from __future__ import annotations

import math
import statistics
from uuid import UUID

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from bench.trigger_engine import latency_function
from bench.walk import greedy_floor
from tests.fakes import FakeMentors, FakeTriggerEngine, Walkthrough, ids


def test_the_floor_begins_each_in_order_as_soon_as_a_place_is_free() -> None:
    assert greedy_floor([3.0, 1.0, 1.0, 2.0], in_flight=2) == 4.0
    assert greedy_floor([1.0] * 10, in_flight=10) == 1.0
    assert greedy_floor([], in_flight=10) == 0.0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.integers(1, 10))
def test_the_floor_is_never_below_what_the_places_can_carry(latencies: list[float], in_flight: int) -> None:
    floor = greedy_floor(latencies, in_flight)
    assert floor >= max(latencies)
    assert floor >= sum(latencies) / in_flight or math.isclose(floor, sum(latencies) / in_flight)


async def test_in_virtual_time_a_walk_is_its_floor_exactly(autojump_clock: MockClock) -> None:
    """Nothing in the walk itself waits: pages are fetched while dispatchers are busy."""
    latency = latency_function("lognormal:0.02:1")
    engine = FakeTriggerEngine(latency=lambda chunk: latency(chunk[0]))
    await Walkthrough(FakeMentors(ids(500)), engine).run()
    floor = greedy_floor([latency(chunk[0]) for chunk in engine.chunks], 10)
    assert trio.current_time() == pytest.approx(floor, rel=1e-9)


def test_latencies_depend_on_the_id_alone_and_have_the_distribution_asked_for() -> None:
    latency = latency_function("lognormal:0.02:1")
    draws = [latency(UUID(int=number)) for number in range(20_000)]
    assert draws == [latency_function("lognormal:0.02:1")(UUID(int=number)) for number in range(20_000)]
    assert statistics.median(draws) == pytest.approx(0.02, rel=0.05)
    assert statistics.stdev(map(math.log, draws)) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("kind", ["fast", "fixed", "fixed:a", "lognormal:1"])
def test_a_latency_that_is_none_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        latency_function(kind)
