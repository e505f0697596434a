"""This file is one connection to NATS: made when needed, made anew when it broke, closed within a bound.

It promises that only FleetUnavailable comes out, written for people, and that credentials are sent to nobody
but a server whose certificate was checked, or to this machine. It does not repeat what failed: whether that
makes sense, the caller knows.

nats-py could reconnect by itself. It is not left to: it waits for a server that went silent as long as the
kernel does, gives up for good where a login was refused once, and takes a server's word for it that TLS is
not needed.
"""

from __future__ import annotations

import asyncio
import math
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import nats.errors
import structlog
import trio
from nats.aio.client import Client

from engine.bridge import Loop, on_asyncio, open_asyncio
from engine.errors import ConfigurationError, FleetUnavailable
from engine.fleet.nats_faults import describe, describe_of_tls, is_of_the_server

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds for a connection to one server, TLS and login included. One that is up takes milliseconds; while the
# first of three is down, the others wait for so long.
CONNECT_TIMEOUT = 2.0

# Seconds within which a request is answered. While a stream has no leader nobody answers, for 4 to 7 s.
REQUEST_TIMEOUT = 2.0

# Seconds between two pings; the third without an answer means that the server went away without a word.
PING_INTERVAL = 1.0
MAX_OUTSTANDING_PINGS = 2

# Seconds that closing may take, which is a farewell over TLS: with a silent server it would be 30.
CLOSE_TIMEOUT = 0.5


