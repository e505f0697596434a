"""Mentors over REST from servers that say anything at all: a right page, or a sentence and no connection."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

import engine.mentors.rest
from engine.errors import DatabaseUnavailable
from engine.mentors.protocol import IdRange, Page
from engine.mentors.rest import (
    MAX_BODY_BYTES,
    MAX_BODY_BYTES_PER_MENTOR,
    MAX_HEADER_BYTES,
    RestMentors,
    open_rest_mentors,
)
from tests.fakes import ids
from tests.transports.conftest import Serve
from tests.transports.scripted_server import PATIENCE, Peer, Script, ScriptedServer

KEY = "k3y-that-nobody-may-see"
SOME_ID = UUID("5eed0000-0000-4000-8000-00000000cafe")
STRETCH = IdRange(after=UUID(int=4), until=UUID(int=8))


def rows(*mentor_ids: UUID | int, status: str = "active") -> list[dict[str, Any]]:
    return [
        {"id": str(each if isinstance(each, UUID) else UUID(int=each)), "assignments": [{"status": status}]}
        for each in mentor_ids
    ]


def answer(
    body: bytes | list[Any] | dict[str, Any], status: str = "200 OK", *fields: str, length: int | None = None
) -> Script:
    """This one, to whatever is asked, for as long as it is asked."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(data) if length is None else length}"]

    async def script(peer: Peer) -> None:
        while True:
            await peer.receive_head()
            await peer.send("\r\n".join([*head, "", ""]).encode() + data)

    return script


def base_of(server: ScriptedServer) -> str:
    return server.url.removesuffix("/trigger-engine") + "/rest/v1"


@asynccontextmanager
async def mentors_of(server: ScriptedServer, **how: Any) -> AsyncIterator[RestMentors]:
    async with open_rest_mentors(base_of(server), KEY, ["active"], **how) as mentors:
        yield mentors


async def fetch(mentors: RestMentors, stretch: IdRange = STRETCH, page_size: int = 3) -> Page:
    with trio.fail_after(PATIENCE):
        return await mentors.fetch_page(stretch, page_size)


async def fault_of(work: Callable[[], Any]) -> DatabaseUnavailable:
    """The error, which shows nothing that it must not, in whatever form somebody logs it."""
    with pytest.raises(DatabaseUnavailable) as raised, trio.fail_after(PATIENCE), capture_logs() as logs:
        await work()
    error = raised.value
    assert str(error).startswith("The REST API at SCHEDULER_MENTOR_SOURCE can't be read: ")
    assert str(error).endswith(".")
    assert error.__suppress_context__ or error.__context__ is None
    shown = f"{error!r} {error} {error.__cause__!r} {logs}"
    for hidden in (KEY, str(SOME_ID), "00000000-0000", "secret words of a body", "127.0.0.1"):
        assert hidden not in shown
    return error


# What is asked


async def test_a_page_is_asked_for_as_postgrest_wants_it(serve: Serve) -> None:
    server = await serve(answer(rows(5, 7)))
    async with mentors_of(server) as mentors:
        assert await fetch(mentors) == Page([UUID(int=5), UUID(int=7)], is_last=False)
    [request] = server.requests
    assert request.line == (
        "GET /rest/v1/peer_mentors?select=id,assignments!inner(status)&status=eq.active"
        "&assignments.status=in.(active)&id=gt.00000000-0000-0000-0000-000000000004"
        "&id=lte.00000000-0000-0000-0000-000000000008&order=id.asc&limit=3 HTTP/1.1"
    )
    assert request.fields == {
        "host": urlsplit(server.url).netloc,
        "accept": "application/json",
        "accept-encoding": "identity",
        "apikey": KEY,
        "authorization": f"Bearer {KEY}",
    }


async def test_a_mentor_who_can_have_one_assignment_only_comes_with_it_and_without_a_list(
    serve: Serve,
) -> None:
    only = [{"id": str(UUID(int=5)), "assignments": {"status": "active"}}]
    async with mentors_of(await serve(answer(only))) as mentors:
        assert await fetch(mentors) == Page([UUID(int=5)], is_last=False)
    ended = [{"id": str(UUID(int=5)), "assignments": {"status": "ended"}}]
    async with mentors_of(await serve(answer(ended))) as mentors:
        await fault_of(lambda: fetch(mentors))


