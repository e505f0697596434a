"""This file is an answer that is good for a while: anyone may ask, and each question costs a statement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Cached(Generic[T]):
    """The last answer, and one question at a time however many ask.

    `ask` is awaited again when its last answer is `lasts` seconds old. What it raises is nobody's answer: it
    is raised to the one who asked, and the next one asks again.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]], lasts: float) -> None:
        self._ask = ask
        self._lasts = lasts
        self._asking = trio.Lock()
        self._last: tuple[T, float] | None = None  # and until when it is good, on trio's clock

    async def answer(self) -> T:
        """**Cancellation:** the question under way is given up, and the next one asks again."""
        async with self._asking:
            if self._last is None or trio.current_time() >= self._last[1]:
                answer = await self._ask()
                self._last = answer, trio.current_time() + self._lasts
            return self._last[0]
