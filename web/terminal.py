"""This file is what runs look like in a terminal: a bar while one lasts, a table of one or of many.

What the database or another server has said is put into tables as Text: a string would be read as markup,
which a bracket in it breaks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import trio
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from engine import Capacity, RunRecord, Scheduler, SchedulerError, ShardRecord, StopReason, TickStatus
from web.charts.shards import describe_shards, draw_shards
from web.wording import count_of

# Seconds between two looks at the tally: smooth to the eye, nothing to the processor.
REFRESH_PAUSE = 0.1

# Columns from which on a table of runs has room for a line per run, and for their ids as well. Folded, it has
# room in 80 for a million mentors.
WIDTH_UNFOLDED, WIDTH_WITH_IDS = 110, 150

# Shards that are told one by one: what is there to look at, and not a screenful of what went the same way.
SHARDS_SHOWN = 20

_ROWS = {
    "total_active_mentors": "active mentors",
    "total_evaluated": "evaluated",
    "total_errors": "errors",
    "total_unprocessed": "unprocessed",
    "total_dispatched": "notifications dispatched",
    "total_suppressed": "suppressed by a cooldown",
}

_SHARD_COLOURS = {"lost": "red", "withdrawn": "yellow", "partial": "yellow", "running": "cyan"}

_COLOURS = {"completed": "green", "partial": "yellow", "running": "cyan", "failed": "red", "abandoned": "red"}


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
    _add_counts(table, summary, {"total_errors": errors})
    table.add_section()
    table.add_row("took", _seconds(summary["duration_ms"]))
    verdict = "completed" if summary["completed"] else "partial"
    table.add_row("verdict", _verdict(verdict, summary["stop_reason"], summary["total_errors"]))
    return table


def record_table(record: RunRecord) -> Table:
    """All that the ledger says of a run."""
    table = Table(title=f"run {record.run_id}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("started", _local(record.started_at))
    if record.resumed:
        table.add_row("began", "where an earlier run had left off")
    table.add_row("last heartbeat", _local(record.heartbeat_at))
    table.add_row("scenarios", Text(", ".join(record.evaluated_types) or "none"))
    table.add_section()
    parts = {
        "total_errors": record.errors,
        "total_dispatched": record.dispatched,
        "total_suppressed": record.suppressed,
    }
    _add_counts(table, record.as_json(), parts)
    table.add_section()
    if shards := describe_shards(record):
        table.add_row("carried out as", shards)
    table.add_row("took", _seconds(record.duration_ms))
    table.add_row("verdict", _verdict(record.verdict, record.stop_reason, record.total_errors))
    return table


def shards_table(shards: Sequence[ShardRecord], *, has_ended: bool) -> Group:
    """Which worker did how much of a run, and each shard that was delivered again or is not done."""
    strip = draw_shards(shards, has_ended=has_ended)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for heading in ("worker", "did", "" if has_ended else "at this moment"):
        table.add_column(heading)
    for worker in strip.workers if strip else ():
        heard = Text(worker.heard, style="red" if worker.is_silent else "")
        table.add_row(Text(worker.name), worker.did, heard)
    told = [
        Text(". ".join(cell.text.split("\n")) + ".", style=_SHARD_COLOURS.get(cell.kind, ""))
        for cell in (strip.cells if strip else ())
        if cell.again or cell.kind not in ("completed", "errors")
    ]
    if len(told) > SHARDS_SHOWN:
        told[SHARDS_SHOWN:] = [Text(f"{len(told) - SHARDS_SHOWN:,} more like these; --json has them all.")]
    return Group(Text(strip.summary if strip else ""), *([table] if table.row_count else []), *told)


def records_table(records: Sequence[RunRecord], width: int) -> Table:
    """A row for each run: was it in time, was everybody reached, what went out? `width` in columns."""
    with_ids, folded = width >= WIDTH_WITH_IDS, width < WIDTH_UNFOLDED
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("started", width=len("2026-11-23") if folded else None)
    table.add_column("verdict", width=len(StopReason.DATABASE_UNAVAILABLE) if folded else None)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("evaluated", justify="right", width=len("1,000,000") if folded else None)
    for heading in ("errors", "dispatched", "suppressed"):
        table.add_column(heading, justify="right", no_wrap=True)
    if with_ids:
        table.add_column("run", no_wrap=True)
    for record in records:
        verdict = _verdict(record.verdict, record.stop_reason, record.total_errors)
        table.add_row(
            _local(record.started_at),
            Text("\n").join([verdict, *_shards(record)]),
            _seconds(record.duration_ms),
            f"{record.total_evaluated:,} of {record.total_active_mentors:,}",
            f"{record.total_errors:,}",
            f"{record.total_dispatched:,}",
            f"{record.total_suppressed:,}",
            *([str(record.run_id)] if with_ids else []),
        )
    return table


def capacity_line(capacity: Capacity, advice: str | None) -> str:
    """How many fit in one budget; yellow, and with what to change, when they nearly fill it."""
    line = f"Capacity: {capacity.sentence()}"
    return f"[yellow]{line}[/] {advice}" if advice else line


def jobs_table(status: TickStatus) -> Table:
    """The jobs of pg_cron that tick, and how each went the last few times, in pg_cron's own words."""
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for heading in ("job", "schedule"):
        table.add_column(heading)
    table.add_column("begun", min_width=len("2026-11-23"))
    table.add_column("pg_cron says", min_width=len("succeeded"))
    for job in status.jobs:
        named = (job.name + ("" if job.active else " (switched off)"), job.schedule)
        if not job.runs:
            table.add_row(*map(Text, (*named, "no run known", "-")))
        for run in job.runs:
            said = [run.status or "-", run.message or "" if run.status == "failed" else ""]
            begun = _local(run.started_at) if run.started_at else "-"
            table.add_row(*map(Text, (*named, begun, " ".join(said).strip())))
            named = ("", "")
    return table


