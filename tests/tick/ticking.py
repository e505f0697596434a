"""A database that ticks, over either way of posting, and what a test looks at."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from engine.database import Database
from engine.statements import Statement, load_statement
from engine.tick.status import Invocation, read_tick_status
from tests.attempts import execute
from tests.tick.pg_net_worker import work_off

Way = Literal["pg_net", "plpython3u"]

# As `cron install` sets it, in milliseconds.
TIMEOUT = 45_000


@dataclass(frozen=True)
class Ticking:
    """`secret` is what the service knows."""

    database: Database
    way: Way
    secret: str

    async def invoke(self, *scenario_types: str) -> int:
        """As pg_cron does: a login of scheduler_cron. Returns the row's id."""
        async with self.database.open_transaction() as transaction:
            await execute(transaction, "set local session authorization scheduler_cron")
            [row] = await transaction.fetch(
                Statement("invoke", "select scheduler.invoke($1) as id"), list(scenario_types) or None
            )
        return int(row["id"])

    async def tick(self, *scenario_types: str) -> Invocation:
        """Invoke, have pg_net do its part, and look at the status. Returns what it says of this tick."""
        invocation = await self.invoke(*scenario_types)
        if self.way == "pg_net":
            assert await work_off(self.database) == 1
        latest = (await read_tick_status(self.database)).invocations[0]
        assert latest.id == invocation
        return latest


async def make_ticking(database: Database, way: Way, url: str, *, timeout_ms: int = TIMEOUT) -> Ticking:
    """With a secret of its own, in the table of the owner."""
    if way == "pg_net":
        await run_file(database, "pg_net_stand_in")
    else:
        post_and_wait = files("engine.sql").joinpath("post_and_wait.sql").read_text("utf-8")
        await run_script(database, post_and_wait)
    secret = secrets.token_hex(32)
    # Shorter than a setting may be, so that a test need not wait.
    await run_script(database, "alter table scheduler.settings drop constraint settings_timeout_ms_check")
    await database.fetch(load_statement("configure_tick"), url, timeout_ms)
    await database.fetch(load_statement("keep_fallback_secret"), secret)
    await database.fetch(load_statement("grant_tick_rights"))
    return Ticking(database, way, secret)


async def run_file(database: Database, name: str) -> None:
    """One of the stand-ins beside this file."""
    await run_script(database, Path(__file__).with_name(f"{name}.sql").read_text("utf-8"))


async def run_script(database: Database, sql: str) -> None:
    async with database.open_transaction() as transaction:
        await execute(transaction, sql)


async def fetch(database: Database, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await database.fetch(Statement("test", sql), *arguments)]
