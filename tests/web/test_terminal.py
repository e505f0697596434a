"""Tables in a terminal: what comes from the database is shown as it stands, whatever is in it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from rich.console import Console
from rich.table import Table

from engine import RunRecord
from engine.run_id import new_run_id
from web.terminal import record_table, records_table, summary_table

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)

# A closing tag without an opening one ends rich in an error, and an opening one is not shown.
BRACKETS = "[bold]x[/y]"

RECORD = RunRecord(
    run_id=new_run_id(),
    verdict="partial",
    stop_reason=BRACKETS,
    scenario_types=None,
    evaluated_types=[BRACKETS],
    resumed=False,
    started_at=NOW,
    heartbeat_at=NOW,
    finished_at=NOW,
    duration_ms=10,
    total_active_mentors=3,
    total_evaluated=1,
    total_dispatched=1,
    total_suppressed=1,
    total_errors=1,
    total_unprocessed=1,
    remaining_known=True,
    stretch_mentors=1,
    stretch_evaluated=1,
    dispatched={BRACKETS: 1},
    suppressed={BRACKETS: 1},
    errors={BRACKETS: 1},
)
SUMMARY = RECORD.as_json() | {"completed": False}


@pytest.mark.parametrize(
    ("table", "times"),
    [
        (record_table(RECORD), 5),
        (records_table([RECORD], 200), 1),
        (summary_table(SUMMARY, {BRACKETS: 1}), 2),
    ],
    ids=["record", "records", "summary"],
)
def test_brackets_in_what_the_database_says_are_shown_as_they_stand(table: Table, times: int) -> None:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    assert capture.get().count(BRACKETS) == times
