"""What is JetStream's own: connections that break, rights, TLS, and what is said of it to people."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from uuid import uuid4

import pytest
import trio
from structlog.testing import capture_logs

from engine.errors import FleetUnavailable
from engine.fleet import nats_connection, streams
from engine.fleet.jetstream import FAREWELL_TIMEOUT, JetStream, open_jetstream
from engine.fleet.nats_connection import CLOSE_TIMEOUT, CONNECT_TIMEOUT, Address
from engine.fleet.protocol import ACK_WAIT
from tests.fleet.conftest import NAMES
from tests.fleet.nats_server import PATIENCE, NatsServers, free_ports, open_nats_servers, publish

# Seconds that a machine which is busy with something else may add to what is bounded.
BOUND = 2.0


def open_fleet(
    servers: tuple[str, ...], *, name: str, shards_at_once: int = 5
) -> AbstractAsyncContextManager[JetStream]:
    return open_jetstream(Address(servers), name=name, shards_at_once=shards_at_once, replicas=1)


async def insist(call: Callable[[], Awaitable[object]], *, unless: str = "") -> None:
    """Until it works, or, with `unless`, until it fails for another reason than that."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                await call()
                return
            except FleetUnavailable as error:
                if unless not in str(error):
                    raise
            await trio.sleep(0.05)


@pytest.fixture
async def fleet(nats: NatsServers) -> AsyncIterator[JetStream]:
    async with open_fleet(nats.urls, name=next(NAMES)) as fleet:
        await fleet.check_ready()
        yield fleet


async def test_no_server_is_said_to_people() -> None:
    [port] = free_ports(1)
    async with open_fleet((f"nats://127.0.0.1:{port}",), name="a") as fleet:
        with pytest.raises(FleetUnavailable, match="nobody listens there; check SCHEDULER_FLEET"):
            await fleet.check_ready()


# --- Delivery ---


async def test_another_number_of_shards_at_once_changes_the_consumer_that_is_there(nats: NatsServers) -> None:
    name = next(NAMES)
    for shards_at_once in (1, 2):
        async with open_fleet(nats.urls, name=name, shards_at_once=shards_at_once) as fleet:
            await fleet.check_ready()
            if shards_at_once == 2:
                async with fleet.open_gathering(uuid4()) as gathering:
                    await gathering.submit(0, b"shard")
                    await gathering.submit(1, b"shard")
                    assert {(await fleet.take()).index, (await fleet.take()).index} == {0, 1}


async def test_a_take_that_was_cancelled_swallows_no_shard(fleet: JetStream) -> None:
    with trio.move_on_after(0.2):
        await fleet.take()
    async with fleet.open_gathering(uuid4()) as gathering:
        await gathering.submit(0, b"shard")
        with trio.fail_after(ACK_WAIT / 2):
            assert (await fleet.take()).index == 0


async def test_what_was_withdrawn_while_it_was_out_holds_nobody_up(nats: NatsServers) -> None:
    async with open_fleet(nats.urls, name=next(NAMES), shards_at_once=2) as fleet:
        await fleet.check_ready()
        async with fleet.open_gathering(uuid4()) as gathering:
            for index in range(4):
                await gathering.submit(index, b"shard")
            late = [await fleet.take(), await fleet.take()]
            await gathering.withdraw()
        async with fleet.open_gathering(uuid4()) as gathering:
            for index in range(4):
                await gathering.submit(index, b"another")
            with trio.fail_after(2 * ACK_WAIT):
                assert (await fleet.take()).message == b"another"
                assert (await fleet.take()).message == b"another"
        for delivery in late:
            await delivery.report(b"result")
            await delivery.finish()


@pytest.mark.parametrize("subject", ["nonsense.0", f"{uuid4()}.x", f"{uuid4()}.-1", f"{uuid4()}.9999999"])
async def test_a_subject_that_is_no_shards_is_terminated_and_the_next_one_taken(
    fleet: JetStream, nats: NatsServers, subject: str
) -> None:
    await publish(nats, f"{fleet.names.fleet}.shard.{subject}", b"shard")
    async with fleet.open_gathering(uuid4()) as gathering:
        await gathering.submit(7, b"shard")
        assert (await fleet.take()).index == 7
        [stream] = [each for each in nats.streams() if each["name"] == fleet.names.shards]
        assert stream["state"]["messages"] == 1


