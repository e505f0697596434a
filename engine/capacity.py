"""This file is how many mentors fit in one budget at the present rate, from the ledger, and what to change.

Pure. A tick of some scenario types is a run with a budget of its own, so each set of them has a capacity of
its own; what is told is that of the set which comes nearest to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from engine.run_record import RunRecord
from engine.settings import Settings

# Runs that the rate is taken from: enough for one slow run not to move it, few enough to be the present.
RECENT_RUNS = 10

# A run counts if at least this share of what it looked at was evaluated: errors come fast, or wait for a
# time-out, and neither says how long an evaluation takes.
EVALUATED_AT_LEAST = 0.9

# The share of a budget from which on something should be changed: mentors come and latencies grow, and a
# change takes somebody a week to make.
NEAR = 0.7


@dataclass(frozen=True, slots=True)
class Capacity:
    """`rate` in mentors per second; `fits` of them in one budget; `needed` are to be walked.

    The rate is of whole runs, so what a run costs beside its evaluations is in it: for few mentors `fits` is
    a lower bound. `scenario_types` as the runs asked for them, None for every enabled one.
    """

    rate: float
    fits: int
    needed: int
    scenario_types: Sequence[str] | None

    @property
    def share(self) -> float:
        """Of the budget, what the mentors there are need; above 1 a run is partial."""
        return self.needed / self.fits if self.fits else float("inf")

    @property
    def is_near(self) -> bool:
        return self.share > NEAR

    def sentence(self) -> str:
        if not self.fits:
            return f"At {self._pace} not one fits in one budget; {self.needed:,} are needed."
        share = f"{self.share:.0%}" if self.share >= 0.01 else "less than 1%"
        verb = "fits" if self.fits == 1 else "fit"
        return (
            f"At {self._pace} about {_round(self.fits):,} {verb} in one budget; "
            f"{self.needed:,} are needed, {share} of it."
        )

    @property
    def _pace(self) -> str:
        if self.rate >= 1:
            return f"{_round(self.rate):,} mentors per second"
        return f"one mentor in {_round(1 / self.rate):,} s"


def measure_capacity(runs: Sequence[RunRecord], soft_threshold: float) -> Capacity | None:
    """The capacity that is used most of, None as long as no run says anything. `runs` newest first.

    `soft_threshold` in seconds: past it no page is fetched, so what fits by then is what can be relied on.
    """
    by_types: dict[Sequence[str] | None, list[RunRecord]] = defaultdict(list)
    for record in runs:
        if _says_how_fast(record):
            types = None if record.scenario_types is None else tuple(record.scenario_types)
            by_types[types].append(record)
    capacities = [
        _capacity_of(records[:RECENT_RUNS], types, soft_threshold) for types, records in by_types.items()
    ]
    return max(capacities, key=lambda capacity: capacity.share, default=None)


def advise(capacity: Capacity, settings: Settings) -> str | None:
    """What to change, nearest first, once the budget is nearly used up; None before that."""
    if not capacity.is_near:
        return None
    steps = []
    if settings.over_http and settings.mentors_per_chunk == 1:
        steps.append("raise `SCHEDULER_MENTORS_PER_INVOCATION`, if the trigger engine takes `mentor_ids`")
    if settings.over_http:
        steps.append("evaluate in the database (`SCHEDULER_TRIGGER_ENGINE=in-database`)")
    if capacity.scenario_types is None:
        steps.append("tick each scenario by itself (`scenario-scheduler cron install --per-scenario`)")
    steps.append("cut the walk into shards on several machines")
    first, *others = steps
    return f"{first[0].upper()}{first[1:]}" + "".join(f"; or {step}" for step in others) + "."


def _says_how_fast(record: RunRecord) -> bool:
    looked_at = record.total_evaluated + record.total_errors
    return (
        record.verdict in ("completed", "partial")
        and record.duration_ms > 0
        and 0 < record.total_evaluated >= EVALUATED_AT_LEAST * looked_at
    )


def _capacity_of(
    runs: Sequence[RunRecord], scenario_types: Sequence[str] | None, soft_threshold: float
) -> Capacity:
    rate = median(record.total_evaluated / record.duration_ms * 1000 for record in runs)
    return Capacity(rate, int(rate * soft_threshold), runs[0].total_active_mentors, scenario_types)


def _round(value: float) -> int:
    """To two digits: the third one is different with every run."""
    return int(float(f"{value:.2g}")) if value >= 10 else round(value)
