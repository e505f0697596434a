"""This file is `run --dry-run --set`: another configuration, tried beside the one that is in force.

Two dry runs, one after the other, each with a budget of its own. Nothing is written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import click
import trio
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from engine import Overrides, RunRequest, Scheduler, Settings, Summary, load_settings, open_scheduler
from web.signals import watch_signals
from web.terminal import show_progress


@dataclass(frozen=True, slots=True)
class DryRun:
    """What would go out, and what a cooldown would keep in, by scenario type."""

    summary: Summary
    dispatched: Counter[str]
    suppressed: Counter[str]
    errors: Counter[str]


@dataclass(frozen=True, slots=True)
class Trial:
    """The configuration as it is, and another one, over the same mentors."""

    overrides: Overrides
    scenario_types: Sequence[str]
    now: DryRun
    tried: DryRun

    @property
    def is_whole(self) -> bool:
        """Both walks were finished, and there were not errors alone."""
        return all(
            each.summary.completed and (each.summary.total_evaluated > 0 or not each.summary.total_errors)
            for each in (self.now, self.tried)
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "overrides": self.overrides,
            "now": self.now.summary.as_json(),
            "tried": self.tried.summary.as_json(),
            "scenarios": {
                scenario_type: {
                    "dispatched": {
                        "now": self.now.dispatched[scenario_type],
                        "tried": self.tried.dispatched[scenario_type],
                    },
                    "suppressed": {
                        "now": self.now.suppressed[scenario_type],
                        "tried": self.tried.suppressed[scenario_type],
                    },
                }
                for scenario_type in self.scenario_types
            },
        }


def try_overrides(request: RunRequest, assignments: Sequence[str], *, as_json: bool) -> bool:
    """Try them and show what comes of it. Returns whether both walks were whole."""
    console = Console(stderr=as_json)
    trial = trio.run(_try, load_settings("database_url"), request, assignments, console)
    if as_json:
        click.echo(json.dumps(trial.as_json()))
    else:
        console.print(trial_table(trial))
        for line in _reservations(trial):
            console.print(line, highlight=False, markup=False)
    return trial.is_whole


async def _try(
    settings: Settings, request: RunRequest, assignments: Sequence[str], console: Console
) -> Trial:
    async with open_scheduler(settings) as scheduler, trio.open_nursery() as nursery:
        await nursery.start(watch_signals, scheduler.drain, nursery.cancel_scope.cancel)
        overrides = await scheduler.read_overrides(assignments, request.scenario_types)
        scenario_types = request.scenario_types or await scheduler.list_scenario_types()
        now = await _walk(scheduler, request, console)
        tried = await _walk(scheduler, replace(request, overrides=overrides), console)
        nursery.cancel_scope.cancel()
        return Trial(overrides, scenario_types, now, tried)
    raise click.Abort  # a second Ctrl-C


async def _walk(scheduler: Scheduler, request: RunRequest, console: Console) -> DryRun:
    started = await scheduler.start(request)
    async with show_progress(console, scheduler):
        summary = await started.summary()
    tally = started.progress.tally
    return DryRun(summary, tally.dispatched, tally.suppressed, tally.errors)


def trial_table(trial: Trial) -> Table:
    """A row for each scenario: how many now, how many with this."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("scenario")
    table.add_column("would be dispatched")
    table.add_column("would be suppressed")
    for scenario_type in trial.scenario_types:
        table.add_row(
            scenario_type,
            _compared(trial.now.dispatched[scenario_type], trial.tried.dispatched[scenario_type]),
            _compared(trial.now.suppressed[scenario_type], trial.tried.suppressed[scenario_type]),
        )
    return table


def _compared(now: int, tried: int) -> str:
    return f"{now:,} now, {tried:,} with this"


def _reservations(trial: Trial) -> list[str]:
    """What keeps these counts from being all there is to say."""
    lines = []
    for name, each in (("now", trial.now), ("with this", trial.tried)):
        summary = each.summary
        if summary.partial:
            left = f"{'' if summary.remaining_known else 'at least '}{summary.total_unprocessed:,}"
            lines.append(
                f"{name}: partial ({summary.stop_reason}), {left} mentors were not looked at, so these are "
                "lower bounds"
            )
        if each.errors:
            classes = ", ".join(
                f"{count:,} {error_class}" for error_class, count in sorted(each.errors.items())
            )
            lines.append(f"{name}: {summary.total_errors:,} errors ({classes})")
    return lines
