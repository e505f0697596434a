"""This file is the transport over asks: a tiny adapter over its session and its request, for who wants asks.

asks is unmaintained and in no dependency list: see `_import_asks`. From it come the connection and the POST.
What answers it is read here, because asks takes a 1xx for the answer, has no bound, parses cookies, and can't
tell a reset from a cut.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from engine.errors import ConfigurationError, InvocationFailed
from engine.last_look import look_at_deadline
from engine.trigger.endpoint import parse_endpoint
from engine.trigger.transport import MAX_HEADER_BYTES, Answer

READ_BYTES = 16 * 1024

# What h11 suggests a server answer when a header outgrows its buffer.
_HEADER_TOO_LARGE = 431


class AsksTransport:
    """Implements Transport. `ssl_context` None: the system's authorities, the host name verified.

    Raises ConfigurationError where asks can't be imported.
    """

    def __init__(self, url: str, ssl_context: ssl.SSLContext | None = None) -> None:
        _import_asks()
        self._url = url
        self._ssl_context = ssl_context or ssl.create_default_context()

    @asynccontextmanager
    async def open_connection(self, headers: Mapping[str, str]) -> AsyncIterator[_Connection]:
        connection = _Connection(self._url, self._ssl_context, headers)
        try:
            yield connection
        finally:
            await connection.drop()


def _import_asks() -> None:
    try:
        import asks  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            [
                "The transport asks is chosen, and asks can't be imported. Install it with "
                "`pip install --no-deps asks==3.0.0 async_generator`, which leaves the other packages alone."
            ]
        ) from error


class _Connection:
    """Implements TransportConnection."""

    def __init__(self, url: str, ssl_context: ssl.SSLContext, headers: Mapping[str, str]) -> None:
        from asks import Session

        endpoint = parse_endpoint(url)
        self._url = url
        self._origin = f"{'https' if endpoint.tls else 'http'}://{endpoint.authority}"
        self._port = str(endpoint.port)
        self._headers = {
            "Host": endpoint.authority,
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",  # asks closes by default
            **headers,
        }
        self._session = Session(ssl_context=ssl_context)
        self._stream: Any = None
        self._socket: trio.socket.SocketType | None = None

    async def post(self, headers: Mapping[str, str], body: bytes, max_body_bytes: int) -> Answer:
        from asks.request_object import RequestProcessor

        if self._socket is not None and self._socket.is_readable():  # closed, or out of step
            await self.drop()
        reusable = False
        try:
            if self._stream is None:
                await self._connect()
                await look_at_deadline()
            exchange = _Exchange(self._stream, max_body_bytes)
            request = RequestProcessor(
                self._session,
                "POST",
                self._url,
                self._port,
                headers={**self._headers, **headers},
                data=body,
                encoding="utf-8",
                follow_redirects=False,
                sock=exchange,
            )
            request._recv_event = exchange.next_event
            await request.make_request()
            reusable = exchange.reusable
        finally:
            if not reusable:
                await self.drop()
        return exchange.answer()

    async def drop(self) -> None:
        from anyio import aclose_forcefully

        stream, self._stream, self._socket = self._stream, None, None
        if stream is not None:
            with trio.CancelScope(shield=True):  # closing forcefully waits for nothing
                await aclose_forcefully(stream)

    async def _connect(self) -> None:
        from anyio import BrokenResourceError, EndOfStream
        from anyio.abc import SocketAttribute

        try:
            # Its `post` would also retry, pool and wait for a semaphore; none of that is wanted.
            self._stream, _ = await self._session._connect(self._origin)
        except (ssl.SSLError, BrokenResourceError, EndOfStream, UnicodeError) as error:
            raise InvocationFailed("connection_refused") from error
        except OSError as error:
            raise InvocationFailed("connection_refused", retryable=True) from error
        raw_socket = self._stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's, not Django's
        self._socket = trio.socket.from_stdlib_socket(raw_socket)


class _Exchange:
    """One request and its answer. asks sends to it as to a socket, and asks it for h11's events."""

    _active = True  # asks looks at this attribute of its sockets

    def __init__(self, stream: Any, max_body_bytes: int) -> None:
        self.reusable = False
        self._stream = stream
        self._max_body_bytes = max_body_bytes
        self._received_bytes = 0
        self._sent = True
        self._response: Any = None
        self._body = bytearray()

    async def send(self, data: bytes) -> None:
        from anyio import BrokenResourceError

        try:
            await self._stream.send(data)
        except BrokenResourceError:
            self._sent = False  # the answer may be there all the same: 413, for example

    async def next_event(self, connection: Any) -> Any:
        """The answer's head, which asks sees without its fields, then its end. Raises InvocationFailed."""
        import h11

        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                if connection.trailing_data[1]:
                    raise self._cut() from error
                if error.error_status_hint == _HEADER_TOO_LARGE:
                    raise InvocationFailed("oversize_answer") from error
                raise InvocationFailed("malformed_answer") from error
            if event is h11.NEED_DATA:
                connection.receive_data(await self._receive())
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > self._max_body_bytes:
                    raise InvocationFailed("oversize_answer")
            elif isinstance(event, h11.Response):
                self._check_header(event)
                self._response = event
                return h11.Response(
                    status_code=event.status_code, headers=[], http_version=event.http_version
                )
            elif isinstance(event, h11.EndOfMessage):
                self.reusable = (
                    self._sent and connection.our_state is h11.DONE and not connection.trailing_data[0]
                )
                return event
            elif not isinstance(event, h11.InformationalResponse):
                raise self._cut()

    def answer(self) -> Answer:
        retry_afters = self._values(b"retry-after")
        return Answer(
            self._response.status_code,
            bytes(self._body),
            retry_afters[0].decode("latin-1") if len(retry_afters) == 1 else None,
        )

    async def _receive(self) -> bytes:
        from anyio import BrokenResourceError, EndOfStream

        try:
            data: bytes = await self._stream.receive(READ_BYTES)
        except EndOfStream:
            data = b""
        except BrokenResourceError as error:
            raise self._cut() from error
        self._received_bytes += len(data)
        return data

    def _check_header(self, response: Any) -> None:
        self._response = response
        if sum([len(name) + len(value) + 4 for name, value in response.headers]) > MAX_HEADER_BYTES:
            raise InvocationFailed("oversize_answer")
        is_encoded = any(value.lower() != b"identity" for value in self._values(b"content-encoding"))
        if is_encoded or not response.http_version.startswith(b"1."):
            raise InvocationFailed("malformed_answer")
        if any(int(value) > self._max_body_bytes for value in self._values(b"content-length")):
            raise InvocationFailed("oversize_answer")

    def _values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self._response.headers if key == name]

    def _cut(self) -> InvocationFailed:
        if self._received_bytes == 0:
            return InvocationFailed("connection_reset", retryable=True)
        return InvocationFailed("connection_cut")
