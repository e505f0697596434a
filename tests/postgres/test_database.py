"""The bridge to Postgres: what comes out of it, what it leaves behind, and how long it can take to leave."""

from __future__ import annotations

import asyncio
import gc
import resource
import traceback
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import trio
from structlog.testing import capture_logs

import engine.database
from engine.bridge import CANCELLED_TIMERS
from engine.database import Database, open_database
from engine.embedded import EmbeddedPostgres
from engine.errors import DatabaseUnavailable, StatementFailed
from engine.statements import Statement
from tests.faults.proxy import FaultProxy, open_fault_proxy
from tests.postgres.conftest import query, value, wait_until, wait_until_gone, wait_until_running

WRITE = Statement("write", "create table written (id int); insert into written values (1)")


@pytest.fixture
async def watcher(empty_database_url: str) -> AsyncIterator[Database]:
    """A second pool, to look at what the first leaves on the server."""
    async with open_database(empty_database_url, max_connections=1) as database:
        yield database


@pytest.fixture
async def small(empty_database_url: str) -> AsyncIterator[Database]:
    """A pool of two."""
    async with open_database(empty_database_url, max_connections=2) as database:
        yield database


def forever() -> tuple[Statement, str]:
    """A statement that never ends, and what it is known by in pg_stat_activity."""
    marker = uuid4().hex
    return Statement("forever", f"select pg_sleep(3600) /* {marker} */"), marker


@contextmanager
def ends_within_a_second() -> Iterator[None]:
    # Real time, because the promise is a bound on it. RELEASE_TIMEOUT is half of it.
    began = trio.current_time()
    yield
    assert trio.current_time() - began < 1.0


# --- Errors ---


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("select 1 / 0", "22012"),
        ("select 'x'::int", "22P02"),
        ("select from nowhere", "42P01"),
        ("selekt", "42601"),
        ("do $$ begin raise invalid_parameter_value; end $$", "22023"),
        ("do $$ begin raise exception 'a row: %', 1; end $$", "P0001"),
        ("do $$ begin raise serialization_failure; end $$", "40001"),
    ],
)
async def test_a_refused_statement_is_known_by_its_sqlstate_and_the_connection_stays(
    small: Database, sql: str, sqlstate: str
) -> None:
    session = await value(small, "select pg_backend_pid()")
    with pytest.raises(StatementFailed) as caught:
        await query(small, sql)
    assert caught.value.sqlstate == sqlstate
    assert "row" not in str(caught.value)
    assert await value(small, "select pg_backend_pid()") == session


@pytest.mark.parametrize("state", ["08006", "28000", "53300", "57P01", "58030"])
async def test_what_postgres_says_of_itself_is_unavailable(small: Database, state: str) -> None:
    with pytest.raises(DatabaseUnavailable):
        await query(small, f"do $$ begin raise exception using errcode = '{state}'; end $$")


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.replace("app:", "app:not"),
        lambda url: url + "_that_is_not_there",
        lambda url: "postgresql://app:secret@127.0.0.1:1/postgres",  # nobody listens
    ],
    ids=["password", "database", "port"],
)
async def test_a_database_that_can_not_be_reached_is_unavailable(
    empty_database_url: str, change: Callable[[str], str]
) -> None:
    async with open_database(change(empty_database_url)) as database:
        with pytest.raises(DatabaseUnavailable) as caught:
            await query(database, "select 1")
        assert "secret" not in str(caught.value)
        with pytest.raises(DatabaseUnavailable):
            async with database.open_transaction():
                pass


async def test_an_answer_that_takes_too_long_is_unavailable_and_ends_on_the_server(
    small: Database, watcher: Database
) -> None:
    statement, marker = forever()
    with pytest.raises(DatabaseUnavailable):
        await small.fetch(statement, answer_within=0.1)
    await wait_until_gone(watcher, marker)


