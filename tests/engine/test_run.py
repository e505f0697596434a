"""One run in virtual time: pages, budget, accounting. Every moment is exact."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from engine.errors import InvocationFailed
from engine.mentors.protocol import IdRange
from engine.run import Limits
from engine.tally import StopReason
from engine.trigger.protocol import Evaluation, RunContext
from engine.walk import Walk
from tests.fakes import FOREVER, RUN_ID, FakeMentors, FakeTriggerEngine, Walkthrough, add_up, budget, ids


def limits(**changes: float) -> Limits:
    values = {"page_size": 100, "mentors_per_invocation": 1, "max_concurrency": 10, "invocation_timeout": 5.0}
    return Limits(**(values | changes))  # type: ignore[arg-type]


async def test_cursor_advances_across_pages(autojump_clock: MockClock) -> None:
    walk = Walkthrough(FakeMentors(ids(250)), FakeTriggerEngine())
    await walk.run()
    assert walk.mentors.page_queries == [
        IdRange(),
        IdRange(after=UUID(int=100)),
        IdRange(after=UUID(int=200)),
    ]
    assert sorted(walk.trigger_engine.evaluated.elements()) == ids(250)


async def test_250_mentors_at_page_size_100_are_exactly_3_page_queries(autojump_clock: MockClock) -> None:
    walk = Walkthrough(FakeMentors(ids(250)), FakeTriggerEngine())
    summary = await walk.run()
    assert len(walk.mentors.page_queries) == 3
    assert (summary.total_active_mentors, summary.total_evaluated, summary.completed) == (250, 250, True)


async def test_a_last_page_that_is_full_is_followed_by_an_empty_one(autojump_clock: MockClock) -> None:
    walk = Walkthrough(FakeMentors(ids(200)), FakeTriggerEngine())
    summary = await walk.run()
    assert len(walk.mentors.page_queries) == 3
    assert summary.total_evaluated == 200
    assert summary.completed


async def test_never_more_than_10_invocations_in_flight_and_10_reached(autojump_clock: MockClock) -> None:
    walk = Walkthrough(FakeMentors(ids(250)), FakeTriggerEngine(latency=lambda chunk: 0.02))
    await walk.run()
    assert walk.trigger_engine.peak_in_flight == 10


async def test_each_dispatcher_opens_one_session_for_this_run(autojump_clock: MockClock) -> None:
    walk = Walkthrough(FakeMentors(ids(250)), FakeTriggerEngine())
    await walk.run()
    assert walk.trigger_engine.contexts == 10 * [RunContext(RUN_ID)]


async def test_dispatchers_do_not_wait_for_one_another_at_the_end_of_a_page(
    autojump_clock: MockClock,
) -> None:
    """One mentor of each page takes as long as nine others: a loop over pages would wait for it each time."""
    slow = {UUID(int=number) for number in (1, 101, 201)}
    engine = FakeTriggerEngine(latency=lambda chunk: 0.9 if chunk[0] in slow else 0.1)
    summary = await Walkthrough(FakeMentors(ids(300)), engine).run()
    assert summary.duration_ms == pytest.approx(1000 * (297 * 0.1 + 3 * 0.9) / 10, abs=100)


async def test_zero_active_mentors_is_a_complete_run_of_zeros(autojump_clock: MockClock) -> None:
    summary = await Walkthrough(FakeMentors([]), FakeTriggerEngine()).run()
    assert summary.as_json() == {
        "total_active_mentors": 0,
        "total_evaluated": 0,
        "total_dispatched": 0,
        "total_suppressed": 0,
        "total_errors": 0,
        "duration_ms": 0,
        "completed": True,
        "partial": False,
        "total_unprocessed": 0,
        "remaining_known": True,
        "stop_reason": "finished",
        "run_id": "01930000-0000-7000-8000-000000000000",
    }


async def test_one_mentors_failure_is_counted_and_the_rest_go_on(autojump_clock: MockClock) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        if chunk[0] == UUID(int=7):
            raise InvocationFailed("http_500", bisectable=True)
        return Evaluation(dispatched={"inactivity": 1})

    walk = Walkthrough(FakeMentors(ids(20)), FakeTriggerEngine(act=act))
    summary = await walk.run()
    assert (summary.total_evaluated, summary.total_errors, summary.total_dispatched) == (19, 1, 19)
    assert summary.completed
    assert walk.progress.tally.errors == {"http_500": 1}


async def test_notifications_are_counted_per_scenario_type(autojump_clock: MockClock) -> None:
    answer = Evaluation(dispatched={"inactivity": 1, "expiry": 1}, suppressed={"milestone": 1})
    walk = Walkthrough(FakeMentors(ids(3)), FakeTriggerEngine(act=lambda chunk: answer))
    summary = await walk.run()
    assert (summary.total_dispatched, summary.total_suppressed) == (6, 3)
    assert walk.progress.tally.dispatched == {"inactivity": 3, "expiry": 3}
    assert walk.progress.tally.suppressed == {"milestone": 3}


async def test_soft_threshold_stops_at_a_page_start_and_what_was_fetched_is_finished(
    autojump_clock: MockClock,
) -> None:
    """Ten at once, 1 s each: a page of 100 takes 10 s, so the third begins before 25 s and ends after."""
    mentors = FakeMentors(ids(1_000))
    walk = Walkthrough(mentors, FakeTriggerEngine(latency=lambda chunk: 1.0), run_budget=budget(25.0, 60.0))
    with capture_logs() as logs:
        summary = await walk.run()
    assert len(mentors.page_queries) == 3
    assert max(mentors.page_query_times) < 25.0
    assert (summary.total_evaluated, summary.total_unprocessed) == (300, 700)
    assert summary.total_active_mentors == 1_000
    assert (summary.partial, summary.completed, summary.remaining_known) == (True, False, True)
    assert summary.stop_reason is StopReason.SOFT_THRESHOLD
    assert summary.duration_ms == 30_000
    assert [line["remaining"] for line in logs if line["event"] == "remaining_counted"] == [700]


async def test_a_page_start_exactly_at_the_soft_threshold_is_too_late(autojump_clock: MockClock) -> None:
    mentors = FakeMentors(ids(300), page_latency=1.0)
    summary = await Walkthrough(mentors, FakeTriggerEngine(), run_budget=budget(2.0, 5.0)).run()
    assert mentors.page_query_times == [0.0, 1.0]
    assert summary.total_evaluated == 200


async def test_a_page_is_begun_until_the_soft_threshold_and_not_at_it(autojump_clock: MockClock) -> None:
    walk = Walk([IdRange()], soft_threshold=2.0)
    autojump_clock.jump(1.75)
    assert (walk.next_stretch(), walk.stop_reason) == (IdRange(), None)
    autojump_clock.jump(0.25)
    assert (walk.next_stretch(), walk.stop_reason) == (None, StopReason.SOFT_THRESHOLD)


async def test_a_count_of_zero_after_the_soft_threshold_is_finished(autojump_clock: MockClock) -> None:
    mentors = FakeMentors(ids(200), page_latency=1.0)
    summary = await Walkthrough(mentors, FakeTriggerEngine(), run_budget=budget(2.0, 5.0)).run()
    assert len(mentors.page_queries) == 2
    assert (summary.stop_reason, summary.completed) == (StopReason.FINISHED, True)


async def test_hard_deadline_cuts_hanging_invocations_and_still_answers(autojump_clock: MockClock) -> None:
    walk = Walkthrough(
        FakeMentors(ids(1_000)),
        FakeTriggerEngine(latency=lambda chunk: FOREVER),
        limits=limits(invocation_timeout=1_000.0),
    )
    summary = await walk.run()
    assert trio.current_time() == 28.0
    assert summary.duration_ms == 28_000
    assert summary.stop_reason is StopReason.HARD_DEADLINE
    assert (summary.total_evaluated, summary.total_errors, summary.total_unprocessed) == (0, 0, 1_000)
    assert summary.remaining_known
    assert walk.trigger_engine.open_sessions == 0
    assert walk.progress.low_water_mark.last_id is None


async def test_what_is_left_is_counted_from_the_soft_threshold_on_also_when_the_producer_is_blocked(
    autojump_clock: MockClock,
) -> None:
    mentors = FakeMentors(ids(1_000), count_latency=2.0)
    engine = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    with capture_logs() as logs:
        summary = await Walkthrough(mentors, engine, limits=limits(invocation_timeout=1_000.0)).run()
    assert mentors.counted == [IdRange(after=UUID(int=100))]
    assert mentors.count_times == [25.0]
    assert logs == [
        {
            "event": "remaining_counted",
            "log_level": "info",
            "remaining": 900,
            "stop_reason": StopReason.SOFT_THRESHOLD,
        }
    ]
    assert (summary.total_unprocessed, trio.current_time()) == (1_000, 28.0)


async def test_what_is_left_is_counted_only_after_the_page_in_flight_has_landed(
    autojump_clock: MockClock,
) -> None:
    mentors = FakeMentors(ids(150), page_latency=3.0)
    summary = await Walkthrough(mentors, FakeTriggerEngine(), run_budget=budget(2.0, 9.0)).run()
    assert mentors.count_times == [3.0]
    assert mentors.counted == [IdRange(after=UUID(int=100))]
    assert (summary.total_evaluated, summary.total_unprocessed) == (100, 50)


async def test_what_is_left_after_the_wrap_is_counted_over_what_was_not_fetched(
    autojump_clock: MockClock,
) -> None:
    mark = UUID(int=120)
    mentors = FakeMentors(ids(300), page_latency=1.0)
    stretches = [IdRange(after=mark), IdRange(until=mark)]
    before_the_wrap = Walkthrough(
        mentors, FakeTriggerEngine(), stretches=stretches, run_budget=budget(0.5, 9.0)
    )
    summary = await before_the_wrap.run()
    assert mentors.counted == [IdRange(after=UUID(int=220)), IdRange(until=mark)]
    assert (summary.total_evaluated, summary.total_unprocessed) == (100, 200)

    mentors.counted.clear()
    after_the_wrap = Walkthrough(
        mentors, FakeTriggerEngine(), stretches=stretches, run_budget=budget(2.5, 9.0)
    )
    summary = await after_the_wrap.run()
    assert mentors.counted == [IdRange(after=UUID(int=100), until=mark)]
    assert (summary.total_evaluated, summary.total_unprocessed) == (280, 20)


async def test_a_resumed_walk_wraps_round_and_visits_everyone_once(autojump_clock: MockClock) -> None:
    mark = UUID(int=120)
    engine = FakeTriggerEngine()
    walk = Walkthrough(FakeMentors(ids(300)), engine, stretches=[IdRange(after=mark), IdRange(until=mark)])
    summary = await walk.run()
    assert summary.completed
    assert engine.chunks[0] == [UUID(int=121)]
    assert engine.evaluated == dict.fromkeys(ids(300), 1)
    assert walk.progress.low_water_mark.last_id == mark


async def test_a_count_that_hangs_is_given_up_and_the_answer_says_so(autojump_clock: MockClock) -> None:
    mentors = FakeMentors(ids(1_000), count_latency=FOREVER)
    engine = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    summary = await Walkthrough(mentors, engine, limits=limits(invocation_timeout=1_000.0)).run()
    assert trio.current_time() == 28.5
    assert not summary.remaining_known
    assert (summary.total_unprocessed, summary.completed) == (100, False)
    assert summary.stop_reason is StopReason.HARD_DEADLINE


async def test_a_page_that_hangs_is_cut_at_the_hard_deadline(autojump_clock: MockClock) -> None:
    mentors = FakeMentors(ids(10), page_latency=FOREVER)
    summary = await Walkthrough(mentors, FakeTriggerEngine()).run()
    assert trio.current_time() == 28.0
    assert (summary.total_unprocessed, summary.remaining_known) == (10, True)
    assert summary.stop_reason is StopReason.HARD_DEADLINE


async def test_a_database_that_comes_back_within_the_budget_costs_nobody_anything(
    autojump_clock: MockClock,
) -> None:
    mentors = FakeMentors(ids(300), page_latency=0.1, away=lambda now: 0.15 < now < 3.0)
    summary = await Walkthrough(mentors, FakeTriggerEngine()).run()
    assert (summary.total_evaluated, summary.completed) == (300, True)


async def test_a_database_that_stays_away_ends_the_run_with_the_counts_so_far(
    autojump_clock: MockClock,
) -> None:
    mentors = FakeMentors(ids(300), page_latency=0.1, away=lambda now: now > 0.15)
    summary = await Walkthrough(mentors, FakeTriggerEngine()).run()
    assert summary.stop_reason is StopReason.DATABASE_UNAVAILABLE
    assert (summary.total_evaluated, summary.remaining_known, summary.completed) == (100, False, False)
    assert trio.current_time() == 28.5


async def test_a_drain_begins_no_page_and_no_chunk_and_finishes_what_is_in_flight(
    autojump_clock: MockClock,
) -> None:
    engine = FakeTriggerEngine(latency=lambda chunk: 3.0)
    walk = Walkthrough(FakeMentors(ids(1_000)), engine)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def drain_later() -> None:
            await trio.sleep(1.0)
            walk.progress.walk.stop(StopReason.DRAINING)

        summary = await walk.run()
    assert trio.current_time() == 3.0
    assert summary.stop_reason is StopReason.DRAINING
    assert (summary.total_evaluated, summary.total_unprocessed) == (10, 990)
    assert len(walk.mentors.page_queries) == 1
    assert walk.progress.low_water_mark.last_id == UUID(int=10)


async def test_a_drain_stands_when_the_database_is_away_as_well(autojump_clock: MockClock) -> None:
    mentors = FakeMentors(ids(1_000), page_latency=0.1, away=lambda now: 0.15 < now < 2.0)
    walk = Walkthrough(mentors, FakeTriggerEngine(latency=lambda chunk: 3.0), limits=limits(page_size=5))
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def drain_later() -> None:
            await trio.sleep(1.0)
            walk.progress.walk.stop(StopReason.DRAINING)

        summary = await walk.run()
    assert summary.stop_reason is StopReason.DRAINING
    assert (summary.total_evaluated, summary.total_unprocessed) == (5, 995)


async def test_a_database_that_was_away_for_a_while_is_not_why_a_later_run_is_partial(
    autojump_clock: MockClock,
) -> None:
    mentors = FakeMentors(ids(1_000), page_latency=0.1, away=lambda now: 0.15 < now < 1.0)
    summary = await Walkthrough(mentors, FakeTriggerEngine(), run_budget=budget(1.5, 5.0)).run()
    assert summary.stop_reason is StopReason.SOFT_THRESHOLD
    assert 100 < summary.total_evaluated < 1_000


async def test_a_bug_in_the_trigger_engine_ends_the_run_at_once(autojump_clock: MockClock) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        raise ZeroDivisionError

    walk = Walkthrough(FakeMentors(ids(1_000)), FakeTriggerEngine(act=act))
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True):
        await walk.run()
    assert trio.current_time() == 0.0
    assert walk.trigger_engine.open_sessions == 0


async def test_a_cancelled_run_leaves_no_session_and_a_tally_that_adds_up(autojump_clock: MockClock) -> None:
    walk = Walkthrough(FakeMentors(ids(1_000)), FakeTriggerEngine(latency=lambda chunk: 1.0))
    with trio.move_on_after(2.5) as cut:
        await walk.run()
    assert cut.cancelled_caught
    assert trio.current_time() == 2.5
    assert (walk.trigger_engine.open_sessions, walk.trigger_engine.in_flight) == (0, 0)
    tally = walk.progress.tally
    assert (tally.fetched, tally.evaluated, tally.in_hand) == (100, 20, 80)


@pytest.mark.parametrize("frozen_for", [7.0, 10.0], ids=["until its fence", "longer"])
async def test_a_process_frozen_in_mid_pass_and_woken_past_its_fence_invokes_nobody_more(
    frozen_for: float, autojump_clock: MockClock
) -> None:
    def freeze(chunk: Sequence[UUID]) -> Evaluation:
        # The first of ten answers that came in one pass of the loop; the other nine are still to be taken.
        if chunk == [UUID(int=1)]:
            autojump_clock.jump(frozen_for)
        return Evaluation()

    walk = Walkthrough(FakeMentors(ids(100)), FakeTriggerEngine(latency=lambda chunk: 1.0, act=freeze))
    walk.progress.fence.put_off_until(trio.current_time() + 8.0)
    summary = await walk.run()
    assert len(walk.trigger_engine.chunks) == 10
    assert summary.total_evaluated == 10
    assert summary.stop_reason is StopReason.DATABASE_UNAVAILABLE
    assert add_up(summary)


async def test_the_duration_counts_from_the_moment_the_run_was_asked_for(autojump_clock: MockClock) -> None:
    await trio.sleep(100.0)
    asked_at = budget(25.0, 28.0)
    await trio.sleep(1.5)
    engine = FakeTriggerEngine(latency=lambda chunk: 0.25)
    summary = await Walkthrough(FakeMentors(ids(10)), engine, run_budget=asked_at).run()
    assert summary.duration_ms == 1_750


async def test_how_many_chunks_wait_for_a_dispatcher_is_seen_while_the_run_lasts(
    autojump_clock: MockClock,
) -> None:
    """Of a page of 100, ten are in flight, ten are in the channel, and the producer holds the others back."""
    walk = Walkthrough(FakeMentors(ids(100)), FakeTriggerEngine(latency=lambda chunk: 1.0))
    assert walk.progress.channel_depth == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(walk.run)
        for moment, waiting in ((0.5, 10), (7.5, 10), (8.5, 10), (9.5, 0)):
            await trio.sleep_until(moment)
            assert walk.progress.channel_depth == waiting
    assert walk.progress.channel_depth == 0


async def test_mentors_inserted_behind_the_cursor_wait_for_the_next_run(autojump_clock: MockClock) -> None:
    mentors = FakeMentors([UUID(int=number) for number in range(1_000, 1_250)])
    engine = FakeTriggerEngine(latency=lambda chunk: 0.1)
    walk = Walkthrough(mentors, engine)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def insert_behind() -> None:
            await trio.sleep(0.15)
            mentors.mentor_ids.insert(0, UUID(int=1))

        summary = await walk.run()
    assert (summary.total_active_mentors, summary.completed) == (250, True)
    assert add_up(summary)
