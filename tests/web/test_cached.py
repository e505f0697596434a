"""An answer that is good for a while, in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from web.cached import Cached


class FakeQuestion:
    """Takes a second; answers with how often it was asked, or raises `error`."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    async def ask(self) -> int:
        self.asked += 1
        await trio.sleep(1)
        if self.error is not None:
            raise self.error
        return self.asked


async def test_cached_asks_once_however_many_want_to_know(autojump_clock: MockClock) -> None:
    question = FakeQuestion()
    cached = Cached(question.ask, 5.0)
    answers = []

    async def want_to_know() -> None:
        answers.append(await cached.answer())

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(want_to_know)
    assert answers == [1] * 20


async def test_cached_asks_again_when_the_answer_is_as_old_as_it_lasts(autojump_clock: MockClock) -> None:
    question = FakeQuestion()
    cached = Cached(question.ask, 5.0)
    assert await cached.answer() == 1
    await trio.sleep(4.9)  # since the answer, not since the question
    assert await cached.answer() == 1
    await trio.sleep(0.1)
    assert await cached.answer() == 2


async def test_cached_asks_again_when_who_asked_has_hung_up(autojump_clock: MockClock) -> None:
    question = FakeQuestion()
    cached = Cached(question.ask, 5.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cached.answer)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert await cached.answer() == 2


async def test_cached_raises_to_one_and_asks_again_for_the_next(autojump_clock: MockClock) -> None:
    question = FakeQuestion()
    cached = Cached(question.ask, 5.0)
    question.error = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        await cached.answer()
    question.error = None
    assert await cached.answer() == 2
