"""This file is the default transport: a TCP stream, httptools, one kept-alive connection per dispatcher.

Promised: an answer is read to its exact end or not taken at all, and a connection that is in any doubt is
closed, never used again. Not known here: proxies, pools, redirects, compression, cookies, HTTP/2.

It exists because of its cost. Asking an engine that answers at once, ten invocations in flight on one
processor, takes six times as long over asks, ten times over httpx's transport, twelve over a client of httpx
per dispatcher, and twenty over one client with a pool of ten. Here it took 27 µs an invocation, http.py's
part included.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias

import httptools
import trio

from engine.errors import InvocationFailed
from engine.last_look import look_at_deadline
from engine.trigger.endpoint import Endpoint, parse_endpoint
from engine.trigger.tcp_stream import TcpStream
from engine.trigger.transport import MAX_HEADER_BYTES, Answer

# Bytes per read. An answer for one mentor is a few hundred; larger ones take a few reads more, while a
# larger buffer would be allocated and shrunk at every small answer.
READ_BYTES = 16 * 1024

# What a chunked answer may weigh on the wire for each byte of its body: a chunk of one byte takes six.
# Without this bound a chunk extension or a trailer could go on for as long as the invocation may last.
MAX_CHUNKING_OVERHEAD = 6

_Stream: TypeAlias = TcpStream | trio.SSLStream[trio.SocketStream]

_READ_FIELDS = frozenset({b"content-length", b"transfer-encoding", b"content-encoding", b"retry-after"})


class DirectTransport:
    """Implements Transport. `ssl_context` None: the system's authorities, the host name verified."""

    def __init__(self, url: str, ssl_context: ssl.SSLContext | None = None) -> None:
        self._endpoint = parse_endpoint(url)
        self._ssl_context: ssl.SSLContext | None = None
        if self._endpoint.tls:
            self._ssl_context = ssl_context or ssl.create_default_context()

    @asynccontextmanager
    async def open_connection(self, headers: Mapping[str, str]) -> AsyncIterator[_Connection]:
        connection = _Connection(self._endpoint, self._ssl_context, headers)
        try:
            yield connection
        finally:
            connection.close()


