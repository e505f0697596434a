"""A seed is a world: the same one to the last event, here and in another interpreter."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
import trio

from tests.simulation import mutations
from tests.simulation.world import simulate

SEEDS = [f"2:{number}" for number in range(12)]

DIGESTS = """
import sys
from tests.simulation.world import simulate
print("\\n".join(simulate(seed).digest for seed in sys.argv[1:]))
"""


def test_the_same_seed_is_the_same_world_in_two_interpreters_with_different_hash_seeds() -> None:
    here = [simulate(seed).digest for seed in SEEDS]
    assert len(set(here)) == len(SEEDS)
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", DIGESTS, *SEEDS],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.split() == here


def test_a_world_does_not_depend_on_those_before_it() -> None:
    alone = simulate(SEEDS[1]).digest
    simulate(SEEDS[0])
    random.random()
    assert simulate(SEEDS[1]).digest == alone


def test_a_failing_world_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    mutations.mark_moved_at_fetch(monkeypatch)
    first, again = simulate("1:1"), simulate("1:1")
    assert first.violations
    assert (first.violations, first.digest) == (again.violations, again.digest)
    said = str(first)
    assert said.startswith(f"World 1:1: {first.violations[0]}")
    assert "python -m tests.simulation --seed 1 --first 1 --worlds 1" in said
    assert "page_size" in said
    assert "VIOLATION" in said


async def test_the_real_world_is_put_back() -> None:
    dice, log = random.getstate(), structlog.get_config()
    await trio.to_thread.run_sync(simulate, "1:0")
    assert (random.getstate(), structlog.get_config()) == (dice, log)