async def test_for_a_sample_the_lowest_and_the_highest_id_are_asked_for(serve: Serve) -> None:
    async def script(peer: Peer) -> None:
        for end in (5, 9):
            await peer.receive_head()
            body = json.dumps(rows(end)).encode()
            await peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await peer.wait_closed()

    server = await serve(script)
    async with mentors_of(server) as mentors:
        assert await mentors.sample(3) == [UUID(int=5), UUID(int=7), UUID(int=9)]
    for request, order in zip(server.requests, ("id.asc", "id.desc"), strict=True):
        assert request.line.endswith(f"&assignments.status=in.(active)&order={order}&limit=1 HTTP/1.1")


async def test_a_count_is_asked_for_as_postgrest_wants_it(serve: Serve) -> None:
    server = await serve(answer(rows(5), "206 Partial Content", "Content-Range: 0-0/4321"))
    async with mentors_of(server) as mentors:
        assert await mentors.count(IdRange()) == 4321
    [request] = server.requests
    assert request.line == (
        "GET /rest/v1/peer_mentors?select=id,assignments!inner(status)&status=eq.active"
        "&assignments.status=in.(active)&order=id.asc&limit=1 HTTP/1.1"
    )
    assert request.fields["prefer"] == "count=exact"


@pytest.mark.parametrize(
    ("statuses", "listed"),
    [
        (["active"], "active"),
        (["active", "on_leave", "2nd"], "active,on_leave,2nd"),
        (["on leave"], "%22on%20leave%22"),
        (["a,b", "c"], "%22a%2Cb%22,c"),
        (['"\\'], "%22%5C%22%5C%5C%22"),
        (["a+b&c=d"], "%22a%2Bb%26c%3Dd%22"),
        (["é"], "%22%C3%A9%22"),
    ],
)
async def test_a_status_is_quoted_unless_it_is_a_plain_word(
    statuses: list[str], listed: str, serve: Serve
) -> None:
    server = await serve(answer([]))
    async with open_rest_mentors(base_of(server), KEY, statuses) as mentors:
        await fetch(mentors)
    assert f"&assignments.status=in.({listed})&" in server.requests[0].line


async def test_a_url_may_end_with_a_slash(serve: Serve) -> None:
    server = await serve(answer([]))
    async with open_rest_mentors(base_of(server) + "/", KEY, ["active"]) as mentors:
        await fetch(mentors)
    assert server.requests[0].line.startswith("GET /rest/v1/peer_mentors?")


async def test_pages_and_counts_share_one_connection_until_the_end(serve: Serve) -> None:
    server = await serve(answer(rows(5), "200 OK", "Content-Range: 0-0/1"))
    async with mentors_of(server) as mentors:
        for _ in range(3):
            await fetch(mentors)
            await mentors.count(STRETCH)
        await server.wait_connections(1, still_open=1)
    await server.wait_connections(1)


async def test_the_environment_names_no_proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = await serve(answer([])), await serve(answer([]))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    async with mentors_of(server) as mentors:
        await fetch(mentors)
    assert (proxy.connections, server.connections) == (0, 1)


# What comes back


@pytest.mark.parametrize(("found", "is_last"), [([], True), ([8], False), ([5, 6, 7], False)])
async def test_only_an_empty_page_is_the_last(found: list[int], is_last: bool, serve: Serve) -> None:
    server = await serve(answer(rows(*found)))
    async with mentors_of(server) as mentors:
        page = await fetch(mentors)
    assert (page.mentor_ids, page.is_last) == ([UUID(int=each) for each in found], is_last)


