"""This file is how a number becomes a place in a plot."""

from __future__ import annotations

from math import sqrt


def percent(share: float) -> str:
    """A share of 1 as SVG takes it."""
    return f"{100 * share:.3f}".rstrip("0").rstrip(".") + "%"


class Slots:
    """Places side by side for `count` things, of equal width; a fifth of each is gap."""

    def __init__(self, count: int) -> None:
        self._width = 1 / max(count, 1)

    @property
    def width(self) -> str:
        return percent(self._width)

    @property
    def bar_width(self) -> str:
        return percent(0.8 * self._width)

    def left(self, index: int) -> str:
        return percent(index * self._width)

    def bar_left(self, index: int) -> str:
        return percent((index + 0.1) * self._width)

    def middle(self, index: int) -> str:
        return percent((index + 0.5) * self._width)


class RootScale:
    """Heights by the square root, so that a run of a second is seen beside a budget of half a minute."""

    def __init__(self, highest: float) -> None:
        self._highest = highest

    def height(self, value: float) -> float:
        """As a share of 1; more than the highest is the highest."""
        return sqrt(min(max(value, 0.0) / self._highest, 1.0))
