"""The stand-in for PostgREST is as strict as its manual: what is not its grammar is not answered."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from engine.database import Database
from engine.httpx_connection import HttpxConnection, WholeAnswer
from tests.fakes import ids
from tests.postgres.conftest import REST_KEY, add_assignment, add_mentor, query
from tests.postgrest import Postgrest

AUTHORISED = {"apikey": REST_KEY, "Authorization": f"Bearer {REST_KEY}"}

Ask = Callable[..., Awaitable[WholeAnswer]]


@pytest.fixture
async def ask(database: Database, postgrest: Postgrest) -> AsyncIterator[Ask]:
    """Over five mentors: the fourth is paused, the fifth has two active assignments and one ended."""
    for number, mentor_id in enumerate(ids(5), 1):
        await add_mentor(database, id=mentor_id, status="paused" if number == 4 else "active")
    await add_assignment(database, ids(5)[4])
    await add_assignment(database, ids(5)[4], "ended")
    connection = HttpxConnection(ssl.create_default_context(), max_header_bytes=16_384)

    async def get(target: str, method: str = "GET", **headers: str) -> WholeAnswer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        all_headers = {"Host": "127.0.0.1", **AUTHORISED, **names}
        url = httpx.URL(postgrest.url + target)
        return await connection.exchange(method, url, all_headers, b"", 100_000)

    yield get
    await connection.drop()


def code_of(answer: WholeAnswer) -> Any:
    return json.loads(answer.body)["code"]


@pytest.mark.parametrize(
    ("query_string", "numbers"),
    [
        ("select=id&order=id", [1, 2, 3, 4, 5]),
        ("select=id&order=id.desc", [5, 4, 3, 2, 1]),
        ("select=id&order=status.desc,id.asc.nullslast", [4, 1, 2, 3, 5]),
        ("select=id&order=id&limit=2", [1, 2]),
        ("select=id&order=id&limit=2&offset=1", [2, 3]),
        ("select=id&order=id&limit=0", []),
        ("select=id&order=id&status=eq.paused", [4]),
        ("select=id&order=id&status=neq.paused", [1, 2, 3, 5]),
        ("select=id&order=id&status=not.eq.paused", [1, 2, 3, 5]),
        ("select=id&order=id&status=in.(paused,%22active%22)", [1, 2, 3, 4, 5]),
        ("select=id&order=id&status=is.null", []),
        (f"select=id&order=id&id=gt.{ids(2)[1]}&id=lte.{ids(4)[3]}", [3, 4]),
        (f"select=id&order=id&id=gte.{ids(2)[1]}&id=lt.{ids(4)[3]}", [2, 3]),
        ("select=id,assignments(status)&order=id&assignments.status=eq.ended", [1, 2, 3, 4, 5]),
        ("select=id,assignments!inner(status)&order=id&assignments.status=eq.ended", [5]),
    ],
)
async def test_what_is_its_grammar_is_answered(query_string: str, numbers: list[int], ask: Ask) -> None:
    answer = await ask(f"/peer_mentors?{query_string}")
    assert [int(row["id"].replace("-", ""), 16) for row in json.loads(answer.body)] == numbers
    assert answer.status == 200


async def test_embedded_rows_are_those_of_the_filter_and_their_mentor_comes_once(ask: Ask) -> None:
    answer = await ask(
        f"/peer_mentors?select=id,assignments!inner(status)&assignments.status=in.(active)&id=eq.{ids(5)[4]}"
    )
    assert json.loads(answer.body) == [{"id": str(ids(5)[4]), "assignments": [{"status": "active"}] * 2}]
    answer = await ask(f"/peer_mentors?select=assignments(status)&assignments.status=eq.x&id=eq.{ids(1)[0]}")
    assert json.loads(answer.body) == [{"assignments": []}]
    answer = await ask("/assignments?select=status,peer_mentors(id)&status=eq.ended")
    assert json.loads(answer.body) == [{"status": "ended", "peer_mentors": {"id": str(ids(5)[4])}}]


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/peer_mentors?select=id&status=active", 400, "PGRST100"),
        ("/peer_mentors?select=id&status=is.active", 400, "PGRST100"),
        ("/peer_mentors?select=id&status=equals.active", 400, "PGRST100"),
        ("/peer_mentors?select=id&status=in.active", 400, "PGRST100"),
        ("/peer_mentors?select=id&status=in.(active", 400, "PGRST100"),
        ("/peer_mentors?select=id&status=in.(active)x", 400, "PGRST100"),
        ("/peer_mentors?select=id&status=in.(a)b)", 400, "PGRST100"),
        ("/peer_mentors?select=id,", 400, "PGRST100"),
        ("/peer_mentors?select=id,assignments!inner(status", 400, "PGRST100"),
        ("/peer_mentors?select=id,assignments!outer(status)", 400, "PGRST100"),
        ("/peer_mentors?select=id&order=id.ascending", 400, "PGRST100"),
        ("/peer_mentors?select=id&order=id+asc", 400, "PGRST100"),
        ("/peer_mentors?select=id&limit=all", 400, "PGRST100"),
        ("/peer_mentors?select=id&limit=1&limit=2", 400, "PGRST100"),
        ("/peer_mentors?select=id&or=(id.eq.1)", 400, "PGRST100"),
        ("/peer_mentors?select=id&assignments.status=eq.active", 400, "PGRST108"),
        ("/peer_mentors?select=id,activities(kind)", 400, "PGRST200"),
        ("/peer_mentors?select=id,nothing(kind)", 400, "PGRST200"),
        ("/peer_mentors?select=nothing", 400, "42703"),
        ("/peer_mentors?select=id&nothing=eq.1", 400, "42703"),
        ("/peer_mentors?select=id&order=nothing", 400, "42703"),
        ("/peer_mentors?select=id&id=gt.5", 400, "22P02"),
        ("/peer_mentors?select=id&id=gt.%27%20or%20true", 400, "22P02"),
        ("/peer_mentors2?select=id", 404, "PGRST205"),
        ("/pg_class?select=oid", 404, "PGRST205"),
        ("/peer_mentors/5?select=id", 404, "PGRST125"),
        ("/?select=id", 404, "PGRST125"),
    ],
)
async def test_what_is_not_its_grammar_is_refused(target: str, status: int, code: str, ask: Ask) -> None:
    answer = await ask(target)
    assert (answer.status, code_of(answer)) == (status, code)


async def test_two_foreign_keys_between_two_tables_are_one_too_many(ask: Ask, database: Database) -> None:
    await query(
        database,
        "alter table public.assignments add foreign key (id) references public.peer_mentors not valid",
    )
    answer = await ask("/peer_mentors?select=id,assignments(status)")
    assert (answer.status, code_of(answer)) == (300, "PGRST201")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"apikey": "wrong"}, 401),
        ({"apikey": ""}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": REST_KEY}, 401),
        ({"Accept": "text/html"}, 406),
        ({"Range": "0-5"}, 400),
    ],
)
async def test_headers_are_looked_at(headers: dict[str, str], status: int, ask: Ask) -> None:
    assert (await ask("/peer_mentors?select=id", **headers)).status == status


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT", "OPTIONS"])
async def test_it_is_for_reading(method: str, ask: Ask) -> None:
    assert (await ask("/peer_mentors?select=id", method)).status == 405


@pytest.mark.parametrize(
    ("query_string", "prefer", "status", "content_range"),
    [
        ("select=id", "", 200, "0-4/*"),
        ("select=id", "count=exact", 200, "0-4/5"),
        ("select=id&limit=2", "count=exact", 206, "0-1/5"),
        ("select=id&limit=2&offset=3", "count=exact", 206, "3-4/5"),
        ("select=id&limit=0", "count=exact", 206, "*/5"),
        ("select=id&status=eq.none", "count=exact", 200, "*/0"),
        ("select=id&limit=2", "handling=lenient, count=exact", 206, "0-1/5"),
        ("select=id&offset=6", "count=exact", 416, None),
        ("select=id,assignments!inner(status)&assignments.status=eq.ended", "count=exact", 200, "0-0/1"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_count_is_of_all_that_the_filters_let_through(
    method: str, query_string: str, prefer: str, status: int, content_range: str | None, ask: Ask
) -> None:
    answer = await ask(f"/peer_mentors?{query_string}", method, Prefer=prefer)
    assert (answer.status, answer.single_header("content-range")) == (status, content_range)
    assert bool(answer.body) == (method == "GET")


async def test_an_answer_is_capped_whatever_the_limit(ask: Ask, postgrest: Postgrest) -> None:
    postgrest.max_rows = 3
    for query_string in ("select=id", "select=id&limit=100"):
        answer = await ask(f"/peer_mentors?{query_string}", Prefer="count=exact")
        assert answer.single_header("content-range") == "0-2/5"
