"""What a stranger can put on the wire of the served application, byte for byte."""

from __future__ import annotations

import json
import resource
import signal
import socket
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import h2.config
import h2.connection
import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from structlog.testing import capture_logs

import web.connection
from tests.end_to_end.conftest import PATIENCE, SECRET, Service, StartService
from web.connection import BoundedTCPServer

NOTHING_LISTENS = "postgresql://nobody@127.0.0.1:1/nowhere"

AUTHORIZED = f"X-Scheduler-Secret: {SECRET}\r\n"
JSON = f"{AUTHORIZED}Content-Type: application/json\r\n"


@pytest.fixture
async def service(start_service: StartService) -> Service:
    """Without a database: nothing here should come that far, and 503 tells what did."""
    return await start_service(DATABASE_URL=NOTHING_LISTENS)


async def send(service: Service, *parts: bytes, method: str = "POST", head: str) -> tuple[int, str, bytes]:
    """Send a request, and read until the server closes. Status, header block and body of the answer."""
    where = urlsplit(service.url)
    request = f"{method} /run HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode("latin-1")
    answer = b""
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream(where.hostname, where.port) as stream:
            for part in (request, *parts):
                try:
                    await stream.send_all(part)
                except trio.BrokenResourceError:
                    break  # it has answered, and reads no further
            try:
                async for data in stream:
                    answer += data
            except trio.BrokenResourceError:
                pass  # it closed with some of ours unread; what it answered came before
    head_of_answer, _, body = answer.partition(b"\r\n\r\n")
    return int(answer.split()[1]), head_of_answer.decode("latin-1").lower(), body


async def error_code(service: Service, *parts: bytes, method: str = "POST", head: str) -> tuple[int, str]:
    status, head_of_answer, body = await send(service, *parts, method=method, head=head)
    assert "content-type: application/json" in head_of_answer
    assert "server:" not in head_of_answer
    return status, json.loads(body)["error"]


async def test_bad_requests_are_refused_in_the_documented_order(service: Service) -> None:
    big = b" " * (16 * 1024 + 1)
    assert await error_code(service, method="GET", head="") == (405, "method_not_allowed")
    assert await error_code(service, method="OPTIONS", head=JSON) == (405, "method_not_allowed")
    assert await error_code(service, head="Content-Length: 0\r\n") == (401, "unauthorized")
    assert await error_code(service, head=f"{AUTHORIZED}{AUTHORIZED}") == (401, "unauthorized")
    assert await error_code(service, big, head=f"Content-Length: {len(big)}\r\n") == (401, "unauthorized")
    assert await error_code(service, big, head=f"{AUTHORIZED}Content-Length: {len(big)}\r\n") == (
        413,
        "body_too_large",
    )
    assert await error_code(service, b"{", head=f"{AUTHORIZED}Content-Length: 1\r\n") == (
        415,
        "unsupported_media_type",
    )
    assert await error_code(service, b"{", head=f"{JSON}Content-Length: 1\r\n") == (400, "malformed_json")
    assert await error_code(service, b"[]", head=f"{JSON}Content-Length: 2\r\n") == (422, "invalid_body")
    assert await error_code(service, b"{}", head=f"{JSON}Content-Length: 2\r\n") == (
        503,
        "database_unavailable",
    )
    assert await error_code(service, head=f"{AUTHORIZED}Content-Length: 0\r\n") == (
        503,
        "database_unavailable",
    )


async def test_a_chunked_body_is_bounded_as_well(service: Service) -> None:
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    chunks = [chunk] * 17 + [b"0\r\n\r\n"]
    assert await error_code(service, *chunks, head=f"{JSON}Transfer-Encoding: chunked\r\n") == (
        413,
        "body_too_large",
    )


async def test_a_secret_is_checked_before_a_body_that_never_comes(service: Service) -> None:
    status, code = await error_code(service, head="Content-Length: 10\r\n")
    assert (status, code) == (401, "unauthorized")


