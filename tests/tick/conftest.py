"""A Postgres that has the real pg_cron, and what stands in for what can't be had here: pg_net and Vault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from engine.database import Database, open_database
from engine.embedded import EmbeddedPostgres, find_binaries, open_embedded_postgres
from engine.errors import EmbeddedPostgresError
from engine.migrations import migrate
from engine.statements import Statement
from tests.end_to_end.conftest import start_service
from tests.transports.conftest import authority, certify, serve

__all__ = ["authority", "certify", "serve", "start_service"]

DEBIAN = "/usr/lib/postgresql/15/bin"
EXTENSIONS = Path("/usr/share/postgresql/15/extension")
HOW = "apt-get install postgresql-15 postgresql-15-cron postgresql-plpython3-15"

WITH_CRON = {
    "shared_preload_libraries": "pg_cron",
    "cron.database_name": "postgres",
    # As a client it would have to log in with a password, and its role has none.
    "cron.use_background_workers": "on",
    "log_statement": "all",  # so that a secret in the log would be seen
}


OpenCronPostgres = Callable[[], AbstractContextManager[EmbeddedPostgres]]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Migrated, with the example tables, empty; without pg_cron."""
    async with open_database(database_url) as database:
        yield database


def find_cron_postgres() -> OpenCronPostgres:
    """What opens a server with pg_cron loaded; its jobs are in the database `postgres` alone."""
    try:
        binaries = find_binaries(DEBIAN)
    except EmbeddedPostgresError:
        binaries = None
    if binaries is None or not all(
        (EXTENSIONS / f"{name}.control").exists() for name in ("pg_cron", "plpython3u")
    ):
        pytest.skip(f"Postgres 15 with pg_cron and plpython3u is not installed: {HOW}")
    return partial(open_embedded_postgres, binaries, WITH_CRON)


@pytest.fixture
def open_cron_postgres() -> OpenCronPostgres:
    """As found."""
    return find_cron_postgres()


@pytest.fixture
def cron_postgres(open_cron_postgres: OpenCronPostgres) -> Iterator[EmbeddedPostgres]:
    """A server of this test's own."""
    with open_cron_postgres() as postgres:
        yield postgres


@pytest.fixture
async def administrator(cron_postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """Its administrator's way in, migrated with the example tables, with pg_cron in it."""
    async with open_database(cron_postgres.dsn) as database:
        await migrate(database, with_example_tables=True)
        async with database.open_transaction() as transaction:
            await transaction.execute(Statement("pg_cron", "create extension pg_cron"))
        yield database