async def test_a_gathering_leaves_no_consumer(fleet: JetStream, nats: NatsServers) -> None:
    async with fleet.open_gathering(uuid4()):
        assert [each["state"]["consumer_count"] for each in nats.streams(fleet.names.results)] == [1]
    with trio.fail_after(PATIENCE):
        while [each["state"]["consumer_count"] for each in nats.streams(fleet.names.results)] != [0]:  # noqa: ASYNC110
            await trio.sleep(0.02)  # nothing but asking tells


async def test_nobody_who_leaves_a_gathering_waits_for_a_server_that_is_silent() -> None:
    with open_nats_servers() as nats:
        await nats.wait_until_up()
        async with open_fleet(nats.urls, name="a") as fleet:
            await fleet.check_ready()
            async with fleet.open_gathering(uuid4()):
                nats.servers[0].freeze()
                left_at = trio.current_time()
            assert trio.current_time() - left_at < FAREWELL_TIMEOUT / 2
        assert trio.current_time() - left_at < FAREWELL_TIMEOUT + CLOSE_TIMEOUT * 2 + BOUND


async def test_a_pull_that_is_refused_is_repeated_after_a_pause_and_said_once(
    fleet: JetStream, nats: NatsServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as by a server of another version: 400, for signs of life further apart than it allows."""
    monkeypatch.setattr(streams, "PULL_HEARTBEAT", 20.0)
    before = nats.servers[0].ask("/varz")["in_msgs"]
    with capture_logs() as logs, trio.move_on_after(1.0):
        await fleet.take()
    assert nats.servers[0].ask("/varz")["in_msgs"] - before < 20
    [line] = logs
    assert line["event"] == "no_shards_yet"
    assert "status 400" in line["reason"]


# --- Connections that break ---


async def test_a_server_that_comes_back_is_used_again_by_those_who_wait() -> None:
    with open_nats_servers() as nats:
        await nats.wait_until_up()
        async with open_fleet(nats.urls, name="a") as fleet, trio.open_nursery() as nursery:
            await fleet.check_ready()
            async with fleet.open_gathering(uuid4()) as gathering:
                results: list[tuple[int, bytes]] = []

                async def gather() -> None:
                    results.append(await gathering.next_result())
                    nursery.cancel_scope.cancel()

                async def work() -> None:
                    delivery = await fleet.take()
                    nats.servers[0].kill()
                    nats.servers[0].start()
                    await delivery.keep()
                    await insist(partial(delivery.report, b"result"))
                    await insist(delivery.finish)

                nursery.start_soon(gather)
                nursery.start_soon(work)
                await gathering.submit(0, b"shard")
                with trio.fail_after(PATIENCE):
                    await trio.sleep_forever()
        assert results == [(0, b"result")]


@pytest.mark.parametrize("what", ["check_ready", "take", "keep", "next_result"])
async def test_a_cancel_is_obeyed_at_once_also_while_the_server_is_silent(what: str) -> None:
    with open_nats_servers() as nats:
        await nats.wait_until_up()
        async with open_fleet(nats.urls, name="a") as fleet:
            await fleet.check_ready()
            async with fleet.open_gathering(uuid4()) as gathering:
                await gathering.submit(0, b"shard")
                delivery = await fleet.take()
                nats.servers[0].freeze()
                calls = {
                    "check_ready": fleet.check_ready,
                    "take": fleet.take,
                    "keep": delivery.keep,
                    "next_result": gathering.next_result,
                }
                before = trio.current_time()
                with trio.move_on_after(0.2):
                    await calls[what]()
            assert trio.current_time() - before < 0.2 + FAREWELL_TIMEOUT + BOUND
        assert trio.current_time() - before < 0.2 + FAREWELL_TIMEOUT + CLOSE_TIMEOUT * 2 + BOUND


async def test_a_sign_of_life_that_a_silent_server_does_not_hear_is_said_to_be_unheard() -> None:
    with open_nats_servers() as nats:
        await nats.wait_until_up()
        async with open_fleet(nats.urls, name="a") as fleet:
            await fleet.check_ready()
            async with fleet.open_gathering(uuid4()) as gathering:
                await gathering.submit(0, b"shard")
                delivery = await fleet.take()
                assert await delivery.keep()
                nats.servers[0].freeze()
                with trio.fail_after(PATIENCE):
                    assert not await delivery.keep()
                nats.servers[0].wake()
                with trio.fail_after(PATIENCE):
                    while not await delivery.keep():  # noqa: ASYNC110 - nothing but asking tells
                        await trio.sleep(0.05)


async def test_a_silent_server_is_given_up_and_said_to_be_away() -> None:
    with open_nats_servers() as nats:
        await nats.wait_until_up()
        async with open_fleet(nats.urls, name="a") as fleet:
            await fleet.check_ready()
            nats.servers[0].freeze()
            with trio.fail_after(PATIENCE), pytest.raises(FleetUnavailable, match="it does not answer"):
                await fleet.check_ready()
            with trio.fail_after(PATIENCE), pytest.raises(FleetUnavailable, match="it does not answer"):
                await fleet.check_ready()
            nats.servers[0].wake()
            await fleet.check_ready()


@pytest.fixture
def in_the_given_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are tried so, but for those that failed."""
    monkeypatch.setattr(nats_connection.random, "sample", lambda servers, count: list(servers))


@pytest.mark.usefixtures("in_the_given_order")
async def test_who_has_less_time_than_it_takes_to_connect_finds_a_connection_the_next_time() -> None:
    with open_nats_servers() as silent, open_nats_servers() as useful:
        await silent.wait_until_up()
        await useful.wait_until_up()
        silent.servers[0].freeze()
        async with open_fleet((*silent.urls, *useful.urls), name="a") as fleet:
            with trio.move_on_after(CONNECT_TIMEOUT / 2) as first:
                await fleet.check_ready()
            with trio.move_on_after(CONNECT_TIMEOUT - 0.1) as second:
                await fleet.check_ready()
            assert (first.cancelled_caught, second.cancelled_caught) == (True, False)


@pytest.mark.usefixtures("in_the_given_order")
async def test_the_server_that_failed_last_is_tried_last() -> None:
    with open_nats_servers() as one, open_nats_servers() as other:
        await one.wait_until_up()
        await other.wait_until_up()
        async with open_fleet((*one.urls, *other.urls), name="a") as fleet:
            await fleet.check_ready()
            one.servers[0].freeze()
            with pytest.raises(FleetUnavailable, match="it does not answer"):
                await fleet.check_ready()
            with trio.fail_after(CONNECT_TIMEOUT - 0.1):
                await fleet.check_ready()


async def test_a_server_that_is_of_no_use_is_left_for_another() -> None:
    """Such as one that is cut off from its cluster: it is connected to, and knows of no stream."""
    with open_nats_servers(jetstream=False) as useless, open_nats_servers() as useful:
        await useful.wait_until_up()
        useful.servers[0].kill()
        async with open_fleet((*useless.urls, *useful.urls), name="a") as fleet:
            with pytest.raises(FleetUnavailable, match="JetStream is not on"):
                await insist(fleet.check_ready, unless="nobody listens there")
            useful.servers[0].start()
            await insist(fleet.check_ready)


async def test_a_cancel_while_it_connects_leaves_no_connection_and_no_task() -> None:
    """The kernel takes the connection, and nobody says hello. What was left would be a warning, an error."""
    with open_nats_servers() as nats:
        await nats.wait_until_up()
        nats.servers[0].freeze()
        began = trio.current_time()
        async with open_fleet(nats.urls, name="a") as fleet:
            with trio.move_on_after(0.2) as cut:
                await fleet.check_ready()
            assert cut.cancelled_caught
            with pytest.raises(FleetUnavailable, match="it does not answer"):
                await fleet.check_ready()
        assert trio.current_time() - began < 0.2 + CONNECT_TIMEOUT + 3 * CLOSE_TIMEOUT + BOUND