async def test_a_body_that_never_comes_is_given_up(service: Service) -> None:
    assert await error_code(service, b"{", head=f"{JSON}Content-Length: 10\r\n") == (408, "body_timeout")


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: nonsense\r\n",
        "Content-Length: -1\r\n",
        f"{AUTHORIZED}Content-Length: 2\r\nContent-Length: 3\r\n",
        "X" * 70_000,
        "No colon\r\n",
    ],
    ids=["length of words", "negative length", "two lengths", "endless header", "no header"],
)
async def test_what_is_not_http_is_refused_and_the_service_lives_on(head: str, service: Service) -> None:
    status, _, body = await send(service, head=head)
    assert 400 <= status < 500
    assert b"Traceback" not in body
    assert (await service.get("/healthz")).status_code == 200
    assert "Traceback" not in service.log()


async def test_a_caller_who_leaves_in_mid_request_leaves_no_trace(service: Service) -> None:
    where = urlsplit(service.url)
    for part in (
        b"",
        b"POST /run HT",
        f"POST /run HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: 9\r\n\r\n{{".encode(),
    ):
        async with await trio.open_tcp_stream(where.hostname, where.port) as stream:
            await stream.send_all(part)
    assert (await service.get("/healthz")).status_code == 200
    assert "Traceback" not in service.log()


async def test_a_connection_left_idle_is_closed(service: Service) -> None:
    where = urlsplit(service.url)
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream(where.hostname, where.port) as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b"".join([data async for data in stream])
    assert answer.startswith(b"HTTP/1.1 200")


async def test_callers_who_come_and_go_take_no_file_descriptor_for_longer_than_they_stay(
    service: Service,
) -> None:
    assert (await service.get("/healthz")).status_code == 200
    few = service.open_files() + 30
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (few, few))
    where = urlsplit(service.url)
    for _ in range(300):
        async with await trio.open_tcp_stream(where.hostname, where.port) as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            await stream.receive_some()
    assert (await service.get("/healthz")).status_code == 200
    assert "Too many open files" not in service.log()


@pytest.mark.parametrize("path", ["/run", "/nowhere", "/healthz"])
async def test_callers_who_leave_in_mid_body_do_not_end_the_service(path: str, service: Service) -> None:
    where = urlsplit(service.url)
    request = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".encode()
    for _ in range(200):
        stream = await trio.open_tcp_stream(where.hostname, where.port)
        with suppress(trio.BrokenResourceError):
            await stream.send_all(request + b"x" * 50_000)
        await trio.aclose_forcefully(stream)
    assert (await service.get("/healthz")).status_code == 200
    assert "Traceback" not in service.log()


async def test_a_caller_who_reads_nothing_does_not_keep_the_service_from_ending(service: Service) -> None:
    where = urlsplit(service.url)
    stream = await trio.open_tcp_stream(where.hostname, where.port)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with trio.move_on_after(2):  # until nothing more is taken
        while True:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    service.send(signal.SIGTERM)
    await service.wait_until_logged("draining")
    service.send(signal.SIGTERM)
    assert await service.exit_code() == -signal.SIGALRM
    await trio.aclose_forcefully(stream)


# --- Other protocols ---


async def send_raw(service: Service, data: bytes) -> bytes:
    """Send it, and read until the server closes."""
    where = urlsplit(service.url)
    answer = b""
    with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):
        async with await trio.open_tcp_stream(where.hostname, where.port) as stream:
            await stream.send_all(data)
            async for part in stream:
                answer += part
    return answer


