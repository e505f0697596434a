"""What the suite of a fleet runs against: each implementation, opened fresh for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest
from trio.testing import MockClock

from engine.fleet.in_process import InProcessFleet
from engine.fleet.jetstream import open_jetstream
from engine.fleet.nats_connection import Address
from engine.fleet.protocol import ACK_WAIT, Fleet, Workplace
from tests.fleet.nats_server import NatsServers, open_nats_servers

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


@asynccontextmanager
async def open_jetstream_pair(nats: NatsServers) -> AsyncIterator[FleetPair]:
    """Over two connections, as between two machines."""
    address, name = Address(nats.urls), next(NAMES)
    await nats.wait_until_up()
    async with (
        open_jetstream(address, name=name, shards_at_once=SHARDS_AT_ONCE, replicas=1) as fleet,
        open_jetstream(address, name=name, shards_at_once=SHARDS_AT_ONCE, replicas=1) as workplace,
    ):
        await fleet.check_ready()
        yield FleetPair(fleet, workplace, ack_wait=ACK_WAIT, travel=0.5, quiet=0.3)


@pytest.fixture(params=["in-process", "jetstream"])
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock(implementation: str) -> MockClock | None:
    """The clock that the test runs on; None is the real one."""
    return MockClock(autojump_threshold=0) if implementation == "in-process" else None


@pytest.fixture
async def fleet_pair(
    implementation: str, clock: MockClock | None, request: pytest.FixtureRequest
) -> AsyncIterator[FleetPair]:
    opening: Callable[[], AbstractAsyncContextManager[FleetPair]] = open_in_process
    if implementation == "jetstream":
        opening = partial(open_jetstream_pair, request.getfixturevalue("nats_servers"))
    async with opening() as pair:
        yield pair


# --- NATS ---

# Of fleets that share the server: each has streams of its own.
NAMES = (f"fleet-{number}" for number in itertools.count(1))


@pytest.fixture(scope="session")
def nats_servers() -> Iterator[NatsServers]:
    """One server, for all who only use it; it may be starting still."""
    with open_nats_servers() as servers:
        yield servers


@pytest.fixture
async def nats(nats_servers: NatsServers) -> NatsServers:
    """The same, when it is up."""
    await nats_servers.wait_until_up()
    return nats_servers
