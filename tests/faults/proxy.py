"""This file is a bad network: a TCP proxy whose faults are switched on and off, also in mid-connection.

Each direction has at most one fault at a time. Where it begins is counted in bytes of that direction of each
connection, open ones included, rather than in seconds: so it is the same on every machine.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

import trio

from tests.faults.injected import count

READ_BYTES = 16 * 1024

# Seconds between two bits of a throttled stream.
THROTTLE_PERIOD = 0.02

_LINGER_FOR_0_S = struct.pack("ii", 1, 0)  # closes with RST instead of FIN


class Kind(StrEnum):
    DELAY = "delayed"
    THROTTLE = "throttled"
    SILENCE = "silent"
    CORRUPTION = "corrupted"
    HALF_CLOSE = "half-closed"
    CUT = "cut"
    RESET = "reset"


class Direction(StrEnum):
    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


@dataclass(frozen=True)
class Fault:
    """What is done to one direction of every connection once `after` bytes of it have passed.

    DELAY keeps whatever arrives for `seconds`; THROTTLE lets `rate` bytes a second pass. SILENCE keeps
    everything, the end of the stream too, until the network is mended, and then delivers it late, as TCP
    does. CORRUPTION inverts every bit. HALF_CLOSE ends this direction and leaves the other one. CUT closes
    both ends, RESET breaks them.
    """

    kind: Kind
    direction: Direction
    after: int = 0
    seconds: float = 0.1
    rate: int = 2_000


class FaultProxy:
    """Forwards to `server_port`, which may be changed: later connections go there."""

    def __init__(self, server_port: int, port: int) -> None:
        self.server_port = server_port
        self.port = port
        self.connections = 0
        self._faults: dict[Direction, Fault] = {}
        self._changed = trio.Event()
        self._open: set[_Connection] = set()

    def through(self, url: str) -> str:
        """The same URL, through this proxy."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}").geturl()

    def inject(self, *faults: Fault) -> None:
        """From this moment these faults, instead of those before."""
        self._faults = {fault.direction: fault for fault in faults}
        self._changed.set()
        self._changed = trio.Event()
        for connection in tuple(self._open):
            connection.look()

    def go_silent(self) -> None:
        """Nothing is forwarded any more in either direction, and nothing is closed."""
        self.inject(*(Fault(Kind.SILENCE, direction) for direction in Direction))

    def mend(self) -> None:
        """No fault any more. What was broken stays so; what was kept is delivered."""
        self.inject()

    def fault(self, direction: Direction, passed: int) -> Fault | None:
        """The one that bytes behind so many meet."""
        fault = self._faults.get(direction)
        return fault if fault is not None and passed >= fault.after else None

    def bytes_before_fault(self, direction: Direction, passed: int) -> int | None:
        """How many more bytes pass unharmed; None for any number."""
        fault = self._faults.get(direction)
        return None if fault is None else fault.after - passed

    async def until_changed(self, seconds: float = float("inf")) -> None:
        """Wait until other faults are injected, or so many seconds."""
        with trio.move_on_after(seconds):
            await self._changed.wait()

    async def carry(self, client: trio.SocketStream) -> None:
        """Forward one connection until both directions have ended."""
        self.connections += 1
        connection = _Connection(self, client)
        self._open.add(connection)
        try:
            await connection.carry()
        finally:
            self._open.remove(connection)


class _Way:
    """One direction of a connection."""

    def __init__(self, direction: Direction, source: trio.SocketStream, target: trio.SocketStream) -> None:
        self.direction = direction
        self.source = source
        self.target = target
        self.passed = 0
        self.is_half_closed = False
        self.suffered: Fault | None = None

    def suffer(self, fault: Fault) -> None:
        """Counted once, however much of the stream it is done to."""
        if self.suffered is not fault:
            self.suffered = fault
            count(f"connection {fault.kind}")

    def half_close(self) -> None:
        if not self.is_half_closed:
            self.is_half_closed = True
            with suppress(OSError):  # it has ended already
                self.target.socket.shutdown(socket.SHUT_WR)


