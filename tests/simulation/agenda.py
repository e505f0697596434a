"""This file is what is to happen in a world, by moment. Its time is what a stopwatch beside it would show."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any


class Agenda:
    """`now` in seconds since the world began. What is due at the same moment is done as it was entered."""

    def __init__(self) -> None:
        self.now = 0.0
        self._entries: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._number = count()

    def after(self, seconds: float, do: Callable[..., object], *arguments: Any) -> None:
        heappush(self._entries, (self.now + seconds, next(self._number), do, arguments))

    @property
    def next_moment(self) -> float:
        return self._entries[0][0] if self._entries else math.inf

    def do_next(self) -> None:
        _, _, do, arguments = heappop(self._entries)
        do(*arguments)
