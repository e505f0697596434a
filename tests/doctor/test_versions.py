"""On every version of Postgres: before it is migrated, and before it is given a tick."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import pytest

from engine.database import open_database
from engine.doctor.examine import examine
from engine.doctor.installation import SERVICE
from engine.embedded import EmbeddedPostgres
from engine.migrations import migrate
from engine.rights import set_service_password
from engine.settings import load_settings
from tests.doctor.conftest import broken_of, free_port
from tests.doctor.test_logins import with_user
from tests.end_to_end.conftest import query

WITHOUT_TICK = {"pg_cron", "pg_net", "time-out", "secret", "tick's URL", "last tick"}

# Nothing serves here.
UNSERVED = {"service"}


@pytest.fixture
def fresh_postgres(
    open_own_postgres: Callable[[], AbstractContextManager[EmbeddedPostgres]],
) -> Iterator[EmbeddedPostgres]:
    """A server that has nothing of ours, no role either."""
    with open_own_postgres() as postgres:
        yield postgres


@pytest.fixture(autouse=True)
def _bare(bare_environment: None) -> None:
    """As the fixture says."""


async def test_a_database_without_a_tick_lacks_that_and_a_login_alone(database_url: str) -> None:
    findings = await examine(load_settings(database_url=database_url, bind=f"127.0.0.1:{free_port()}"))
    assert set(broken_of(findings)) == WITHOUT_TICK | UNSERVED | {"login"}


async def test_an_administrator_who_is_no_superuser_sees_as_much(fresh_postgres: EmbeddedPostgres) -> None:
    await query(fresh_postgres.dsn, "create role boss login createrole password 'word'")
    await query(fresh_postgres.dsn, "create database mine owner boss")
    url = urlsplit(fresh_postgres.dsn)._replace(path="/mine").geturl()
    admin = with_user(url, "boss:word")
    async with open_database(admin) as database:
        await migrate(database, with_example_tables=True)
        await set_service_password(database, "word")
    service = with_user(url, f"{SERVICE}:word")
    bind = f"127.0.0.1:{free_port()}"
    findings = await examine(load_settings(database_url=service, admin_database_url=admin, bind=bind))
    assert set(broken_of(findings)) == WITHOUT_TICK | UNSERVED


async def test_a_database_that_was_never_migrated_is_told_to_be(fresh_postgres: EmbeddedPostgres) -> None:
    bind = f"127.0.0.1:{free_port()}"
    findings = await examine(load_settings(admin_database_url=fresh_postgres.dsn, bind=bind))
    assert {each.check for each in findings if each.ok} == {
        *("Postgres", "TLS to Postgres", "same database", "pooler", "clock", "exposure")
    }
    for each in findings:
        if not each.ok and each.check not in UNSERVED | {"login"}:
            assert each.mend == "run `scenario-scheduler migrate`", each
