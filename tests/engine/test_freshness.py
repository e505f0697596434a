"""What is fresh, and what is worst where it is not."""

from __future__ import annotations

from engine.freshness import Freshness


def test_freshness_is_within_the_limit_and_the_limit_is_still_within() -> None:
    assert Freshness(900.0, {"expiry": 0.0, "inactivity": 900.0}).is_fresh
    assert not Freshness(900.0, {"expiry": 0.0, "inactivity": 900.1}).is_fresh


def test_freshness_is_lost_with_one_scenario_that_never_covered_everybody() -> None:
    freshness = Freshness(900.0, {"expiry": 0.0, "inactivity": None})
    assert not freshness.is_fresh
    assert freshness.never_covered == ("inactivity",)
    assert freshness.stale == ()


def test_freshness_names_the_oldest_first() -> None:
    freshness = Freshness(900.0, {"expiry": 1000.0, "inactivity": 900.0, "milestone": 2000.0})
    assert freshness.stale == ("milestone", "expiry")
    assert freshness.never_covered == ()


def test_freshness_is_there_where_no_scenario_is_enabled() -> None:
    assert Freshness(900.0, {}).is_fresh