def invocations_table(status: TickStatus) -> Table:
    """What was posted, latest first, and what came back."""
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for heading in ("posted", "scenarios", "answer", "run"):
        table.add_column(heading)
    for each in status.invocations:
        waiting = "none came" if each.is_overdue else "not yet"
        answer = [str(each.status_code or ""), each.error or ""] if each.answered_at else [waiting]
        row = (
            _local(each.invoked_at),
            ", ".join(each.scenario_types) if each.scenario_types else "all",
            " ".join(answer).strip(),
            each.verdict or ("not in this ledger" if each.run_id else ""),
        )
        table.add_row(*map(Text, row))
    return table


def _add_counts(table: Table, counts: Mapping[str, Any], parts: Mapping[str, Mapping[str, int]]) -> None:
    """The counts, each with what it consists of where that is known."""
    for field, label in _ROWS.items():
        lower_bound = field == "total_unprocessed" and not counts["remaining_known"]
        table.add_row(label, f"{'at least ' if lower_bound else ''}{counts[field]:,}")
        for name, count in sorted(parts.get(field, {}).items()):
            table.add_row(Text(f"  {name}"), f"{count:,}")


def _verdict(verdict: str, stop_reason: str | None, errors: int) -> Text:
    """Green is for nothing to look at."""
    colour = "yellow" if verdict == "completed" and errors else _COLOURS[verdict]
    reason = f": {stop_reason}" if verdict == "partial" else ""
    return Text(f"{verdict}{reason}", style=colour)


def _shards(record: RunRecord) -> list[Text]:
    """A line, as long as the longest verdict, where the run had any."""
    if not record.total_shards:
        return []
    counts = [count_of(record.total_shards, "shard"), count_of(record.total_workers, "worker")]
    again = [f"{record.total_redelivered:,} again"] if record.total_redelivered else []
    return [Text(", ".join([*counts, *again]), style="dim")]


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.2f} s"


def _local(instant: datetime) -> str:
    return f"{instant.astimezone():%Y-%m-%d %H:%M:%S}"
