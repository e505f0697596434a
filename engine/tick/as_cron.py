"""This file acts as scheduler_cron within a transaction: who owns pg_cron's jobs is who made them.

pg_cron shows a job to its owner alone, superusers aside, who are not to be had everywhere. So the
administrator becomes scheduler_cron for the moment, and lends it the use of pg_cron, which it otherwise
lacks: it may tick, and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.database import Transaction
from engine.statements import load_statement

_LEND = load_statement("lend_pg_cron")
_BECOME_CRON = load_statement("become_cron")
_BECOME_ADMINISTRATOR = load_statement("become_administrator")
_TAKE_BACK = load_statement("take_back_pg_cron")


@asynccontextmanager
async def as_cron(transaction: Transaction) -> AsyncIterator[None]:
    """Within the block, statements of the transaction are scheduler_cron's.

    In an `open_tick_transaction`, because of two that lend at once the second fails.

    **Cancellation:** leave the transaction too; it rolls back, and nothing is lent.
    """
    await transaction.execute(_LEND)
    await transaction.execute(_BECOME_CRON)
    yield
    await transaction.execute(_BECOME_ADMINISTRATOR)
    await transaction.execute(_TAKE_BACK)
