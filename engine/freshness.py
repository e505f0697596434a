"""This file is how long ago everybody was evaluated for each scenario, from the ledger alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from engine.coverage import Coverage, stretches_of
from engine.database import Database
from engine.statements import load_statement

_SCENARIO_TYPES = load_statement("enabled_scenario_types")
_COVERING_RUNS = load_statement("covering_runs")

# Runs per statement. The first page is enough as long as a hundred runs together reach everybody; one run
# does in a service that completes its walks, and a larger page would be read for nothing every time.
PAGE_SIZE = 100

# Statements per question, unless the limit lies further back: 5,000 runs, 17 days of them at one every five
# minutes. Anyone may ask, and a part of the ids that no run ever reaches would have all 90 days read each
# time: 1.4 s at a run a minute.
STATEMENTS_AT_MOST = 50


@dataclass(frozen=True, slots=True)
class Freshness:
    """Ages in seconds by enabled scenario type, in order; None: not yet everybody was evaluated for it.

    An age that reaches back further than STATEMENTS_AT_MOST, and than the limit, is a lower bound.

    Nobody has waited longer than the age says, but for those whose evaluation failed in a run that counts
    nonetheless, a tenth of its mentors at most. It is the age of the beginning of a run, on Postgres's clock.
    """

    limit: float
    ages: Mapping[str, float | None]

    @property
    def never_covered(self) -> tuple[str, ...]:
        return tuple(scenario_type for scenario_type, age in self.ages.items() if age is None)

    @property
    def stale(self) -> tuple[str, ...]:
        """Those past the limit, the oldest first."""
        old = [(age, name) for name, age in self.ages.items() if age is not None and age > self.limit]
        return tuple(name for _, name in sorted(old, reverse=True))

    @property
    def oldest(self) -> float | None:
        """The greatest of the ages: nobody has waited longer for anything. None while it is not known."""
        ages = [age for age in self.ages.values() if age is not None]
        return None if self.never_covered else max(ages, default=None)

    @property
    def is_fresh(self) -> bool:
        """Also where no scenario is enabled: then nobody waits for anything."""
        return not (self.never_covered or self.stale)


async def measure_freshness(database: Database, limit: float) -> Freshness:
    """How long ago everybody was evaluated, for every enabled scenario. `limit` in seconds.

    A run counts for a scenario if it evaluated that one, whatever else it was asked for, and whatever became
    of it: one still running and one abandoned count with what they had finished. One that began before the
    scenario was last enabled does not: it may have been without it for a part. Raises as `Database.fetch`.

    **Cancellation:** as `Database.fetch`.
    """
    scenarios = await database.fetch(_SCENARIO_TYPES)
    coverages = {row["scenario_type"]: Coverage() for row in scenarios if row["enabled"]}
    enabled_since = {row["scenario_type"]: row["enabled_since"] for row in scenarios}
    wanted = list(coverages)
    ages: dict[str, float | None] = {}
    last_seen = (None, None)
    for statements in count(1):
        runs = await database.fetch(_COVERING_RUNS, *last_seen, wanted, PAGE_SIZE)
        for row in runs:
            stretches = stretches_of(row)
            for scenario_type in coverages.keys() & set(row["evaluated_types"]):
                since = enabled_since[scenario_type]
                if since is None or row["started_at"] >= since:
                    coverages[scenario_type].add(row["age"], stretches)
        if len(runs) < PAGE_SIZE:
            break
        wanted = [scenario_type for scenario_type in wanted if not coverages[scenario_type].is_whole]
        if not wanted:
            break
        if statements >= STATEMENTS_AT_MOST and runs[-1]["age"] > limit:
            ages = dict.fromkeys(wanted, runs[-1]["age"])
            break
        last_seen = runs[-1]["started_at"], runs[-1]["id"]
    return Freshness(limit, {each: ages.get(each, coverage.age) for each, coverage in coverages.items()})
