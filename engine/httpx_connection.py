"""This file is one connection of httpx, for whatever speaks HTTP through it: one request, one whole answer.

It stands on httpx's transport rather than its client, which adds what is not wanted here (redirects, cookies,
default headers, the environment, a log line with the whole URL) and takes a quarter longer for it. One pool
of one connection per caller takes half as long as ten callers at one pool of ten.

Not known here: what an answer means. It can't see whether a connection was cut before or within the header,
so that both count as `connection_reset`.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h11
import httpcore
import httpx
import trio

from engine.last_look import look_at_deadline

# One connection, and no limit of age: the server's own is noticed before the next request is sent.
_LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)

# What h11 suggests a server answer when a header outgrows its buffer.
_HEADER_TOO_LARGE = 431


class ExchangeFailed(Exception):
    """There is no whole answer. `error_class` is a short fixed word; `retryable`: before a byte of answer."""

    def __init__(self, error_class: str, *, retryable: bool = False) -> None:
        super().__init__(error_class)
        self.error_class = error_class
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    status: int
    headers: httpx.Headers
    body: bytes

    def single_header(self, name: str) -> str | None:
        """The raw field value, where there is exactly one."""
        values = self.headers.get_list(name)
        return values[0] if len(values) == 1 else None


class HttpxConnection:
    """At most one live connection to one host, opened when it is needed and kept alive between answers.

    `max_header_bytes` of an answer, status line aside. `proxy` is the URL of an HTTP proxy; None means none,
    whatever the environment says.
    """

    def __init__(
        self, ssl_context: ssl.SSLContext, *, max_header_bytes: int, proxy: str | None = None
    ) -> None:
        self._ssl_context = ssl_context
        self._max_header_bytes = max_header_bytes
        self._proxy = proxy
        self._pool: httpx.AsyncHTTPTransport | None = None
        self._tcp_stream: httpcore.AsyncNetworkStream | None = None

    async def exchange(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], body: bytes, max_body_bytes: int
    ) -> WholeAnswer:
        """Send one request and read its whole answer, whatever its status. `headers` are all that is sent.

        Raises ExchangeFailed with one of these error classes, after which a fresh connection is used:
        `connection_refused`, `connection_reset`, `connection_cut`, `malformed_answer`, `oversize_answer`.

        **Cancellation:** the connection is closed; whether the request was acted on is not known.
        """
        if self._pool is None:
            self._pool = httpx.AsyncHTTPTransport(
                verify=self._ssl_context, trust_env=False, limits=_LIMITS, proxy=self._proxy
            )
        request = httpx.Request(
            method, url, headers=headers, stream=_Body(body), extensions={"trace": self._trace}
        )
        is_whole = False
        try:
            answer = await _exchange(self._pool, request, self._max_header_bytes, max_body_bytes)
            is_whole = True
        finally:
            if not is_whole:
                await self.drop()
        return answer

    async def drop(self) -> None:
        """Close what is open; the next exchange opens a fresh connection.

        **Cancellation:** closes all the same.
        """
        pool, self._pool = self._pool, None
        tcp_stream, self._tcp_stream = self._tcp_stream, None
        # Closing says no TLS goodbye, so that it does not wait although it can't be cancelled.
        with trio.CancelScope(shield=True):
            if pool is not None:
                await pool.aclose()
            if tcp_stream is not None:
                await tcp_stream.aclose()

    async def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep what was opened last: httpcore loses it when it is cancelled in a TLS handshake.

        Before a request leaves there were locks to wait for, or a connection: the last look is here.
        """
        if event == "connection.connect_tcp.complete":
            self._tcp_stream = info["return_value"]
        elif event == "http11.send_request_headers.started":
            await look_at_deadline()


class _Body(httpx.AsyncByteStream):
    """A body in one piece. httpx's own is a generator, which a cancel while sending leaves unfinished."""

    def __init__(self, body: bytes) -> None:
        self._parts = [body] if body else []

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


async def _exchange(
    pool: httpx.AsyncHTTPTransport, request: httpx.Request, max_header_bytes: int, max_body_bytes: int
) -> WholeAnswer:
    try:
        response = await pool.handle_async_request(request)
    except httpx.TransportError as error:
        raise _failure_before_the_body(error) from error
    except UnicodeError as error:  # a host name that can't be one, such as a label of 64 characters
        raise ExchangeFailed("connection_refused") from error
    body = bytearray()
    is_oversize = False
    try:
        _check_header(response, max_header_bytes, max_body_bytes)
        async for part in response.aiter_raw():
            if len(body) + len(part) <= max_body_bytes:
                body += part
            elif not is_oversize:
                # Leaving the loop would leave half a dozen generators unfinished. Closing ends them.
                is_oversize = True
                await response.aclose()
    except (httpx.TransportError, httpx.StreamError) as error:
        raise ExchangeFailed("oversize_answer") if is_oversize else _failure_in_the_body(error) from error
    finally:
        with trio.CancelScope(shield=True):
            await response.aclose()
    if is_oversize:
        raise ExchangeFailed("oversize_answer")
    return WholeAnswer(response.status_code, response.headers, bytes(body))


def _check_header(response: httpx.Response, max_header_bytes: int, max_body_bytes: int) -> None:
    headers = response.headers
    if sum([len(name) + len(value) + 4 for name, value in headers.raw]) > max_header_bytes:
        raise ExchangeFailed("oversize_answer")
    if (
        not response.http_version.startswith("HTTP/1.")
        or headers.get("content-encoding", "identity").lower() != "identity"
    ):
        raise ExchangeFailed("malformed_answer")
    if int(headers.get("content-length", "0").partition(",")[0]) > max_body_bytes:
        raise ExchangeFailed("oversize_answer")


def _failure_before_the_body(error: httpx.TransportError) -> ExchangeFailed:
    match error:
        case httpx.ConnectError():
            return ExchangeFailed("connection_refused", retryable=not _is_about_tls(error))
        case httpx.ProxyError():
            return ExchangeFailed("connection_refused", retryable=True)
        case httpx.NetworkError():
            return ExchangeFailed("connection_reset", retryable=True)
        case httpx.RemoteProtocolError() if "without sending a response" in str(error):
            return ExchangeFailed("connection_reset", retryable=True)
    return ExchangeFailed("oversize_answer" if _is_too_large(error) else "malformed_answer")


def _failure_in_the_body(error: Exception) -> ExchangeFailed:
    if not isinstance(error, httpx.RemoteProtocolError) or "peer closed connection" in str(error):
        return ExchangeFailed("connection_cut")
    return ExchangeFailed("oversize_answer" if _is_too_large(error) else "malformed_answer")


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
