"""Tables in a terminal: what comes from the database is shown as it stands, whatever is in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console, RenderableType
from rich.table import Table

from engine import RunRecord
from engine.run_id import new_run_id
from tests.web.states import shard, shards_of
from web.terminal import SHARDS_SHOWN, record_table, records_table, shards_table, summary_table

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
    total_shards=2,
    total_workers=1,
    total_redelivered=1,
)
SUMMARY = RECORD.as_json() | {"completed": False}


@pytest.mark.parametrize(
    ("table", "times"),
    [
        (record_table(RECORD), 5),
        (records_table([RECORD], 200), 1),
        (summary_table(SUMMARY, {BRACKETS: 1}), 2),
        (shards_table([shard(0, "running", worker=BRACKETS)], has_ended=False), 2),
    ],
    ids=["record", "records", "summary", "shards"],
)
def test_brackets_in_what_the_database_says_are_shown_as_they_stand(table: Table, times: int) -> None:
    assert "\n".join(lines_of(table, width=200)).count(BRACKETS) == times


def lines_of(table: RenderableType, width: int) -> list[str]:
    """What is seen of it, without what is blank."""
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    lines = (line.rstrip() for line in capture.get().replace("\u00a0", " ").splitlines())
    return [line for line in lines if line]


def test_the_shards_of_a_run_are_told_by_worker_and_those_to_look_at_one_by_one() -> None:
    shards = shards_of(["finished"] * 4 + ["running", "lost", "waiting"], redelivered=1)
    summary, heading, _, *workers = lines_of(shards_table(shards, has_ended=False), width=120)
    assert summary == "4 of 7 shards done, 1 under way, 1 lost, 1 waiting; 1 delivered again."
    assert heading.split() == ["worker", "did", "at", "this", "moment"]
    assert [" ".join(line.split()) for line in workers] == [
        "worker-a.example:71 2 done, 708 mentors nothing in hand for 18 s",
        "worker-b.example:1204 1 done, 1 under way, 514 mentors heard of 0.5 s ago",
        "worker-c.example:9 1 done, 1 lost, 494 mentors silent for 4.2 s",
        "Shard 1: done, 2.1 s. By worker-b.example:1204, taken 2 times. 364 evaluated.",
        "Shard 4: under way for 2.1 s. By worker-b.example:1204. 150 evaluated, 12 in hand.",
        "Shard 5: lost 2.1 s after it was taken. By worker-c.example:9. 150 evaluated, 12 in hand.",
        "Shard 6: waiting for a worker.",
    ]


def test_of_many_shards_that_are_not_done_not_all_are_told_one_by_one() -> None:
    lines = lines_of(shards_table(shards_of(["waiting"] * 1_000), has_ended=True), width=120)
    assert lines[0] == "0 of 1,000 shards done by 0 workers, 1,000 not begun."
    assert len(lines) == SHARDS_SHOWN + 2
    assert lines[-1] == "980 more like these; --json has them all."


@pytest.mark.parametrize("width", [80, 110])
def test_a_row_of_a_run_with_shards_says_so_and_is_no_wider(width: int) -> None:
    record = replace(
        RECORD, verdict="partial", stop_reason="database_unavailable", total_shards=32, total_workers=3
    )
    rows = [
        lines_of(records_table([each], width), width) for each in (record, replace(record, total_shards=0))
    ]
    assert "32 shards, 3 workers, 1 again" in " ".join(" ".join(rows[0]).split())
    assert "shard" not in " ".join(rows[1])
    assert max(map(len, rows[0])) == max(map(len, rows[1]))
