"""What the fuzzer starts from, and whatever it has found: each is an input that has to hold from then on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.fuzz.targets import make_target

CRASHES = Path(__file__).parent / "fuzz" / "crashes"


@pytest.mark.parametrize("name", ["direct", "results", "requests", "environments", "messages"])
def test_what_the_fuzzer_starts_from_holds(name: str) -> None:
    target = make_target(name)
    for seed in target.seeds:
        target.check(seed)


def test_what_the_fuzzer_has_found_holds() -> None:
    found = sorted(CRASHES.glob("*-*"))
    assert found
    for path in found:
        make_target(path.name.partition("-")[0]).check(path.read_bytes())
