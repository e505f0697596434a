"""Which jobs pg_cron is to have: one for everything, or one for each scenario and none at the same minute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import TickError
from engine.tick.jobs import TICK, Job, longest_pause, plan_jobs


def test_one_job_ticks_for_everything_on_the_schedule_as_given() -> None:
    assert plan_jobs("*/5 * * * *") == [Job(TICK, "*/5 * * * *")]
    assert plan_jobs("30 seconds") == [Job(TICK, "30 seconds")]


@pytest.mark.parametrize(
    ("schedule", "minutes"),
    [
        ("*/5 * * * *", ["*/5", "1-59/5", "2-59/5"]),
        ("3-59/10 * * * *", ["3-59/10", "4-59/10", "5-59/10"]),
        ("0,30 * * * *", ["*/30", "1-59/30", "2-59/30"]),
        ("7 * * * *", ["7", "8", "9"]),
        ("58 * * * *", ["58", "59", "0"]),
        ("*/7 * * * *", ["*/7", "1-59/7", "2-59/7"]),
        ("57 8-18 * * 1-5", ["57", "58", "59"]),
        ("0-10/5,20 * * * *", ["0,5,10,20", "1,6,11,21", "2,7,12,22"]),
    ],
)
def test_scenarios_follow_one_another_by_a_minute(schedule: str, minutes: list[str]) -> None:
    types = ["expiry", "inactivity", "milestone"]
    rest = schedule.partition(" ")[2]
    assert plan_jobs(schedule, types) == [
        Job(f"{TICK} {scenario_type}", f"{minute} {rest}", (scenario_type,))
        for scenario_type, minute in zip(types, minutes, strict=True)
    ]


@pytest.mark.parametrize(
    "schedule",
    [
        "* * * * *",
        "*/2 * * * *",
        "0,1 * * * *",
        "58 8 * * *",  # the third would be in another hour
        "59 0-5 * * *",
    ],
)
def test_a_schedule_without_room_for_all_of_them_is_refused_with_what_would_do(schedule: str) -> None:
    with pytest.raises(TickError, match="leave at least 3 minutes between two ticks"):
        plan_jobs(schedule, ["expiry", "inactivity", "milestone"])


@pytest.mark.parametrize(
    "schedule",
    [
        "30 seconds",
        "@hourly",
        "* * * *",
        "x * * * *",
        "60 * * * *",
        "9-1 * * * *",
        "*/0 * * * *",
        ", * * * *",
    ],
)
def test_a_schedule_that_cannot_be_spread_is_refused(schedule: str) -> None:
    with pytest.raises(TickError, match=r"such as '?\*/5"):
        plan_jobs(schedule, ["expiry", "inactivity"])


@given(
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=12),
    scenarios=st.integers(min_value=1, max_value=8),
)
def test_no_two_scenarios_share_a_minute_and_each_keeps_the_number_of_its_ticks(
    minutes: set[int], scenarios: int
) -> None:
    schedule = f"{','.join(map(str, sorted(minutes)))} * * * *"
    try:
        jobs = plan_jobs(schedule, [f"s{number}" for number in range(scenarios)])
    except TickError:
        gaps = {(later - earlier) % 60 for later in minutes for earlier in minutes} - {0}
        assert min(gaps, default=60) < scenarios
        return
    ticks = [minute for job in jobs for minute in expanded(job.schedule.split()[0])]
    assert len(ticks) == len(set(ticks)) == len(minutes) * scenarios
    for offset, job in enumerate(jobs):
        assert set(expanded(job.schedule.split()[0])) == {(minute + offset) % 60 for minute in minutes}


@pytest.mark.parametrize(
    ("schedule", "pause"),
    [
        ("* * * * *", 60.0),
        ("*/5 * * * *", 300.0),
        ("0,10 * * * *", 3000.0),
        ("7 * * * *", 3600.0),
        ("7 8-18 * * *", 86_400.0),
        ("30 seconds", 30.0),
        ("0 8 * * 1", 604_800.0),
        ("0 8 1 * *", None),
        ("nonsense", None),
    ],
)
def test_the_longest_pause_of_a_schedule_is_known_where_it_needs_no_calendar(
    schedule: str, pause: float | None
) -> None:
    assert longest_pause(schedule) == pause


def expanded(field: str) -> list[int]:
    """The minutes of a field, read by a reader of our own."""
    span, _, step = field.partition("/")
    if span == "*":
        return list(range(0, 60, int(step or 1)))
    if "-" in span:
        begin, end = map(int, span.split("-"))
        return list(range(begin, end + 1, int(step or 1)))
    return [int(minute) for minute in span.split(",")]