async def test_no_file_descriptor_left_is_said_and_not_blamed_on_the_server(small: Database) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(DatabaseUnavailable) as caught:
            await query(small, "select 1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "no file descriptor left" in str(caught.value)


# --- Cancellation ---


async def test_cancelling_a_call_ends_its_query_on_the_server(small: Database, watcher: Database) -> None:
    statement, marker = forever()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(small.fetch, statement)
        await wait_until_running(watcher, marker)
        nursery.cancel_scope.cancel()
    await wait_until_gone(watcher, marker)


async def test_cancelling_in_a_transaction_ends_its_query_and_rolls_back(
    small: Database, watcher: Database
) -> None:
    statement, marker = forever()
    await query(small, "create table written (id int)")

    async def write_and_hang() -> None:
        async with small.open_transaction() as transaction:
            await query(transaction, "insert into written values (1)")
            await transaction.fetch(statement)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_and_hang)
        await wait_until_running(watcher, marker)
        nursery.cancel_scope.cancel()
    await wait_until_gone(watcher, marker)
    assert await value(small, "select count(*) from written") == 0


async def test_a_cancelled_call_raises_nothing_but_the_cancel(small: Database, watcher: Database) -> None:
    statement, marker = forever()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel() -> None:
                await wait_until_running(watcher, marker)
                scope.cancel()

            await small.fetch(statement)
    assert scope.cancelled_caught


async def test_no_connection_is_leaked_however_calls_are_cancelled(
    small: Database, watcher: Database
) -> None:
    async def in_transaction() -> None:
        async with small.open_transaction() as transaction:
            await query(transaction, "select pg_sleep(0.002)")

    async def alone() -> None:
        await query(small, "select pg_sleep(0.002)")

    for step in range(60):
        # From before the connection is there until after the answer.
        with trio.move_on_after(step * 0.0002):
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(in_transaction)
                    nursery.start_soon(alone)
    with trio.fail_after(5):
        async with small.open_transaction() as one, small.open_transaction() as two:
            assert await value(one, "select 1") == await value(two, "select 1") == 1
    # The two, and the watcher's own.
    sessions = (
        "select count(*) from pg_stat_activity where datname = current_database() and state is not null"
    )
    await wait_until(watcher, lambda there: there <= 3, sessions)


# --- Transactions ---


async def test_a_transaction_commits_at_its_end(small: Database, watcher: Database) -> None:
    async with small.open_transaction() as transaction:
        await transaction.execute(WRITE)
        with pytest.raises(StatementFailed):
            await query(watcher, "select from written")
    assert await value(watcher, "select count(*) from written") == 1


async def test_a_transaction_not_to_be_kept_is_rolled_back_and_its_connection_used_again(
    empty_database_url: str,
) -> None:
    async with open_database(empty_database_url, max_connections=1) as database:
        session = await value(database, "select pg_backend_pid()")
        async with database.open_transaction(kept=False) as transaction:
            await transaction.execute(WRITE)
        with pytest.raises(StatementFailed):
            await query(database, "select from written")
        assert await value(database, "select pg_backend_pid()") == session


async def write_and_fail(database: Database, fault: str) -> None:
    async with database.open_transaction() as transaction:
        await query(transaction, "insert into written values (1)")
        await query(transaction, "select 1 / 0") if fault == "of the statement" else 1 / 0


@pytest.mark.parametrize("fault", ["of ours", "of the statement"])
async def test_a_failed_transaction_is_rolled_back_and_its_connection_not_used_again(
    empty_database_url: str, fault: str
) -> None:
    async with open_database(empty_database_url, max_connections=1) as database:
        await query(database, "create table written (id int)")
        session = await value(database, "select pg_backend_pid()")
        with pytest.raises((ZeroDivisionError, StatementFailed)):
            await write_and_fail(database, fault)
        assert await value(database, "select count(*) from written") == 0
        assert await value(database, "select pg_backend_pid()") != session


# --- A server that dies ---


async def test_a_killed_session_is_unavailable_and_the_next_call_works(
    small: Database, watcher: Database
) -> None:
    statement, marker = forever()

    async def kill() -> None:
        await wait_until_running(watcher, marker)
        await query(
            watcher,
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where query like '%' || $1 || '%' and pid <> pg_backend_pid()",
            marker,
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        with pytest.raises(DatabaseUnavailable):
            await small.fetch(statement)
    assert await value(small, "select 1") == 1


async def test_a_server_killed_in_mid_query_is_unavailable_and_works_once_it_is_back(
    open_own_postgres: Callable[[], AbstractContextManager[EmbeddedPostgres]],
) -> None:
    statement, marker = forever()
    with open_own_postgres() as server:
        async with open_database(server.dsn, max_connections=2) as database:
            await query(database, "select 1")

            async def kill() -> None:
                await wait_until_running(database, marker)
                server.stop_immediately()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill)
                with pytest.raises(DatabaseUnavailable):
                    await database.fetch(statement)
            with pytest.raises(DatabaseUnavailable):
                await query(database, "select 1")
            server.start_again()
            assert await value(database, "select 1") == 1
            async with database.open_transaction() as transaction:
                assert await value(transaction, "select 1") == 1


