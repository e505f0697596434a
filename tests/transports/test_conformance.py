"""What every transport promises, over real sockets."""

from __future__ import annotations

import gzip
import json
import resource
import socket
import ssl
from collections.abc import Callable
from uuid import UUID

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engine.errors import InvocationFailed
from engine.trigger.http import HttpTriggerEngine
from engine.trigger.protocol import Evaluation, RunContext
from engine.trigger.transport import MAX_HEADER_BYTES, Answer
from tests.transports.conftest import MakeTransport, Serve
from tests.transports.posting import (
    MAX_BODY_BYTES,
    OK,
    RIGHT,
    answer_right,
    assert_works,
    connected,
    fail,
    post,
)
from tests.transports.scripted_server import Peer, Script


def answer_once(*parts: bytes) -> Script:
    """Answer one request in these writes, then leave it to the client to close."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        for part in parts:
            await peer.send(part)
            await wait_all_tasks_blocked()
        await peer.wait_closed()

    return script


def answer_and_close(data: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(data)

    return script


# What is sent


async def test_the_request_is_as_the_contract_says(make_transport: MakeTransport, serve: Serve) -> None:
    server = await serve(answer_right)
    async with connected(make_transport(server.url + "?forceFunctionRegion=eu&a=%2F")) as connection:
        await post(connection, b'{"body": 1}')
    request = server.requests[0]
    assert request.line == "POST /trigger-engine?forceFunctionRegion=eu&a=%2F HTTP/1.1"
    assert request.fields["host"] == server.url.split("/")[2]
    assert request.fields["x-run-id"] == "1"
    assert request.fields["idempotency-key"] == "1:1"
    assert request.fields["content-length"] == "11"
    assert request.fields["accept-encoding"] == "identity"
    assert request.fields.get("connection", "keep-alive") == "keep-alive"
    assert request.body == b'{"body": 1}'


async def test_opening_connects_nothing(make_transport: MakeTransport, serve: Serve) -> None:
    server = await serve(answer_right)
    async with connected(make_transport(server.url)):
        await wait_all_tasks_blocked()
    assert server.connections == 0


async def test_no_cookie_is_kept(make_transport: MakeTransport, serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.receive()
            cookies = b"Set-Cookie: a=b; Path=/\r\nSet-Cookie: nonsense\r\n"
            await peer.send(OK + cookies + b"Content-Length: 0\r\n\r\n")

    server = await serve(script)
    async with connected(make_transport(server.url)) as connection:
        await post(connection)
        await post(connection)
    assert "cookie" not in server.requests[1].fields


async def test_the_environment_names_no_proxy(
    make_transport: MakeTransport, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await serve(answer_right)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    server = await serve(answer_right)
    async with connected(make_transport(server.url)) as connection:
        await assert_works(connection)
    assert proxy.connections == 0


# Whole answers


async def test_a_connection_is_kept_alive(make_transport: MakeTransport, serve: Serve) -> None:
    server = await serve(answer_right)
    async with connected(make_transport(server.url)) as connection:
        for _ in range(5):
            await assert_works(connection)
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"Content-Length: 5\r\n\r\nwhole",
        b"content-length:5\r\nX-Empty:\r\nContent-Type: application/json\r\n\r\nwhole",
        b"Content-Encoding: identity\r\nContent-Length: 5\r\n\r\nwhole",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1;ext=1\r\nw\r\n4\r\nhole\r\n0\r\nRetry-After: 9\r\n\r\n",
        b"X-Long: " + 8_000 * b"x" + b"\r\nContent-Length: 5\r\n\r\nwhole",
    ],
    ids=["length", "odd fields", "identity", "chunked", "extension and trailer", "long header"],
)
@pytest.mark.parametrize("in_pieces", [False, True], ids=["at once", "byte by byte"])
async def test_an_answer_is_read_to_its_end_and_no_further(
    make_transport: MakeTransport, serve: Serve, answer: bytes, in_pieces: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        if in_pieces and len(answer) < 1000:
            for byte in OK + answer:
                await peer.send(bytes([byte]))
                await wait_all_tasks_blocked()
        else:
            await peer.send(OK + answer)
        await answer_right(peer)

    server = await serve(script)
    async with connected(make_transport(server.url)) as connection:
        assert await post(connection) == Answer(200, b"whole")
        await assert_works(connection)
        assert server.connections == 1


@pytest.mark.parametrize("status", [b"204 No Content", b"503 Away", b"418 Teapot"])
async def test_an_answer_without_a_body_keeps_the_connection(
    make_transport: MakeTransport, serve: Serve, status: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(b"HTTP/1.1 " + status + b"\r\n")
        await peer.send(b"\r\n" if status.startswith(b"204") else b"Content-Length: 0\r\n\r\n")
        await answer_right(peer)

    server = await serve(script)
    async with connected(make_transport(server.url)) as connection:
        assert await post(connection) == Answer(int(status[:3]), b"")
        await assert_works(connection)
        assert server.connections == 1


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
    ids=["bare", "close", "1.0"],
)
async def test_the_end_of_the_stream_ends_a_body_without_a_length(
    make_transport: MakeTransport, serve: Serve, head: bytes
) -> None:
    server = await serve(answer_and_close(head + b"whole"), answer_right)
    async with connected(make_transport(server.url)) as connection:
        assert await post(connection) == Answer(200, b"whole")
        await assert_works(connection)
        assert server.connections == 2


async def test_a_server_that_says_close_is_not_asked_again(
    make_transport: MakeTransport, serve: Serve
) -> None:
    server = await serve(
        answer_once(OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nwhole"), answer_right
    )
    async with connected(make_transport(server.url)) as connection:
        assert await post(connection) == Answer(200, b"whole")
        await assert_works(connection)
        await server.wait_connections(2, still_open=1)


@pytest.mark.parametrize("writes", [1, 3])
async def test_informational_answers_are_skipped(
    make_transport: MakeTransport, serve: Serve, writes: int
) -> None:
    parts = [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nRetry-After: 3\r\n\r\n",
        RIGHT,
    ]

    async def script(peer: Peer) -> None:
        await peer.receive()
        for part in [b"".join(parts)] if writes == 1 else parts:
            await peer.send(part)
            await wait_all_tasks_blocked()
        await answer_right(peer)

    server = await serve(script)
    async with connected(make_transport(server.url)) as connection:
        assert await post(connection) == Answer(200, b"right")
        await assert_works(connection)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (b"Retry-After: 7\r\n", "7"),
        (b"retry-after:  Wed, 21 Oct 2015 07:28:00 GMT \r\n", "Wed, 21 Oct 2015 07:28:00 GMT"),
        (b"Retry-After: 1\r\nRetry-After: 2\r\n", None),
        (b"", None),
    ],
)
async def test_retry_after_is_handed_on_as_it_came(
    make_transport: MakeTransport, serve: Serve, fields: bytes, expected: str | None
) -> None:
    server = await serve(answer_once(b"HTTP/1.1 503 Away\r\n" + fields + b"Content-Length: 0\r\n\r\n"))
    async with connected(make_transport(server.url)) as connection:
        assert await post(connection) == Answer(503, b"", expected)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_reported_and_never_followed(
    make_transport: MakeTransport, serve: Serve, status: int
) -> None:
    target = await serve(answer_right)
    head = f"HTTP/1.1 {status} Moved\r\nLocation: {target.url}\r\nContent-Length: 0\r\n\r\n"
    server = await serve(answer_once(head.encode()))
    async with connected(make_transport(server.url)) as connection:
        assert (await post(connection)).status == status
    assert target.connections == 0
    assert len(server.requests) == 1


async def test_an_answer_that_comes_before_the_request_was_read_is_heard(
    make_transport: MakeTransport, serve: Serve
) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive_head()
        await peer.send(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")

    server = await serve(script, answer_right)
    more_than_sockets_buffer = b"x" * 32 * 1024 * 1024
    async with connected(make_transport(server.url)) as connection:
        assert await post(connection, more_than_sockets_buffer) == Answer(413, b"big")
        await assert_works(connection)


async def test_an_answer_that_overtakes_a_request_which_is_read_to_its_end_is_heard(
    make_transport: MakeTransport, serve: Serve
) -> None:
    body = b"x" * 4 * 1024 * 1024

    async def script(peer: Peer) -> None:
        await peer.receive_head()
        await peer.send(b"HTTP/1.1 503 Away\r\nConnection: close\r\nContent-Length: 4\r\n\r\naway")
        await peer.wait_closed()

    server = await serve(script, answer_right)
    async with connected(make_transport(server.url)) as connection:
        assert await post(connection, body) == Answer(503, b"away")
        await assert_works(connection)


# Out of step


async def test_a_second_answer_in_the_same_read_is_never_the_next_ones(
    make_transport: MakeTransport, serve: Serve, transport_name: str
) -> None:
    def answer(mentor: int, scenario_type: str) -> bytes:
        body = json.dumps(
            {"mentor_id": str(UUID(int=mentor)), "dispatched": [scenario_type], "suppressed": []}
        ).encode()
        return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body

    async def tell_the_truth(peer: Peer) -> None:
        while True:
            mentor = UUID(json.loads((await peer.receive()).body)["mentor_id"]).int
            await peer.send(answer(mentor, "truth"))

    server = await serve(answer_once(answer(1, "truth") + answer(9, "lie")), tell_the_truth)
    engine = HttpTriggerEngine(make_transport(server.url), None)
    async with engine.open_session(RunContext(UUID(int=7))) as session:
        assert await session.evaluate([UUID(int=1)]) == Evaluation({"truth": 1})
        if transport_name == "httpx":  # hears it, and knows it by the mentor it names
            with pytest.raises(InvocationFailed, match="foreign_id"):
                await session.evaluate([UUID(int=2)])
        else:
            assert await session.evaluate([UUID(int=2)]) == Evaluation({"truth": 1})
        assert await session.evaluate([UUID(int=3)]) == Evaluation({"truth": 1})
        await server.wait_connections(2, still_open=1)


@pytest.mark.parametrize("excess", [b"H", b"excess", RIGHT, b"\x00"])
async def test_what_was_said_unasked_is_never_the_next_answer(
    make_transport: MakeTransport, serve: Serve, excess: bytes
) -> None:
    said = trio.Event()
    heard = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(OK + b"Content-Length: 5\r\n\r\nfirst")
        await heard.wait()
        await peer.send(excess)
        said.set()
        await peer.wait_closed()

    server = await serve(script, answer_right)
    async with connected(make_transport(server.url)) as connection:
        assert (await post(connection)).body == b"first"
        heard.set()
        await said.wait()
        await assert_works(connection)
        assert [request.body for request in server.requests] == 2 * [b'{"mentor_id": 1}']
        await server.wait_connections(2, still_open=1)


async def test_a_length_that_is_too_short_costs_at_most_the_next_answer(
    make_transport: MakeTransport, serve: Serve, transport_name: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(OK + b"Content-Length: 2\r\n\r\nwhole")
        await answer_right(peer)

    server = await serve(script, answer_right)
    async with connected(make_transport(server.url)) as connection:
        assert (await post(connection)).body == b"wh"
        if transport_name == "httpx":  # hears what is left, and knows it for nonsense
            assert (await fail(connection)).error_class == "malformed_answer"
        await assert_works(connection)
        await server.wait_connections(2, still_open=1)


async def test_a_connection_closed_while_idle_is_replaced_unnoticed(
    make_transport: MakeTransport, serve: Serve
) -> None:
    server = await serve(answer_and_close(RIGHT), answer_right)
    async with connected(make_transport(server.url)) as connection:
        await assert_works(connection)
        await server.wait_connections(1)
        await assert_works(connection)
        assert server.connections == 2


async def test_a_connection_dropped_by_the_caller_is_closed_and_replaced(
    make_transport: MakeTransport, serve: Serve
) -> None:
    server = await serve(answer_right)
    async with connected(make_transport(server.url)) as connection:
        await assert_works(connection)
        await connection.drop()
        await server.wait_connections(1)
        await assert_works(connection)
        await server.wait_connections(2, still_open=1)


async def test_a_drop_in_a_cancelled_scope_closes_all_the_same(
    make_transport: MakeTransport, serve: Serve
) -> None:
    server = await serve(answer_right)
    async with connected(make_transport(server.url)) as connection:
        await assert_works(connection)
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.drop()
        await server.wait_connections(1)


# Broken connections


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("kept_alive", [False, True], ids=["fresh", "kept alive"])
async def test_a_connection_cut_before_a_byte_of_answer_may_be_retried(
    make_transport: MakeTransport, serve: Serve, with_reset: bool, kept_alive: bool
) -> None:
    async def script(peer: Peer) -> None:
        if kept_alive:
            await peer.receive()
            await peer.send(RIGHT)
        await peer.receive()
        if with_reset:
            peer.reset()

    server = await serve(script, answer_right)
    async with connected(make_transport(server.url)) as connection:
        if kept_alive:
            await assert_works(connection)
        failure = await fail(connection)
        assert (failure.error_class, failure.retryable) == ("connection_reset", True)
        await assert_works(connection)


@pytest.mark.parametrize(
    "beginning",
    [
        b"Content-Length: 5\r\n\r\nwho",
        b"Content-Length: 5\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nwho",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n",
    ],
)
async def test_an_answer_cut_in_its_middle_is_no_answer(
    make_transport: MakeTransport, serve: Serve, beginning: bytes
) -> None:
    server = await serve(answer_and_close(OK + beginning), answer_right)
    async with connected(make_transport(server.url)) as connection:
        failure = await fail(connection)
        assert (failure.error_class, failure.retryable) == ("connection_cut", False)
        await assert_works(connection)


async def test_an_answer_reset_in_its_middle_is_no_answer(
    make_transport: MakeTransport, serve: Serve
) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(OK + b"\r\nbody without a length")
        await wait_all_tasks_blocked()
        peer.reset()

    server = await serve(script, answer_right)
    async with connected(make_transport(server.url)) as connection:
        failure = await fail(connection)
        assert (failure.error_class, failure.retryable) == ("connection_cut", False)
        await assert_works(connection)


async def test_an_answer_cut_in_its_header_is_no_answer(
    make_transport: MakeTransport, serve: Serve, transport_name: str
) -> None:
    server = await serve(answer_and_close(OK + b"Content-Le"), answer_right)
    async with connected(make_transport(server.url)) as connection:
        failure = await fail(connection)
        # httpx does not tell whether there was a byte.
        assert failure.error_class == ("connection_reset" if transport_name == "httpx" else "connection_cut")
        await assert_works(connection)


async def test_a_refused_connection_may_be_retried(make_transport: MakeTransport) -> None:
    with socket.socket() as bound_but_not_listening:
        bound_but_not_listening.bind(("127.0.0.1", 0))
        port = bound_but_not_listening.getsockname()[1]
        async with connected(make_transport(f"http://127.0.0.1:{port}/")) as connection:
            failure = await fail(connection)
    assert (failure.error_class, failure.retryable) == ("connection_refused", True)


async def test_a_host_name_that_cannot_be_one_is_refused(make_transport: MakeTransport) -> None:
    async with connected(make_transport(f"http://{64 * 'a'}.example/")) as connection:
        assert (await fail(connection)).error_class == "connection_refused"


# Wrong answers


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"{}\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 007 Bond\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nright",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\nright",
        OK + b"Content-Length: five\r\n\r\nright",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nright!",
        OK + b"Content-Length: " + b"9" * 30 + b"x\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\nright",
        OK + b"Transfer-Encoding: chunked\r\n\r\nfive\r\nright\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nright\r\n0\r\n\r\n",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 25\r\n\r\n" + gzip.compress(b"right", mtime=0),
        OK
        + b"Content-Encoding: GZIP, identity\r\nContent-Length: 25\r\n\r\n"
        + gzip.compress(b"right", mtime=0),
    ],
)
async def test_an_answer_that_is_not_what_was_asked_for_is_malformed(
    make_transport: MakeTransport, serve: Serve, nonsense: bytes
) -> None:
    server = await serve(answer_once(nonsense), answer_right)
    async with connected(make_transport(server.url)) as connection:
        failure = await fail(connection)
        assert (failure.error_class, failure.retryable) == ("malformed_answer", False)
        await assert_works(connection)
        await server.wait_connections(2, still_open=1)


def chunk(size: int) -> bytes:
    return b"%x\r\n%s\r\n" % (size, size * b"x")


async def test_a_body_at_its_limit_is_heard(make_transport: MakeTransport, serve: Serve) -> None:
    server = await serve(
        answer_once(OK + b"Content-Length: %d\r\n\r\n" % MAX_BODY_BYTES + MAX_BODY_BYTES * b"x"),
        answer_once(),
    )
    async with connected(make_transport(server.url)) as connection:
        assert len((await post(connection)).body) == MAX_BODY_BYTES
        assert server.connections == 1


async def test_a_body_of_small_chunks_at_its_limit_is_heard(
    make_transport: MakeTransport, serve: Serve
) -> None:
    server = await serve(
        answer_once(OK + b"Transfer-Encoding: chunked\r\n\r\n" + MAX_BODY_BYTES * chunk(1) + b"0\r\n\r\n")
    )
    async with connected(make_transport(server.url)) as connection:
        assert len((await post(connection)).body) == MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("beginning", "endless"),
    [
        (b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), b""),  # refused before a byte of it came
        (b"Content-Length: 999999999999\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n" + 3 * chunk(MAX_BODY_BYTES // 3) + chunk(3), b""),
        (b"Transfer-Encoding: chunked\r\n\r\n", chunk(1)),
        (b"\r\n", b"x"),
        (b"X: " + MAX_HEADER_BYTES * b"x" + b"\r\nContent-Length: 5\r\n\r\nright", b""),
        (b"", b"X-Field: value\r\n"),
        (b"X: ", b"x"),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: value\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: ", b"x"),
    ],
    ids=[
        "length",
        "absurd length",
        "chunks",
        "endless chunks",
        "endless body",
        "header",
        "endless header",
        "endless field",
        "endless trailer",
        "endless trailer field",
    ],
)
async def test_an_answer_over_its_limits_is_cut_short(
    make_transport: MakeTransport, serve: Serve, beginning: bytes, endless: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(OK + beginning)
        while endless:
            await peer.send(100 * endless)  # ends when the client closes
        await peer.wait_closed()

    server = await serve(script, answer_right)
    async with connected(make_transport(server.url)) as connection:
        failure = await fail(connection)
        assert (failure.error_class, failure.retryable) == ("oversize_answer", False)
        await assert_works(connection)
        await server.wait_connections(2, still_open=1)


# Cancellation and closing


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"HTTP/1.1 2",
        OK + b"X-Never: ending",
        OK + b"Content-Length: 5\r\n\r\nwr",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nwr",
        OK + b"\r\nwr",
    ],
    ids=["before it", "status line", "header", "length", "chunk", "to the end"],
)
async def test_a_cancel_in_mid_answer_closes_and_the_next_answer_is_the_right_one(
    make_transport: MakeTransport, serve: Serve, nursery: trio.Nursery, beginning: bytes
) -> None:
    begun = trio.Event()

    async def begin(peer: Peer) -> None:
        await peer.receive()
        await peer.send(beginning)
        begun.set()
        await peer.wait_closed()

    server = await serve(begin, answer_right)
    async with connected(make_transport(server.url)) as connection:
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await begun.wait()
                await wait_all_tasks_blocked()
                scope.cancel()

            nursery.start_soon(cancel)
            await post(connection)
        assert scope.cancelled_caught
        await server.wait_connections(1)
        await assert_works(connection)
        assert server.connections == 2


async def test_a_cancel_while_sending_closes(
    make_transport: MakeTransport, serve: Serve, nursery: trio.Nursery
) -> None:
    async def read_nothing(peer: Peer) -> None:
        begun.set()
        await closed.wait()

    begun, closed = trio.Event(), trio.Event()
    server = await serve(read_nothing, answer_right)
    async with connected(make_transport(server.url)) as connection:
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await begun.wait()
                await wait_all_tasks_blocked()
                scope.cancel()

            nursery.start_soon(cancel)
            await post(connection, b"x" * 32 * 1024 * 1024)
        assert scope.cancelled_caught
        closed.set()
        await assert_works(connection)
        await server.wait_connections(2, still_open=1)


async def test_a_call_in_a_cancelled_scope_leaves_nothing_open(
    make_transport: MakeTransport, serve: Serve
) -> None:
    server = await serve(answer_right)
    async with connected(make_transport(server.url)) as connection:
        with trio.CancelScope() as scope:
            scope.cancel()
            await post(connection)
        assert scope.cancelled_caught
        await assert_works(connection)
    await server.wait_connections(server.connections)


async def test_closing_leaves_no_connection_open(make_transport: MakeTransport, serve: Serve) -> None:
    server = await serve(answer_right)
    async with connected(make_transport(server.url)) as connection:
        await assert_works(connection)
        await server.wait_connections(1, still_open=1)
    await server.wait_connections(1)


async def test_closing_in_a_cancelled_scope_leaves_no_connection_open(
    make_transport: MakeTransport, serve: Serve
) -> None:
    server = await serve(answer_right)
    with trio.CancelScope() as scope:
        async with connected(make_transport(server.url)) as connection:
            await assert_works(connection)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    await server.wait_connections(1)


# TLS


async def test_tls_is_verified_and_kept_alive(
    make_transport: MakeTransport,
    serve: Serve,
    trusting: ssl.SSLContext,
    certify: Callable[[str], ssl.SSLContext],
) -> None:
    server = await serve(answer_right, ssl_context=certify("127.0.0.1"))
    async with connected(make_transport(server.url, trusting)) as connection:
        for _ in range(3):
            await assert_works(connection)
        assert server.connections == 1
    await server.wait_connections(1)


async def test_a_tls_connection_closed_while_idle_is_replaced_unnoticed(
    make_transport: MakeTransport,
    serve: Serve,
    trusting: ssl.SSLContext,
    certify: Callable[[str], ssl.SSLContext],
) -> None:
    server = await serve(answer_and_close(RIGHT), answer_right, ssl_context=certify("127.0.0.1"))
    async with connected(make_transport(server.url, trusting)) as connection:
        await assert_works(connection)
        await server.wait_connections(1)
        await assert_works(connection)
        assert server.connections == 2


async def test_tls_with_a_wrong_name_is_refused_for_good(
    make_transport: MakeTransport,
    serve: Serve,
    trusting: ssl.SSLContext,
    certify: Callable[[str], ssl.SSLContext],
) -> None:
    server = await serve(answer_right, ssl_context=certify("other.example"))
    async with connected(make_transport(server.url, trusting)) as connection:
        failure = await fail(connection)
        assert (failure.error_class, failure.retryable) == ("connection_refused", False)
        await server.wait_connections(1)
    assert server.requests == []


async def test_tls_from_an_unknown_authority_is_refused_for_good(
    make_transport: MakeTransport, serve: Serve, certify: Callable[[str], ssl.SSLContext]
) -> None:
    server = await serve(answer_right, ssl_context=certify("127.0.0.1"))
    async with connected(make_transport(server.url)) as connection:
        failure = await fail(connection)
        assert (failure.error_class, failure.retryable) == ("connection_refused", False)
        await server.wait_connections(1)
    assert server.requests == []


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 This is not TLS\r\n\r\n"])
async def test_a_server_that_speaks_no_tls_is_refused_for_good(
    make_transport: MakeTransport, serve: Serve, trusting: ssl.SSLContext, greeting: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(greeting)

    server = await serve(script)
    url = server.url.replace("http:", "https:")
    async with connected(make_transport(url, trusting)) as connection:
        failure = await fail(connection)
        assert (failure.error_class, failure.retryable) == ("connection_refused", False)
        await server.wait_connections(1)


async def test_a_cancel_in_the_handshake_leaves_nothing_open(
    make_transport: MakeTransport, serve: Serve, trusting: ssl.SSLContext, nursery: trio.Nursery
) -> None:
    begun = trio.Event()

    async def say_nothing(peer: Peer) -> None:
        begun.set()
        await peer.wait_closed()

    server = await serve(say_nothing)
    url = server.url.replace("http:", "https:")
    async with connected(make_transport(url, trusting)) as connection:
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await begun.wait()
                await wait_all_tasks_blocked()
                scope.cancel()

            nursery.start_soon(cancel)
            await post(connection)
        assert scope.cancelled_caught
        await server.wait_connections(1)


async def test_a_cancel_over_tls_closes_and_the_next_answer_is_the_right_one(
    make_transport: MakeTransport,
    serve: Serve,
    trusting: ssl.SSLContext,
    certify: Callable[[str], ssl.SSLContext],
    nursery: trio.Nursery,
) -> None:
    begun = trio.Event()

    async def begin(peer: Peer) -> None:
        await peer.receive()
        await peer.send(OK + b"Content-Length: 5\r\n\r\nwr")
        begun.set()
        await peer.wait_closed()

    server = await serve(begin, answer_right, ssl_context=certify("127.0.0.1"))
    async with connected(make_transport(server.url, trusting)) as connection:
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await begun.wait()
                await wait_all_tasks_blocked()
                scope.cancel()

            nursery.start_soon(cancel)
            await post(connection)
        assert scope.cancelled_caught
        await server.wait_connections(1)
        await assert_works(connection)


# Through the trigger engine


async def test_no_file_descriptor_left_is_not_blamed_on_the_trigger_engine(
    make_transport: MakeTransport, serve: Serve
) -> None:
    server = await serve(answer_right)
    engine = HttpTriggerEngine(make_transport(server.url), None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with engine.open_session(RunContext(UUID(int=1))) as session:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            with pytest.raises(InvocationFailed) as caught:
                await session.evaluate([UUID(int=1)])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (caught.value.error_class, caught.value.retryable) == ("out_of_files", True)


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_reaches_the_dispatcher(
    make_transport: MakeTransport, serve: Serve, status: int
) -> None:
    server = await serve(
        answer_once(f"HTTP/1.1 {status} Later\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n".encode())
    )
    engine = HttpTriggerEngine(make_transport(server.url), "key")
    async with engine.open_session(RunContext(UUID(int=7))) as session:
        with pytest.raises(InvocationFailed) as raised:
            await session.evaluate([UUID(int=1)])
    assert raised.value.error_class == f"http_{status}"
    assert (raised.value.retryable, raised.value.retry_after) == (True, 7.0)
    assert server.requests[0].fields["authorization"] == "Bearer key"
