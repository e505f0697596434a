"""This file is what is known of a run's invocations: how many are in flight, and how long the others took.

The dispatcher counts here itself, between the clock it reads anyway and one more reading. A decorator around
the trigger engine would be the prettier seam, but its frame is resumed at every wait of every invocation: it
cost a walk over HTTP 2.1 %, and this costs 1.6 % (bench/metrics.py).
"""

from __future__ import annotations

from engine.histogram import Histogram

# Seconds. From a trigger engine on the same machine that has nothing to do (0.5 ms) to the default time-out:
# what lies above it has timed out, or may take longer by its setting. Three a decade, so that an estimated
# quantile is off by a factor of 2.5 at most; finer ones are as many more series for somebody to keep.
INVOCATION_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Invocations:
    """Those of one run, under way and ended; a retry is one more.

    `durations` holds every one that ended, whether it answered, failed or was cut: without those that hang,
    a trigger engine would look the faster the less it answers.
    """

    __slots__ = ("begun", "durations")

    def __init__(self) -> None:
        self.begun = 0
        self.durations = Histogram(INVOCATION_BOUNDS)

    @property
    def in_flight(self) -> int:
        return self.begun - self.durations.total
