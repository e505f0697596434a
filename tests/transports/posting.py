"""This file is what every test here posts, and the answer that is right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from engine.errors import InvocationFailed
from engine.trigger.transport import Answer, Transport, TransportConnection
from tests.transports.scripted_server import PATIENCE, Peer

MAX_BODY_BYTES = 20_000
OK = b"HTTP/1.1 200 OK\r\n"
RIGHT = OK + b"Content-Length: 5\r\n\r\nright"


async def answer_right(peer: Peer) -> None:
    """Serve for as long as the client likes."""
    while True:
        await peer.receive()
        await peer.send(RIGHT)


async def post(connection: TransportConnection, body: bytes = b'{"mentor_id": 1}') -> Answer:
    with trio.fail_after(PATIENCE):
        return await connection.post({"Idempotency-Key": "1:1"}, body, MAX_BODY_BYTES)


async def fail(connection: TransportConnection) -> InvocationFailed:
    with pytest.raises(InvocationFailed) as raised:
        await post(connection)
    return raised.value


async def assert_works(connection: TransportConnection) -> None:
    answer = await post(connection)
    assert (answer.status, answer.body) == (200, b"right")


@asynccontextmanager
async def connected(transport: Transport) -> AsyncIterator[TransportConnection]:
    async with transport.open_connection({"X-Run-Id": "1"}) as connection:
        yield connection