class _Connection:
    """Implements TransportConnection."""

    def __init__(
        self, endpoint: Endpoint, ssl_context: ssl.SSLContext | None, headers: Mapping[str, str]
    ) -> None:
        self._endpoint = endpoint
        self._ssl_context = ssl_context
        self._head = (
            f"POST {endpoint.target} HTTP/1.1\r\nHost: {endpoint.authority}\r\nAccept-Encoding: identity\r\n"
            + _encode(headers)
        )
        self._stream: _Stream | None = None
        self._socket: TcpStream | trio.socket.SocketType | None = None

    async def post(self, headers: Mapping[str, str], body: bytes, max_body_bytes: int) -> Answer:
        request = f"{self._head}{_encode(headers)}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body
        # Nothing can be due before a request is sent: what can be read here is a close, or bytes that would
        # be taken for the next answer. One system call, and a server's idle time-out costs no retry.
        if self._socket is not None and self._socket.is_readable():
            self.close()
        answer = _AnswerReader(max_body_bytes)
        reusable = False
        try:
            if (stream := self._stream) is None:
                stream = await self._connect()
                await look_at_deadline()
            reusable = await _exchange(stream, request, answer)
        finally:
            answer.parser = None  # breaks the cycle, so that no garbage collection is needed for every call
            if not reusable:
                self.close()
        return Answer(answer.status, b"".join(answer.body), answer.retry_after)

    async def drop(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket, if there is one, without a TLS goodbye: that would wait for the network."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._stream = None

    async def _connect(self) -> _Stream:
        """Open the connection. On any failure, and when cancelled, the caller closes what was opened."""
        endpoint = self._endpoint
        try:
            stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
        except OSError as error:
            raise InvocationFailed("connection_refused", retryable=True) from error
        except UnicodeError as error:  # a host name that can't be one, such as a label of 64 characters
            raise InvocationFailed("connection_refused") from error
        if self._ssl_context is None:
            connected = socket.socket(fileno=stream.socket.detach())
            connected.setblocking(False)
            self._socket = self._stream = tcp_stream = TcpStream(connected)
            return tcp_stream
        self._socket = stream.socket
        # HTTPS servers close without a TLS goodbye; a cut answer shows in its length instead.
        tls_stream = trio.SSLStream(
            stream, self._ssl_context, server_hostname=endpoint.host, https_compatible=True
        )
        try:
            await tls_stream.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            raise InvocationFailed("connection_refused") from error
        self._stream = tls_stream
        return tls_stream


def _encode(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


async def _exchange(stream: _Stream, request: bytes, answer: _AnswerReader) -> bool:
    """Send the request and read its answer to its end; True if the connection can carry another."""
    sent = True
    try:
        await stream.send_all(request)
    except trio.BrokenResourceError:
        # A server may answer, 413 for example, and close before it has read everything. What it said is
        # still there to be read.
        sent = False
    while not answer.is_complete:
        try:
            data = await stream.receive_some(READ_BYTES)
        except trio.BrokenResourceError as error:
            raise answer.cut() from error
        if data:
            answer.feed(data)
        else:
            answer.end()
    return sent and answer.keep_alive and not answer.has_excess


class _Refused(Exception):
    """Stops the parser from inside a callback."""


class _AnswerReader:
    """Reads one answer. A new one, and a new parser, per answer: nothing carries over by accident.

    httptools has no notion of the end of the stream, goes on to a second answer in the same read, and
    reports 1xx as whole answers: those three are what this class is about.
    """

    __slots__ = (
        "_body_bytes",
        "_content_length",
        "_failure",
        "_fed_bytes",
        "_has_transfer_encoding",
        "_header_bytes",
        "_in_body",
        "_max_body_bytes",
        "_max_fed_bytes",
        "_retry_afters",
        "body",
        "has_excess",
        "is_complete",
        "keep_alive",
        "parser",
        "status",
    )

    def __init__(self, max_body_bytes: int) -> None:
        self.parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.status = 0
        self.body: list[bytes] = []
        self.is_complete = False
        self.keep_alive = False
        self.has_excess = False
        self._max_body_bytes = max_body_bytes
        self._fed_bytes = 0
        self._max_fed_bytes = MAX_HEADER_BYTES  # as far as the header goes
        self._header_bytes = 0
        self._body_bytes = 0
        self._in_body = False  # also true in the trailer
        self._content_length: int | None = None
        self._has_transfer_encoding = False
        self._retry_afters: list[bytes] = []
        self._failure = "malformed_answer"

    @property
    def retry_after(self) -> str | None:
        return self._retry_afters[0].decode("latin-1").strip() if len(self._retry_afters) == 1 else None

    def feed(self, data: bytes | bytearray) -> None:
        """Take what was received. Raises InvocationFailed."""
        assert self.parser is not None  # noqa: S101 - for the type checker
        self._fed_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.is_complete:
                raise InvocationFailed(self._failure) from error
            self.has_excess = True  # the answer is whole; what follows it is nobody's
        if not self.is_complete and self._fed_bytes > self._max_fed_bytes:
            raise InvocationFailed("oversize_answer")

    def end(self) -> None:
        """Take the end of the stream: the end of a body that says no length, the cut of any other."""
        if not self._in_body or self._content_length is not None or self._has_transfer_encoding:
            raise self.cut()
        self.is_complete = True

    def cut(self) -> InvocationFailed:
        """What it means that the connection broke at this point."""
        if self._fed_bytes == 0:
            return InvocationFailed("connection_reset", retryable=True)
        return InvocationFailed("connection_cut")

    # What follows is called by httptools.

    def on_message_begin(self) -> None:
        if self.is_complete:
            self._refuse()  # a second answer: the parser must not read it into the first

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4  # ": " and the line's end
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse("oversize_answer")
        name = name.lower()
        if name not in _READ_FIELDS or self._in_body:
            return
        if name == b"content-length":
            self._content_length = int(value)  # digits only, and only once: the parser has seen to it
        elif name == b"transfer-encoding":
            self._has_transfer_encoding = True
            if value.strip().lower() != b"chunked":
                self._refuse()
        elif name == b"content-encoding":
            if value.strip().lower() != b"identity":
                self._refuse()
        else:
            self._retry_afters.append(value)

    def on_headers_complete(self) -> None:
        assert self.parser is not None  # noqa: S101 - for the type checker
        self.status = self.parser.get_status_code()
        if 100 <= self.status < 200:
            # Nobody asked for it; the answer proper follows. Its bytes still count towards the header's.
            # After a 101, which nobody offered, the parser raises HttpParserUpgrade.
            self._content_length = None
            self._has_transfer_encoding = False
            self._retry_afters.clear()
            return
        if self.status < 200 or not self.parser.get_http_version().startswith("1."):
            self._refuse()
        if self._content_length is not None:
            if self._has_transfer_encoding:
                self._refuse()
            if self._content_length > self._max_body_bytes:
                self._refuse("oversize_answer")
        self._in_body = True
        # The header, the body in the smallest chunks, and a trailer.
        self._max_fed_bytes = 2 * MAX_HEADER_BYTES + MAX_CHUNKING_OVERHEAD * self._max_body_bytes
        # Asked here because it is always False once the answer is complete.
        self.keep_alive = self.parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > self._max_body_bytes:
            self._refuse("oversize_answer")
        self.body.append(data)

    def on_message_complete(self) -> None:
        if self._in_body:
            self.is_complete = True

    def _refuse(self, failure: str = "malformed_answer") -> None:
        self._failure = failure
        raise _Refused