NOT_A_LIST = "is not a list of mentors with their assignments; check that SCHEDULER_MENTOR_SOURCE"
NOT_IN_ORDER = "is not in the order of ids, or longer than was asked; check that nothing before the PostgREST"
NOT_WITHIN = "is not of the ids that were asked for; check that nothing before the PostgREST"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "is not JSON; check that SCHEDULER_MENTOR_SOURCE"),
        (b"<html>secret words of a body</html>", "is not JSON; check"),
        (b"\xff\xfe[]", "is not JSON; check"),
        (b'[{"id": "secret words of a body', "is not JSON; check"),
        (b"[" * 50_000, "is not JSON; check"),
        ({"message": "secret words of a body"}, NOT_A_LIST),
        ([None], NOT_A_LIST),
        ([[]], NOT_A_LIST),
        ([{}], NOT_A_LIST),
        ([{"id": 5, "assignments": [{"status": "active"}]}], NOT_A_LIST),
        ([{**rows(5)[0], "id": None}], NOT_A_LIST),
        ([{**rows(5)[0], "id": "secret words of a body"}], NOT_A_LIST),
        ([{**rows(5)[0], "id": f"{{{UUID(int=5)}}}"}], NOT_A_LIST),
        ([{**rows(5)[0], "id": UUID(int=5).hex}], NOT_A_LIST),
        ([{**rows(5)[0], "id": f"{UUID(int=5)}\n"}], NOT_A_LIST),
        ([{**rows(5)[0], "assignments": None}], NOT_A_LIST),
        ([{**rows(5)[0], "assignments": {"status": "ended"}}], NOT_A_LIST),
        ([{**rows(5)[0], "assignments": []}], NOT_A_LIST),
        ([{**rows(5)[0], "assignments": ["active"]}], NOT_A_LIST),
        ([{**rows(5)[0], "assignments": [{"status": ["active"]}]}], NOT_A_LIST),
        ([{**rows(5)[0], "assignments": [{"status": "active"}, {}]}], NOT_A_LIST),
        (rows(5, status="ended"), NOT_A_LIST),
        ([*rows(5), None], NOT_A_LIST),
        (rows(6, 5), NOT_IN_ORDER),
        (rows(5, 5), NOT_IN_ORDER),
        (rows(5, 7, 6), NOT_IN_ORDER),
        (rows(5, 6, 7, 8), NOT_IN_ORDER),
        (rows(4), NOT_WITHIN),
        (rows(4, 5), NOT_WITHIN),
        (rows(0), NOT_WITHIN),
        (rows(9), NOT_WITHIN),
        (rows(8, 9), NOT_WITHIN),
        (rows(SOME_ID), NOT_WITHIN),
    ],
)
async def test_a_page_that_is_not_what_was_asked_for_is_refused(
    body: Any, sentence: str, serve: Serve
) -> None:
    server = await serve(answer(body), answer(rows(5)))
    async with mentors_of(server) as mentors:
        assert f"its answer {sentence}" in str(await fault_of(lambda: fetch(mentors)))
        assert (await fetch(mentors)).mentor_ids == [UUID(int=5)]
        # What else that connection had to say is not heard.
        await server.wait_connections(2, still_open=1)


async def test_a_server_that_ignores_the_cursor_is_refused_on_the_second_page(serve: Serve) -> None:
    """Else the walk would turn in circles until its budget is spent."""
    server = await serve(answer(rows(1, 2, 3)))
    async with mentors_of(server) as mentors:
        page = await fetch(mentors, IdRange())
        error = await fault_of(lambda: fetch(mentors, IdRange(after=page.mentor_ids[-1])))
    assert NOT_WITHIN in str(error)


@pytest.mark.parametrize(
    ("found", "content_range"),
    [
        ([5], "0-0/*"),
        ([5], "*/0"),
        ([5], "*/1"),
        ([5], "0-0/0"),
        ([5], "0-0/-1"),
        ([5], "0-0/1e9"),
        ([5], "0-0/" + "9" * 16),
        ([5], "0-1/7"),
        ([5], "items 0-0/7"),
        ([5], ""),
        ([5], None),
        ([], "*/*"),
        ([], "*/1"),
        ([], "0-0/1"),
        ([], None),
    ],
)
async def test_a_count_that_is_none_or_contradicts_its_answer_is_refused(
    found: list[int], content_range: str | None, serve: Serve
) -> None:
    fields = [] if content_range is None else [f"Content-Range: {content_range}"]
    server = await serve(answer(rows(*found), "200 OK", *fields))
    async with mentors_of(server) as mentors:
        error = await fault_of(lambda: mentors.count(STRETCH))
    assert "it gives no exact count, or one that contradicts its answer" in str(error)


