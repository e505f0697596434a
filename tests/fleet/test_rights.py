"""Who may do what with the README's configuration, over TLS, on three servers: tried, not read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from uuid import UUID, uuid4

import pytest
import trio
import trustme
from nats.aio.client import Client
from nats.js import api

from engine.errors import ConfigurationError, FleetUnavailable
from engine.fleet.jetstream import JetStream, open_jetstream
from engine.fleet.nats_connection import Address, NatsConnection, open_nats
from engine.fleet.streams import pull
from tests.fleet.nats_server import PATIENCE
from tests.fleet.readme import SecuredServers, open_secured_servers

RUN = UUID("01920000-0000-7000-8000-000000000001")


@pytest.fixture(scope="module")
def _secured() -> Iterator[SecuredServers]:
    with open_secured_servers() as secured:
        yield secured


@pytest.fixture
async def secured(_secured: SecuredServers) -> SecuredServers:
    async with open_fleet(_secured.as_user("scheduler-service")) as service:
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    await service.check_ready()
                    return _secured
                except FleetUnavailable:
                    await trio.sleep(0.1)


def open_fleet(address: Address, *, replicas: int = 3):  # type: ignore[no-untyped-def]
    return open_jetstream(address, name="scheduler", shards_at_once=5, replicas=replicas)


@pytest.fixture
async def service(secured: SecuredServers) -> AsyncIterator[JetStream]:
    async with open_fleet(secured.as_user("scheduler-service")) as service:
        yield service


@pytest.fixture
async def worker(secured: SecuredServers) -> AsyncIterator[JetStream]:
    async with open_fleet(secured.as_user("scheduler-worker")) as worker:
        yield worker


@pytest.fixture
async def as_worker(secured: SecuredServers) -> AsyncIterator[NatsConnection]:
    """A worker's credentials in the hands of somebody who has other things in mind."""
    async with open_nats(secured.as_user("scheduler-worker")) as connection:
        yield connection


async def test_with_its_rights_each_can_do_what_it_has_to(service: JetStream, worker: JetStream) -> None:
    run_id = uuid4()
    async with service.open_gathering(run_id) as gathering:
        for index in range(4):
            await gathering.submit(index, b"shard")
        done = await worker.take()
        await done.keep()
        await done.report(b"result")
        await done.finish()
        await (await worker.take()).refuse()
        await (await worker.take()).hand_back()
        assert await gathering.next_result() == (done.index, b"result")
        await gathering.withdraw()


async def test_a_shard_submitted_twice_at_the_same_moment_is_there_once(
    secured: SecuredServers, worker: JetStream
) -> None:
    """Three servers answer one of the two with 409/10158, which does not say that they have it."""
    run_id = uuid4()
    address = secured.as_user("scheduler-service")
    async with (
        open_fleet(address) as one,
        open_fleet(address) as other,
        one.open_gathering(run_id) as gathering,
        other.open_gathering(run_id) as same_gathering,
    ):
        for index in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gathering.submit, index, b"shard")
                nursery.start_soon(same_gathering.submit, index, b"shard")
        deliveries = []
        for _ in range(20):
            deliveries.append(await worker.take())
            await deliveries[-1].finish()
        assert sorted(delivery.index for delivery in deliveries) == list(range(20))
        with trio.move_on_after(0.2):
            pytest.fail(f"one more: {(await worker.take()).index}")


CREATE = api.StreamConfig(name="mine", subjects=["mine"])
OF_EVERYTHING = api.ConsumerConfig(name="mine", ack_policy=api.AckPolicy.EXPLICIT)

