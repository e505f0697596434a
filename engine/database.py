"""This file is the way to Postgres, and the only one that knows asyncpg.

It promises:

- Only DatabaseUnavailable and StatementFailed come out. The server's own messages stay in: they quote rows.
- Cancelling a call ends its query on the server.
- Every exit is bounded. A connection whose network went silent is thrown away after RELEASE_TIMEOUT; nothing
  waits for it longer, neither a cancelled call nor the end of the process.
- A connection that broke, or whose transaction was not ended, is never handed out again.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Literal, TypeVar

import asyncpg
import structlog
import trio

from engine.bridge import Loop, on_asyncio, open_asyncio
from engine.errors import DatabaseUnavailable, StatementFailed
from engine.out_of_files import is_out_of_files
from engine.statements import Statement

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds that giving a connection back may take. That is the round trip which ends a cancelled query, over a
# connection of its own: milliseconds with a healthy server, never with a silent one. A cut call holds up the
# answer of a run by as much, so it has to fit between the hard deadline and the platform limit.
RELEASE_TIMEOUT = 0.5

# Seconds for one statement, waiting for a connection included, unless its caller says otherwise. A page takes
# milliseconds; so long means that network or server went away without a word.
STATEMENT_TIMEOUT = 5.0

# What Postgres says of itself rather than of the statement, by SQLSTATE or its class (appendix A of its
# manual).
_UNAVAILABLE = {
    "08": "the connection was lost",
    "25006": "it takes no writes, as a standby does",
    "28": "the login was refused",
    "3D": "the database does not exist",
    "53": "it is out of resources",
    "57P": "it is shutting down, or not up yet",
    "58": "it reports a fault of its own system",
}

# How asyncpg fails at an answer that is not Postgres's protocol, once it has logged in. A bug can fail the
# same way, so it counts as this only where a connection was asked, which is thrown away for it, and is
# logged.
_GARBLED = (BufferError, IndexError, UnicodeDecodeError)

# The same of what the network says.
_UNREACHABLE = {
    socket.gaierror: "the name of its host can't be resolved",
    ConnectionRefusedError: "nobody listens there",
    ConnectionResetError: "the connection was lost",
    TimeoutError: "it does not answer",
    asyncpg.ClientConfigurationError: "the connection's parameters contradict one another",
}

_OUT_OF_FILES = "this process has no file descriptor left for a connection (ulimit -n)"

# What giving a connection back raises when it is broken, or its time is up: TimeoutError is an OSError.
_CONNECTION_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


class _GarbledAnswer(Exception):
    """What came can't be read, and the connection it came over is no more."""


class Transaction:
    """One open transaction on one connection, never used by two tasks at once."""

    def __init__(
        self,
        loop: Loop,
        connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record],
        setting: str,
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._setting = setting

    async def fetch(self, statement: Statement, *arguments: Any) -> Sequence[asyncpg.Record]:
        """All rows of one statement.

        **Cancellation:** leave the transaction's block; it rolls back.
        """
        with _translated_errors(statement.name, self._setting):
            return await on_asyncio(
                self._loop,
                lambda: _ask(
                    self._connection,
                    statement.name,
                    lambda: self._connection.fetch(statement.sql, *arguments),
                ),
            )

    async def execute(self, script: Statement) -> None:
        """Any number of statements without parameters.

        **Cancellation:** as `fetch`.
        """
        with _translated_errors(script.name, self._setting):
            await on_asyncio(
                self._loop,
                lambda: _ask(self._connection, script.name, lambda: self._connection.execute(script.sql)),
            )


