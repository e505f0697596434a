"""This file is a stand-in for PostgREST as Supabase serves it: its grammar, its refusals, a Postgres behind.

It is not PostgREST, which can't be had as a package, and no server for anybody: it reads, on loopback, what
`tests/postgrest_grammar.py` takes for a question. What it holds a client to is what PostgREST's manual says,
and where that leaves room it is the stricter. The real one answers the same tests where POSTGREST_URL is set,
see tests/postgres/test_mentor_source.py.

Names are looked up in the catalogue before they come into a statement, and values are only ever bound. Unlike
PostgREST it caches no schema, so that a foreign key counts from the moment it is there.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h11
import trio

from engine.database import Database
from engine.errors import DatabaseUnavailable, StatementFailed
from engine.statements import Statement
from tests.postgrest_grammar import COMPARISONS, Embedded, Filter, ReadQuery, Refusal, parse_target

PREFIX = "/rest/v1"

_COLUMNS = Statement(
    "columns",
    """
    select attname as name, format_type(atttypid, atttypmod) as type
      from pg_attribute join pg_class c on c.oid = attrelid
     where c.relnamespace = 'public'::regnamespace
       and c.relname = $1::text
       and c.relkind in ('r', 'v', 'm', 'p')
       and attnum > 0
       and not attisdropped
    """,
)
_FOREIGN_KEYS = Statement(
    "foreign_keys",
    """
    with keys as (
      select conrelid as here, conkey as here_key, confrelid as there, confkey as there_key, false as to_many
        from pg_constraint where contype = 'f'
      union all
      select confrelid, confkey, conrelid, conkey, true
        from pg_constraint where contype = 'f')
    select h.attname as here, t.attname as there, keys.to_many
      from keys
      join pg_attribute h on (h.attrelid, h.attnum) = (here, here_key[1])
      join pg_attribute t on (t.attrelid, t.attnum) = (there, there_key[1])
     where here = ('public.' || quote_ident($1::text))::regclass
       and there = ('public.' || quote_ident($2::text))::regclass
    """,
)

# The HTTP status of what Postgres refuses, by SQLSTATE or its class.
_STATUS_OF_SQLSTATE = {"08": 503, "53": 503, "42501": 403, "42P01": 404, "57": 500, "XX": 500}


@dataclass(frozen=True)
class Request:
    """`headers` in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]


