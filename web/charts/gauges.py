"""This file is freshness and coverage: how long ago everybody was reached, and who was the last time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine import Freshness, RunRecord
from web.charts.scale import percent
from web.wording import share, span


@dataclass(frozen=True, slots=True)
class Age:
    """Of a scenario. `width` is against a scale on which the limit lies at LIMIT_AT."""

    scenario_type: str
    kind: str  # fresh, stale, never
    text: str
    width: str


# The limit, as a share of the gauge: what is past it has a quarter of it to be seen in.
LIMIT_AT = 0.75


@dataclass(frozen=True, slots=True)
class Part:
    """Of the mentors of a run. `kind` is evaluated, errors or unprocessed."""

    kind: str
    mentors: int
    share: str
    left: str
    width: str


def draw_ages(freshness: Freshness) -> list[Age]:
    ages = []
    for scenario_type, age in freshness.ages.items():
        if age is None:
            ages.append(Age(scenario_type, "never", "never", "0%"))
            continue
        kind = "fresh" if age <= freshness.limit else "stale"
        width = percent(min(LIMIT_AT * age / freshness.limit, 1.0))
        ages.append(Age(scenario_type, kind, span(age), width))
    return ages


def draw_coverage(record: RunRecord) -> Sequence[Part]:
    """What became of everybody in one run; the parts add up to all of them."""
    total = record.total_active_mentors
    parts, left = [], 0.0
    for kind, mentors in (
        ("evaluated", record.total_evaluated),
        ("errors", record.total_errors),
        ("unprocessed", record.total_unprocessed),
    ):
        width = mentors / total if total else 0.0
        parts.append(Part(kind, mentors, share(mentors, total), percent(left), percent(width)))
        left += width
    return parts
