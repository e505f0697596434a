"""A dispatcher in virtual time: time-outs, the one retry, bisecting."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from engine.dispatcher import RETRY_PAUSE
from engine.errors import InvocationFailed
from engine.run import Limits
from engine.trigger.protocol import Evaluation
from tests.fakes import FOREVER, FakeMentors, FakeTriggerEngine, Walkthrough, add_up, budget, ids

CHUNKS_OF_8 = Limits(page_size=8, mentors_per_invocation=8, max_concurrency=1, invocation_timeout=5.0)
ONE_BY_ONE = Limits(page_size=100, mentors_per_invocation=1, max_concurrency=1, invocation_timeout=5.0)


class FailFirst:
    """Fails the first `times` calls."""

    def __init__(self, times: int, failure: InvocationFailed) -> None:
        self.left = times
        self.failure = failure

    def __call__(self, chunk: Sequence[UUID]) -> Evaluation:
        if self.left:
            self.left -= 1
            raise self.failure
        return Evaluation()


async def test_an_invocation_is_cut_at_its_timeout_and_not_tried_again(autojump_clock: MockClock) -> None:
    engine = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    walk = Walkthrough(FakeMentors(ids(2)), engine, limits=ONE_BY_ONE)
    await walk.run()
    assert engine.begun_at == [0.0, 5.0]
    assert trio.current_time() == 10.0
    assert walk.progress.tally.errors == {"timeout": 2}


async def test_a_timeout_past_the_hard_deadline_leaves_the_mentor_unprocessed(
    autojump_clock: MockClock,
) -> None:
    engine = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    summary = await Walkthrough(
        FakeMentors(ids(2)), engine, limits=ONE_BY_ONE, run_budget=budget(2.0, 8.0)
    ).run()
    assert trio.current_time() == 8.0
    assert (summary.total_errors, summary.total_unprocessed) == (1, 1)


async def test_a_retryable_failure_is_tried_once_more_after_a_jittered_pause(
    autojump_clock: MockClock,
) -> None:
    act = FailFirst(1, InvocationFailed("connection_refused", retryable=True))
    engine = FakeTriggerEngine(act=act)
    summary = await Walkthrough(FakeMentors(ids(1)), engine).run()
    assert (summary.total_evaluated, summary.total_errors) == (1, 0)
    assert len(engine.begun_at) == 2
    assert RETRY_PAUSE[0] <= engine.begun_at[1] <= RETRY_PAUSE[1]


async def test_a_second_failure_is_final_and_counted_once(autojump_clock: MockClock) -> None:
    engine = FakeTriggerEngine(act=FailFirst(2, InvocationFailed("http_503", retryable=True)))
    walk = Walkthrough(FakeMentors(ids(1)), engine)
    summary = await walk.run()
    assert len(engine.chunks) == 2
    assert walk.progress.tally.errors == {"http_503": 1}
    assert summary.completed


async def test_a_failure_that_is_not_retryable_is_not_retried(autojump_clock: MockClock) -> None:
    engine = FakeTriggerEngine(act=FailFirst(1, InvocationFailed("http_401")))
    await Walkthrough(FakeMentors(ids(1)), engine).run()
    assert len(engine.chunks) == 1


async def test_retry_after_is_honoured(autojump_clock: MockClock) -> None:
    act = FailFirst(1, InvocationFailed("http_429", retryable=True, retry_after=7.0))
    engine = FakeTriggerEngine(act=act)
    summary = await Walkthrough(FakeMentors(ids(1)), engine).run()
    assert engine.begun_at == [0.0, 7.0]
    assert summary.total_evaluated == 1


async def test_retry_after_is_honoured_beyond_a_fence_that_will_be_put_off(autojump_clock: MockClock) -> None:
    act = FailFirst(1, InvocationFailed("http_429", retryable=True, retry_after=12.0))
    engine = FakeTriggerEngine(act=act)
    walk = Walkthrough(FakeMentors(ids(1)), engine)
    walk.progress.fence.put_off_until(8.0)

    async def put_off() -> None:
        await trio.sleep(7.0)
        walk.progress.fence.put_off_until(15.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_off)
        summary = await walk.run()
    assert engine.begun_at == [0.0, 12.0]
    assert summary.total_evaluated == 1


async def test_a_retry_that_the_fence_cuts_leaves_the_mentor_unprocessed(autojump_clock: MockClock) -> None:
    act = FailFirst(1, InvocationFailed("http_429", retryable=True, retry_after=12.0))
    engine = FakeTriggerEngine(act=act)
    walk = Walkthrough(FakeMentors(ids(1)), engine)
    walk.progress.fence.put_off_until(8.0)
    summary = await walk.run()
    assert (trio.current_time(), engine.begun_at) == (8.0, [0.0])
    assert (summary.total_errors, summary.total_unprocessed) == (0, 1)


async def test_retry_after_past_the_hard_deadline_is_an_error_at_once(autojump_clock: MockClock) -> None:
    act = FailFirst(1, InvocationFailed("http_429", retryable=True, retry_after=28.0))
    summary = await Walkthrough(FakeMentors(ids(1)), FakeTriggerEngine(act=act)).run()
    assert trio.current_time() == 0.0
    assert summary.total_errors == 1


@pytest.mark.parametrize("broken", range(1, 9))
async def test_a_chunk_that_one_mentor_breaks_costs_one_error(broken: int, autojump_clock: MockClock) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        if UUID(int=broken) in chunk:
            raise InvocationFailed("http_500", bisectable=True)
        return Evaluation(dispatched={"expiry": len(chunk)})

    engine = FakeTriggerEngine(act=act)
    walk = Walkthrough(FakeMentors(ids(8)), engine, limits=CHUNKS_OF_8)
    summary = await walk.run()
    assert (summary.total_evaluated, summary.total_errors, summary.total_dispatched) == (7, 1, 7)
    assert len(engine.chunks) == 1 + 2 * 3  # the chunk, then two halves on each of log2(8) levels
    assert engine.evaluated == dict.fromkeys([i for i in ids(8) if i != UUID(int=broken)], 1)
    mark = walk.progress.low_water_mark
    assert (mark.last_id, mark.mentors, mark.evaluated) == (UUID(int=8), 8, 7)


async def test_a_chunk_that_fails_for_another_reason_is_never_bisected(autojump_clock: MockClock) -> None:
    engine = FakeTriggerEngine(act=FailFirst(1, InvocationFailed("http_403")))
    walk = Walkthrough(FakeMentors(ids(8)), engine, limits=CHUNKS_OF_8)
    await walk.run()
    assert [len(chunk) for chunk in engine.chunks if len(chunk) < 8] == []
    assert walk.progress.tally.errors == {"http_403": 8}


async def test_a_chunk_whose_time_is_up_is_never_bisected(autojump_clock: MockClock) -> None:
    engine = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    walk = Walkthrough(FakeMentors(ids(8)), engine, limits=CHUNKS_OF_8)
    await walk.run()
    assert len(engine.chunks) == 1
    assert walk.progress.tally.errors == {"timeout": 8}


async def test_a_chunk_cut_while_it_is_bisected_keeps_what_was_answered(autojump_clock: MockClock) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        if UUID(int=8) in chunk:
            raise InvocationFailed("wrong_shape", bisectable=True)
        return Evaluation()

    engine = FakeTriggerEngine(act=act, latency=lambda chunk: 2.0)
    walk = Walkthrough(FakeMentors(ids(8)), engine, limits=CHUNKS_OF_8, run_budget=budget(1.0, 5.0))
    summary = await walk.run()
    assert (summary.total_evaluated, summary.total_errors, summary.total_unprocessed) == (4, 0, 4)
    assert walk.progress.low_water_mark.last_id is None
    assert add_up(summary)


@pytest.mark.parametrize("frozen_for", [7.0, 10.0], ids=["until its fence", "longer"])
async def test_a_chunk_that_failed_while_the_process_was_frozen_past_its_fence_is_not_halved(
    frozen_for: float, autojump_clock: MockClock
) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        autojump_clock.jump(frozen_for)
        raise InvocationFailed("http_500", bisectable=True)

    engine = FakeTriggerEngine(latency=lambda chunk: 1.0, act=act)
    walk = Walkthrough(FakeMentors(ids(8)), engine, limits=CHUNKS_OF_8)
    walk.progress.fence.put_off_until(8.0)
    summary = await walk.run()
    assert engine.chunks == [ids(8)]
    assert (summary.total_errors, summary.total_unprocessed) == (0, 8)


async def test_errors_of_single_mentors_in_an_answer_are_not_evaluated(autojump_clock: MockClock) -> None:
    answer = Evaluation(errors={"mentor_missing": 2, "mentor_error": 1})
    engine = FakeTriggerEngine(act=lambda chunk: answer)
    walk = Walkthrough(FakeMentors(ids(8)), engine, limits=CHUNKS_OF_8)
    summary = await walk.run()
    assert (summary.total_evaluated, summary.total_errors) == (5, 3)
    assert (walk.progress.low_water_mark.mentors, walk.progress.low_water_mark.evaluated) == (8, 5)
