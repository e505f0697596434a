"""What is JetStream's own: connections that break, rights, TLS, and what is said of it to people."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from uuid import uuid4

import pytest
import trio

from engine.errors import FleetUnavailable
from engine.fleet.jetstream import JetStream, open_jetstream
from engine.fleet.nats_connection import Address
from tests.fleet.nats_server import NatsServers, free_ports, open_nats_servers

NAMES = (f"fleet-{number}" for number in itertools.count(1))


def open_fleet(
    servers: tuple[str, ...], *, name: str, shards_at_once: int = 5
) -> AbstractAsyncContextManager[JetStream]:
    return open_jetstream(Address(servers), name=name, shards_at_once=shards_at_once, replicas=1)


@pytest.fixture(scope="session")
def _nats() -> Iterator[NatsServers]:
    with open_nats_servers() as servers:
        yield servers


@pytest.fixture
async def nats(_nats: NatsServers) -> NatsServers:
    """The server that these tests share; each has streams of its own."""
    await _nats.wait_until_up()
    return _nats


@pytest.fixture
async def fleet(nats: NatsServers) -> AsyncIterator[JetStream]:
    async with open_fleet(nats.urls, name=next(NAMES)) as fleet:
        await fleet.check_ready()
        yield fleet


async def test_a_shard_that_is_finished_hands_its_result_to_who_gathers(fleet: JetStream) -> None:
    run_id = uuid4()
    async with fleet.open_gathering(run_id) as gathering:
        await gathering.submit(3, b"shard")
        delivery = await fleet.take()
        assert (delivery.run_id, delivery.index, delivery.message) == (run_id, 3, b"shard")
        await delivery.finish(b"result")
        assert await gathering.next_result() == (3, b"result")


async def test_no_server_is_said_to_people() -> None:
    [port] = free_ports(1)
    async with open_fleet((f"nats://127.0.0.1:{port}",), name="a") as fleet:
        with pytest.raises(FleetUnavailable, match="nobody listens there; check SCHEDULER_FLEET"):
            await fleet.check_ready()
