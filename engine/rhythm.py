"""This file is when the next tick is to be expected, from when the last ones came. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from engine.run_record import RunRecord

# Intervals that the rhythm is taken from, at least and at most: two equal ones can be chance, and a schedule
# that was changed should be the rhythm within the hour.
INTERVALS_AT_LEAST, INTERVALS_AT_MOST = 3, 11

# The share of intervals that has to be within this share of their median: else it is a hand, and not a clock.
REGULAR_SHARE, REGULAR_WITHIN = 0.6, 0.2

# How late a tick may be before it is called missing: half an interval, and never less than this in seconds.
# pg_cron begins a job within a second or so, behind other jobs within several.
GRACE_SHARE, GRACE_AT_LEAST = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Ticks come every `interval` seconds; the next one `next_at`, on Postgres's clock."""

    interval: float
    next_at: datetime

    def is_overdue(self, at: datetime) -> bool:
        grace = max(GRACE_SHARE * self.interval, GRACE_AT_LEAST)
        return at > self.next_at + timedelta(seconds=grace)


def find_rhythm(runs: Sequence[RunRecord]) -> Rhythm | None:
    """The rhythm of the latest runs, None where there is none. `runs` newest first.

    Runs of different scenario types have a rhythm each, as pg_cron has a job for each. The next tick is the
    soonest that is still to come after the latest run, so that a job that was removed is not waited for.
    """
    if not runs:
        return None
    by_types: dict[Sequence[str] | None, list[datetime]] = defaultdict(list)
    for record in runs:
        types = None if record.scenario_types is None else tuple(record.scenario_types)
        by_types[types].append(record.started_at)
    latest = runs[0].started_at
    rhythms = [rhythm for moments in by_types.values() if (rhythm := _rhythm_of(moments))]
    return min(
        (rhythm for rhythm in rhythms if rhythm.next_at > latest),
        key=lambda rhythm: rhythm.next_at,
        default=None,
    )


def _rhythm_of(moments: Sequence[datetime]) -> Rhythm | None:
    intervals = [(later - earlier).total_seconds() for later, earlier in pairwise(moments)]
    intervals = intervals[:INTERVALS_AT_MOST]
    if len(intervals) < INTERVALS_AT_LEAST:
        return None
    middle = median(intervals)
    regular = [interval for interval in intervals if abs(interval - middle) <= REGULAR_WITHIN * middle]
    if len(regular) < REGULAR_SHARE * len(intervals):
        return None
    return Rhythm(middle, moments[0] + timedelta(seconds=middle))