class Postgrest:
    """What was asked of it, and what it answers. `max_rows` is PostgREST's db-max-rows."""

    def __init__(self, database: Database, key: str, max_rows: int) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self._database = database
        self._key = key
        self.max_rows = max_rows

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one connection for as long as it likes."""
        async with stream:
            connection = h11.Connection(h11.SERVER)
            try:
                while (request := await _receive(stream, connection)) is not None:
                    self.requests.append(request)
                    status, headers, body = await self._answer(request)
                    headers |= {
                        "Content-Length": str(len(body)),
                        "Content-Type": "application/json; charset=utf-8",
                    }
                    answer = h11.Response(status_code=status, headers=list(headers.items()))
                    data = connection.send(answer) or b""
                    if request.method != "HEAD":
                        data += connection.send(h11.Data(data=body)) or b""
                    data += connection.send(h11.EndOfMessage()) or b""
                    await stream.send_all(data)
                    if connection.our_state is h11.MUST_CLOSE:
                        return
                    connection.start_next_cycle()
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                pass  # the client has gone

    async def _answer(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        try:
            self._check_headers(request)
            if request.method not in ("GET", "HEAD"):
                raise Refusal(405, "PGRST117", f"Unsupported HTTP method: {request.method}")
            path, query = parse_target(request.target)
            relation = path.removeprefix(PREFIX + "/")
            if not path.startswith(PREFIX + "/") or "/" in relation or not relation:
                raise Refusal(404, "PGRST125", "Invalid path specified in request URL")
            return await self._read(relation, query, counted="count=exact" in _preferences(request))
        except Refusal as refusal:
            headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
            return refusal.status, headers, json.dumps(refusal.json).encode()

    def _check_headers(self, request: Request) -> None:
        # The one is Supabase's gateway, the other PostgREST itself.
        if request.headers.get("apikey") != self._key:
            raise Refusal(401, "", "Invalid API key", hint="Double check your API key.")
        if request.headers.get("authorization") != f"Bearer {self._key}":
            raise Refusal(401, "PGRST301", "JWSError JWSInvalidSignature")
        if request.headers.get("accept", "*/*") not in ("*/*", "application/json"):
            raise Refusal(406, "PGRST107", "None of these media types are available")
        if "range" in request.headers:
            raise Refusal(400, "PGRST100", "ranges are asked for by limit and offset here")

    async def _read(
        self, relation: str, query: ReadQuery, *, counted: bool
    ) -> tuple[int, dict[str, str], bytes]:
        statement, arguments = await self._statement(relation, query, counted=counted)
        try:
            [row] = await self._database.fetch(statement, *arguments)
        except StatementFailed as error:
            statuses = (
                status for code, status in _STATUS_OF_SQLSTATE.items() if error.sqlstate.startswith(code)
            )
            raise Refusal(next(statuses, 400), error.sqlstate, "refused by Postgres") from None
        except DatabaseUnavailable:
            raise Refusal(503, "PGRST000", "Could not connect with the database.") from None
        first, last, total = query.offset, query.offset + row["rows"] - 1, row["total"]
        if total is not None and first > total:
            details = f"An offset of {first} was requested, but there are only {total} rows."
            raise Refusal(416, "PGRST103", "Requested range not satisfiable", details)
        span = f"{first}-{last}" if first <= last and total != 0 else "*"
        content_range = f"{span}/{'*' if total is None else total}"
        is_part = total is not None and row["rows"] < total
        return 206 if is_part else 200, {"Content-Range": content_range}, row["body"].encode()

    async def _statement(
        self, relation: str, query: ReadQuery, *, counted: bool
    ) -> tuple[Statement, list[Any]]:
        sql = _Sql(relation, await self._columns_of(relation))
        selected = sql.selected("t", relation, query.columns)
        joins, conditions = [], [sql.condition("t", relation, each) for each in query.filters]
        for number, embedded in enumerate(query.embedded.values()):
            alias = f"e{number}"
            joins.append(await self._join(sql, relation, embedded, alias))
            if embedded.inner:
                conditions.append(f"{alias}.value is not null")
            selected.append(f"{alias}.value as {_quoted(embedded.relation)}")
        where = " and ".join([*conditions, "true"])
        source = f'from "public".{_quoted(relation)} t {" ".join(joins)} where {where}'
        order = [
            f"{sql.column('t', relation, term.column)} {'desc' if term.descending else 'asc'} "
            f"nulls {'first' if term.nulls_first else 'last'}"
            for term in query.order
        ]
        limit = self.max_rows if query.limit is None else min(query.limit, self.max_rows)
        page = f"select {', '.join(selected)} {source} {'order by ' + ', '.join(order) if order else ''} "
        page += f"limit {sql.bind(limit)}::bigint offset {sql.bind(query.offset)}::bigint"
        return Statement(
            "postgrest",
            f"with page as ({page}) select (select coalesce(json_agg(page), '[]')::text from page) as body, "
            f"(select count(*) from page) as rows, "
            f"{f'(select count(*) {source})' if counted else 'null::bigint'} as total",
        ), sql.arguments

    async def _columns_of(self, relation: str) -> dict[str, str]:
        rows = await self._database.fetch(_COLUMNS, relation)
        if not rows:
            raise Refusal(
                404, "PGRST205", f"Could not find the table 'public.{relation}' in the schema cache"
            )
        return {row["name"]: row["type"] for row in rows}

    async def _join(self, sql: _Sql, relation: str, embedded: Embedded, alias: str) -> str:
        """Lateral: the embedded rows of each row, as JSON, null where there is none."""
        other = embedded.relation
        no_relationship = Refusal(
            400,
            "PGRST200",
            f"Could not find a relationship between '{relation}' and '{other}' in the schema cache",
            f"Searched for a foreign key relationship between '{relation}' and '{other}' in the schema "
            "'public', but no matches were found.",
        )
        try:
            sql.learn(other, await self._columns_of(other))
        except Refusal:
            raise no_relationship from None
        keys = await self._database.fetch(_FOREIGN_KEYS, relation, other)
        if not keys:
            raise no_relationship
        if len(keys) > 1:
            message = (
                f"Could not embed because more than one relationship was found for '{relation}' and '{other}'"
            )
            raise Refusal(300, "PGRST201", message, hint="Try changing the embedding by a hint.")
        [key] = keys
        conditions = [f"s.{_quoted(key['there'])} = t.{_quoted(key['here'])}"]
        conditions += [sql.condition("s", other, each) for each in embedded.filters]
        aggregate = "json_agg(r)" if key["to_many"] else "max(to_json(r)::text)::json"
        if not embedded.inner and key["to_many"]:
            aggregate = f"coalesce({aggregate}, '[]')"
        return (
            f"left join lateral (select {aggregate} as value from (select "
            f'{", ".join(sql.selected("s", other, embedded.columns))} from "public".{_quoted(other)} s '
            f"where {' and '.join(conditions)}) r) {alias} on true"
        )


class _Sql:
    """Pieces of one statement. Whatever name comes in is one of the catalogue's; values go to `arguments`."""

    def __init__(self, relation: str, columns: Mapping[str, str]) -> None:
        self.arguments: list[Any] = []
        self._types = {relation: columns}

    def learn(self, relation: str, columns: Mapping[str, str]) -> None:
        self._types[relation] = columns

    def bind(self, value: Any) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def column(self, alias: str, relation: str, column: str) -> str:
        if column not in self._types[relation]:
            raise Refusal(400, "42703", f"column {relation}.{column} does not exist")
        return f"{alias}.{_quoted(column)}"

    def selected(self, alias: str, relation: str, columns: list[str]) -> list[str]:
        return [f"{alias}.*" if column == "*" else self.column(alias, relation, column) for column in columns]

    def condition(self, alias: str, relation: str, by: Filter) -> str:
        column, column_type = self.column(alias, relation, by.column), self._types[relation][by.column]
        if by.operator == "is":
            condition = f"{column} is {by.value}"  # one of four words of the grammar
        elif by.operator == "in":
            condition = f"{column} = any ({self.bind(list(by.value))}::text[]::{column_type}[])"
        else:
            condition = f"{column} {COMPARISONS[by.operator]} {self.bind(by.value)}::text::{column_type}"
        return f"not ({condition})" if by.negated else condition


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _preferences(request: Request) -> list[str]:
    return [each.strip() for each in request.headers.get("prefer", "").split(",")]


async def _receive(stream: trio.SocketStream, connection: h11.Connection) -> Request | None:
    """One request without its body, or None when the client has closed."""
    request = None
    while True:
        match connection.next_event():
            case h11.Request() as event:
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                request = Request(event.method.decode(), event.target.decode("latin-1"), headers)
            case h11.EndOfMessage():
                return request
            case h11.ConnectionClosed():
                return None
            case h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())


@asynccontextmanager
async def open_postgrest(database: Database, *, key: str, max_rows: int = 1_000) -> AsyncIterator[Postgrest]:
    """Serve the tables of schema `public` of this database to whoever has the key."""
    async with trio.open_nursery() as nursery:
        postgrest = Postgrest(database, key, max_rows)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        postgrest.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}{PREFIX}"
        nursery.start_soon(trio.serve_listeners, postgrest.serve, listeners)
        yield postgrest
        nursery.cancel_scope.cancel()
