"""This file mends what Hypercorn (0.18) and Quart-Trio (0.12) do at the end of a request or its connection.

Each was found by doing it to the served application; tests/end_to_end/test_wire.py does it again.

- An answer's last part makes Hypercorn tell the application that the connection is done, and only then close
  it or start its idle time-out. Quart-Trio cancels the whole request when it is told so, the sending task
  included: connections stayed open for ever, also after `Connection: close`.
- A caller who had left was waited for until the idle time-out was over: coming and going two hundred times a
  second took every file descriptor.
- Closing and answering at the same moment, as for a caller who leaves in mid-body, are two tasks at one
  socket. The error left the connection and ended the whole server.
- A caller who reads nothing held up the sending task, shielded and without a bound, and so the end of the
  process.
- Nothing was called at the end of a request that is cut before its answer begins: a generator that was never
  begun runs no `finally`.
- HTTP/2 without TLS, and WebSocket, are spoken to whoever asks. Nothing here needs either, and one request
  over HTTP/2, by anyone, for a path that is not ASCII, ended the whole server.
- A request that gives its length twice, by Content-Length and in chunks, is read in chunks, and what follows
  it as the next one. A proxy that goes by the other length has let that next one through unseen.
- A target that is neither a path nor a URL, such as `?`, and a host that can be none, are errors of theirs
  outside of any guard: a 500 without a body, and a traceback in the log, for anyone who asks.
- Whatever goes wrong with one connection left it and ended the server. A stranger can provoke it, so it is
  logged with a traceback for the first of each class, and then at most a line each LOG_PAUSE, with a count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from typing import Any

import h11
import hypercorn.trio.run
import hypercorn.trio.tcp_server
import structlog
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent
from quart_trio.asgi import TrioASGIHTTPConnection

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# What may name a host, as IDNA takes it. Refused are also some that RFC 3986 allows and nobody names this
# service by: a zone (`[fe80::1%25eth0]`), an address of a version to come (`[v1.x]`), what is percent-encoded
# (`x%20y`), and characters such as `!` or `~`.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]{1,45}\]|(?:[\w-]{1,63}\.)*[\w-]{0,63})(?::[0-9]{0,5})?")

# RFC 9112, 3.2: a path, the URL that stands for one, whose host is held to the same, or `*`.
_TARGET = re.compile(
    rb"(?:(?P<origin>https?://" + _HOST.pattern + rb"(?=[/?]|$))|(?=/))(?P<path>.*)|\*", re.IGNORECASE
)

# Seconds that a caller may take nothing in, for each part of an answer that the application sends. Most are
# one part of a few hundred bytes, which the kernel takes at once; a larger one may fill its buffer.
STALLED_TIMEOUT = 5.0

# Seconds between two lines about connections that failed in the same way, as about refused credentials.
LOG_PAUSE = 10.0

_at_end: ContextVar[ExitStack] = ContextVar("at_end_of_request")


def at_end_of_request(callback: Callable[[], object]) -> None:
    """Have it called when the request at hand is over: answered, answered in part, or cut before that."""
    _at_end.get().callback(callback)


class HTTPConnection(TrioASGIHTTPConnection):
    """Quart-Trio's, with an end of each request, and no answer's last part cut by what it causes."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def send_whole(event: ASGISendEvent) -> None:
            is_last = event["type"] == "http.response.body" and not event["more_body"]
            with trio.CancelScope(shield=is_last):
                await send(event)

        with ExitStack() as at_end:
            _at_end.set(at_end)  # for the tasks that are begun below, and the routes in them
            await super().__call__(receive, send_whole)


class _Refused(Exception):
    """The request was answered, and the connection closed."""


class _Http1(H11Protocol):
    """Hypercorn's HTTP/1.1, which stays that: what asks for another protocol is answered in this one."""

    async def _check_protocol(self, event: h11.Request) -> None:
        if not event.http_version.startswith(b"1."):
            await self._refuse(505)
        fields = dict(event.headers)  # of Host there is one at most: h11 has seen to it
        if {b"content-length", b"transfer-encoding"} <= fields.keys():
            await self._refuse(400)  # RFC 9112, 6.1: may be rejected, and the connection must be closed
        if not (_TARGET.fullmatch(event.target) and _HOST.fullmatch(fields.get(b"host", b""))):
            await self._refuse(400)

    async def _refuse(self, status: int) -> None:
        await self._send_error_response(status)
        await self.send(Closed())
        raise _Refused

    async def _create_stream(self, request: h11.Request) -> None:
        fields = [(name, value) for name, value in request.headers if name != b"upgrade"]
        target = _TARGET.fullmatch(request.target)
        path = request.target
        if target is not None and target["origin"]:
            path = target["path"] if target["path"].startswith(b"/") else b"/" + target["path"]
        await super()._create_stream(
            h11.Request(
                method=request.method,
                target=path,
                headers=fields,
                http_version=request.http_version,
            )
        )


class _Http1Alone(ProtocolWrapper):
    """What a connection speaks: nothing but the above."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.protocol = _Http1(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.state,
            self.ssl,
            self.client,
            self.server,
            self.send,
        )

    async def handle(self, event: Event) -> None:
        with suppress(_Refused):
            await self.protocol.handle(event)


class _Failures:
    """Counts connections that failed, and logs them: the first of each class with where, then a number."""

    def __init__(self) -> None:
        self._unlogged: Counter[str] = Counter()
        self._next_line_at: dict[str, float] = {}

    def count(self, errors: BaseExceptionGroup) -> None:
        for error in _leaves(errors):
            name = type(error).__name__
            self._unlogged[name] += 1
            is_first = name not in self._next_line_at
            if not is_first and trio.current_time() < self._next_line_at[name]:
                continue
            log.error(
                "connection_failed",
                error=name,
                failed=self._unlogged[name],
                exc_info=error if is_first else None,
            )
            self._unlogged[name] = 0
            self._next_line_at[name] = trio.current_time() + LOG_PAUSE


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


_failures = _Failures()


class BoundedTCPServer(TCPServer):
    """Hypercorn's connection, whose sending ends: with the data sent, or with the connection.

    Whatever goes wrong with it ends it and no other: its task is one of the server's.
    """

    async def run(self) -> None:
        try:
            await super().run()
        except* Exception as errors:
            _failures.count(errors)

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()  # nothing more can come

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            with trio.move_on_after(STALLED_TIMEOUT, shield=True) as sending:
                try:
                    await self.stream.send_all(event.data)
                except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                    await self.protocol.handle(Closed())
            if sending.cancelled_caught:
                await trio.aclose_forcefully(self.stream)


def use_bounded_connections() -> None:
    """Have Hypercorn make its connections of the classes above; it offers no other way to say so."""
    hypercorn.trio.run.TCPServer = BoundedTCPServer  # type: ignore[attr-defined]
    hypercorn.trio.tcp_server.ProtocolWrapper = _Http1Alone  # type: ignore[assignment, attr-defined]
