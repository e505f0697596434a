"""2,000 worlds, and the worlds in which something was found."""

from __future__ import annotations

import pytest

from tests.simulation.world import simulate

WORLDS, AT_ONCE = 2_000, 250

# Worlds in which the simulation has found something, by what it was. A change of plan.py makes other worlds
# of them; that it can still be found is held by test_finds.py.
FOUND = {
    "1:184": "a Retry-After longer than the fence was an error at once, although the budget had time for it",
    "1:3236": "a run counted for a scenario that was disabled and enabled again in the middle of it",
    "4242:3029": "a call was made again past the hard deadline, by a process that was frozen in mid-pass",
    "1:2": "a second try at a verdict, whose first answer was lost, was taken for a lost lease",
}


@pytest.mark.parametrize("first", range(0, WORLDS, AT_ONCE), ids="from world {}".format)
def test_every_promise_holds_in_every_world(first: int) -> None:
    for number in range(first, first + AT_ONCE):
        outcome = simulate(f"1:{number}")
        assert not outcome.violations, str(outcome)


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_once_stays_mended(seed: str) -> None:
    outcome = simulate(seed)
    assert not outcome.violations, str(outcome)