async def test_a_count_that_is_given_twice_is_refused(serve: Serve) -> None:
    server = await serve(answer(rows(5), "200 OK", "Content-Range: 0-0/7", "Content-Range: 0-0/8"))
    async with mentors_of(server) as mentors:
        await fault_of(lambda: mentors.count(STRETCH))


@pytest.mark.parametrize("body", [rows(9), rows(5, 6), b"x"])
async def test_a_count_comes_with_a_row_that_was_asked_for(body: Any, serve: Serve) -> None:
    server = await serve(answer(body, "206 Partial Content", "Content-Range: 0-0/7"))
    async with mentors_of(server) as mentors:
        await fault_of(lambda: mentors.count(STRETCH))


@pytest.mark.parametrize(("found", "content_range", "count"), [([], "*/0", 0), ([5], "0-0/1", 1)])
async def test_a_count_is_what_the_content_range_says(
    found: list[int], content_range: str, count: int, serve: Serve
) -> None:
    server = await serve(answer(rows(*found), "200 OK", f"Content-Range: {content_range}"))
    async with mentors_of(server) as mentors:
        assert await mentors.count(STRETCH) == count


# Answers that are errors


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (
            "401 Unauthorized",
            "PGRST301",
            "it refuses the key; check SCHEDULER_SERVICE_ROLE_KEY, and that its",
        ),
        ("403 Forbidden", "42501", "it refuses the key; check SCHEDULER_SERVICE_ROLE_KEY, and that its role"),
        (
            "404 Not Found",
            "PGRST205",
            "it knows no peer_mentors there; check that SCHEDULER_MENTOR_SOURCE is",
        ),
        ("400 Bad Request", "PGRST200", "it knows no foreign key from assignments to peer_mentors"),
        ("300 Multiple Choices", "PGRST201", "it knows several foreign keys between assignments and"),
        ("400 Bad Request", "42703", "a column is missing; peer_mentors needs id and status"),
        ("400 Bad Request", "22P02", "a column has another type; the ids have to be uuid"),
        ("500 Internal Server Error", "57014", "Postgres cut the statement at its statement_timeout; index"),
        ("400 Bad Request", "PGRST100", "it refuses the question; check that SCHEDULER_MENTOR_SOURCE"),
        ("406 Not Acceptable", "PGRST106", "it refuses the question; check that SCHEDULER_MENTOR_SOURCE"),
        ("416 Range Not Satisfiable", "PGRST103", "it refuses the question; check"),
        ("429 Too Many Requests", None, "it is asked too often; raise its rate limit"),
        ("500 Internal Server Error", "XX000", "it failed; look at its log"),
        ("502 Bad Gateway", None, "it failed; look at its log"),
        ("503 Service Unavailable", "PGRST002", "it is overloaded, or not up yet; look at its log"),
        ("504 Gateway Timeout", "PGRST003", "it failed; look at its log"),
        ("204 No Content", None, "it refuses the question"),
    ],
)
async def test_an_error_is_a_sentence_with_its_mend(
    status: str, code: str | None, sentence: str, serve: Serve
) -> None:
    said = {"code": code, "message": "secret words of a body", "hint": None, "details": str(SOME_ID)}
    body: Any = b"" if status.startswith("204") else said
    server = await serve(answer(body, status))
    async with mentors_of(server) as mentors:
        for work in (lambda: fetch(mentors), lambda: mentors.count(STRETCH)):
            error = await fault_of(work)
            assert f"can't be read: {sentence}" in str(error)
            assert str(error).endswith(f" (HTTP {status[:3]}).")
            assert error.retry_after is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>secret words of a body",
        b"[]",
        b"{}",
        b"null",
        b'{"code": {}}',
        b'{"code": 7}',
        b"[" * 50_000,
    ],
)
async def test_an_error_that_is_not_postgrests_own_is_told_by_its_status(body: bytes, serve: Serve) -> None:
    server = await serve(answer(body, "404 Not Found"))
    async with mentors_of(server) as mentors:
        assert "it knows no peer_mentors there" in str(await fault_of(lambda: fetch(mentors)))


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 P"])
async def test_a_redirect_is_never_followed(status: str, serve: Serve) -> None:
    elsewhere = await serve(answer(rows(5)))
    server = await serve(answer(b"", status, f"Location: {base_of(elsewhere)}/peer_mentors"))
    async with mentors_of(server) as mentors:
        error = await fault_of(lambda: fetch(mentors))
    assert "it redirects" in str(error)
    assert elsewhere.connections == 0


