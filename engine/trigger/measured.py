"""This file measures a trigger engine from outside: how many invocations are in flight, how long each took.

A decorator, so that dispatchers and trigger engines know nothing of it. It is on every mentor's path: 1.2 us of
some 75 that the processor has to do for one (bench/metrics.py). With prometheus-client's own histogram and
gauge, which take a lock for each change, it would be 1.1 us more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import trio

from engine.histogram import Histogram
from engine.trigger.protocol import Evaluation, RunContext, TriggerEngine, TriggerEngineSession

# Seconds. From a trigger engine on the same machine that has nothing to do (0.5 ms) to the default time-out:
# what lies above it has timed out, or may take longer by its setting. Three a decade, so that an estimated
# quantile is off by a factor of 2.5 at most; finer ones are as many more series for somebody to keep.
INVOCATION_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Invocations:
    """Those of this process, under way and ended.

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


class MeasuredTriggerEngine:
    """Implements TriggerEngine over another one, on whose behalf it counts into `invocations`."""

    def __init__(self, trigger_engine: TriggerEngine, invocations: Invocations) -> None:
        self._trigger_engine = trigger_engine
        self._invocations = invocations

    @asynccontextmanager
    async def open_session(self, context: RunContext) -> AsyncIterator[_Session]:
        async with self._trigger_engine.open_session(context) as session:
            yield _Session(session, self._invocations)


class _Session:
    """Implements TriggerEngineSession; raises and cancels as the one inside."""

    __slots__ = ("_durations", "_evaluate", "_invocations", "_now")

    def __init__(self, session: TriggerEngineSession, invocations: Invocations) -> None:
        self._evaluate = session.evaluate
        self._invocations = invocations
        self._durations = invocations.durations
        self._now = trio.lowlevel.current_clock().current_time  # as trio.current_time, without looking it up

    async def evaluate(self, mentor_ids: Sequence[UUID]) -> Evaluation:
        self._invocations.begun += 1
        now = self._now
        began = now()
        try:
            return await self._evaluate(mentor_ids)
        finally:
            # As Histogram.observe, without a call.
            took = now() - began
            self._durations.counts[bisect_left(INVOCATION_BOUNDS, took)] += 1
            self._durations.sum += took
