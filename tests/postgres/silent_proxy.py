"""This file is a network that goes silent: a TCP proxy that stops forwarding and closes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio


class SilentProxy:
    """Forwards until it is told not to. Connections are accepted all the while."""

    def __init__(self, url: str, port: int) -> None:
        parts = urlsplit(url)
        self.url = parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
        self._port = parts.port or 5432
        self._silent = trio.Event()

    def go_silent(self) -> None:
        """What was in flight is lost, and nothing is forwarded any more in either direction."""
        self._silent.set()

    async def carry(self, caller: trio.SocketStream) -> None:
        async with caller:
            if self._silent.is_set():
                await trio.sleep_forever()
            async with (
                await trio.open_tcp_stream("127.0.0.1", self._port) as server,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._forward, caller, server, nursery.cancel_scope)
                nursery.start_soon(self._forward, server, caller, nursery.cancel_scope)

    async def _forward(
        self, source: trio.SocketStream, target: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        while not self._silent.is_set():
            try:
                data = await source.receive_some()
                if self._silent.is_set():
                    break
                if not data:
                    both.cancel()
                await target.send_all(data)
            except trio.BrokenResourceError:
                both.cancel()
                await trio.lowlevel.checkpoint()
        await trio.sleep_forever()


@asynccontextmanager
async def open_silent_proxy(url: str) -> AsyncIterator[SilentProxy]:
    """A proxy before the server of the URL; `.url` leads through it."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy = SilentProxy(url, listener.socket.getsockname()[1])
        nursery.start_soon(trio.serve_listeners, proxy.carry, [listener])
        try:
            yield proxy
        finally:
            nursery.cancel_scope.cancel()
