"""This file is the transaction that looks at the tick or changes it: one at a time, none waiting for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.database import Database, Transaction
from engine.errors import StatementFailed, TickError
from engine.statements import Statement, load_statement

# How long another command, a migration, or somebody who holds a table is waited for. What they do takes a
# moment, so that waiting longer means a forgotten transaction. Less than `doctor` gives a check.
LOCK_TIMEOUT = "10s"

_TAKE_TURNS = load_statement("take_turns")

_LOCK_NOT_AVAILABLE = "55P03"


@asynccontextmanager
async def open_tick_transaction(database: Database) -> AsyncIterator[Transaction]:
    """Others wait until it has ended: looking at the tick grants and revokes, too (see as_cron).

    Raises TickError where a lock was waited for in vain.

    **Cancellation:** as `Database.open_transaction`.
    """
    try:
        async with database.open_transaction() as transaction:
            await transaction.fetch(_TAKE_TURNS, LOCK_TIMEOUT)
            yield transaction
    except StatementFailed as error:
        if error.sqlstate != _LOCK_NOT_AVAILABLE:
            raise
        raise TickError(
            f"{error.statement} waited {LOCK_TIMEOUT} for a lock in vain, and nothing was changed; end the "
            "transactions that have been open for long, or another command, and run this again."
        ) from error


@asynccontextmanager
async def kept_if_it_works(transaction: Transaction) -> AsyncIterator[None]:
    """A statement that is refused undoes the block, and nothing else of the transaction."""
    await transaction.execute(Statement("savepoint", "savepoint attempt"))
    try:
        yield
    except StatementFailed as error:
        if error.sqlstate == _LOCK_NOT_AVAILABLE:
            raise  # not refused
        await transaction.execute(Statement("rollback", "rollback to savepoint attempt"))
