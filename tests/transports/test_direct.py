"""What only the default transport promises."""

from __future__ import annotations

import gc

import pytest

from engine.trigger.direct import DirectTransport
from engine.trigger.endpoint import Endpoint, parse_endpoint
from engine.trigger.transport import MAX_HEADER_BYTES
from tests.transports.conftest import Serve
from tests.transports.posting import OK, answer_right, assert_works, connected, fail, post
from tests.transports.scripted_server import Peer


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        (
            "https://ref.example/functions/v1/t?a=b",
            (True, "ref.example", 443, "ref.example", "/functions/v1/t?a=b"),
        ),
        ("https://ref.example:8443", (True, "ref.example", 8443, "ref.example:8443", "/")),
        ("http://[::1]:8000/t", (False, "::1", 8000, "[::1]:8000", "/t")),
    ],
)
def test_an_endpoint_is_its_url_taken_apart(url: str, endpoint: tuple[bool, str, int, str, str]) -> None:
    assert parse_endpoint(url) == Endpoint(*endpoint)


@pytest.mark.parametrize(
    ("beginning", "endless"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5;extension=", b"x"),
    ],
    ids=["informational answers", "chunk extension"],
)
async def test_what_goes_on_for_ever_is_cut_short(serve: Serve, beginning: bytes, endless: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(beginning)
        while True:
            await peer.send(100 * endless)

    server = await serve(script, answer_right)
    async with connected(DirectTransport(server.url)) as connection:
        assert (await fail(connection)).error_class == "oversize_answer"
        await assert_works(connection)


async def test_a_header_over_its_limit_is_refused_before_its_end(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(OK + b"X: " + MAX_HEADER_BYTES * b"x")
        await peer.wait_closed()

    server = await serve(script)
    async with connected(DirectTransport(server.url)) as connection:
        assert (await fail(connection)).error_class == "oversize_answer"


async def test_answers_leave_no_garbage_to_collect(serve: Serve) -> None:
    server = await serve(answer_right)
    async with connected(DirectTransport(server.url)) as connection:
        await post(connection)
        gc.collect()
        gc.disable()
        try:
            gc.set_debug(gc.DEBUG_SAVEALL)
            await post(connection)
            gc.collect()
            kinds = {type(garbage).__name__ for garbage in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not kinds & {"_AnswerReader", "HttpResponseParser"}
