"""The simulation can fail: the product is broken on purpose, and found out within WORLDS worlds."""

from __future__ import annotations

import pytest

from tests.simulation import mutations
from tests.simulation.mutations import Mutation
from tests.simulation.world import simulate

# Within so many, from the given one on: the rarest of these is found once in 200 worlds.
WORLDS = 40


@pytest.mark.parametrize(
    ("mutation", "first", "what"),
    [
        (mutations.mark_moved_at_fetch, 0, "the mark has passed"),
        (mutations.mark_moved_past_a_gap, 0, "up to the mark"),
        (mutations.no_fence, 20, "two live runs"),
        (mutations.no_lease_check_in_heartbeats, 140, "two live runs"),
        (mutations.no_single_flight, 0, "two live runs"),
        (mutations.no_look_at_the_deadline_before_an_invocation, 150, "past the hard deadline"),
        (mutations.cooldown_off, 40, "was sent twice within"),
        (mutations.cooldown_and_keys_off, 0, "was sent twice within"),
        (mutations.cap_off, 0, "invocations of one run in flight"),
        (mutations.failures_counted_as_evaluated, 250, "evaluated"),
        (mutations.a_chunk_that_failed_is_not_counted, 0, "Postgres refuses a row"),
        (mutations.a_run_that_resumes_does_not_wrap_round, 0, "a completed run has not visited"),
        (mutations.a_run_begins_at_the_beginning, 20, "while the mark went all the way round"),
        (mutations.a_page_is_taken_for_the_last, 0, "a completed run has not visited"),
        (mutations.no_hard_deadline, 0, "answered after"),
        (mutations.the_answer_waits_for_its_row, 0, "answered after"),
        (mutations.a_drain_begins_what_was_fetched, 0, "begun while the process drains"),
        (mutations.freshness_believes_every_run, 0, "freshness says"),
        (mutations.freshness_believes_a_dead_engine, 0, "freshness says"),
        (mutations.freshness_believes_what_began_before_a_scenario_was_enabled, 1_930, "freshness says"),
        (mutations.a_second_try_at_the_verdict_is_taken_for_a_lost_lease, 0, "said to be lost"),
        (mutations.a_session_is_left_open, 0, "sessions"),
        (mutations.a_retry_without_end, 0, "answered after"),
    ],
    ids=lambda value: getattr(value, "__name__", "").replace("_", " ") or None,
)
def test_the_simulation_finds(
    mutation: Mutation, first: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    instead = []
    for number in range(first, first + WORLDS):
        violations = simulate(f"1:{number}").violations
        if any(what in each for each in violations):
            return
        instead += violations
    pytest.fail(f"not found in {WORLDS} worlds; instead: {instead}")