async def test_a_server_that_takes_no_writes_is_unavailable_and_its_connection_is_not_used_again(
    empty_database_url: str,
) -> None:
    """Such as a standby, or a primary that was made one: the next connection may lead to one that writes."""
    async with open_database(empty_database_url, max_connections=1) as database:
        session = await value(database, "select pg_backend_pid()")
        with pytest.raises(DatabaseUnavailable):
            await query(database, "do $$ begin raise read_only_sql_transaction; end $$")
        assert await value(database, "select pg_backend_pid()") != session


async def send_garbage(stream: trio.SocketStream) -> None:
    """Let everybody in and begin, and answer all else with a row description that ends before its columns."""
    async with stream:
        await stream.receive_some()
        await stream.send_all(message(b"R", bytes(4)) + message(b"S", b"server_version\x0018.0\0"))
        await stream.send_all(message(b"K", bytes(8)) + message(b"Z", b"I"))
        with suppress(trio.BrokenResourceError):
            async for asked in stream:
                if asked.startswith(b"Q"):
                    await stream.send_all(message(b"C", b"BEGIN\0") + message(b"Z", b"T"))
                    continue
                await stream.send_all(message(b"1") + message(b"t", bytes(2)) + message(b"T", b"\x00\x02"))


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


@asynccontextmanager
async def open_garbling() -> AsyncIterator[tuple[Database, list[int]]]:
    """A database whose server sends garbage, and a number for each connection that was made to it."""
    connections: list[int] = []

    async def serve(stream: trio.SocketStream) -> None:
        connections.append(len(connections))
        await send_garbage(stream)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        url = f"postgresql://app@127.0.0.1:{listener.socket.getsockname()[1]}/app?sslmode=disable"
        async with open_database(url, max_connections=1) as database:
            yield database, connections
        nursery.cancel_scope.cancel()


async def in_a_transaction(database: Database) -> None:
    async with database.open_transaction() as transaction:
        await query(transaction, "select 1")


@pytest.mark.parametrize("ask", [lambda database: query(database, "select 1"), in_a_transaction])
async def test_a_server_that_sends_garbage_is_unavailable_its_connection_gone_and_a_line_is_logged(
    ask: Callable[[Database], Awaitable[Any]],
) -> None:
    async with open_garbling() as (database, connections):
        for number in (1, 2):
            with capture_logs() as logs, pytest.raises(DatabaseUnavailable, match="garbled"):
                await ask(database)
            assert [(line["event"], line["log_level"]) for line in logs] == [("answer_garbled", "warning")]
            assert logs[0]["error"] in ("BufferError", "IndexError")
            assert len(connections) == number


@pytest.mark.parametrize("bug", [IndexError, BufferError, UnicodeDecodeError("utf-8", b"", 0, 1, "")])
async def test_a_bug_that_fails_as_garbage_does_is_not_called_a_database_that_is_away(
    bug: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: Any) -> None:
        raise bug

    async with open_garbling() as (database, connections):
        with monkeypatch.context() as patch:
            patch.setattr(engine.database, "on_asyncio", fail)
            for ask in (lambda: query(database, "select 1"), lambda: in_a_transaction(database)):
                with pytest.raises((IndexError, BufferError, UnicodeDecodeError)):
                    await ask()
    assert connections == []


# --- A network that goes silent ---


@pytest.fixture
async def proxy(empty_database_url: str) -> AsyncIterator[FaultProxy]:
    async with open_fault_proxy(empty_database_url) as proxy:
        yield proxy


@pytest.fixture
def through_proxy(proxy: FaultProxy, empty_database_url: str) -> str:
    return proxy.through(empty_database_url)


