"""This file is the commands' way into the database as its administrator, to change it or see all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine import Database, Settings, open_database


@asynccontextmanager
async def open_as_administrator(settings: Settings) -> AsyncIterator[Database]:
    """With SCHEDULER_ADMIN_DATABASE_URL, or DATABASE_URL where that is not set; one of them was required.

    As if there were a transaction pooler, whatever SCHEDULER_DATABASE_POOLER says of the service's URL:
    what a command asks once is not worth preparing, and behind such a pooler it fails the second time.
    """
    url = settings.administrator_url
    assert url is not None  # noqa: S101 - it was required
    async with open_database(
        url.get_secret_value(), pooler="transaction", setting=settings.administrator_setting
    ) as database:
        yield database