@dataclass(frozen=True, slots=True)
class Address:
    """Where the servers are, and as whom to log in.

    `servers` are URLs, `tls://` or, to this machine alone, `nats://`; `ca` is a file with the certificates
    that theirs are to be signed by, the system's if it is None.
    """

    servers: tuple[str, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: str | None = None

    @property
    def inbox_prefix(self) -> str:
        """Answers come there. A user's own, so that one who may read its own answers may read no others."""
        return f"_INBOX.{self.user}" if self.user else "_INBOX"


class NatsConnection:
    """Used by any number of tasks at once; they share what is one connection at any moment, and its making.

    It is made in a task of its own: whoever waits for it may have less time than that takes, and the next one
    to wait would begin anew.
    """

    def __init__(
        self, loop: Loop, address: Address, tls: ssl.SSLContext | None, connecting: trio.Nursery
    ) -> None:
        self._loop = loop
        self._address = address
        self._tls = tls
        self._connecting = connecting
        self._attempt: _Attempt | None = None  # under way
        self._client: Client | None = None
        self._server: str | None = None  # that it is, or was, connected to
        self._failed_at: dict[str, float] = {}
        self._is_stale = False
        self._is_away = False
        self._refusal = ("", -math.inf)  # what the server last said that this user may not do, and when

    async def use(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Await `work` in asyncio, with a client that is connected. Raises FleetUnavailable.

        **Cancellation:** `work` is cancelled and has ended. A connection that was being made still is, for
        whoever is next.
        """
        client = await self._connected()
        began = trio.current_time()
        try:
            return await on_asyncio(self._loop, lambda: work(client))
        # A cancel of asyncio's is not trio's, which is trio.Cancelled here: the client was closed under us.
        except (nats.errors.Error, OSError, ValueError, asyncio.CancelledError) as error:
            if client is self._client and is_of_the_server(error):
                self._is_stale = True  # another server, if there is one, may be better off
            refusal, refused_at = self._refusal
            raise describe(error, refusal if refused_at >= began else None) from error

    async def close(self) -> None:
        """**Cancellation:** shielded; takes CLOSE_TIMEOUT at most."""
        with trio.CancelScope(shield=True):
            await self._give_up()

    async def _connected(self) -> Client:
        if self._attempt is None and (client := self._usable()) is not None:
            return client
        if self._attempt is None:
            self._attempt = _Attempt()
            self._connecting.start_soon(self._try_to_connect, self._attempt)
        attempt = self._attempt
        await attempt.ended.wait()
        if isinstance(attempt.outcome, Client):
            return attempt.outcome
        raise FleetUnavailable(str(attempt.outcome), attempt.outcome.retry_after)

    async def _try_to_connect(self, attempt: _Attempt) -> None:
        try:
            if self._server is not None:
                self._failed_at[self._server] = trio.current_time()
            await self._give_up()
            self._client = attempt.outcome = await on_asyncio(self._loop, self._connect)
        except FleetUnavailable as error:
            attempt.outcome = error
            if not self._is_away:
                log.warning("fleet_away", reason=str(error))
            self._is_away = True
        else:
            log.info("fleet_connected", server=_shown(self._client))
            self._is_away = self._is_stale = False
        finally:
            self._attempt = None
            attempt.ended.set()

    def _usable(self) -> Client | None:
        client = self._client
        return client if client is not None and client.is_connected and not self._is_stale else None

    async def _give_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await on_asyncio(self._loop, lambda: _discard(client))

    async def _connect(self) -> Client:
        """In asyncio: the first server that takes us, in any order, so that a fleet spreads over them.

        But for those that failed: the one that did last comes last.
        """
        fault = FleetUnavailable("", 0)
        servers = random.sample(self._address.servers, len(self._address.servers))
        for server in sorted(servers, key=lambda server: self._failed_at.get(server, -math.inf)):
            said: list[Exception] = []
            tls = self._tls if server.startswith("tls://") else None

            async def note(error: Exception, said: list[Exception] = said) -> None:
                said.append(error)
                if "permissions violation" in str(error):
                    self._refusal = str(error), trio.current_time()

            client = Client()
            try:
                await asyncio.wait_for(
                    client.connect(
                        server,
                        name="scenario-scheduler",
                        error_cb=note,
                        allow_reconnect=False,
                        max_reconnect_attempts=1,  # 0 is for ever
                        reconnect_time_wait=0,
                        connect_timeout=CONNECT_TIMEOUT,  # type: ignore[arg-type]
                        ping_interval=PING_INTERVAL,  # type: ignore[arg-type]
                        max_outstanding_pings=MAX_OUTSTANDING_PINGS,
                        user=self._address.user,
                        password=self._address.password,
                        inbox_prefix=self._address.inbox_prefix,
                        tls=tls,
                        # Else the server says whether there is to be TLS, and whoever stands in between can
                        # say that there is not.
                        tls_handshake_first=tls is not None,
                    ),
                    CONNECT_TIMEOUT,
                )
                self._server = server
                return client
            except (nats.errors.Error, OSError, ValueError) as error:
                self._failed_at[server] = trio.current_time()
                await _discard(client)
                # What it says of all its tries is that there were some.
                cause = said[-1] if said and isinstance(error, nats.errors.NoServersError) else error
                fault = describe(cause, None) if tls is None else describe_of_tls(cause)
            except BaseException:
                await _discard(client)
                raise
        raise fault


@dataclass(eq=False, slots=True)
class _Attempt:
    """At a connection. What came of it is there once it has ended."""

    ended: trio.Event = field(default_factory=trio.Event)
    outcome: Client | FleetUnavailable = field(
        default_factory=lambda: FleetUnavailable("NATS can't be used: this process is about to end.", 0)
    )


async def _discard(client: Client) -> None:
    """In asyncio: close it, and leave no task and no socket, also where nobody answers any more.

    nats-py's own way of closing flushes, and waits for a farewell, without a bound.
    """
    with suppress(nats.errors.Error, OSError, RuntimeError):
        await asyncio.wait_for(client.close(), CLOSE_TIMEOUT)
    writer = getattr(client._transport, "_io_writer", None)
    if writer is not None:
        writer.transport.abort()
    tasks = [client._reading_task, client._ping_interval_task, client._flusher_task]
    left = [task for task in tasks if task is not None]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CLOSE_TIMEOUT)


def _shown(client: Client) -> str:
    url = client.connected_url
    return "" if url is None else f"{url.hostname}:{url.port}"


def _make_tls(address: Address) -> ssl.SSLContext | None:
    """None where all servers are on this machine, and speak in the clear. Raises ConfigurationError."""
    if not any(server.startswith("tls://") for server in address.servers):
        return None
    try:
        return ssl.create_default_context(cafile=address.ca)
    except OSError:  # of which ssl.SSLError is one
        raise ConfigurationError(
            ["SCHEDULER_FLEET_CA is no file with certificates that can be read; give its path, in PEM."]
        ) from None


@asynccontextmanager
async def open_nats(address: Address) -> AsyncIterator[NatsConnection]:
    """Connects to nothing until it is used. Raises ConfigurationError.

    **Cancellation:** no task, no socket is left, within CLOSE_TIMEOUT.
    """
    tls = _make_tls(address)
    async with open_asyncio() as loop, trio.open_nursery() as connecting:
        connection = NatsConnection(loop, address, tls, connecting)
        try:
            yield connection
        finally:
            connecting.cancel_scope.cancel()
            await connection.close()
