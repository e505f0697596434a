"""Fakes of what the walk talks to, in virtual time. The real ones are tested in postgres/ and transports/."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import trio

from engine.budget import Budget
from engine.errors import DatabaseUnavailable
from engine.mentors.protocol import IdRange, Page
from engine.run import Limits, Progress, run
from engine.tally import Summary
from engine.trigger.protocol import Evaluation, RunContext
from engine.walk import Walk

RUN_ID = UUID("01930000-0000-7000-8000-000000000000")

FOREVER = float("inf")


def ids(count: int) -> list[UUID]:
    """The ids 1 to count."""
    return [UUID(int=number) for number in range(1, count + 1)]


class FakeMentors:
    """A MentorSource over a list of ids. Latencies in seconds; `away(now)` makes it raise.

    `retry_after` is what it then asks for.
    """

    def __init__(
        self,
        mentor_ids: Sequence[UUID],
        *,
        page_latency: float = 0.0,
        count_latency: float = 0.0,
        away: Callable[[float], bool] = lambda now: False,
        retry_after: float | None = None,
    ) -> None:
        self.mentor_ids = sorted(mentor_ids)
        self.page_latency = page_latency
        self.count_latency = count_latency
        self.away = away
        self.retry_after = retry_after
        self.page_queries: list[IdRange] = []
        self.page_query_times: list[float] = []
        self.counted: list[IdRange] = []
        self.count_times: list[float] = []

    async def fetch_page(self, stretch: IdRange, page_size: int) -> Page:
        self.page_queries.append(stretch)
        self.page_query_times.append(trio.current_time())
        await trio.sleep(self.page_latency)
        if self.away(trio.current_time()):
            raise DatabaseUnavailable("gone", retry_after=self.retry_after)
        found = self._within(stretch)[:page_size]
        return Page(found, is_last=len(found) < page_size)

    async def count(self, stretch: IdRange) -> int:
        self.counted.append(stretch)
        self.count_times.append(trio.current_time())
        await trio.sleep(self.count_latency)
        if self.away(trio.current_time()):
            raise DatabaseUnavailable("gone", retry_after=self.retry_after)
        return len(self._within(stretch))

    async def sample(self, size: int) -> Sequence[UUID]:
        await trio.lowlevel.checkpoint()
        return self.mentor_ids[:: max(len(self.mentor_ids) // size, 1)]

    def _within(self, stretch: IdRange) -> list[UUID]:
        first = 0 if stretch.after is None else bisect_right(self.mentor_ids, stretch.after)
        last = len(self.mentor_ids) if stretch.until is None else bisect_right(self.mentor_ids, stretch.until)
        return self.mentor_ids[first:last]


class FakeTriggerEngine:
    """A TriggerEngine that does to each chunk what `act` does, after `latency(chunk)` seconds."""

    def __init__(
        self,
        *,
        latency: Callable[[Sequence[UUID]], float] = lambda chunk: 0.0,
        act: Callable[[Sequence[UUID]], Evaluation] = lambda chunk: Evaluation(),
    ) -> None:
        self.latency = latency
        self.act = act
        self.chunks: list[Sequence[UUID]] = []
        self.begun_at: list[float] = []
        self.evaluated: Counter[UUID] = Counter()
        self.in_flight = 0
        self.peak_in_flight = 0
        self.open_sessions = 0
        self.contexts: list[RunContext] = []

    @asynccontextmanager
    async def open_session(self, context: RunContext) -> AsyncIterator[FakeTriggerEngine]:
        self.contexts.append(context)
        self.open_sessions += 1
        try:
            yield self
        finally:
            self.open_sessions -= 1

    async def evaluate(self, mentor_ids: Sequence[UUID]) -> Evaluation:
        self.chunks.append(mentor_ids)
        self.begun_at.append(trio.current_time())
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            await trio.sleep(self.latency(mentor_ids))
            evaluation = self.act(mentor_ids)
            self.evaluated.update(mentor_ids)
            return evaluation
        finally:
            self.in_flight -= 1


def budget(soft_threshold: float = 25.0, hard_deadline: float = 28.0) -> Budget:
    """A budget that starts at this moment."""
    now = trio.current_time()
    return Budget(now, now + soft_threshold, now + hard_deadline)


class Walkthrough:
    """One run over fakes, and everything there is to look at afterwards."""

    def __init__(
        self,
        mentors: FakeMentors,
        trigger_engine: FakeTriggerEngine,
        *,
        run_budget: Budget | None = None,
        stretches: Sequence[IdRange] = (IdRange(),),
        limits: Limits | None = None,
    ) -> None:
        self.mentors = mentors
        self.trigger_engine = trigger_engine
        self.budget = run_budget or budget()
        self.limits = limits or Limits(
            page_size=100, mentors_per_invocation=1, max_concurrency=10, invocation_timeout=5.0
        )
        self.progress = Progress(Walk(stretches, soft_threshold=self.budget.soft_threshold))

    async def run(self) -> Summary:
        return await run(
            RunContext(RUN_ID), self.budget, self.limits, self.mentors, self.trigger_engine, self.progress
        )


def add_up(summary: Summary) -> bool:
    """The accounting identity."""
    return summary.total_active_mentors == (
        summary.total_evaluated + summary.total_errors + summary.total_unprocessed
    )
