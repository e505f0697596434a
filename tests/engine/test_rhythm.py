"""When the next tick is to be expected, from when the last ones came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from engine import RunRecord, find_rhythm
from tests.web.states import NOW, record


def runs_at(*seconds_ago: float, types: Sequence[str] | None = None) -> list[RunRecord]:
    return [
        replace(record(index, NOW - timedelta(seconds=ago)), scenario_types=types)
        for index, ago in enumerate(seconds_ago)
    ]


def test_the_next_tick_is_one_median_interval_after_the_last() -> None:
    rhythm = find_rhythm(runs_at(40, 340.5, 640, 940, 1240))
    assert rhythm is not None
    assert rhythm.interval == 300
    assert rhythm.next_at == NOW + timedelta(seconds=260)


@pytest.mark.parametrize(
    "seconds_ago",
    [
        pytest.param((), id="none"),
        pytest.param((1, 301, 601), id="too few"),
        pytest.param((1, 3, 30, 200, 209, 1000), id="by hand"),
    ],
)
def test_there_is_no_rhythm_in_few_runs_and_in_a_hand(seconds_ago: tuple[float, ...]) -> None:
    assert find_rhythm(runs_at(*seconds_ago)) is None


def test_a_tick_by_hand_in_between_and_a_pause_do_not_break_the_rhythm() -> None:
    rhythm = find_rhythm(runs_at(10, 310, 490, 610, 910, 1210, 9000, 9300, 9600))
    assert rhythm is not None
    assert rhythm.interval == 300


def test_jobs_per_scenario_have_a_rhythm_each_and_the_soonest_is_next() -> None:
    expiry = runs_at(*(20 + 300 * number for number in range(5)), types=["expiry"])
    inactivity = runs_at(*(80 + 300 * number for number in range(5)), types=["inactivity"])
    rhythm = find_rhythm(sorted(expiry + inactivity, key=lambda each: each.started_at, reverse=True))
    assert rhythm is not None
    assert rhythm.interval == 300
    assert rhythm.next_at == NOW + timedelta(seconds=220)


def test_a_job_that_was_removed_is_not_waited_for() -> None:
    removed = runs_at(*(5_000 + 60 * number for number in range(5)), types=["expiry"])
    rhythm = find_rhythm(runs_at(10, 310, 610, 910, 1210) + removed)
    assert rhythm is not None
    assert rhythm.next_at == NOW + timedelta(seconds=290)


@pytest.mark.parametrize(("interval", "grace"), [(300, 150), (60, 30), (20, 30)])
def test_a_tick_is_missing_after_half_an_interval_and_not_within_half_a_minute(
    interval: int, grace: int
) -> None:
    rhythm = find_rhythm(runs_at(*(interval * number for number in range(5))))
    assert rhythm is not None
    due = NOW + timedelta(seconds=interval)
    assert not rhythm.is_overdue(due + timedelta(seconds=grace))
    assert rhythm.is_overdue(due + timedelta(seconds=grace + 1))