class _Connection:
    def __init__(self, proxy: FaultProxy, client: trio.SocketStream) -> None:
        self._proxy = proxy
        self._client = client
        self._ways: list[_Way] = []
        self._streams = [client]
        self._scope = trio.CancelScope()

    async def carry(self) -> None:
        try:
            with self._scope:
                try:
                    await self._carry()
                except* (OSError, trio.BrokenResourceError):
                    self._break()  # one end broke, or nobody listens: so does the other
        finally:
            for stream in self._streams:
                stream.socket.close()  # all of them, also when cancelled

    async def _carry(self) -> None:
        proxy = self._proxy
        while self._is_silenced():
            await proxy.until_changed()
        server = await trio.open_tcp_stream("127.0.0.1", proxy.server_port)
        self._streams.append(server)
        self._ways = [
            _Way(Direction.TO_SERVER, self._client, server),
            _Way(Direction.TO_CLIENT, server, self._client),
        ]
        self.look()
        async with trio.open_nursery() as nursery:
            for way in self._ways:
                nursery.start_soon(self._forward, way)

    def _is_silenced(self) -> bool:
        fault = self._proxy.fault(Direction.TO_SERVER, 0)
        return fault is not None and fault.kind is Kind.SILENCE

    def look(self) -> None:
        """Do what has to be done at once."""
        for way in self._ways:
            fault = self._proxy.fault(way.direction, way.passed)
            if fault is None or self._scope.cancel_called:
                continue
            if fault.kind is Kind.HALF_CLOSE:
                way.suffer(fault)
                way.half_close()
            elif fault.kind in (Kind.CUT, Kind.RESET):
                way.suffer(fault)
                if fault.kind is Kind.RESET:
                    self._break()
                self._scope.cancel()

    def _break(self) -> None:
        for stream in self._streams:
            with suppress(OSError):  # it is gone already
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_FOR_0_S)

    async def _forward(self, way: _Way) -> None:
        proxy = self._proxy
        while data := await way.source.receive_some(READ_BYTES):
            left = bytes(data)
            while left and not way.is_half_closed:
                unharmed = proxy.bytes_before_fault(way.direction, way.passed)
                if unharmed is None or unharmed > 0:
                    part, changed = left[:unharmed], False
                else:
                    part, changed = await self._harm(way, left)
                if not part:
                    continue  # the faults have changed
                await way.target.send_all(_inverted(part) if changed else part)
                way.passed += len(part)
                left = left[len(part) :]
                self.look()
        while (fault := proxy.fault(way.direction, way.passed)) and fault.kind is Kind.SILENCE:
            way.suffer(fault)
            await proxy.until_changed()
        way.half_close()

    async def _harm(self, way: _Way, data: bytes) -> tuple[bytes, bool]:
        """How much of it may pass by now, none if the faults have changed, and whether inverted."""
        fault = self._proxy.fault(way.direction, way.passed)
        assert fault is not None
        way.suffer(fault)
        match fault.kind:
            case Kind.DELAY:
                await self._proxy.until_changed(fault.seconds)
                return data, False
            case Kind.THROTTLE:
                await self._proxy.until_changed(THROTTLE_PERIOD)
                return data[: max(1, int(fault.rate * THROTTLE_PERIOD))], False
            case Kind.SILENCE:
                await self._proxy.until_changed()
                return b"", False
            case Kind.CORRUPTION:
                return data, True
            case _:  # looked at before, and done
                await trio.sleep_forever()
                raise AssertionError


def _inverted(data: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in data)


@asynccontextmanager
async def open_fault_proxy(url: str) -> AsyncIterator[FaultProxy]:
    """A proxy before the server of the URL; `.through(url)` leads through it."""
    server_port = urlsplit(url).port
    assert server_port is not None
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy = FaultProxy(server_port, listener.socket.getsockname()[1])
        nursery.start_soon(trio.serve_listeners, proxy.carry, [listener])
        try:
            yield proxy
        finally:
            nursery.cancel_scope.cancel()
