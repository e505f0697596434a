"""This file is whether the database is there and migrated, as whoever begins something on it has to know."""

from __future__ import annotations

from engine.database import Database
from engine.errors import MigrationError, NotReady, StatementFailed
from engine.migrations import pending_migrations

# Seconds after which someone who was refused for the moment may as well ask again: what a restart takes.
RETRY_AFTER = 5.0


async def check_ready(database: Database) -> None:
    """Raises DatabaseUnavailable or NotReady, which say what to do, unless it could be worked with.

    **Cancellation:** leaves nothing behind.
    """
    try:
        pending = await pending_migrations(database)
    except (StatementFailed, MigrationError) as error:
        raise NotReady(str(error), RETRY_AFTER) from error
    if pending:
        raise NotReady(
            "The database is not migrated to this version; run `scenario-scheduler migrate`.", RETRY_AFTER
        )
