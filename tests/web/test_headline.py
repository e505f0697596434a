"""The first line of the dashboard, and how it says numbers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from engine import Freshness, LiveRun, Overview, RunRecord, ShardRecord, find_rhythm
from tests.web.states import LIMIT, NOW, TYPES, fresh, history, record, run_id, shard
from web.headline import Headline, say_headline, say_stalled
from web.watch import STALLED_AFTER, describe_live, expected_mentors
from web.wording import count_of, share, span


def say(
    *changed: RunRecord, freshness: Freshness | None = None, at: Any = NOW, is_live: bool = False
) -> Headline:
    """Of an ordinary history, in which the latest runs are these instead."""
    runs = [*changed, *history()[len(changed) :]]
    runs = [
        replace(each, errors={}, total_errors=0, total_evaluated=each.total_active_mentors)
        if index >= len(changed)
        else each
        for index, each in enumerate(runs)
    ]
    overview = Overview(at, runs, freshness or fresh())
    headline = say_headline(overview, find_rhythm(runs), is_live=is_live)
    return replace(headline, text=headline.text.replace("\u00a0", " "))


def latest(**how: Any) -> RunRecord:
    return record(59, NOW - timedelta(seconds=40), **how)


STALE = Freshness(LIMIT, {"expiry": 1000.0, "inactivity": 1320.0})


def test_everybody_reached_leaves_nothing_to_do() -> None:
    assert say() == Headline("good", "Everybody was reached 40 s ago.")


def test_the_age_is_that_of_the_scenario_that_is_worst_off() -> None:
    assert "300 s" not in say(freshness=Freshness(LIMIT, {"a": 10.0, "b": 300.0})).text
    assert say(freshness=Freshness(LIMIT, {"a": 10.0, "b": 300.0})).text == "Everybody was reached 5 min ago."


def test_a_few_errors_are_said_beside_those_who_were_reached() -> None:
    headline = say(latest(mentors=500, errors={"timeout": 2, "http_500": 3}))
    assert (headline.tone, headline.text) == (
        "warn",
        "Everybody was reached 40 s ago, but for 1% that failed (http_500).",
    )


def test_a_partial_run_says_who_waits() -> None:
    headline = say(latest(verdict="partial", stop_reason="soft_threshold", mentors=1_000, unprocessed=30))
    assert headline.text == "Everybody was reached 40 s ago; 3% wait for the next run."


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"errors": {"timeout": 9_000}}, ": the trigger engine fails (timeout)."),
        ({"errors": {"sql_u0001": 9_000}}, ": the evaluation fails in Postgres (sql_u0001)."),
        (
            {"verdict": "partial", "stop_reason": "soft_threshold", "unprocessed": 9_000},
            ": one budget does not suffice.",
        ),
        (
            {"verdict": "partial", "stop_reason": "database_unavailable", "unprocessed": 9_000},
            ": Postgres went away in mid-run.",
        ),
        (
            {"verdict": "partial", "stop_reason": "fleet_unavailable", "unprocessed": 9_000},
            ": no worker took shards, or the fleet was away.",
        ),
        (
            {"verdict": "partial", "stop_reason": "draining", "unprocessed": 9_000},
            ": the last run was cut short.",
        ),
        (
            {"verdict": "partial", "stop_reason": "hard_deadline", "unprocessed": 9_000, "shards": 32},
            ": no worker took shards, or the fleet was away.",
        ),
        (
            {
                "verdict": "partial",
                "stop_reason": "soft_threshold",
                "unprocessed": 9_000,
                "shards": 32,
                "workers": 1,
            },
            ": one budget does not suffice.",
        ),
    ],
    ids=["errors", "in the database", "budget", "database", "fleet", "stopped", "no worker", "few workers"],
)
def test_who_was_missed_is_said_with_how_long_and_why(how: dict[str, Any], why: str) -> None:
    headline = say(latest(mentors=10_000, **how), freshness=STALE)
    assert headline.tone == "bad"
    assert headline.text == f"90% were not evaluated for 22 min{why}"
    assert headline.advice


def test_for_want_of_workers_it_is_said_also_while_everybody_is_fresh() -> None:
    headline = say(latest(verdict="partial", stop_reason="hard_deadline", unprocessed=12_300, shards=32))
    assert headline.text == (
        "Everybody was reached 40 s ago; 100% wait for the next run: no worker took shards, or the fleet was "
        "away."
    )
    assert "`scenario-scheduler worker`" in headline.advice


@pytest.mark.parametrize(("freshness", "tone"), [(fresh(), "warn"), (STALE, "bad")])
def test_shards_that_lie_still_are_said_with_what_to_start(freshness: Freshness, tone: str) -> None:
    headline = say_stalled(freshness)
    assert (headline.tone, headline.text) == (tone, "No worker takes shards.")
    assert "`scenario-scheduler worker`" in headline.advice


@pytest.mark.parametrize(("verdict", "why"), [("failed", "failed"), ("abandoned", "was abandoned")])
def test_a_run_that_broke_is_said_whether_or_not_everybody_was_reached(verdict: str, why: str) -> None:
    fresh_one = say(latest(verdict=verdict, unprocessed=5))
    assert (fresh_one.tone, fresh_one.text) == (
        "warn",
        f"Everybody was reached 40 s ago, but the last run {why}.",
    )
    stale_one = say(latest(verdict=verdict, unprocessed=5), freshness=STALE)
    assert (stale_one.tone, stale_one.text) == (
        "bad",
        f"Not everybody was evaluated for 22 min: the last run {why}.",
    )


def test_a_scenario_that_never_reached_everybody_is_named() -> None:
    headline = say(
        latest(mentors=100, errors={"http_500": 60}),
        freshness=Freshness(LIMIT, {"expiry": 5.0, "milestone": None}),
    )
    assert headline.text == "60% were not evaluated for milestone yet: the trigger engine fails (http_500)."


@pytest.mark.parametrize("how", [{}, {"errors": {"timeout": 9}}], ids=["all reached", "some errors"])
@pytest.mark.parametrize("is_live", [False, True], ids=["idle", "live"])
def test_a_scenario_that_was_enabled_a_moment_ago_waits_for_the_next_run(
    how: dict[str, Any], is_live: bool
) -> None:
    headline = say(
        latest(**how), freshness=Freshness(LIMIT, {"expiry": 5.0, "welcome": None}), is_live=is_live
    )
    assert headline == Headline("warn", "welcome has not been evaluated yet; the next run does.")


def test_a_scenario_that_was_enabled_again_waits_for_the_next_run() -> None:
    headline = say(latest(), freshness=Freshness(LIMIT, {"expiry": 5.0, "welcome": 7_200.0}))
    assert headline == Headline("warn", "welcome has not been evaluated for 2 h; the next run does.")


def test_a_new_scenario_hides_nothing_that_is_wrong() -> None:
    also_stale = Freshness(LIMIT, {"expiry": 1_320.0, "welcome": None})
    assert say(latest(errors={"timeout": 9_000}), freshness=also_stale).tone == "bad"
    broken = say(latest(verdict="failed"), freshness=Freshness(LIMIT, {"expiry": 5.0, "welcome": None}))
    assert (broken.tone, "the last run failed" in broken.text) == ("bad", True)


def test_of_ticks_of_their_own_a_scenario_is_new_only_if_no_run_evaluated_it() -> None:
    one = replace(latest(), scenario_types=["expiry"], evaluated_types=["expiry"])
    new = say(one, freshness=Freshness(LIMIT, {"expiry": 5.0, "welcome": None}))
    assert new.text == "welcome has not been evaluated yet; the next run that is asked for it does."
    old = say(one, freshness=Freshness(LIMIT, {"expiry": 5.0, "milestone": None}))
    assert old.text.startswith("Not everybody was evaluated for milestone yet")


def test_a_limit_that_is_shorter_than_the_interval_is_called_that() -> None:
    for is_live in (False, True):
        headline = say(latest(), freshness=Freshness(60.0, dict.fromkeys(TYPES, 120.0)), is_live=is_live)
        assert (headline.tone, headline.text) == (
            "warn",
            "The limit of freshness, 60 s, is shorter than the interval of the ticks, 5 min.",
        )
        assert "`SCHEDULER_FRESHNESS_LIMIT`" in headline.advice


def test_a_run_that_found_nobody_is_not_called_good() -> None:
    headline = say(latest(mentors=0), freshness=fresh(0.0))
    assert (headline.tone, headline.text) == ("warn", "The last run found nobody to evaluate.")
    for part in ("`scenario-scheduler doctor`", "views", "row-level security"):
        assert part in headline.advice


def test_a_tick_that_is_missing_is_said_first() -> None:
    at = NOW + timedelta(minutes=16, seconds=20)
    still_fresh = say(latest(errors={"timeout": 9_000}), at=at)
    assert (still_fresh.tone, still_fresh.text) == (
        "warn",
        "Nobody has called for 17 min; expected every 5 min.",
    )
    assert "cron status" in still_fresh.advice
    assert say(freshness=STALE, at=at).tone == "bad"


def test_a_run_under_way_is_a_call() -> None:
    at = NOW + timedelta(minutes=16, seconds=20)
    assert "Nobody has called" not in say(at=at, is_live=True).text


def test_a_run_that_comes_late_is_not_blamed_on_the_scenarios_of_the_last_one() -> None:
    headline = say(latest(), freshness=Freshness(LIMIT, dict.fromkeys(TYPES, 1_020.0)), is_live=True)
    assert headline == Headline(
        "bad",
        "Not everybody was evaluated for 17 min.",
        "The run that is under way is to reach everybody.",
    )


def test_without_a_rhythm_it_is_said_that_nobody_calls_once_that_is_too_long() -> None:
    runs = [record(1, NOW - timedelta(minutes=20))]
    headline = say_headline(Overview(NOW, runs, STALE), None, is_live=False)
    assert headline.text == "Nobody has called for 20\u00a0min."


def test_before_and_during_the_first_run_nothing_is_called_wrong() -> None:
    never = Freshness(LIMIT, {"expiry": None})
    assert say_headline(Overview(NOW, [], never), None, is_live=False).tone == "idle"
    running = [record(1, NOW, verdict="running")]
    for runs in ([], running):
        headline = say_headline(Overview(NOW, runs, never), None, is_live=True)
        assert headline == Headline("idle", "The first run is under way.")


def test_no_enabled_scenario_is_not_called_good() -> None:
    headline = say(freshness=Freshness(LIMIT, {}))
    assert (headline.tone, headline.text) == ("warn", "No scenario is enabled.")


# --- The run under way ---


def live(elapsed: float, evaluated: int, errors: int = 0) -> LiveRun:
    return LiveRun(run_id(1), elapsed, evaluated, errors, 3, 4)


@pytest.mark.parametrize(
    ("run", "expected", "pace"),
    [
        (live(2.0, 900, 100), 2_000, "500 per second, ends in about 2 s"),
        (live(2.0, 10), 20, "5.0 per second, ends in about 2 s"),
        (live(2.0, 1_000), 0, "500 per second"),
        (live(0.4, 0), 2_000, "begun 0.4 s ago"),
        (live(0.0, 0), 0, "begun 0.0 s ago"),
        (live(5.0, 1_000), 6_000, "200 per second, reaches its soft threshold before about 1,000 of them"),
        (live(5.0, 1_000), 5_000, "200 per second, ends in about 20 s"),
    ],
)
def test_a_run_under_way_says_its_rate_and_where_it_ends(run: LiveRun, expected: int, pace: str) -> None:
    assert describe_live(run, expected, 25.0).pace.replace("\u00a0", " ") == pace


def test_a_run_that_finds_more_than_the_last_one_does_not_pass_the_end_of_its_bar() -> None:
    sight = describe_live(live(2.0, 1_200), 1_000, 25.0)
    assert (sight.done, sight.expected) == (1_200, 1_200)


def test_what_to_expect_is_of_the_latest_run_that_knew_of_all() -> None:
    runs = [
        record(4, NOW, verdict="running", mentors=10),
        record(3, NOW, verdict="abandoned", mentors=20),
        replace(record(2, NOW, verdict="partial", mentors=30), remaining_known=False),
        record(1, NOW, verdict="partial", mentors=40, unprocessed=5),
        record(0, NOW, mentors=50),
    ]
    assert expected_mentors(runs) == 40
    assert expected_mentors(runs[:3]) == 0


def test_a_run_with_shards_has_come_as_far_as_its_workers_say() -> None:
    shards = [
        shard(0, evaluated=600, errors=10),
        shard(1, "running", evaluated=240),
        shard(2, "lost", evaluated=70),
        shard(3, "waiting"),
    ]
    sight = describe_live(live(2.0, 600, 10), 2_000, 25.0, shards)
    assert (sight.done, sight.mentors) == (850, "850 of about 2,000 mentors")
    assert sight.outcome == "14 dispatched, 105 suppressed, 10 errors"
    assert sight.pace.startswith("425 per second")


def test_a_run_that_has_merged_more_than_the_ledger_says_does_not_step_back() -> None:
    sight = describe_live(live(2.0, 900), 2_000, 25.0, [shard(0, evaluated=600)])
    assert (sight.done, sight.outcome) == (900, "3 dispatched, 4 suppressed, 0 errors")


def test_a_run_without_shards_has_none_to_show() -> None:
    sight = describe_live(live(60.0, 0), 2_000, 25.0)
    assert (sight.shards, sight.is_stalled) == (None, False)


@pytest.mark.parametrize(
    ("elapsed", "shards", "is_stalled"),
    [
        (STALLED_AFTER, [shard(0, "waiting")], False),
        (STALLED_AFTER + 0.1, [shard(0, "waiting")], True),
        (20.0, [shard(0, "waiting"), shard(1, "running")], False),
        (20.0, [shard(0, "waiting"), shard(1, age=STALLED_AFTER)], False),
        (20.0, [shard(0, "waiting"), shard(1, age=STALLED_AFTER + 0.1), shard(2, age=9.0)], True),
        (20.0, [shard(0, "lost", age=4.0)], False),
        (20.0, [shard(0, "lost", age=6.0)], True),
        (20.0, [shard(0, age=9.0)], False),
        (20.0, [shard(0, age=9.0), shard(1, "withdrawn")], False),
    ],
    ids=[
        "not yet", "nobody came", "at work", "between two", "all went", "may come again",
        "did not come again", "all done", "withdrawn",
    ],
)  # fmt: skip
def test_a_run_is_stalled_once_shards_wait_and_nobody_works_on_any(
    elapsed: float, shards: list[ShardRecord], is_stalled: bool
) -> None:
    sight = describe_live(live(elapsed, 0), 2_000, 25.0, shards)
    assert sight.is_stalled is is_stalled
    assert sight.latest == f"{run_id(1)}{' stalled' if is_stalled else ''}"


# --- Numbers ---


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"), (0, "0.0 s"), (0.34, "0.3 s"), (1, "1 s"), (2.71, "2.7 s"), (9.96, "10 s"),
        (40, "40 s"),
        (89, "89 s"), (90, "2 min"), (300, "5 min"), (1_020, "17 min"), (3_599, "1 h"), (3_900, "1 h 5 min"),
        (86_399, "1 day"), (90_000, "1 day"), (400_000, "5 days"),
    ],
)  # fmt: skip
def test_a_span_is_said_in_the_unit_that_matters(seconds: float, text: str) -> None:
    assert span(seconds) == text.replace(" ", "\u00a0")


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 10, "0%"), (0, 0, "0%"), (10, 10, "100%"), (1, 3, "33%"), (1, 40, "2.5%"),
        (1, 12_300, "under 0.1%"),
        (12_299, 12_300, "99.9%"), (498, 500, "99.6%"),
    ],
)  # fmt: skip
def test_a_share_is_nothing_or_all_only_if_it_is(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_one_is_singular() -> None:
    assert [count_of(number, "run") for number in (0, 1, 2_000)] == ["0 runs", "1 run", "2,000 runs"]
