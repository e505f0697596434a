"""This file is what the HTTP trigger engine asks of a transport: one POST, one answer, nothing clever.

A transport knows HTTP and nothing of mentors. It never follows a redirect, never decompresses, never reads
the environment, keeps no cookie, and bounds what a lying or endless answer can make it hold in memory. Three
of them pass one conformance suite: `direct`, `httpx`, `asks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

# Status line and header fields together. A trigger engine needs a few hundred bytes; 16 KiB is what common
# servers and proxies accept themselves, and far from what would hurt in ten answers at once.
MAX_HEADER_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `retry_after` is the raw field value, where there was exactly one."""

    status: int
    body: bytes
    retry_after: str | None = None


class TransportConnection(Protocol):
    """At most one live connection to one URL, opened when it is needed and kept alive between answers."""

    async def post(self, headers: Mapping[str, str], body: bytes, max_body_bytes: int) -> Answer:
        """Send one POST and read its whole answer, whatever its status; 1xx answers are skipped.

        `headers` go out beside those of the connection. A kept-alive connection that was closed, or that
        said something unasked, since its last answer is replaced before anything is sent. Where a connection
        was waited for, nothing is sent past the deadline (engine/last_look.py).

        Raises InvocationFailed with one of these error classes, after which a fresh connection is used:
        `connection_refused` (no connection: refused, no such host, TLS not established; retryable, but TLS
        not), `connection_reset` (cut before a byte of answer, retryable), `connection_cut` (cut in
        mid-answer), `malformed_answer` (not HTTP, a wrong length, a content encoding nobody asked for),
        `oversize_answer` (header or body over its limit).

        **Cancellation:** the connection is closed; the next call opens a fresh one.
        """
        ...

    async def drop(self) -> None:
        """Close the connection: the caller did not understand the last answer. The next call opens another.

        **Cancellation:** never waits for the network, so the connection is closed all the same.
        """
        ...


class Transport(Protocol):
    def open_connection(self, headers: Mapping[str, str]) -> AbstractAsyncContextManager[TransportConnection]:
        """Connect nothing yet; closing closes what was opened.

        `headers` are sent with every POST, so that a transport can encode them once. Names and values are
        printable ASCII: the caller has checked them.
        """
        ...