async def test_a_silent_network_does_not_hold_up_a_cancelled_call(
    proxy: FaultProxy, through_proxy: str, watcher: Database
) -> None:
    statement, marker = forever()
    async with open_database(through_proxy) as database:
        with ends_within_a_second_of_the_cancel() as cut:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.fetch, statement)
                await wait_until_running(watcher, marker)
                proxy.go_silent()
                cut()
                nursery.cancel_scope.cancel()


async def test_a_silent_network_does_not_hold_up_a_call_whose_time_is_up(
    proxy: FaultProxy, through_proxy: str
) -> None:
    async with open_database(through_proxy) as database:
        await query(database, "select 1")
        proxy.go_silent()
        with ends_within_a_second(), pytest.raises(DatabaseUnavailable):
            await database.fetch(Statement("test", "select 1"), answer_within=0.1)
        with ends_within_a_second(), pytest.raises(DatabaseUnavailable):  # and now it has to connect first
            await database.fetch(Statement("test", "select 1"), answer_within=0.1)


@pytest.mark.parametrize("doing", ["nothing", "a statement", "a statement that was cancelled"])
async def test_a_silent_network_does_not_hold_up_the_end_of_a_transaction(
    proxy: FaultProxy, through_proxy: str, watcher: Database, doing: str
) -> None:
    statement, marker = forever()
    async with open_database(through_proxy) as database:
        with ends_within_a_second_of_the_cancel() as cut, trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def go_silent() -> None:
                    if doing != "nothing":
                        await wait_until_running(watcher, marker)
                    proxy.go_silent()
                    cut()
                    scope.cancel()

                async with database.open_transaction() as transaction:
                    await query(transaction, "select 1")
                    nursery.start_soon(go_silent)
                    if doing == "a statement":
                        await transaction.fetch(statement)
                    elif doing == "a statement that was cancelled":
                        with trio.CancelScope() as inner:
                            nursery.start_soon(_cancel_when_running, inner, watcher, marker)
                            await transaction.fetch(statement)
                    await trio.sleep_forever()


async def _cancel_when_running(scope: trio.CancelScope, watcher: Database, marker: str) -> None:
    await wait_until_running(watcher, marker)
    scope.cancel()


async def test_a_silent_network_does_not_hold_up_the_closing_of_the_pool(
    proxy: FaultProxy, through_proxy: str, watcher: Database
) -> None:
    async with open_database(through_proxy) as database:
        # One connection idle, one in a transaction.
        async with database.open_transaction() as transaction:
            await query(transaction, "select 1")
            await query(database, "select 1")
        proxy.go_silent()
        began = trio.current_time()
    assert trio.current_time() - began < 1.0


@contextmanager
def ends_within_a_second_of_the_cancel() -> Iterator[Callable[[], None]]:
    began: list[float] = []
    yield lambda: began.append(trio.current_time())
    assert trio.current_time() - began[0] < 1.0


async def test_nothing_of_asyncio_comes_out_when_the_pool_is_closed_under_a_call(
    empty_database_url: str, watcher: Database
) -> None:
    statement, marker = forever()
    errors: list[BaseException] = []

    async def call(database: Database) -> None:
        try:
            await database.fetch(statement, answer_within=60)
        except (Exception, asyncio.CancelledError) as error:
            errors.append(error)

    async with trio.open_nursery() as nursery, open_database(empty_database_url) as database:
        nursery.start_soon(call, database)
        await wait_until_running(watcher, marker)
    assert [type(error) for error in errors] == [DatabaseUnavailable]


async def test_what_a_caller_has_in_its_context_is_not_kept_behind_its_statement(small: Database) -> None:
    """A request, for example, and all that came with it."""

    class Request:
        pass

    in_context: ContextVar[Request] = ContextVar("in_context")
    requests: list[weakref.ref[Request]] = []

    async def call() -> None:
        request = Request()
        in_context.set(request)
        requests.append(weakref.ref(request))
        await query(small, "select 1")

    for _ in range(300):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
    gc.collect()
    assert sum(request() is not None for request in requests) <= 2 * CANCELLED_TIMERS


async def test_what_the_server_quotes_of_a_row_is_not_in_a_traceback(database: Database) -> None:
    with pytest.raises(StatementFailed) as caught:
        await query(database, "select 'alice@example.org'::uuid")
    assert "22P02" in str(caught.value)
    assert "uuid: " not in "".join(traceback.format_exception(caught.value))
