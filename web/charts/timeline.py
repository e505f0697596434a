"""This file is the timeline: a bar for each run, as high as it took long, against the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from engine import Rhythm, RunRecord
from web.charts.scale import RootScale, Slots, percent
from web.charts.shards import describe_shards
from web.wording import share, span

# Part of the plot that lies above the platform limit, for its label.
HEADROOM = 0.1

# Of the plot; less would not be seen.
LOWEST_BAR = 0.012

# Labels nearer to one another than this share of the plot would overlap.
LABEL_DISTANCE = 0.065

# Seconds that the axis names, those that fit.
_SECONDS = (1.0, 5.0, 10.0, 60.0, 300.0, 900.0)

# Intervals; a longer pause is marked.
PAUSE_AT_LEAST = 1.8

_STOP_REASONS = {
    "soft_threshold": "the soft threshold came first",
    "hard_deadline": "cut at the hard deadline",
    "draining": "the service was stopped",
    "database_unavailable": "Postgres went away",
    "lease_lost": "another run took its place",
    "fleet_unavailable": "the fleet was away",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One run. `kind` is its verdict, or `errors` where a completed one had some."""

    run_id: str
    kind: str
    label: str
    lines: Sequence[str]
    started_at: datetime
    slot_left: str
    slot_width: str
    left: str
    width: str
    top: str
    height: str
    middle: str
    pause: str | None


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line. `kind` is `tick`, `soft` or `limit`; `label` is empty where there is no room."""

    kind: str
    top: str
    label: str
    name: str


@dataclass(frozen=True, slots=True)
class Timeline:
    bars: Sequence[Bar]
    levels: Sequence[Level]
    kinds: Sequence[str]
    summary: str


def draw_timeline(
    runs: Sequence[RunRecord], *, soft_threshold: float, platform_limit: float, rhythm: Rhythm | None
) -> Timeline:
    """`runs` newest first, drawn from left to right in the order of their beginning."""
    in_order = list(reversed(runs))
    scale, slots = RootScale(platform_limit), Slots(len(in_order))
    bars = []
    for index, record in enumerate(in_order):
        height = max(scale.height(record.duration_ms / 1000) * (1 - HEADROOM), LOWEST_BAR)
        pause = _pause_before(in_order, index, rhythm)
        lines = describe_run(record)
        bars.append(
            Bar(
                run_id=str(record.run_id),
                kind=kind_of(record),
                label=". ".join(([f"After {pause} without a run"] if pause else []) + list(lines)),
                lines=lines,
                started_at=record.started_at,
                slot_left=slots.left(index),
                slot_width=slots.width,
                left=slots.bar_left(index),
                width=slots.bar_width,
                top=percent(1 - height),
                height=percent(height),
                middle=slots.middle(index),
                pause=pause,
            )
        )
    kinds = [kind for kind in KINDS if any(bar.kind == kind for bar in bars)]
    return Timeline(bars, _levels(scale, soft_threshold, platform_limit), kinds, _summary(bars))


# In the order of the legend, with what they are called there.
KINDS = {
    "completed": "completed",
    "errors": "completed with errors",
    "partial": "partial",
    "failed": "failed",
    "abandoned": "abandoned",
    "running": "running",
}


def kind_of(record: RunRecord) -> str:
    return "errors" if record.verdict == "completed" and record.total_errors else record.verdict


def describe_run(record: RunRecord) -> Sequence[str]:
    """What became of it, in short lines: for a tooltip, and as a name for who can't see the bar."""
    verdict = KINDS[kind_of(record)]
    if record.verdict == "partial" and record.stop_reason in _STOP_REASONS:
        verdict += f": {_STOP_REASONS[record.stop_reason]}"
    total = record.total_active_mentors
    lines = [
        f"{verdict[0].upper()}{verdict[1:]}, {span(record.duration_ms / 1000)}",
        f"{record.total_evaluated:,} of {total:,} evaluated ({share(record.total_evaluated, total)})",
    ]
    if record.total_errors:
        classes = ", ".join(f"{name} {count:,}" for name, count in _largest_first(record.errors))
        lines.append(
            f"{record.total_errors:,} errors: {classes}" if classes else f"{record.total_errors:,} errors"
        )
    if record.total_unprocessed:
        lower_bound = "" if record.remaining_known else "at least "
        lines.append(f"{lower_bound}{record.total_unprocessed:,} unprocessed")
    lines.append(f"{record.total_dispatched:,} dispatched, {record.total_suppressed:,} suppressed")
    if record.scenario_types is not None:
        lines.append(f"Only {', '.join(record.scenario_types)}")
    if shards := describe_shards(record):
        lines.append(shards)
    return lines


def _largest_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _pause_before(in_order: Sequence[RunRecord], index: int, rhythm: Rhythm | None) -> str | None:
    """How long nothing ran before this run, if that is more than the rhythm explains."""
    if index == 0 or rhythm is None:
        return None
    pause = (in_order[index].started_at - in_order[index - 1].started_at).total_seconds()
    return span(pause) if pause >= PAUSE_AT_LEAST * rhythm.interval else None


def _levels(scale: RootScale, soft_threshold: float, platform_limit: float) -> list[Level]:
    """The limits, and as many round numbers of seconds as there is room for."""
    levels: list[Level] = []
    taken: list[float] = []

    def add(kind: str, seconds: float, name: str = "") -> None:
        place = scale.height(seconds) * (1 - HEADROOM)
        has_room = all(abs(place - other) >= LABEL_DISTANCE for other in taken)
        if has_room or name:
            taken.append(place)
            levels.append(Level(kind, percent(1 - place), span(seconds) if has_room else "", name))

    add("limit", platform_limit, f"platform limit, {span(platform_limit)}")
    add("soft", soft_threshold, f"soft threshold, {span(soft_threshold)}")
    for seconds in _SECONDS:
        if seconds < soft_threshold:
            add("tick", seconds)
    return levels


def _summary(bars: Sequence[Bar]) -> str:
    if not bars:
        return "No run yet."
    counts = [f"{sum(bar.kind == kind for bar in bars)} {name}" for kind, name in KINDS.items()]
    present = [text for text in counts if not text.startswith("0 ")]
    return (
        f"The last {len(bars)} runs: {', '.join(present)}."
        if len(bars) > 1
        else f"One run: {present[0][2:]}."
    )
