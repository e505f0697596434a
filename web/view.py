"""This file is what the dashboard shows, worked out of what is known. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from engine import Overview, Rhythm, RunRecord, Settings, advise, find_rhythm, measure_capacity
from web.charts.errors import ErrorClass, draw_errors
from web.charts.gauges import LIMIT_AT, Age, Part, draw_ages, draw_coverage
from web.charts.notifications import ScenarioChart, describe_notifications, draw_notifications
from web.charts.scale import percent
from web.charts.shards import Strip, draw_shards
from web.charts.timeline import KINDS, Timeline, describe_run, draw_timeline, kind_of
from web.headline import Headline, say_headline, say_stalled
from web.watch import Sight
from web.wording import count_of, span

# Runs in the charts: five hours at a tick every five minutes, and bars of five pixels on a phone.
RUNS_SHOWN = 60

# With fewer, no rhythm is looked for: engine/rhythm.py wants three intervals.
RUNS_AT_LEAST = 4


@dataclass(frozen=True, slots=True)
class Known:
    """What was last read, if anything was; and what keeps it from being read now, if anything does.

    `age` in seconds since it was read.
    """

    overview: Overview | None = None
    age: float = 0.0
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A run in the table for who reads rather than looks."""

    started_at: datetime
    kind: str
    verdict: str
    lines: Sequence[str]
    by_scenario: Sequence[str]


@dataclass(frozen=True, slots=True)
class Fact:
    """One short answer. `tone` is as a headline's, or empty."""

    name: str
    text: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class View:
    headline: Headline
    sight: Sight
    facts: Sequence[Fact]
    timeline: Timeline | None
    scenarios: Sequence[ScenarioChart]
    errors: Sequence[ErrorClass]
    ages: Sequence[Age]
    freshness_limit: str
    limit_at: str
    coverage: Sequence[Part]
    covered_run: RunRecord | None
    covered_shards: Strip | None
    rows: Sequence[Row]
    is_old: bool


def make_view(known: Known, sight: Sight, settings: Settings) -> View:
    """The page as it stands, also while Postgres is away: then it is what was known, and says so."""
    overview = _aged(known)
    rhythm = find_rhythm(overview.runs) if overview else None
    runs = overview.runs if overview else ()
    ended = next((record for record in runs if record.verdict != "running"), None)
    return View(
        headline=_headline(known, rhythm, sight),
        sight=sight,
        facts=_facts(overview, rhythm, settings, is_old=known.fault is not None) if overview and runs else (),
        timeline=draw_timeline(
            runs,
            soft_threshold=settings.soft_threshold,
            platform_limit=settings.platform_limit,
            rhythm=rhythm,
        )
        if runs
        else None,
        scenarios=draw_notifications(runs),
        errors=draw_errors(runs),
        ages=draw_ages(overview.freshness) if overview else (),
        freshness_limit=span(settings.freshness_limit),
        limit_at=percent(LIMIT_AT),
        coverage=draw_coverage(ended) if ended else (),
        covered_run=ended,
        covered_shards=draw_shards(overview.shards, has_ended=True) if overview else None,
        rows=[
            Row(
                record.started_at,
                kind_of(record),
                KINDS[kind_of(record)],
                describe_run(record),
                describe_notifications(record),
            )
            for record in runs
        ],
        is_old=known.fault is not None,
    )


def _aged(known: Known) -> Overview | None:
    """What is known, as old as it has become since: so that every "ago" is one from now."""
    if known.overview is None or not known.age:
        return known.overview
    freshness = known.overview.freshness
    ages = {name: None if age is None else age + known.age for name, age in freshness.ages.items()}
    return replace(
        known.overview,
        at=known.overview.at + timedelta(seconds=known.age),
        freshness=replace(freshness, ages=ages),
    )


def _headline(known: Known, rhythm: Rhythm | None, sight: Sight) -> Headline:
    if known.fault is not None:
        remembered = (
            f" What is shown below was known {span(known.age)} ago."
            if known.overview
            else " Nothing is known of earlier runs until it is back."
        )
        return Headline("bad", "The ledger can't be read, so no run can begin.", known.fault + remembered)
    if sight.state == "draining":
        return Headline(
            "warn",
            "This service is shutting down.",
            "No run begins here; what is in flight is finished. This page comes back with the service.",
        )
    assert known.overview is not None  # noqa: S101 - it is, where there is no fault
    if sight.is_stalled:
        return say_stalled(known.overview.freshness)
    return say_headline(known.overview, rhythm, is_live=sight.state == "running")


def _facts(overview: Overview, rhythm: Rhythm | None, settings: Settings, *, is_old: bool) -> list[Fact]:
    facts = [_last_run(overview, is_old), _next_tick(overview, rhythm), _went_out(overview.runs)]
    if capacity := measure_capacity(overview.runs, settings.soft_threshold):
        facts.append(
            Fact(
                "Capacity",
                capacity.sentence(),
                advise(capacity, settings) or "",
                "warn" if capacity.is_near else "",
            )
        )
    return facts


def _last_run(overview: Overview, is_old: bool) -> Fact:
    record = overview.runs[0]
    ago = span((overview.at - record.started_at).total_seconds())
    if record.verdict == "running":
        return Fact("Last run", f"{'was ' if is_old else ''}under way, begun {ago} ago")
    tone = {"completed": "", "partial": "warn"}.get(record.verdict, "bad")
    return Fact(
        "Last run",
        f"{KINDS[kind_of(record)]}, {ago} ago",
        f"took {span(record.duration_ms / 1000)}",
        tone,
    )


def _next_tick(overview: Overview, rhythm: Rhythm | None) -> Fact:
    if len(overview.runs) < RUNS_AT_LEAST:
        return Fact("Next tick", "not known", "Too few runs to tell.")
    if rhythm is None:
        return Fact("Next tick", "not known", "The last runs came at no regular interval.")
    left = (rhythm.next_at - overview.at).total_seconds()
    every = f"every {span(rhythm.interval)}, by the last runs"
    if rhythm.is_overdue(overview.at):
        return Fact("Next tick", f"overdue by {span(-left)}", every, "bad")
    return Fact("Next tick", f"in {span(left)}" if left >= 1 else "any moment", every)


def _went_out(runs: Sequence[RunRecord]) -> Fact:
    dispatched = sum(record.total_dispatched for record in runs)
    suppressed = sum(record.total_suppressed for record in runs)
    return Fact(
        "Went out",
        count_of(dispatched, "notification"),
        f"{suppressed:,} suppressed by a cooldown, in {count_of(len(runs), 'run')}",
    )
