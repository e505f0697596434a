"""This file is the transport for where a proxy is needed: httpx, one kept-alive connection per dispatcher.

What `direct` can see and it can't: bytes that came in the same read as an answer and follow it, which the
HTTP trigger engine recognises by the mentor they name.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from engine.errors import InvocationFailed
from engine.httpx_connection import ExchangeFailed, HttpxConnection
from engine.trigger.transport import MAX_HEADER_BYTES, Answer


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
        connection = HttpxConnection(self._ssl_context, max_header_bytes=MAX_HEADER_BYTES, proxy=self._proxy)
        try:
            yield _Connection(self._url, connection, headers)
        finally:
            await connection.drop()


class _Connection:
    """Implements TransportConnection."""

    def __init__(self, url: httpx.URL, connection: HttpxConnection, headers: Mapping[str, str]) -> None:
        self._url = url
        self._connection = connection
        self._headers = {"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity", **headers}

    async def post(self, headers: Mapping[str, str], body: bytes, max_body_bytes: int) -> Answer:
        headers = {**self._headers, **headers, "Content-Length": str(len(body))}
        try:
            answer = await self._connection.exchange("POST", self._url, headers, body, max_body_bytes)
        except ExchangeFailed as error:
            raise InvocationFailed(error.error_class, retryable=error.retryable) from error
        return Answer(answer.status, answer.body, answer.single_header("retry-after"))

    async def drop(self) -> None:
        await self._connection.drop()
