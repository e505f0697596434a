"""This file is the commands' way into the database as its administrator, to change it or see all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine import Database, Settings, open_database


@asynccontextmanager
async def open_as_administrator(settings: Settings) -> AsyncIterator[Database]:
    """With SCHEDULER_ADMIN_DATABASE_URL, or DATABASE_URL where that is not set; one of them was required."""
    url = settings.administrator_url
    assert url is not None  # noqa: S101 - it was required
    async with open_database(url.get_secret_value()) as database:
        yield database
