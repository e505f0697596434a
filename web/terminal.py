"""This file is what a run looks like in a terminal: a bar while it lasts, a table when it has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from engine import Scheduler, SchedulerError

# Seconds between two looks at the tally: smooth to the eye, nothing to the processor.
REFRESH_PAUSE = 0.1

_ROWS = {
    "total_active_mentors": "active mentors",
    "total_evaluated": "evaluated",
    "total_errors": "errors",
    "total_unprocessed": "unprocessed",
    "total_dispatched": "notifications dispatched",
    "total_suppressed": "suppressed by a cooldown",
}


@asynccontextmanager
async def show_progress(console: Console, scheduler: Scheduler) -> AsyncIterator[None]:
    """While the block lasts, a bar of the run under way, out of everybody it will find.

    Shows nothing where the console is not a terminal, and no total as long as that can't be counted.

    **Cancellation:** the bar stays as it stands, and the cursor is given back.
    """
    columns = (TextColumn("walking"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("walking", total=None)

        async def count() -> None:
            with suppress(SchedulerError):
                progress.update(bar, total=await scheduler.count_mentors())

        def look() -> None:
            if run := scheduler.progress:
                progress.update(bar, completed=run.tally.evaluated + run.tally.errors.total())

        async def keep_looking() -> None:
            while True:
                look()
                await trio.sleep(REFRESH_PAUSE)

        async with trio.open_nursery() as nursery:
            if console.is_terminal:
                nursery.start_soon(count)
                nursery.start_soon(keep_looking)
            yield
            nursery.cancel_scope.cancel()
        look()


def summary_table(summary: Mapping[str, Any], errors: Mapping[str, int]) -> Table:
    """The summary as `POST /run` answers it, with its errors by their class."""
    table = Table(title=f"run {summary['run_id']}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for field, label in _ROWS.items():
        lower_bound = field == "total_unprocessed" and not summary["remaining_known"]
        table.add_row(label, f"{'at least ' if lower_bound else ''}{summary[field]:,}")
        if field == "total_errors":
            for error_class, mentors in sorted(errors.items()):
                table.add_row(f"  {error_class}", f"{mentors:,}")
    table.add_section()
    table.add_row("took", f"{summary['duration_ms'] / 1000:.2f} s")
    colour = "green" if summary["completed"] and not summary["total_errors"] else "yellow"
    verdict = "completed" if summary["completed"] else f"partial: {summary['stop_reason']}"
    table.add_row("verdict", f"[{colour}]{verdict}[/]")
    return table
