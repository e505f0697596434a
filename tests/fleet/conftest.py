"""What the suite of a fleet runs against: each implementation, opened fresh for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
from trio.testing import MockClock

from engine.fleet.in_process import InProcessFleet
from engine.fleet.protocol import ACK_WAIT, Fleet, Workplace

SHARDS_AT_ONCE = 3


@dataclass(frozen=True)
class FleetPair:
    """Both ends of one fleet of which SHARDS_AT_ONCE may be in hand. All times are in seconds.

    `ack_wait` is the fleet's own, `travel` what a message may take, and `quiet` how long nothing has to come
    for it not to come at all.
    """

    fleet: Fleet
    workplace: Workplace
    ack_wait: float
    travel: float
    quiet: float


@asynccontextmanager
async def open_in_process() -> AsyncIterator[FleetPair]:
    fleet = InProcessFleet(SHARDS_AT_ONCE)
    yield FleetPair(fleet, fleet, ack_wait=ACK_WAIT, travel=0.0, quiet=0.1)


# Of each implementation: how to open it, and whether its time is virtual.
IMPLEMENTATIONS: dict[str, tuple[Callable[[], AbstractAsyncContextManager[FleetPair]], bool]] = {
    "in-process": (open_in_process, True),
}


@pytest.fixture(params=list(IMPLEMENTATIONS))
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock(implementation: str) -> MockClock | None:
    """The clock that the test runs on; None is the real one."""
    return MockClock(autojump_threshold=0) if IMPLEMENTATIONS[implementation][1] else None


@pytest.fixture
async def fleet_pair(implementation: str, clock: MockClock | None) -> AsyncIterator[FleetPair]:
    async with IMPLEMENTATIONS[implementation][0]() as pair:
        yield pair
