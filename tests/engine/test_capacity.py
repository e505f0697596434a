"""How many mentors fit in one budget, and when to say what to change."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from engine import RunRecord, Settings, advise, measure_capacity
from engine.capacity import RECENT_RUNS
from tests.web.states import NOW, record

SOFT_THRESHOLD = 25.0


def runs(count: int = 20, *, mentors: int = 1_000, seconds: float = 10.0, **more: object) -> list[RunRecord]:
    return [
        record(number, NOW - timedelta(minutes=5 * number), mentors=mentors, seconds=seconds, **more)
        for number in range(count)
    ]


def of_types(records: list[RunRecord], *types: str) -> list[RunRecord]:
    return [replace(each, scenario_types=list(types)) for each in records]


def test_what_fits_is_the_rate_times_the_time_up_to_the_soft_threshold() -> None:
    capacity = measure_capacity(runs(), SOFT_THRESHOLD)
    assert capacity is not None
    assert (capacity.rate, capacity.fits, capacity.needed) == (100.0, 2_500, 1_000)
    assert capacity.share == 0.4
    assert not capacity.is_near


def test_capacity_is_not_known_before_the_first_run_that_evaluated_somebody() -> None:
    assert measure_capacity([], SOFT_THRESHOLD) is None
    assert measure_capacity(runs(3, mentors=0), SOFT_THRESHOLD) is None
    assert measure_capacity(runs(3, verdict="running"), SOFT_THRESHOLD) is None


@pytest.mark.parametrize("verdict", ["running", "failed", "abandoned"])
def test_the_rate_is_of_runs_that_came_to_an_end_of_their_own(verdict: str) -> None:
    slow = runs(RECENT_RUNS, seconds=1_000.0, verdict=verdict)
    capacity = measure_capacity(slow + runs(), SOFT_THRESHOLD)
    assert capacity is not None
    assert capacity.rate == 100.0


def test_runs_that_mostly_failed_say_nothing_of_the_rate() -> None:
    fast = runs(RECENT_RUNS, seconds=0.1, errors={"http_500": 101})
    capacity = measure_capacity(fast + runs(), SOFT_THRESHOLD)
    assert capacity is not None
    assert capacity.rate == 100.0
    still_counts = measure_capacity(runs(errors={"http_500": 100}), SOFT_THRESHOLD)
    assert still_counts is not None
    assert still_counts.rate == 90.0


def test_one_slow_run_does_not_move_the_rate_and_old_ones_do_not_count() -> None:
    capacity = measure_capacity(
        [*runs(1, seconds=20.0), *runs(RECENT_RUNS - 1), *runs(100, seconds=1.0)], SOFT_THRESHOLD
    )
    assert capacity is not None
    assert capacity.rate == 100.0


def test_a_partial_run_needs_those_as_well_whom_it_left() -> None:
    capacity = measure_capacity(
        runs(verdict="partial", stop_reason="soft_threshold", mentors=5_000, unprocessed=2_500, seconds=25.0),
        SOFT_THRESHOLD,
    )
    assert capacity is not None
    assert (capacity.fits, capacity.needed, capacity.share) == (2_500, 5_000, 2.0)


def test_of_ticks_with_a_budget_each_the_fullest_one_is_told() -> None:
    mixed = of_types(runs(5, seconds=20.0), "inactivity") + of_types(runs(5, seconds=2.0), "expiry")
    capacity = measure_capacity(mixed, SOFT_THRESHOLD)
    assert capacity is not None
    assert (capacity.rate, capacity.scenario_types) == (50.0, ("inactivity",))


def test_the_sentence_is_rounded_but_for_what_was_counted() -> None:
    capacity = measure_capacity(runs(mentors=12_300, seconds=7.5), SOFT_THRESHOLD)
    assert capacity is not None
    assert capacity.sentence() == (
        "At 1,600 mentors per second about 41,000 fit in one budget; 12,300 are needed, 30% of it."
    )


@pytest.mark.parametrize(
    ("seconds", "sentence"),
    [
        (150.0, "At one mentor in 30 s not one fits in one budget; 5 are needed."),
        (100.0, "At one mentor in 20 s about 1 fits in one budget; 5 are needed, 500% of it."),
        (10.0, "At one mentor in 2 s about 12 fit in one budget; 5 are needed, 42% of it."),
    ],
)
def test_a_rate_of_less_than_one_in_a_second_is_said_by_the_seconds_for_one(
    seconds: float, sentence: str
) -> None:
    capacity = measure_capacity(runs(mentors=5, seconds=seconds), SOFT_THRESHOLD)
    assert capacity is not None
    assert capacity.sentence() == sentence


HTTP = {"trigger_engine": "https://engine.example/", "service_role_key": SecretStr("k")}


@pytest.mark.parametrize(
    ("settings", "types", "expected"),
    [
        (HTTP, (), ["MENTORS_PER_INVOCATION", "in-database", "--per-scenario", "shards"]),
        (HTTP | {"mentors_per_invocation": 50}, (), ["in-database", "--per-scenario", "shards"]),
        ({}, (), ["--per-scenario", "shards"]),
        ({}, ("expiry",), ["shards"]),
    ],
    ids=["one mentor a call", "many a call", "in the database", "in the database, per scenario"],
)
def test_what_to_change_depends_on_what_was_not_changed_yet(
    settings: dict, types: tuple[str, ...], expected: list[str]
) -> None:
    records = of_types(runs(seconds=18.0), *types) if types else runs(seconds=18.0)
    capacity = measure_capacity(records, SOFT_THRESHOLD)
    assert capacity is not None
    advice = advise(capacity, Settings(**settings))
    assert advice is not None
    steps = ["MENTORS_PER_INVOCATION", "in-database", "--per-scenario", "shards"]
    assert [step for step in steps if step in advice] == expected
    assert advice[0].isupper()
    assert advice.endswith(".")


def test_nothing_is_to_be_changed_before_seventy_percent_are_used() -> None:
    for seconds, is_near in ((17.4, False), (17.6, True)):
        capacity = measure_capacity(runs(seconds=seconds), SOFT_THRESHOLD)
        assert capacity is not None
        assert (advise(capacity, Settings()) is not None) is is_near