REFUSED: dict[str, Callable[[Client], Awaitable[object]]] = {
    "submit a shard": lambda client: client.jetstream().publish(
        f"scheduler.shard.{RUN}.0", b"shard", timeout=1
    ),
    "make a stream": lambda client: client.jetstream(timeout=1).add_stream(CREATE),
    "change a stream": lambda client: client.jetstream(timeout=1).update_stream(
        CREATE, name="scheduler-shards", subjects=["mine"]
    ),
    "delete the shards": lambda client: client.jetstream(timeout=1).delete_stream("scheduler-shards"),
    "purge the shards": lambda client: client.jetstream(timeout=1).purge_stream("scheduler-shards"),
    "purge the results": lambda client: client.jetstream(timeout=1).purge_stream("scheduler-results"),
    "delete the workers' consumer": lambda client: client.jetstream(timeout=1).delete_consumer(
        "scheduler-shards", "workers"
    ),
    "make a consumer of the results": lambda client: client.jetstream(timeout=1).add_consumer(
        "scheduler-results", OF_EVERYTHING
    ),
    "pull what a run gathers": lambda client: pull(client, "scheduler-results", f"run-{RUN}"),
    "read a stored result": lambda client: client.jetstream(timeout=1).get_msg("scheduler-results", 1),
    "list the streams": lambda client: client.jetstream(timeout=1).streams_info(),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_workers_credentials_are_not_good_to(
    service: JetStream, as_worker: NatsConnection, what: str
) -> None:
    async with service.open_gathering(RUN):
        with pytest.raises(FleetUnavailable, match=r"this user may not do that .* check SCHEDULER_FLEET_U"):
            await as_worker.use(REFUSED[what])


@pytest.mark.parametrize("subject", ["scheduler.result.>", "_INBOX.>", "_INBOX.scheduler-service.>", ">"])
async def test_a_worker_hears_nothing_that_is_for_others(
    service: JetStream, worker: JetStream, as_worker: NatsConnection, subject: str
) -> None:
    run_id = uuid4()

    async def listen(client: Client) -> None:
        subscription = await client.subscribe(subject)
        await client.flush()
        heard.set()
        await subscription.next_msg(timeout=None)
        raise AssertionError("a worker heard what was for others")

    heard = trio.Event()
    async with service.open_gathering(run_id) as gathering, trio.open_nursery() as nursery:
        nursery.start_soon(as_worker.use, listen)
        await heard.wait()
        await gathering.submit(0, b"shard")
        delivery = await worker.take()
        await delivery.report(b"result")
        await delivery.finish()
        assert await gathering.next_result() == (0, b"result")
        nursery.cancel_scope.cancel()


async def test_closing_waits_for_no_farewell_over_tls_from_servers_that_are_silent(
    secured: SecuredServers,
) -> None:
    """asyncio would wait for it for 30 s."""
    async with open_fleet(secured.as_user("scheduler-service")) as fleet:
        await fleet.check_ready()
        for server in secured.servers.servers:
            server.freeze()
        began = trio.current_time()
    took = trio.current_time() - began
    for server in secured.servers.servers:
        server.wake()
    assert took < 5


# --- What is said to people ---


async def test_a_wrong_password_is_said_to_people(secured: SecuredServers) -> None:
    async with open_fleet(secured.as_user("scheduler-service", password="wrong")) as fleet:
        with pytest.raises(FleetUnavailable, match="refused the login; check SCHEDULER_FLEET_USER and SCHED"):
            await fleet.check_ready()


async def test_a_certificate_of_somebody_else_is_said_to_people(
    secured: SecuredServers, tmp_path: object
) -> None:
    path = f"{tmp_path}/other.pem"
    trustme.CA().cert_pem.write_to_path(path)
    async with open_fleet(secured.as_user("scheduler-service", ca=path)) as fleet:
        with pytest.raises(FleetUnavailable, match="not to be trusted; check SCHEDULER_FLEET_CA"):
            await fleet.check_ready()


async def test_more_replicas_than_servers_are_said_to_people(secured: SecuredServers) -> None:
    async with open_fleet(secured.as_user("scheduler-service"), replicas=5) as fleet:
        with pytest.raises(FleetUnavailable, match="fewer servers than SCHEDULER_FLEET_REPLICAS"):
            await fleet.check_ready()


@pytest.mark.parametrize("ca", ["/nowhere.pem", __file__])
async def test_a_file_that_is_no_certificate_is_said_to_people(ca: str) -> None:
    with pytest.raises(ConfigurationError, match="SCHEDULER_FLEET_CA is no file with certificates"):
        async with open_fleet(Address(("tls://127.0.0.1:1",), ca=ca)):
            pass


async def test_credentials_are_sent_to_nobody_who_says_that_there_is_no_tls() -> None:
    """A server's first line may say so; it is not signed, so anybody on the way may have written it."""
    heard = b""

    async def stand_in_between(stream: trio.SocketStream) -> None:
        nonlocal heard
        await stream.send_all(b'INFO {"server_id": "x", "version": "2.15.1", "max_payload": 1048576}\r\n')
        with trio.move_on_after(1):
            async for data in stream:
                heard += data
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, stand_in_between, [listener])
        url = f"tls://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with open_fleet(Address((url,), "scheduler-service", "a-password")) as fleet:
            with pytest.raises(FleetUnavailable, match="handshake_first: true"):
                await fleet.check_ready()
        nursery.cancel_scope.cancel()
    assert heard
    assert b"a-password" not in heard