class Database:
    """A pool of connections. Every call takes one and gives it back before it returns."""

    def __init__(self, loop: Loop, pool: asyncpg.Pool[asyncpg.Record], setting: str) -> None:
        # Held, not looked up: whoever calls may be a task that was not started inside the loop.
        self._loop = loop
        self._pool = pool
        self._setting = setting

    async def fetch(
        self, statement: Statement, *arguments: Any, answer_within: float = STATEMENT_TIMEOUT
    ) -> Sequence[asyncpg.Record]:
        """All rows of one statement, in a transaction of its own. `answer_within` in seconds.

        Raises DatabaseUnavailable, also when the time is up, and StatementFailed.

        **Cancellation:** the query is ended on the server; whether it took effect is not known. Returns
        within RELEASE_TIMEOUT.
        """

        async def fetch() -> Sequence[asyncpg.Record]:
            # Taking, using and giving back in one crossing: each crossing costs about 100 us.
            connection = await self._pool.acquire()
            try:
                return await _ask(
                    connection, statement.name, lambda: connection.fetch(statement.sql, *arguments)
                )
            except (asyncpg.InternalClientError, asyncpg.ReadOnlySQLTransactionError):
                # What asyncpg says when the server ended the session between two steps of one statement; when
                # it is a standby, and the next connection may lead to its primary.
                connection.terminate()
                raise
            finally:
                await self._release(connection)

        with _translated_errors(statement.name, self._setting), trio.move_on_after(answer_within):
            return await on_asyncio(self._loop, fetch)
        raise DatabaseUnavailable(
            f"Postgres did not answer within {answer_within:g} s; check the network and its load."
        )

    @asynccontextmanager
    async def open_transaction(self, *, kept: bool = True) -> AsyncIterator[Transaction]:
        """Commits when the block ends, rolls back when it raises, or in any case if it is not to be kept.

        Raises as `fetch`, without a time-out.

        **Cancellation:** rolled back, within RELEASE_TIMEOUT.
        """
        with _translated_errors("begin", self._setting):
            connection = await on_asyncio(self._loop, self._pool.acquire)
        give_back = self._throw_away
        try:
            transaction = Transaction(self._loop, connection, self._setting)
            await transaction.execute(Statement("begin", "begin"))
            yield transaction
            end = "commit" if kept else "rollback"
            await transaction.execute(Statement(end, end))
            give_back = self._release
        finally:
            with trio.CancelScope(shield=True):
                await on_asyncio(self._loop, lambda: give_back(connection))

    async def _release(self, connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record]) -> None:
        with suppress(*_CONNECTION_ERRORS):  # then asyncpg has thrown it away
            await self._pool.release(connection, timeout=RELEASE_TIMEOUT)

    async def _throw_away(self, connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record]) -> None:
        # Ends a cancelled query as well. Without its connection, a transaction is rolled back by the server;
        # rolling back by hand would be one more thing that can hang or fail.
        with suppress(*_CONNECTION_ERRORS):  # then it is gone all the same
            await connection.close(timeout=RELEASE_TIMEOUT)


@asynccontextmanager
async def open_database(
    url: str,
    *,
    max_connections: int = 10,
    pooler: Literal["session", "transaction"] = "session",
    setting: str = "DATABASE_URL",
) -> AsyncIterator[Database]:
    """Open the asyncio loop and a pool in it. Connects to nothing until the first call.

    With a `transaction` pooler between, nothing may be kept on a connection: statements are not prepared.
    `setting` is where the URL came from, for the sentence of DatabaseUnavailable.

    **Cancellation:** every connection is closed, or thrown away after RELEASE_TIMEOUT.
    """
    async with open_asyncio() as loop:
        pool = asyncpg.create_pool(
            url,
            loop=loop,  # else asyncpg asks the caller's context, which knows the loop opened last
            min_size=0,
            max_size=max_connections,
            timeout=STATEMENT_TIMEOUT,
            reset=_keep_session,
            statement_cache_size=0 if pooler == "transaction" else 100,
            server_settings={"application_name": "scenario-scheduler"},
        )
        await on_asyncio(loop, lambda: _initialised(pool))
        try:
            yield Database(loop, pool, setting)
        finally:
            with trio.CancelScope(shield=True):
                await on_asyncio(loop, lambda: _close(pool))


async def _initialised(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    await pool


async def _keep_session(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Instead of asyncpg's RESET ALL, a round trip after every statement: nothing here changes a session."""


async def _close(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    try:
        await asyncio.wait_for(pool.close(), RELEASE_TIMEOUT)
    except _CONNECTION_ERRORS:
        pool.terminate()


async def _ask(
    connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record], name: str, ask: Callable[[], Awaitable[T]]
) -> T:
    try:
        return await ask()
    except _GARBLED as error:
        connection.terminate()
        log.warning("answer_garbled", statement=name, error=type(error).__name__)
        raise _GarbledAnswer from None


@contextmanager
def _translated_errors(name: str, setting: str) -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        if isinstance(error, asyncpg.DataError) and error.severity is None:
            raise  # not from the server: asyncpg was given an argument of the wrong type, a bug of ours
        state = error.sqlstate or "XX000"
        for prefix, reason in _UNAVAILABLE.items():
            if state.startswith(prefix):
                raise _unavailable(f"{reason} (SQLSTATE {state})", setting) from None
        raise StatementFailed(name, state) from None  # a logged traceback would show the server's message
    except _GarbledAnswer:
        raise _unavailable("what it sends is garbled", setting) from None
    except (OSError, OverflowError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        known = (reason for kind, reason in _UNREACHABLE.items() if isinstance(error, kind))
        reason = _OUT_OF_FILES if is_out_of_files(error) else next(known, type(error).__name__)
        raise _unavailable(reason, setting) from None
    except asyncio.CancelledError as error:
        # Not trio's cancel: that one has become trio.Cancelled. The pool gave up the connection under us.
        raise _unavailable("the connection was given up", setting) from error


def _unavailable(reason: str, setting: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"Postgres can't be used: {reason}; check {setting} and that the server is up."
    )
