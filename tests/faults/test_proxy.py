"""The bad network itself: what each fault does to the two who talk through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
import trio

from tests.faults.injected import INJECTED
from tests.faults.proxy import Direction, Fault, FaultProxy, Kind, open_fault_proxy

PATIENCE = 10.0

# Seconds in which data that is not kept back would have come over loopback a thousand times.
A_WHILE = 0.1

FOREVER = float("inf")


class Server:
    """Whoever listens behind the proxy."""

    def __init__(self) -> None:
        self.send_channel, self.receive_channel = trio.open_memory_channel[trio.SocketStream](10)
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            self.send_channel.send_nowait(stream)
            await trio.sleep_forever()


Ends = tuple[trio.SocketStream, trio.SocketStream]


@pytest.fixture(autouse=True)
def _not_in_the_figures() -> Iterator[None]:
    """These are done to nobody but these tests."""
    before = INJECTED.copy()
    yield
    INJECTED.clear()
    INJECTED.update(before)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        server.url = f"tcp://127.0.0.1:{listener.socket.getsockname()[1]}"
        yield server
        nursery.cancel_scope.cancel()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[FaultProxy]:
    async with open_fault_proxy(server.url) as proxy:
        with trio.fail_after(PATIENCE):
            yield proxy


@pytest.fixture
async def ends(server: Server, proxy: FaultProxy) -> AsyncIterator[Ends]:
    """The client's end of a connection and the server's."""
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as client:
        yield client, await server.receive_channel.receive()


async def receive(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await stream.receive_some()
        assert part, f"ended after {data!r}"
        data += part
    return data


async def nothing_comes(stream: trio.SocketStream) -> bool:
    with trio.move_on_after(A_WHILE):
        await stream.receive_some()
        return False
    return True


@pytest.mark.parametrize("kind", [Kind.DELAY, Kind.SILENCE])
async def test_what_is_kept_back_in_one_direction_comes_whole_once_the_network_is_mended(
    kind: Kind, proxy: FaultProxy, ends: Ends
) -> None:
    client, server = ends
    proxy.inject(Fault(kind, Direction.TO_CLIENT, after=3, seconds=FOREVER))
    await server.send_all(b"abcdef")
    await client.send_all(b"xyz")
    assert await receive(client, 3) == b"abc"
    assert await receive(server, 3) == b"xyz"
    assert await nothing_comes(client)
    await server.send_all(b"ghi")
    proxy.mend()
    assert await receive(client, 6) == b"defghi"


async def test_a_silent_network_tells_nobody_of_an_end_until_it_is_mended(
    proxy: FaultProxy, ends: Ends
) -> None:
    client, server = ends
    proxy.go_silent()
    await client.send_eof()
    assert await nothing_comes(server)
    proxy.mend()
    assert await server.receive_some() == b""


async def test_a_silent_network_accepts_and_connects_to_nobody(proxy: FaultProxy, server: Server) -> None:
    proxy.go_silent()
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as client:
        await client.send_all(b"abc")
        assert await nothing_comes(client)
        with pytest.raises(trio.WouldBlock):
            server.receive_channel.receive_nowait()
        proxy.mend()
        assert await receive(await server.receive_channel.receive(), 3) == b"abc"


async def test_a_throttled_stream_comes_in_bits(proxy: FaultProxy, ends: Ends) -> None:
    client, server = ends
    proxy.inject(Fault(Kind.THROTTLE, Direction.TO_SERVER, rate=1))
    await client.send_all(b"abc")
    assert [await server.receive_some() for _ in range(3)] == [b"a", b"b", b"c"]


async def test_corruption_begins_at_its_byte_in_every_connection(
    proxy: FaultProxy, ends: Ends, server: Server
) -> None:
    client, first = ends
    proxy.inject(Fault(Kind.CORRUPTION, Direction.TO_SERVER, after=2))
    await client.send_all(b"abc")
    assert await receive(first, 3) == b"ab\x9c"
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as another:
        await another.send_all(b"abc")
        assert await receive(await server.receive_channel.receive(), 3) == b"ab\x9c"


async def test_a_half_closed_connection_goes_on_in_its_other_direction(proxy: FaultProxy, ends: Ends) -> None:
    client, server = ends
    proxy.inject(Fault(Kind.HALF_CLOSE, Direction.TO_CLIENT))
    assert await client.receive_some() == b""
    await server.send_all(b"lost")
    await client.send_all(b"abc")
    assert await receive(server, 3) == b"abc"


@pytest.mark.parametrize("direction", Direction)
async def test_a_cut_is_an_orderly_end_for_both_and_a_reset_is_none(
    direction: Direction, proxy: FaultProxy, ends: Ends, server: Server
) -> None:
    client, first = ends
    proxy.inject(Fault(Kind.CUT, direction))  # also where nothing is sent at that moment
    assert await client.receive_some() == b""
    assert await first.receive_some() == b""
    proxy.mend()
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as another:
        second = await server.receive_channel.receive()
        proxy.inject(Fault(Kind.RESET, direction, after=3))
        source, target = (another, second) if direction is Direction.TO_SERVER else (second, another)
        await source.send_all(b"abcdef")
        with pytest.raises(trio.BrokenResourceError):
            await source.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await receive(target, 6)


async def test_a_fault_is_counted_once_for_each_connection_it_was_done_to(
    proxy: FaultProxy, ends: Ends, server: Server
) -> None:
    before = INJECTED["connection corrupted"]
    client, first = ends
    proxy.inject(Fault(Kind.CORRUPTION, Direction.TO_SERVER, after=2))
    await client.send_all(b"ab")
    await receive(first, 2)
    assert INJECTED["connection corrupted"] == before
    for _ in range(3):
        await client.send_all(b"c")
        await receive(first, 1)
    assert INJECTED["connection corrupted"] == before + 1


async def test_nobody_who_listens_breaks_the_connection(proxy: FaultProxy) -> None:
    proxy.server_port = 1
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as client:
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
