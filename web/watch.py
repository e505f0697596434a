"""This file is what is under way at this moment, for however many look: the live part of the page.

A run of this process is read from its own memory, so that a look costs the walk nothing and works while
Postgres is away. One of another process is seen through its heartbeats. However many look, the ledger is
asked once a second at most, and only while somebody does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from uuid import UUID

import trio

from engine import (
    DatabaseUnavailable,
    LiveRun,
    RunRecord,
    Scheduler,
    SchedulerError,
    Settings,
    ShardRecord,
    idle_for,
    live_run_elsewhere,
    live_run_with_shards,
)
from web.cached import Cached
from web.charts.shards import Strip, draw_shards
from web.wording import span

# Seconds that a look is good for: what the eye takes as moving. The ledger's is a heartbeat's period.
LOOK_LASTS, LEDGER_LASTS = 0.45, 1.0

# Runs among which one is sought that says how many mentors to expect.
RUNS_LOOKED_AT = 20

# Seconds in which the mentors may be counted, where no earlier run says how many there are.
COUNT_TIMEOUT = 2.0

# Seconds that a look waits for the shards: while Postgres hangs, a run of this process is shown as it is
# known here, at a pace at which it still moves.
SHARDS_TIMEOUT = 0.5

# Seconds for which shards may wait without a worker at any of them. A worker takes one at once, and a lost
# one's is taken after ACK_WAIT, which is 3.
STALLED_AFTER = 5.0


@dataclass(frozen=True, slots=True)
class Sight:
    """`state` is idle, running, draining or away; `latest` changes whenever the charts have changed.

    `done` and `expected` count mentors, for the bar; expected is 0 where nobody knows. `shards` is None where
    the run has none. The rest is text. `fault` is why nobody can be asked at all, and `is_stalled` that no
    worker takes shards: both for who renders the page and not for a stream.
    """

    state: str
    latest: str = ""
    done: int = 0
    expected: int = 0
    mentors: str = ""
    pace: str = ""
    outcome: str = ""
    shards: Strip | None = None
    fault: str = ""
    is_stalled: bool = False

    def as_json(self) -> dict[str, Any]:
        told = asdict(self)
        del told["fault"], told["is_stalled"]
        return told


class Watch:
    """One for the process, behind every page and every stream."""

    def __init__(self, scheduler: Scheduler, settings: Settings) -> None:
        self._scheduler = scheduler
        self._soft_threshold = settings.soft_threshold
        self._has_fleet = settings.fleet is not None
        self._looks = Cached(self._look_now, LOOK_LASTS)
        self._ledger = Cached(self._read_ledger, LEDGER_LASTS)
        self._was_here = False
        self._counted: tuple[UUID, int] | None = None
        self._expected = 0
        self._shards_of: UUID | None = None
        self._shards: Sequence[ShardRecord] = ()

    async def look(self) -> Sight:
        """Raises nothing: a database that can't be asked is a sight as well.

        **Cancellation:** leaves nothing behind.
        """
        return await self._looks.answer()

    async def _look_now(self) -> Sight:
        live = self._scheduler.live_run
        if self._was_here and live is None:
            self._ledger = Cached(self._read_ledger, LEDGER_LASTS)  # what it remembers is before the end
        self._was_here = live is not None
        if self._scheduler.is_draining:
            return Sight("draining")
        if live is not None:
            return await self._describe(live, has_shards=self._has_fleet)
        try:
            runs = await self._ledger.answer()
        except DatabaseUnavailable as error:
            return Sight("away", latest="away", fault=str(error))
        except SchedulerError:
            return Sight("away", latest="away")  # it answers: the charts' question says what is amiss
        self._expected = expected_mentors(runs) or self._expected
        latest = f"{runs[0].run_id} {runs[0].verdict}" if runs else "none"
        live = live_run_elsewhere(runs[0]) if runs else None
        if live is None:
            return Sight("idle", latest=latest)
        return await self._describe(live, has_shards=runs[0].total_shards > 0)

    async def _describe(self, live: LiveRun, *, has_shards: bool) -> Sight:
        shards = await self._read_shards(live.run_id) if has_shards else ()
        return describe_live(live, await self._expect(live), self._soft_threshold, shards)

    async def _read_ledger(self) -> Sequence[RunRecord]:
        return await self._scheduler.list_runs(before=None, limit=RUNS_LOOKED_AT)

    async def _read_shards(self, run_id: UUID) -> Sequence[ShardRecord]:
        """As they were last read, while they can't be."""
        if self._shards_of != run_id:
            self._shards_of, self._shards = run_id, ()
            self._shard_answers = Cached(partial(self._scheduler.list_shards, run_id), LEDGER_LASTS)
        with trio.move_on_after(SHARDS_TIMEOUT), suppress(SchedulerError):
            self._shards = await self._shard_answers.answer()
        return self._shards

    async def _expect(self, live: LiveRun) -> int:
        """How many mentors it will find: as many as the last one, or else they are counted, once a run."""
        if self._expected:
            return self._expected
        if self._counted is None or self._counted[0] != live.run_id:
            self._counted = live.run_id, 0
            with trio.move_on_after(COUNT_TIMEOUT):
                try:
                    runs = await self._ledger.answer()
                    self._expected = expected_mentors(runs)
                    counted = self._expected or await self._scheduler.count_mentors()
                    self._counted = live.run_id, counted
                except SchedulerError:
                    pass  # then the bar has no end
        return self._counted[1]


def expected_mentors(runs: Sequence[RunRecord]) -> int:
    """How many the latest run found that knew of all of them; 0 if none did. `runs` newest first."""
    totals = (
        record.total_active_mentors
        for record in runs
        if record.remaining_known and record.verdict in ("completed", "partial")
    )
    return next(totals, 0)


def describe_live(
    live: LiveRun, expected: int, soft_threshold: float, shards: Sequence[ShardRecord] = ()
) -> Sight:
    """What a run under way says of itself. `expected` mentors, 0 where nobody knows."""
    live = live_run_with_shards(live, shards)
    idle = idle_for(shards, live.elapsed)
    is_stalled = idle is not None and idle > STALLED_AFTER
    done = live.evaluated + live.errors
    expected = max(expected, done) if expected else 0
    return Sight(
        "running",
        latest=f"{live.run_id} stalled" if is_stalled else str(live.run_id),
        done=done,
        expected=expected,
        mentors=f"{done:,} of about {expected:,} mentors" if expected else f"{done:,} mentors so far",
        pace=_pace(live, done, expected, soft_threshold),
        outcome=f"{live.dispatched:,} dispatched, {live.suppressed:,} suppressed, {live.errors:,} errors",
        shards=draw_shards(shards, has_ended=False),
        is_stalled=is_stalled,
    )


def _pace(live: LiveRun, done: int, expected: int, soft_threshold: float) -> str:
    """The rate, and when it will have ended: with everybody, or at the soft threshold without some."""
    if not done or live.elapsed <= 0:
        return f"begun {span(live.elapsed)} ago"
    rate = done / live.elapsed
    text = f"{rate:,.0f} per second" if rate >= 10 else f"{rate:.1f} per second"
    if not expected:
        return text
    left = (expected - done) / rate
    if live.elapsed + left <= soft_threshold:
        return f"{text}, ends in about {span(left)}"
    missed = round(expected - rate * soft_threshold)
    return f"{text}, reaches its soft threshold before about {missed:,} of them"
