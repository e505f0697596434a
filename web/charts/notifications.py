"""This file is what went out: for each scenario, dispatched upwards and suppressed downwards, run by run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine import RunRecord
from web.charts.scale import Slots, percent

# The base line, as a share of the plot from its top: more goes on above it than below.
BASE = 0.6

LOWEST_COLUMN = 0.02


@dataclass(frozen=True, slots=True)
class Column:
    left: str
    width: str
    dispatched_top: str
    dispatched_height: str
    suppressed_height: str
    label: str


@dataclass(frozen=True, slots=True)
class ScenarioChart:
    """Each half has a scale of its own, up to the most there was in a run: they are often worlds apart."""

    scenario_type: str
    dispatched: int
    suppressed: int
    most_dispatched: int
    most_suppressed: int
    base: str
    columns: Sequence[Column]
    summary: str


def draw_notifications(runs: Sequence[RunRecord]) -> list[ScenarioChart]:
    """A chart for each scenario that any of the runs evaluated, in their order. `runs` newest first."""
    in_order = list(reversed(runs))
    types = sorted(
        {scenario_type for record in runs for scenario_type in record.evaluated_types}
        | {name for record in runs for name in (*record.dispatched, *record.suppressed)}
    )
    return [_chart(scenario_type, in_order) for scenario_type in types]


def describe_notifications(record: RunRecord) -> list[str]:
    """The columns of one run in words, for a table."""
    return [
        _label(each, record.dispatched.get(each, 0), record.suppressed.get(each, 0))
        for each in sorted({*record.dispatched, *record.suppressed})
        if record.dispatched.get(each) or record.suppressed.get(each)
    ]


def _label(scenario_type: str, dispatched: int, suppressed: int) -> str:
    return f"{scenario_type}: {dispatched:,} dispatched, {suppressed:,} suppressed"


def _chart(scenario_type: str, in_order: Sequence[RunRecord]) -> ScenarioChart:
    dispatched = [record.dispatched.get(scenario_type, 0) for record in in_order]
    suppressed = [record.suppressed.get(scenario_type, 0) for record in in_order]
    most_dispatched, most_suppressed = max(dispatched), max(suppressed)
    slots = Slots(len(in_order))
    columns = []
    for index, (up, down) in enumerate(zip(dispatched, suppressed, strict=True)):
        if not (up or down):
            continue
        up_height = BASE * _height(up, most_dispatched)
        columns.append(
            Column(
                left=slots.bar_left(index),
                width=slots.bar_width,
                dispatched_top=percent(BASE - up_height),
                dispatched_height=percent(up_height),
                suppressed_height=percent((1 - BASE) * _height(down, most_suppressed)),
                label=_label(scenario_type, up, down),
            )
        )
    return ScenarioChart(
        scenario_type=scenario_type,
        dispatched=sum(dispatched),
        suppressed=sum(suppressed),
        most_dispatched=most_dispatched,
        most_suppressed=most_suppressed,
        base=percent(BASE),
        columns=columns,
        summary=(
            f"{scenario_type}, by run: {sum(dispatched):,} dispatched, at most {most_dispatched:,} in a run; "
            f"{sum(suppressed):,} suppressed, at most {most_suppressed:,}."
        ),
    )


def _height(value: int, most: int) -> float:
    """As a share of the half; what is not nothing is seen."""
    return max(value / most, LOWEST_COLUMN) if value else 0.0
