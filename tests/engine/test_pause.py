"""What a source that asks for patience is given, in virtual time: what it asks, and never the budget."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from engine.mentors.protocol import IdRange
from engine.producer import RECONNECT_PAUSE
from engine.remaining import RECOUNT_PAUSE
from engine.tally import StopReason
from engine.walk import Walk
from tests.fakes import FakeMentors, FakeTriggerEngine, Walkthrough, budget, ids


async def test_a_page_is_asked_for_again_when_its_source_says(autojump_clock: MockClock) -> None:
    mentors = FakeMentors(ids(10), away=lambda now: now < 6.5, retry_after=3.25)
    summary = await Walkthrough(mentors, FakeTriggerEngine()).run()
    assert mentors.page_query_times == [0.0, 3.25, 6.5]
    assert (summary.total_evaluated, summary.completed) == (10, True)


@pytest.mark.parametrize("asked_for", [None, 0.0, RECONNECT_PAUSE / 2])
async def test_a_source_that_asks_for_less_is_left_alone_as_long_as_any(
    asked_for: float | None, autojump_clock: MockClock
) -> None:
    mentors = FakeMentors(ids(10), away=lambda now: now < 1.0, retry_after=asked_for)
    await Walkthrough(mentors, FakeTriggerEngine()).run()
    assert mentors.page_query_times == [0.0, RECONNECT_PAUSE, 2 * RECONNECT_PAUSE]


@pytest.mark.parametrize("asked_for", [25.0, 60.0, 1e9])
async def test_a_pause_ends_at_the_soft_threshold_however_long_it_was_to_be(
    asked_for: float, autojump_clock: MockClock
) -> None:
    mentors = FakeMentors(ids(10), away=lambda now: now < 20.0, retry_after=asked_for)
    summary = await Walkthrough(mentors, FakeTriggerEngine()).run()
    assert mentors.page_query_times == [0.0]
    assert mentors.count_times == [25.0]
    assert trio.current_time() == 25.0
    assert summary.stop_reason is StopReason.DATABASE_UNAVAILABLE
    assert (summary.total_unprocessed, summary.remaining_known) == (10, True)


@pytest.mark.parametrize(("asked_for", "ends_at"), [(1.25, 1.25), (2.0, 2.0), (60.0, 2.0)])
async def test_a_pause_ends_at_the_soft_threshold_also_when_nobody_stops_the_walk(
    asked_for: float, ends_at: float, autojump_clock: MockClock
) -> None:
    walk = Walk([IdRange()], soft_threshold=2.0)
    await walk.pause(asked_for)
    assert trio.current_time() == ends_at
    assert walk.stop_reason is None


async def test_a_page_that_fails_past_the_soft_threshold_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    latencies = {"page_latency": 3.0, "count_latency": 0.5}
    mentors = FakeMentors(ids(10), **latencies, away=lambda now: now <= 3.0, retry_after=60.0)
    await Walkthrough(mentors, FakeTriggerEngine(), run_budget=budget(2.0, 9.0)).run()
    assert mentors.count_times == [3.0]
    assert trio.current_time() == 3.5


async def test_a_drain_ends_a_pause(autojump_clock: MockClock) -> None:
    mentors = FakeMentors(ids(10), away=lambda now: now < 1.0, retry_after=20.0)
    walk = Walkthrough(mentors, FakeTriggerEngine())
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def drain_later() -> None:
            await trio.sleep(1.5)
            walk.progress.walk.stop(StopReason.DRAINING)

        summary = await walk.run()
    assert trio.current_time() == 1.5
    assert mentors.page_query_times == [0.0]
    assert summary.stop_reason is StopReason.DRAINING
    assert (summary.total_unprocessed, summary.remaining_known) == (10, True)


async def test_what_is_left_is_counted_when_its_source_says(autojump_clock: MockClock) -> None:
    mentors = FakeMentors(ids(10), page_latency=2.0, away=lambda now: now < 4.5, retry_after=1.75)
    summary = await Walkthrough(mentors, FakeTriggerEngine(), run_budget=budget(1.0, 9.0)).run()
    assert mentors.count_times == [2.0, 3.75, 5.5]
    assert mentors.counted == 3 * [IdRange()]
    assert (summary.total_unprocessed, summary.remaining_known) == (10, True)


@pytest.mark.parametrize("asked_for", [None, 0.0, RECOUNT_PAUSE / 2])
async def test_a_count_whose_source_asks_for_less_is_made_as_often_as_any(
    asked_for: float | None, autojump_clock: MockClock
) -> None:
    mentors = FakeMentors(ids(10), page_latency=2.0, away=lambda now: now < 2.5, retry_after=asked_for)
    await Walkthrough(mentors, FakeTriggerEngine(), run_budget=budget(1.0, 9.0)).run()
    assert mentors.count_times == [2.0, 2.0 + RECOUNT_PAUSE, 2.0 + 2 * RECOUNT_PAUSE]


async def test_a_count_whose_source_asks_for_more_than_the_budget_is_given_up(
    autojump_clock: MockClock,
) -> None:
    mentors = FakeMentors(ids(10), away=lambda now: True, retry_after=60.0)
    summary = await Walkthrough(mentors, FakeTriggerEngine(), run_budget=budget(1.0, 9.0)).run()
    assert mentors.count_times == [1.0]
    assert trio.current_time() == 9.5
    assert not summary.remaining_known
