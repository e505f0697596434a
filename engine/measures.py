"""This file is what this process has done since it began, and is doing now, for whoever watches it.

It decides nothing, and knows nothing of those who read it. The counts of a run under way are read where they
are, in its tally, and added to those of the runs that have ended: a walk pays nothing for being watched, and
no count is ever taken back.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from engine.histogram import Histogram
from engine.invocations import INVOCATION_BOUNDS
from engine.ledger import Verdict
from engine.started_run import StartedRun

# Seconds. Up to the platform limit, and fine where a run is in danger: 25 is the soft threshold, 28 the hard
# deadline, and what lies above 30 was answered to nobody.
RUN_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 25.0, 28.0, 30.0)

# A trigger engine of the user's own may answer with any scenario type, and a scenario function may raise any
# SQLSTATE. Each name is a series for whoever collects them to keep; nobody has a hundred scenarios.
NAMES_AT_MOST = 100

# What all further names are counted as. It begins as neither a scenario type nor an error class can.
OTHER = "_other"


@dataclass
class Totals:
    """Of all runs, none of them ever goes down. Of dry ones only `invocations`: they too are a load.

    `abandoned` are runs of whichever process, from which one of this process took the lease over.
    Mentors: `evaluated`, `errors` by class, and `unprocessed`, which is known of a run when it has ended.
    Notifications: `dispatched` and `suppressed`, by scenario type. `durations` of ended runs, and those of
    `invocations`, in seconds.
    """

    runs: Counter[Verdict] = field(default_factory=Counter)
    abandoned: int = 0
    durations: Histogram = field(default_factory=lambda: Histogram(RUN_BOUNDS))
    evaluated: int = 0
    unprocessed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    dispatched: Counter[str] = field(default_factory=Counter)
    suppressed: Counter[str] = field(default_factory=Counter)
    invocations: Histogram = field(default_factory=lambda: Histogram(INVOCATION_BOUNDS))


class Measures:
    """Of the runs that were handed over to be watched."""

    def __init__(self) -> None:
        self._ended = Totals()
        self._under_way: list[StartedRun] = []
        self._scenario_types = _Names()
        self._error_classes = _Names()

    @property
    def channel_depth(self) -> int:
        """Chunks that wait for a dispatcher, of all runs under way."""
        return sum(run.progress.channel_depth for run in self._under_way)

    @property
    def in_flight(self) -> int:
        """Invocations of all runs under way."""
        return sum(run.progress.tally.invocations.in_flight for run in self._under_way)

    @contextmanager
    def watching(self, run: StartedRun) -> Iterator[None]:
        """Count what this run does. Around all of it: what it does afterwards is not seen."""
        self._under_way.append(run)
        try:
            yield
        finally:
            self._under_way.remove(run)
            self._add(self._ended, run)

    def count_abandoned(self) -> None:
        """A run was found whose process had been killed, or cut off from the database."""
        self._ended.abandoned += 1

    def totals(self) -> Totals:
        """At this moment, those of the runs under way included."""
        totals = copy.deepcopy(self._ended)
        for run in self._under_way:
            self._add(totals, run)
        return totals

    def _add(self, totals: Totals, run: StartedRun) -> None:
        tally = run.progress.tally
        totals.invocations.add(tally.invocations.durations)
        if run.context.dry_run:
            return
        totals.evaluated += tally.evaluated
        totals.errors.update(self._error_classes.bound(tally.errors))
        totals.dispatched.update(self._scenario_types.bound(tally.dispatched))
        totals.suppressed.update(self._scenario_types.bound(tally.suppressed))
        if run.ending is not None:
            verdict, summary = run.ending
            totals.runs[verdict] += 1
            totals.durations.observe(summary.duration_ms / 1000)
            totals.unprocessed += summary.total_unprocessed


class _Names:
    """The first NAMES_AT_MOST that were seen, for good: a count that moved to OTHER would have gone down."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def bound(self, counts: Mapping[str, int]) -> Counter[str]:
        bounded: Counter[str] = Counter()
        for name, count in counts.items():
            if len(self._known) < NAMES_AT_MOST:
                self._known.add(name)
            bounded[name if name in self._known else OTHER] += count
        return bounded
