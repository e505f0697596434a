"""The stream of the default transport: whole sends, nothing lost to a cancel, one error for what breaks."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engine.trigger.tcp_stream import TcpStream

MORE_THAN_SOCKETS_BUFFER = b"0123456789abcdef" * 1024 * 1024


@pytest.fixture
def pair() -> Iterator[tuple[TcpStream, socket.socket]]:
    """A stream, and the other end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield TcpStream(near), far


async def receive(far: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        await trio.lowlevel.wait_readable(far)
        received += far.recv(1 << 20)
    return bytes(received)


async def test_all_is_sent_though_the_buffers_of_the_kernel_hold_less(
    pair: tuple[TcpStream, socket.socket],
) -> None:
    stream, far = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, MORE_THAN_SOCKETS_BUFFER)
        assert await receive(far, len(MORE_THAN_SOCKETS_BUFFER)) == MORE_THAN_SOCKETS_BUFFER


async def test_nothing_is_sent_by_who_is_cancelled_already(pair: tuple[TcpStream, socket.socket]) -> None:
    stream, far = pair
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.send_all(b"x")
    assert scope.cancelled_caught
    with pytest.raises(BlockingIOError):
        far.recv(1)


async def test_a_send_that_waits_can_be_cancelled(pair: tuple[TcpStream, socket.socket]) -> None:
    stream, _ = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, MORE_THAN_SOCKETS_BUFFER)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_receive_that_is_cancelled_has_taken_nothing(pair: tuple[TcpStream, socket.socket]) -> None:
    stream, far = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some, 10)
        await wait_all_tasks_blocked()
        far.send(b"x")
        nursery.cancel_scope.cancel()
    assert await stream.receive_some(10) == b"x"


async def test_what_can_be_read_is_seen_and_not_taken(pair: tuple[TcpStream, socket.socket]) -> None:
    stream, far = pair
    assert not stream.is_readable()
    far.send(b"x")
    await trio.lowlevel.wait_readable(stream._socket)
    assert stream.is_readable()
    assert await stream.receive_some(10) == b"x"
    far.close()
    await trio.lowlevel.wait_readable(stream._socket)
    assert stream.is_readable()
    assert await stream.receive_some(10) == b""


async def test_a_reset_breaks_it(pair: tuple[TcpStream, socket.socket]) -> None:
    stream, far = pair
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    await trio.lowlevel.wait_readable(stream._socket)
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some(10)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
