"""What only the transport over httpx promises: a proxy."""

from __future__ import annotations

from engine.trigger.via_httpx import HttpxTransport
from tests.transports.conftest import Serve
from tests.transports.posting import answer_right, assert_works, connected


async def test_a_proxy_is_asked_instead(serve: Serve) -> None:
    proxy = await serve(answer_right)
    server = await serve(answer_right)
    async with connected(HttpxTransport(server.url, proxy=proxy.url)) as connection:
        await assert_works(connection)
        await assert_works(connection)
    assert [request.line for request in proxy.requests] == 2 * [f"POST {server.url} HTTP/1.1"]
    assert (proxy.connections, server.connections) == (1, 0)
    await proxy.wait_connections(1)
