"""Real sockets on loopback, so no mock clock in this folder."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

import pytest
import trio
import trustme

from engine.trigger.direct import DirectTransport
from engine.trigger.transport import Transport
from engine.trigger.via_asks import AsksTransport
from engine.trigger.via_httpx import HttpxTransport
from tests.transports.scripted_server import Script, ScriptedServer

MakeTransport = Callable[..., Transport]
Serve = Callable[..., Awaitable[ScriptedServer]]


@pytest.fixture(params=["direct", "httpx", "asks"])
def transport_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "asks":
        try:
            import asks  # noqa: F401
        except ImportError:
            pytest.skip("asks is not installed: pip install --no-deps asks==3.0.0 async_generator")
    return name


@pytest.fixture
def make_transport(transport_name: str) -> MakeTransport:
    """Of a URL and an SSL context or None."""
    classes: dict[str, MakeTransport] = {
        "direct": DirectTransport,
        "httpx": HttpxTransport,
        "asks": AsksTransport,
    }
    return classes[transport_name]


@pytest.fixture
def serve(nursery: trio.Nursery) -> Serve:
    """Start a server of the given scripts; it ends with the test."""

    async def start(*scripts: Script, ssl_context: ssl.SSLContext | None = None) -> ScriptedServer:
        server = ScriptedServer(scripts, ssl_context)
        await nursery.start(server.serve)
        return server

    return start


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts the tests' authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def certify(authority: trustme.CA) -> Callable[[str], ssl.SSLContext]:
    """A server's context with a certificate for this name."""

    def make(name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(context)
        return context

    return make