@pytest.mark.parametrize(
    ("status", "fields", "retry_after"),
    [
        ("429 Too Many Requests", ["Retry-After: 7"], 7.0),
        ("503 Service Unavailable", ["Retry-After: 0"], 0.0),
        ("503 Service Unavailable", ["Retry-After: Thu, 01 Jan 1970 00:00:00 GMT"], 0.0),
        ("503 Service Unavailable", ["Retry-After: soon"], None),
        ("503 Service Unavailable", ["Retry-After: 7", "Retry-After: 8"], None),
        ("503 Service Unavailable", [], None),
        ("500 Internal Server Error", ["Retry-After: 7"], None),
        ("401 Unauthorized", ["Retry-After: 7"], None),
    ],
)
async def test_an_overloaded_server_may_say_when_to_ask_again(
    status: str, fields: list[str], retry_after: float | None, serve: Serve
) -> None:
    server = await serve(answer(b"", status, *fields))
    async with mentors_of(server) as mentors:
        assert (await fault_of(lambda: fetch(mentors))).retry_after == retry_after


# No answer


async def test_a_connection_refused_is_a_sentence() -> None:
    async with open_rest_mentors("http://127.0.0.1:1/rest/v1", KEY, ["active"]) as mentors:
        error = await fault_of(lambda: fetch(mentors))
    assert "no connection to it can be made; check SCHEDULER_MENTOR_SOURCE" in str(error)


async def test_a_certificate_of_an_unknown_authority_is_a_sentence(
    serve: Serve, certify: Callable[[str], ssl.SSLContext]
) -> None:
    server = await serve(answer([]), ssl_context=certify("127.0.0.1"))
    async with mentors_of(server) as mentors:
        error = await fault_of(lambda: fetch(mentors))
    assert "no connection to it can be made" in str(error)
    assert server.requests == []


async def test_a_certificate_of_a_known_authority_is_taken(
    serve: Serve, certify: Callable[[str], ssl.SSLContext], trusting: ssl.SSLContext
) -> None:
    server = await serve(answer(rows(5)), ssl_context=certify("127.0.0.1"))
    async with mentors_of(server, ssl_context=trusting) as mentors:
        assert (await fetch(mentors)).mentor_ids == [UUID(int=5)]


