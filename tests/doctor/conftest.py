"""A healthy installation: pg_cron with its jobs, the service as a process, and a tick that was answered.

It is set up once, for the whole of this folder: a test breaks one thing, and mends it again.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from engine.database import Database, open_database
from engine.doctor.examine import examine
from engine.doctor.finding import Finding
from engine.embedded import EmbeddedPostgres
from engine.migrations import migrate
from engine.rights import grant_rights, set_service_password
from engine.settings import load_settings
from engine.statements import Statement
from engine.tick.install import install_tick
from engine.tick.jobs import plan_jobs
from tests.end_to_end.conftest import (
    KEY,
    PATIENCE,
    SECRET,
    SERVICE_PASSWORD,
    Service,
    as_service,
    open_services,
    seed,
    start_service,
)
from tests.tick.conftest import find_cron_postgres

__all__ = ["start_service"]

# Once a year, so that no tick comes while something is broken.
SCHEDULE = "0 0 1 1 *"

TICK = "set local role scheduler_cron; select scheduler.invoke()"


@dataclass(frozen=True)
class Healthy:
    """A healthy installation. `settings` as they would be in the environment, of doctor and service."""

    postgres: EmbeddedPostgres
    service: Service
    settings: dict[str, str]

    async def examine(
        self, *, clock: Callable[[], float] = time.time, **changed: str | None
    ) -> list[Finding]:
        """With other settings, or, by None, without one."""
        settings = {name.lower(): value for name, value in (self.settings | changed).items() if value}
        named = {name.removeprefix("scheduler_"): value for name, value in settings.items()}
        return await examine(load_settings(**named), clock=clock)

    async def wait_until_ready(self) -> None:
        """Until the service has seen that all is well again: it remembers for a second that it was not."""
        with trio.fail_after(PATIENCE):
            while (await self.service.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                await trio.sleep(0.02)


def broken_of(findings: list[Finding]) -> list[str]:
    """The checks that failed. Every one of them has to say what to do."""
    assert all(finding.mend for finding in findings if not finding.ok)
    return [finding.check for finding in findings if not finding.ok]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def healthy(bare_environment: None) -> Iterator[Healthy]:
    with ExitStack() as stack:
        postgres = stack.enter_context(find_cron_postgres()())
        start = stack.enter_context(open_services(Path(stack.enter_context(tempfile.TemporaryDirectory()))))

        async def set_up() -> Healthy:
            bind = f"127.0.0.1:{free_port()}"
            await prepare(postgres.dsn, f"http://{bind}/run")
            settings = {
                "DATABASE_URL": await as_service(postgres.dsn),
                "SCHEDULER_ADMIN_DATABASE_URL": postgres.dsn,
                "SCHEDULER_BIND": bind,
                "SCHEDULER_SECRET": SECRET,
                "SCHEDULER_SERVICE_ROLE_KEY": KEY,
            }
            service = await start(**settings)
            async with open_database(postgres.dsn) as database:
                await run_script(database, TICK)
            return Healthy(postgres, service, settings)

        yield trio.run(set_up)


async def prepare(url: str, tick_url: str) -> None:
    async with open_database(url) as database:
        await migrate(database, with_example_tables=True)
        await grant_rights(database)
        await set_service_password(database, SERVICE_PASSWORD)
        await run_script(database, "create extension pg_cron")
        await install_tick(
            database,
            url=tick_url,
            secret=SECRET,
            platform_limit=30.0,
            jobs=plan_jobs(SCHEDULE),
            with_plpython3u=True,
        )
    await seed(url, 3)


@pytest.fixture(scope="session")
def bare_environment() -> Iterator[None]:
    """Nothing of the developer's own settings reaches these."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("SCHEDULER_") and not name.startswith("SCHEDULER_TEST_"):
                patch.delenv(name)
            if name == "DATABASE_URL" or name.startswith("PG"):
                patch.delenv(name)
        yield


@pytest.fixture
async def administrator(healthy: Healthy) -> AsyncIterator[Database]:
    async with open_database(healthy.postgres.dsn) as database:
        yield database


async def run_script(database: Database, script: str) -> None:
    async with database.open_transaction() as transaction:
        await transaction.execute(Statement("script", script))