def over_http_2(path: bytes) -> bytes:
    """A whole request, as it is sent by who knows that the server speaks HTTP/2."""
    config = h2.config.H2Configuration(
        header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    fields = [(b":method", b"GET"), (b":path", path), (b":scheme", b"http"), (b":authority", b"x")]
    connection.send_headers(1, fields, end_stream=True)
    return connection.data_to_send()


async def test_a_path_over_http_2_that_is_not_ascii_does_not_end_the_service(service: Service) -> None:
    for path in (b"/\xff", b"/healthz?\x80", b"", b"/healthz"):
        # 505, unless who sends on has it taken back: nobody has read the rest of what was sent.
        assert (await send_raw(service, over_http_2(path))).split()[1:2] in ([b"505"], [])
    assert (await service.get("/healthz")).status_code == 200
    assert "Traceback" not in service.log()


@pytest.mark.parametrize(
    "fields",
    [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: !",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x",
    ],
    ids=["HTTP/2", "HTTP/2 with broken settings", "WebSocket"],
)
async def test_an_upgrade_to_another_protocol_is_not_taken(fields: str, service: Service) -> None:
    request = f"GET /healthz HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n"
    after_it = "GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await send_raw(service, (request + after_it).encode())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 404 " in answer
    assert b"upgrade" not in answer.lower()


@pytest.mark.parametrize(
    "fields",
    ["Content-Length: 5\r\nTransfer-Encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 5"],
)
async def test_a_request_that_gives_its_length_twice_is_refused_and_nothing_behind_it_is_heard(
    fields: str, service: Service
) -> None:
    """Whoever stands before the service and goes by the other length would not have seen it as a request."""
    request = f"POST /run HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}{fields}\r\n\r\n0\r\n\r\n"
    smuggled = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await send_raw(service, (request + smuggled).encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


async def get_raw(service: Service, target: str = "/healthz", host: str = "x") -> int:
    """The status that a GET of exactly this target at exactly this host is answered with."""
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    return int((await send_raw(service, request.encode("latin-1"))).split()[1])


async def test_a_target_is_a_path_or_the_url_that_stands_for_it_and_else_refused(service: Service) -> None:
    for target in ("?", "ftp://x/", "x", "x:80", "**", "http:/x"):
        assert await get_raw(service, target) == 400, target
    for target in ("http://x/healthz", "HTTPS://[::1]:1/healthz?x", "http:///healthz", "http://x:/healthz"):
        assert await get_raw(service, target) == 200, target
    for target in ("http://x", "http://x?y", "*"):
        assert await get_raw(service, target) == 404, target
    assert "Traceback" not in service.log()


async def test_a_host_that_can_be_none_is_refused_in_the_field_and_in_the_target(service: Service) -> None:
    for host in ("a" * 64, f"{'a' * 64}.example", "a..b", "x@y", "[", "[]", "[x]", f"[{':' * 70}]", "x:1:2"):
        assert await get_raw(service, host=host) == 400, host
        assert await get_raw(service, target=f"http://{host}/healthz") == 400, host
    for host in (
        "x y",
        "x/",
        "\xff",
        "x%20y",
        "[fe80::1%25eth0]",
    ):  # the last two may be some, and are none here
        assert await get_raw(service, host=host) == 400, host
    for host in ("x", "x.example.", "x-1.example:8000", "[::1]:8000", "127.0.0.1", "", "a_b:"):
        assert await get_raw(service, host=host) == 200, host
    assert "Traceback" not in service.log()


async def test_what_breaks_a_connection_ends_no_other_and_is_a_traceback_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def break_it(server: BoundedTCPServer) -> None:
        raise broken()

    async def connect() -> list[Any]:
        async with await trio.open_tcp_stream(*listener.socket.getsockname()) as caller:
            with capture_logs() as logs:
                await BoundedTCPServer(None, Config(), WorkerContext(None), {}, await listener.accept())
            assert await caller.receive_some() == b""
        return [(line["error"], line["failed"], line["exc_info"] is not None) for line in logs]

    monkeypatch.setattr(BoundedTCPServer, "_read_data", break_it)
    monkeypatch.setattr(web.connection, "_failures", web.connection._Failures())
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        broken: type[Exception] = ZeroDivisionError
        assert await connect() == [("ZeroDivisionError", 1, True)]
        assert await connect() == await connect() == []
        broken = KeyError
        assert await connect() == [("KeyError", 1, True)]
        broken = ZeroDivisionError
        monkeypatch.setattr(web.connection._failures, "_next_line_at", {"ZeroDivisionError": 0.0})
        assert await connect() == [("ZeroDivisionError", 3, False)]
