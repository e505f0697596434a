"""The soak, for some seconds: that it finds its way, and nothing that is not as promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.proxy import Kind
from tests.soak import CALM, ROUND, quarters, soak, weather


def test_every_fault_comes_over_either_network_in_half_an_hour_and_as_the_seed_has_it() -> None:
    faults = [weather(1, tick) for tick in range(1_800)]
    assert faults == [weather(1, tick) for tick in range(1_800)]
    assert faults != [weather(2, tick) for tick in range(1_800)]
    for network in zip(*faults, strict=True):
        assert {fault.kind for fault in network if fault is not None} == set(Kind)
    assert all(weather(1, ROUND - 1 - tick) == (None, None) for tick in range(CALM))


def test_growth_is_told_from_a_warm_up_and_from_noise() -> None:
    assert quarters([10.0, 50.0, *[60.0, 61.0] * 10]) == (60.5, 60.5)
    assert quarters([float(number) for number in range(100)]) == (25.0, 89.0)


@pytest.mark.parametrize("postgres_binaries", ["18"], indirect=True, ids="postgres-{}".format)
async def test_eight_ticks_over_bad_networks_are_as_promised(empty_database_url: str, tmp_path: Path) -> None:
    found = await soak(empty_database_url, tmp_path, ticks=8, mentors=300, seed_of_weather=1)
    assert found.violations == []
    assert (found.ticks, found.calms, found.sent) == (8, 1, 300)
