"""Bytes that nobody chose, on the wire of a served application: it refuses or answers them, and lives on.

tests/end_to_end/test_wire.py sends what somebody thought of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.end_to_end.conftest import PATIENCE, SECRET, Service, open_services
from tests.hostile.counting import TRIED, tries

NOTHING_LISTENS = "postgresql://nobody@127.0.0.1:1/nowhere"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Without a database: what comes as far as a run is answered with 503."""
    folder: Path = tmp_path_factory.mktemp("service")
    with open_services(folder) as start:
        yield trio.run(lambda: start(DATABASE_URL=NOTHING_LISTENS))


line_ends = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"])
first_lines = st.sampled_from(
    [
        *(b"POST /run HTTP/1.1", b"GET /healthz HTTP/1.1"),
        *(b"GET /login HTTP/1.0", b"GET /", b"POST //run HTTP/1.1"),
        *(b"POST http://evil.example/run HTTP/1.1", b"OPTIONS * HTTP/1.1"),
        *(b"CONNECT x:80 HTTP/1.1", b"PRI * HTTP/2.0"),
        *(b"GET ? HTTP/1.1", b"GET http://[ HTTP/1.1", b"GET http://[x]/ HTTP/1.1", b"GET x HTTP/1.1"),
        *(b"TRACE /run HTTP/1.1", b"GET /runs?\xff HTTP/1.1"),
        *(b"GET /%ff%00 HTTP/1.1", b"GET  / HTTP/1.1", b"\x16\x03\x01"),
    ]
)
fields = st.one_of(
    st.sampled_from(
        [
            *(b"Host: " + 64 * b"x", b"Host: [", b"Host: x..y"),
            *(b"Host: x", b"Host: x", b"Host:", b"Host: \xff"),
            *(b"Host : x", b"Content-Length: 2", b"Content-Length: 0"),
            *(b"Content-Length: -1", b"Content-Length: 2, 2"),
            *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"),
            *(b"Connection: close", b"Connection: upgrade", b"Upgrade: h2c"),
            *(b"Upgrade: websocket", b"HTTP2-Settings: A"),
            *(b"Expect: 100-continue", b"X-Scheduler-Secret: " + SECRET.encode()),
            b"Content-Type: application/json",
            *(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: x"),
            *(b" folded", b":", b"X\x00: y", b"X: \x01"),
        ]
    ),
    st.binary(max_size=40),
)
bodies = st.sampled_from([b"", b"{}", b"2\r\n{}\r\n0\r\n\r\n", b"0\r\n\r\n", b"FFFFFFFFFFFFFFFFF\r\n"])
bodies |= st.sampled_from([b"-1\r\n", b"SM\r\n\r\n"]) | st.binary(max_size=40)


@st.composite
def connections(draw: st.DrawFn) -> bytes:
    end = draw(line_ends)
    head = draw(first_lines) + end + b"".join(field + end for field in draw(st.lists(fields, max_size=5)))
    return head + end + draw(bodies) + (LAST if draw(st.booleans()) else b"")


@tries(4)
@given(
    sent=st.lists(
        st.binary(max_size=80) | connections() | connections() | connections(), min_size=40, max_size=60
    )
)
async def test_whatever_comes_over_the_wire_is_refused_or_answered_and_the_service_lives_on(
    sent: list[bytes], service: Service
) -> None:
    async def send(data: bytes) -> None:
        for status, head in await exchange(service, data):
            assert status != 500, data
            assert SECRET.encode() not in head, data
            assert b"server:" not in head.lower(), data

    async with trio.open_nursery() as nursery:
        for data in sent:
            TRIED["connections"] += 1
            nursery.start_soon(send, data)
    assert (await service.get("/healthz")).status_code == 200
    for mark in ("Traceback", "request_failed", "connection_failed", "Error in", SECRET):
        assert mark not in service.log()


async def exchange(service: Service, data: bytes) -> list[tuple[int, bytes]]:
    """Send all of it, and read for as long as something comes: each answer's status and everything."""
    where: Any = urlsplit(service.url)
    answer = b""
    async with await trio.open_tcp_stream(where.hostname, where.port) as stream:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(data)
            await stream.send_eof()
        with trio.move_on_after(PATIENCE), suppress(trio.BrokenResourceError):
            async for part in stream:
                answer += part
                if is_whole(answer):
                    break
    return [(int(status), answer) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]


def is_whole(answer: bytes) -> bool:
    """The last answer has as much body as it says: what may still come would be to another request."""
    head, _, body = answer[answer.rfind(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return length is not None and len(body) >= int(length[1])