@pytest.mark.parametrize(
    ("beginning", "sentence"),
    [
        (b"", "the connection was lost before its answer came"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[", "the connection was lost within its answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "what it speaks is not plain HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", "is not plain HTTP/1.1"),
    ],
)
async def test_an_answer_that_is_none_is_a_sentence(beginning: bytes, sentence: str, serve: Serve) -> None:
    async def say_and_close(peer: Peer) -> None:
        await peer.receive_head()
        await peer.send(beginning)

    server = await serve(say_and_close, answer(rows(5)))
    async with mentors_of(server) as mentors:
        assert sentence in str(await fault_of(lambda: fetch(mentors)))
        assert (await fetch(mentors)).mentor_ids == [UUID(int=5)]


LIMIT = MAX_BODY_BYTES + 3 * MAX_BODY_BYTES_PER_MENTOR


async def test_a_body_at_its_limit_is_heard_and_one_byte_more_is_not(serve: Serve) -> None:
    body = json.dumps(rows(5)).encode()
    server = await serve(answer(body.ljust(LIMIT)))
    longer = await serve(answer(body.ljust(LIMIT + 1)))
    async with mentors_of(server) as mentors:
        assert (await fetch(mentors)).mentor_ids == [UUID(int=5)]
    async with mentors_of(longer) as mentors:
        error = await fault_of(lambda: fetch(mentors))
    assert "its answer is longer than a page can be; lower SCHEDULER_PAGE_SIZE" in str(error)


async def test_an_endless_answer_is_cut_short(serve: Serve) -> None:
    async def talk(peer: Peer) -> None:
        await peer.receive_head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n[")
        while True:
            await peer.send(b" " * 65_536)

    server = await serve(talk)
    async with mentors_of(server) as mentors:
        assert "longer than a page can be" in str(await fault_of(lambda: fetch(mentors)))
        await server.wait_connections(1)


async def test_an_endless_header_is_cut_short(serve: Serve) -> None:
    server = await serve(answer([], "200 OK", "X-Long: " + "x" * MAX_HEADER_BYTES))
    async with mentors_of(server) as mentors:
        assert "longer than a page can be" in str(await fault_of(lambda: fetch(mentors)))


async def test_a_page_whose_mentors_have_twenty_assignments_each_is_heard(serve: Serve) -> None:
    page = [{"id": str(each), "assignments": [{"status": "active"}] * 20} for each in ids(1_000)]
    server = await serve(answer(page))
    async with mentors_of(server) as mentors:
        assert (await fetch(mentors, IdRange(), 1_000)).mentor_ids == ids(1_000)


# Time, and cancellation


def begin(beginning: bytes, begun: trio.Event) -> Script:
    """So much of an answer, and then nothing."""

    async def script(peer: Peer) -> None:
        await peer.receive_head()
        await peer.send(beginning)
        begun.set()
        await peer.wait_closed()

    return script


BEGINNINGS = [
    b"",
    b"HTTP/1.1 200 OK\r\nContent-Le",
    b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[",
]
in_the_middle_of_an_answer = pytest.mark.parametrize(
    "beginning", BEGINNINGS, ids=["before it", "header", "body", "chunk"]
)


@in_the_middle_of_an_answer
async def test_a_page_that_takes_too_long_is_given_up_with_its_connection(
    beginning: bytes, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.mentors.rest, "PAGE_TIMEOUT", 0.05)
    server = await serve(begin(beginning, trio.Event()))
    async with mentors_of(server) as mentors:
        error = await fault_of(lambda: fetch(mentors))
        assert "it did not answer within 0.05 s; check the network and its load" in str(error)
        await server.wait_connections(1)


async def test_a_page_has_as_long_as_a_statement_in_postgres() -> None:
    assert engine.mentors.rest.PAGE_TIMEOUT == engine.database.STATEMENT_TIMEOUT == 5.0


@in_the_middle_of_an_answer
@pytest.mark.parametrize("of", ["page", "count"])
async def test_a_cancel_closes_the_connection_and_the_same_can_be_asked_for_again(
    of: str, beginning: bytes, serve: Serve, nursery: trio.Nursery
) -> None:
    begun = trio.Event()
    server = await serve(begin(beginning, begun), answer(rows(5), "200 OK", "Content-Range: 0-0/1"))
    async with mentors_of(server) as mentors:

        async def ask() -> None:
            await (fetch(mentors) if of == "page" else mentors.count(STRETCH))

        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await begun.wait()
                await wait_all_tasks_blocked()
                scope.cancel()

            nursery.start_soon(cancel)
            await ask()
        assert scope.cancelled_caught
        await server.wait_connections(1)
        await ask()
        await server.wait_connections(2, still_open=1)
    await server.wait_connections(2)


async def test_a_call_in_a_cancelled_scope_leaves_nothing_open(serve: Serve) -> None:
    server = await serve(answer(rows(5)))
    async with mentors_of(server) as mentors:
        with trio.CancelScope() as scope:
            scope.cancel()
            await fetch(mentors)
        assert scope.cancelled_caught
    await server.wait_connections(server.connections)


async def test_closing_in_a_cancelled_scope_leaves_no_connection_open(serve: Serve) -> None:
    """With two of them, of a page and of a count that were under way at once."""
    together = [trio.Event(), trio.Event()]

    async def answer_together(peer: Peer) -> None:
        await peer.receive_head()
        together[0 if not together[0].is_set() else 1].set()
        for each in together:
            await each.wait()
        body = json.dumps(rows(5)).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Range: 0-0/1\r\nContent-Length: {len(body)}\r\n\r\n"
        await peer.send(head.encode() + body)
        await peer.wait_closed()

    server = await serve(answer_together)
    with trio.CancelScope() as scope:
        async with mentors_of(server) as mentors:
            async with trio.open_nursery() as both:
                both.start_soon(fetch, mentors)
                both.start_soon(mentors.count, STRETCH)
            await server.wait_connections(2, still_open=2)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    await server.wait_connections(2)
