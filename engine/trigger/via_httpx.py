"""This file is the transport for where a proxy is needed: httpx, one kept-alive connection per dispatcher.

It stands on httpx's transport rather than its client, which adds what is not wanted here (redirects, cookies,
default headers, the environment) and takes a quarter longer for it. One pool of one connection per dispatcher
takes half as long as ten dispatchers at one pool of ten.

Two things it can't see, and `direct` can: bytes that came in the same read as an answer and follow it, which
the HTTP trigger engine recognises by the mentor they name; and whether a connection was cut before or within
the header, so that both count as `connection_reset`.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import h11
import httpcore
import httpx
import trio

from engine.errors import InvocationFailed
from engine.trigger.transport import MAX_HEADER_BYTES, Answer

# One connection, and no limit of age: the server's own is noticed before the next request is sent.
_LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)

# What h11 suggests a server answer when a header outgrows its buffer.
_HEADER_TOO_LARGE = 431


class HttpxTransport:
    """Implements Transport. `ssl_context` None: the system's authorities, the host name verified.

    `proxy` is the URL of an HTTP proxy; None means none, whatever the environment says.
    """

    def __init__(self, url: str, ssl_context: ssl.SSLContext | None = None, proxy: str | None = None) -> None:
        self._url = httpx.URL(url)
        self._ssl_context = ssl_context or ssl.create_default_context()
        self._proxy = proxy

    @asynccontextmanager
    async def open_connection(self, headers: Mapping[str, str]) -> AsyncIterator[_Connection]:
        connection = _Connection(self._url, self._ssl_context, self._proxy, headers)
        try:
            yield connection
        finally:
            await connection.drop()


class _Connection:
    """Implements TransportConnection."""

    def __init__(
        self, url: httpx.URL, ssl_context: ssl.SSLContext, proxy: str | None, headers: Mapping[str, str]
    ) -> None:
        self._url = url
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._headers = {"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity", **headers}
        self._pool: httpx.AsyncHTTPTransport | None = None
        self._tcp_stream: httpcore.AsyncNetworkStream | None = None

    async def post(self, headers: Mapping[str, str], body: bytes, max_body_bytes: int) -> Answer:
        if self._pool is None:
            self._pool = httpx.AsyncHTTPTransport(
                verify=self._ssl_context, trust_env=False, limits=_LIMITS, proxy=self._proxy
            )
        request = httpx.Request(
            "POST",
            self._url,
            headers={**self._headers, **headers, "Content-Length": str(len(body))},
            stream=_Body(body),
            extensions={"trace": self._trace},
        )
        is_whole = False
        try:
            answer = await _exchange(self._pool, request, max_body_bytes)
            is_whole = True
        finally:
            if not is_whole:
                await self.drop()
        return answer

    async def drop(self) -> None:
        pool, self._pool = self._pool, None
        tcp_stream, self._tcp_stream = self._tcp_stream, None
        # Closing says no TLS goodbye, so that it does not wait although it can't be cancelled.
        with trio.CancelScope(shield=True):
            if pool is not None:
                await pool.aclose()
            if tcp_stream is not None:
                await tcp_stream.aclose()

    async def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep what was opened last: httpcore loses it when it is cancelled in a TLS handshake."""
        if event == "connection.connect_tcp.complete":
            self._tcp_stream = info["return_value"]


class _Body(httpx.AsyncByteStream):
    """A body in one piece. httpx's own is a generator, which a cancel while sending leaves unfinished."""

    def __init__(self, body: bytes) -> None:
        self._parts = [body]

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


async def _exchange(pool: httpx.AsyncHTTPTransport, request: httpx.Request, max_body_bytes: int) -> Answer:
    try:
        response = await pool.handle_async_request(request)
    except httpx.TransportError as error:
        raise _failure_before_the_body(error) from error
    except UnicodeError as error:  # a host name that can't be one, such as a label of 64 characters
        raise InvocationFailed("connection_refused") from error
    body = bytearray()
    is_oversize = False
    try:
        _check_header(response, max_body_bytes)
        async for part in response.aiter_raw():
            if len(body) + len(part) <= max_body_bytes:
                body += part
            elif not is_oversize:
                # Leaving the loop would leave half a dozen generators unfinished. Closing ends them.
                is_oversize = True
                await response.aclose()
    except (httpx.TransportError, httpx.StreamError) as error:
        raise InvocationFailed("oversize_answer") if is_oversize else _failure_in_the_body(error) from error
    finally:
        with trio.CancelScope(shield=True):
            await response.aclose()
    if is_oversize:
        raise InvocationFailed("oversize_answer")
    retry_afters = response.headers.get_list("retry-after")
    return Answer(response.status_code, bytes(body), retry_afters[0] if len(retry_afters) == 1 else None)


def _check_header(response: httpx.Response, max_body_bytes: int) -> None:
    headers = response.headers
    if sum([len(name) + len(value) + 4 for name, value in headers.raw]) > MAX_HEADER_BYTES:
        raise InvocationFailed("oversize_answer")
    if (
        not response.http_version.startswith("HTTP/1.")
        or headers.get("content-encoding", "identity").lower() != "identity"
    ):
        raise InvocationFailed("malformed_answer")
    if int(headers.get("content-length", "0").partition(",")[0]) > max_body_bytes:
        raise InvocationFailed("oversize_answer")


def _failure_before_the_body(error: httpx.TransportError) -> InvocationFailed:
    match error:
        case httpx.ConnectError():
            return InvocationFailed("connection_refused", retryable=not _is_about_tls(error))
        case httpx.ProxyError():
            return InvocationFailed("connection_refused", retryable=True)
        case httpx.NetworkError():
            return InvocationFailed("connection_reset", retryable=True)
        case httpx.RemoteProtocolError() if "without sending a response" in str(error):
            return InvocationFailed("connection_reset", retryable=True)
    return InvocationFailed("oversize_answer" if _is_too_large(error) else "malformed_answer")


def _failure_in_the_body(error: Exception) -> InvocationFailed:
    if not isinstance(error, httpx.RemoteProtocolError) or "peer closed connection" in str(error):
        return InvocationFailed("connection_cut")
    return InvocationFailed("oversize_answer" if _is_too_large(error) else "malformed_answer")


def _is_about_tls(error: Exception) -> bool:
    """Whether there was a connection, on which TLS was refused, broken or not spoken."""
    return any(isinstance(cause, ssl.SSLError | trio.BrokenResourceError) for cause in _causes(error))


def _is_too_large(error: Exception) -> bool:
    """Whether a header or a trailer outgrew h11's buffer."""
    return any(
        isinstance(cause, h11.RemoteProtocolError) and cause.error_status_hint == _HEADER_TOO_LARGE
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
