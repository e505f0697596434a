"""This file is a server on a real socket that says exactly what a test's script says, byte by byte."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import trio

# Seconds after which a test that waits for ever is given up. Nothing is measured against it.
PATIENCE = 20.0


@dataclass(frozen=True)
class Request:
    """`fields` in lower case."""

    line: str
    fields: Mapping[str, str]
    body: bytes


class Peer:
    """The server's end of one connection."""

    def __init__(
        self, stream: trio.abc.Stream, tcp_stream: trio.SocketStream, server: ScriptedServer
    ) -> None:
        self._stream = stream
        self._tcp_stream = tcp_stream
        self._server = server
        self._received = b""

    async def receive_head(self) -> Request:
        """The request up to its body, of which nothing more is read than came along."""
        while b"\r\n\r\n" not in self._received:
            await self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        line, *fields = head.decode("ascii").split("\r\n")
        request = Request(
            line, {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}, b""
        )
        self._server.requests.append(request)
        return request

    async def receive(self) -> Request:
        """One whole request."""
        head = await self.receive_head()
        length = int(head.fields["content-length"])
        while len(self._received) < length:
            await self._receive()
        body, self._received = self._received[:length], self._received[length:]
        request = Request(head.line, head.fields, body)
        self._server.requests[-1] = request
        return request

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def wait_closed(self) -> None:
        """Return when the client has closed or reset the connection."""
        while await self._stream.receive_some():
            pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        linger_for_0_s = struct.pack("ii", 1, 0)
        self._tcp_stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_0_s)
        self._tcp_stream.socket.close()

    async def _receive(self) -> None:
        data = await self._stream.receive_some()
        if not data:
            raise trio.BrokenResourceError("the client has closed")
        self._received += data


Script = Callable[[Peer], Awaitable[None]]


class ScriptedServer:
    """The first connection is served by the first script, and so on; the last script serves all further ones.

    A connection is closed when its script ends.
    """

    def __init__(self, scripts: tuple[Script, ...], ssl_context: ssl.SSLContext | None) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.url = ""
        self._scripts = scripts
        self._ssl_context = ssl_context
        self._open = 0
        self._changed = trio.Condition()

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        self.url = f"{'https' if self._ssl_context else 'http'}://127.0.0.1:{port}/trigger-engine"
        task_status.started()
        await trio.serve_listeners(self._serve_one, listeners)

    async def wait_connections(self, connections: int, *, still_open: int = 0) -> None:
        """Return when so many connections were opened in all, and so many of them are open."""
        with trio.fail_after(PATIENCE):
            async with self._changed:
                while (self.connections, self._open) != (connections, still_open):
                    await self._changed.wait()

    async def _serve_one(self, tcp_stream: trio.SocketStream) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        await self._count(connections=1, still_open=1)
        try:
            async with tcp_stream:
                stream: trio.abc.Stream = tcp_stream
                if self._ssl_context is not None:
                    stream = trio.SSLStream(
                        tcp_stream, self._ssl_context, server_side=True, https_compatible=True
                    )
                await script(Peer(stream, tcp_stream, self))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has closed, or the script itself
        await self._count(still_open=-1)

    async def _count(self, *, connections: int = 0, still_open: int = 0) -> None:
        async with self._changed:
            self.connections += connections
            self._open += still_open
            self._changed.notify_all()
