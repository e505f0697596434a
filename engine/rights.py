"""This file gives the roles what they need of what is not ours. What is ours is granted by the migrations."""

from __future__ import annotations

from engine.database import Database
from engine.errors import MigrationError, StatementFailed
from engine.migrations import WHO_MIGRATES
from engine.statements import load_statement

_GRANT_RIGHTS = load_statement("grant_rights")
_HAND_OVER_PASSWORD = load_statement("hand_over_password")
_SET_SERVICE_PASSWORD = load_statement("set_service_password")

_INSUFFICIENT_PRIVILEGE = "42501"


async def grant_rights(database: Database) -> list[str]:
    """Let the scheduler's owner read the user's tables through the three views. Safe to repeat.

    Returns a line for each right that was not there yet. To be run again when a view was replaced, or when
    row-level security was turned on. Raises MigrationError, DatabaseUnavailable.

    **Cancellation:** all was granted, or nothing.
    """
    try:
        return [row["done"] for row in await database.fetch(_GRANT_RIGHTS)]
    except StatementFailed as error:
        if error.sqlstate != _INSUFFICIENT_PRIVILEGE:
            raise
        raise MigrationError(
            f"The tables that the views read can't be opened to scheduler_owner. {WHO_MIGRATES}"
        ) from error


async def set_service_password(database: Database, password: str) -> None:
    """Let the service log in as scheduler_service, for `demo` and the tests.

    The server may log the statement that a person would type for it; this one does not hold the password.
    Raises StatementFailed, DatabaseUnavailable.

    **Cancellation:** the password was set, or not.
    """
    async with database.open_transaction() as transaction:
        await transaction.fetch(_HAND_OVER_PASSWORD, password)
        await transaction.execute(_SET_SERVICE_PASSWORD)
