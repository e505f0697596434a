"""This file has pg_cron call the service, and stop calling it: one transaction each, safe to repeat."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any

from engine.database import Database, Transaction
from engine.errors import StatementFailed, TickError
from engine.statements import Statement, load_statement
from engine.tick.as_cron import as_cron
from engine.tick.home import why_no_pg_cron
from engine.tick.jobs import PURGE, Job

# Seconds that a caller waits for longer than the platform limit: what pg_net needs to get to a request,
# behind those of others (five were seen), and the answer's way back.
PATIENCE = 15.0

_PIN_SEARCH_PATH = load_statement("pin_search_path")
_INSPECT = load_statement("inspect_tick")
_SCENARIO_TYPES = load_statement("enabled_scenario_types")
_KEEP_OUT_OF_LOG = load_statement("keep_parameters_out_of_log")
_CONFIGURE = load_statement("configure_tick")
_IN_VAULT = load_statement("keep_secret_in_vault")
_IN_FALLBACK = load_statement("keep_fallback_secret")
_FORGET_IN_VAULT = load_statement("forget_secret_in_vault")
_GRANT_TICK_RIGHTS = load_statement("grant_tick_rights")
_BECOME_OWNER = Statement("become_owner", "set local role scheduler_owner")
_BECOME_ADMINISTRATOR = Statement("become_administrator", "reset role")
_DIGEST = load_statement("digest_of_secret")
_SCHEDULE_TICK = load_statement("schedule_tick")
_SCHEDULE_PURGE = load_statement("schedule_purge")
_UNSCHEDULE_TICK = load_statement("unschedule_tick")
_UNSCHEDULE_PURGE = load_statement("unschedule_purge")
_FORGET_TICK = load_statement("forget_tick")

_SENTENCES = {
    "23514": "The URL must be https, or http to this machine, in ASCII, without a user part and without '@'.",
    "42501": "The role may not do this; let SCHEDULER_ADMIN_DATABASE_URL name a superuser, or on Supabase "
    "postgres.",
    "0A000": "plpython3u is not installed on the server; on Debian it is the package "
    "postgresql-plpython3-<major>.",
}


async def install_tick(
    database: Database,
    *,
    url: str,
    secret: str,
    platform_limit: float,
    jobs: Sequence[Job],
    with_plpython3u: bool = False,
) -> list[str]:
    """Have pg_cron post to the URL as the jobs say; any other job of ours in this database is removed.

    `platform_limit` in seconds. Returns a line for each thing done. The secret goes into Vault, where there
    is one that scheduler_owner can read, else into a table that nobody but that owner reads. Raises
    TickError, DatabaseUnavailable.

    **Cancellation:** all was done, or nothing.
    """
    async with _open_transaction(database) as transaction:
        found = await _inspect(transaction)
        if with_plpython3u:
            if found["pg_net"]:
                raise TickError("pg_net is here, and is the better way; leave --with-plpython3u out.")
            await transaction.execute(_post_and_wait())
        elif not (found["pg_net"] or found["plpython3u"]):
            raise TickError(
                "Nothing here can post: run `create extension pg_net`, or, on a server of your own that has "
                "no pg_net, use --with-plpython3u (the README says what differs)."
            )
        timeout_ms = math.ceil((platform_limit + PATIENCE) * 1000)
        [log] = await transaction.fetch(_KEEP_OUT_OF_LOG)
        [configured] = await transaction.fetch(_CONFIGURE, url, timeout_ms)
        done = [row["done"] for row in await transaction.fetch(_GRANT_TICK_RIGHTS)]
        done.append(f"posts go to {url}, and wait {timeout_ms / 1000:g} s")
        done.append(await _keep_secret(transaction, secret, configured["secret_name"], found))
        if not log["is_kept_out"]:
            done.append(
                "the server's log may hold the secret: it is set to log the parameters of statements "
                "(log_statement, log_duration), and this role may not switch that off"
            )
        async with as_cron(transaction):
            names = [job.name for job in jobs]
            removed = await transaction.fetch(_UNSCHEDULE_TICK, names)
            for job in jobs:
                await _schedule(transaction, job)
        await transaction.fetch(_SCHEDULE_PURGE, PURGE)
    done += [f"removed the job {row['jobname']}" for row in removed]
    done += [f"job {job.name}: {job.schedule}" for job in jobs]
    return done


async def enabled_scenario_types(database: Database) -> list[str]:
    """Those that get a job each, in order. Raises TickError, DatabaseUnavailable.

    **Cancellation:** leaves nothing behind.
    """
    async with _open_transaction(database) as transaction:
        await _inspect(transaction)
        rows = await transaction.fetch(_SCENARIO_TYPES)
    return [row["scenario_type"] for row in rows if row["enabled"]]


async def remove_tick(database: Database) -> list[str]:
    """Have pg_cron call nobody any more, and forget the URL and the secret. The invocations stay.

    Returns a line for each thing done, none if there was nothing. Raises TickError, DatabaseUnavailable.

    **Cancellation:** all was done, or nothing.
    """
    async with _open_transaction(database) as transaction:
        found = await _inspect(transaction)
        async with as_cron(transaction):
            removed = list(await transaction.fetch(_UNSCHEDULE_TICK, []))
        removed += await transaction.fetch(_UNSCHEDULE_PURGE, PURGE)
        done = [f"removed the job {row['jobname']}" for row in removed]
        for row in await transaction.fetch(_FORGET_TICK):
            done.append("forgot the URL")
            if found["vault"]:
                async with _kept_if_it_works(transaction):  # else it is not this role's to have put there
                    if await transaction.fetch(_FORGET_IN_VAULT, row["secret_name"]):
                        done.append("removed the secret from Vault")
    return done


@asynccontextmanager
async def _open_transaction(database: Database) -> AsyncIterator[Transaction]:
    try:
        async with database.open_transaction() as transaction:
            await transaction.fetch(_PIN_SEARCH_PATH)
            yield transaction
    except StatementFailed as error:
        sentence = _SENTENCES.get(error.sqlstate, f"{error} The server's log says more.")
        raise TickError(f"{sentence} Nothing was changed.") from error


async def _inspect(transaction: Transaction) -> Any:
    """What is here. Raises TickError where it is too little to go on."""
    [found] = await transaction.fetch(_INSPECT)
    if not found["is_migrated"]:
        raise TickError("The database is not migrated to this version; run `scenario-scheduler migrate`.")
    if not found["pg_cron"]:
        raise TickError(f"{why_no_pg_cron(found['database'], found['cron_database'])}.")
    return found


async def _keep_secret(transaction: Transaction, secret: str, name: str, found: Any) -> str:
    """Put it where the owner, and nobody else, can read it. Returns what was done."""
    await transaction.fetch(_IN_FALLBACK, None)
    if found["vault"]:
        async with _kept_if_it_works(transaction):
            await transaction.fetch(_IN_VAULT, secret, name)
            await transaction.execute(_BECOME_OWNER)
            [read] = await transaction.fetch(_DIGEST)
            await transaction.execute(_BECOME_ADMINISTRATOR)
            if read["length"] is not None:
                return f"the secret is in Vault, as {name}"
            await transaction.fetch(_FORGET_IN_VAULT, name)
    await transaction.fetch(_IN_FALLBACK, secret)
    why = "which scheduler_owner may not read here" if found["vault"] else "of which there is none here"
    return f"the secret is in scheduler.fallback_secret, which its owner alone reads, instead of Vault, {why}"


@asynccontextmanager
async def _kept_if_it_works(transaction: Transaction) -> AsyncIterator[None]:
    """A statement that is refused undoes the block, and nothing else of the transaction."""
    await transaction.execute(Statement("savepoint", "savepoint attempt"))
    try:
        yield
    except StatementFailed:
        await transaction.execute(Statement("rollback", "rollback to savepoint attempt"))


async def _schedule(transaction: Transaction, job: Job) -> None:
    try:
        await transaction.fetch(_SCHEDULE_TICK, job.name, job.schedule, job.scenario_types)
    except StatementFailed as error:
        if error.sqlstate in ("22023", "XX000"):
            raise TickError(
                f"pg_cron does not take the schedule {job.schedule!r}; write five fields, such as "
                "'*/5 * * * *'. Nothing was changed."
            ) from error
        raise


@cache
def _post_and_wait() -> Statement:
    return Statement("post_and_wait", files("engine.sql").joinpath("post_and_wait.sql").read_text("utf-8"))
