"""This file has pg_cron call the service, and stop calling it: one transaction each, safe to repeat."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any

from engine.database import Database, Transaction
from engine.errors import InvalidTick, StatementFailed, TickError
from engine.settings import is_loopback
from engine.statements import Statement, load_statement
from engine.tick.as_cron import as_cron
from engine.tick.home import why_no_pg_cron
from engine.tick.jobs import PURGE, Job
from engine.tick.secret import forget_secret_in_vault, keep_secret
from engine.tick.transaction import kept_if_it_works, open_tick_transaction

# Seconds that a caller waits for longer than the platform limit: what pg_net needs to get to a request,
# behind those of others (five were seen), and the answer's way back.
PATIENCE = 15.0

# The same as in the check of scheduler.settings.
LONGEST_WAIT = 300.0

_INSPECT = load_statement("inspect_tick")
_SCENARIO_TYPES = load_statement("enabled_scenario_types")
_KEEP_OUT_OF_LOG = load_statement("keep_parameters_out_of_log")
_CONFIGURE = load_statement("configure_tick")
_GRANT_TICK_RIGHTS = load_statement("grant_tick_rights")
_SCHEDULE_TICK = load_statement("schedule_tick")
_SCHEDULE_PURGE = load_statement("schedule_purge")
_UNSCHEDULE_TICK = load_statement("unschedule_tick")
_UNSCHEDULE_PURGE = load_statement("unschedule_purge")
_FORGET_TICK = load_statement("forget_tick")
_DROP_POST_AND_WAIT = load_statement("drop_post_and_wait")

_CHECK_VIOLATION = "23514"

_SENTENCES = {
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
    TickError, InvalidTick, DatabaseUnavailable.

    **Cancellation:** all was done, or nothing.
    """
    timeout_ms = math.ceil((platform_limit + PATIENCE) * 1000)
    if timeout_ms > LONGEST_WAIT * 1000:
        raise InvalidTick(
            f"A tick waits {PATIENCE:g} s longer than the platform limit and {LONGEST_WAIT:g} s at the most; "
            f"lower SCHEDULER_PLATFORM_LIMIT to {LONGEST_WAIT - PATIENCE:g} s or less."
        )
    async with _open_transaction(database) as transaction:
        found = await _inspect(transaction)
        if not found["pg_cron"]:
            raise TickError(f"{why_no_pg_cron(found['database'], found['cron_database'])}.")
        if with_plpython3u:
            if found["pg_net"]:
                raise TickError("pg_net is here, and is the better way; leave --with-plpython3u out.")
            await transaction.execute(_post_and_wait())
        elif not (found["pg_net"] or found["plpython3u"]):
            raise TickError(
                "Nothing here can post: run `create extension pg_net`, or, on a server of your own that has "
                "no pg_net, use --with-plpython3u (the README says what differs)."
            )
        [log] = await transaction.fetch(_KEEP_OUT_OF_LOG)
        secret_name = await _configure(transaction, url, timeout_ms)
        done = [row["done"] for row in await transaction.fetch(_GRANT_TICK_RIGHTS)]
        done.append(f"posts go to {url}, and wait {timeout_ms / 1000:g} s")
        done.append(await keep_secret(transaction, secret, secret_name, has_vault=found["vault"]))
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
        done += await _unschedule_purges_of_others(transaction)
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

    Whatever is not here any more, such as pg_cron, is no reason to keep the rest. Returns a line for each
    thing done, none if there was nothing. Raises TickError, DatabaseUnavailable.

    **Cancellation:** all was done, or nothing.
    """
    async with _open_transaction(database) as transaction:
        found = await _inspect(transaction)
        done = await _unschedule(transaction) if found["pg_cron"] else []
        [forgotten] = await transaction.fetch(_FORGET_TICK)
        if forgotten["secret_name"] is not None:
            done.append("forgot the URL")
        if forgotten["had_fallback"]:
            done.append("forgot the secret in scheduler.fallback_secret")
        if forgotten["secret_name"] is not None and found["vault"]:
            said = await forget_secret_in_vault(transaction, forgotten["secret_name"])
            done += [said] if said else []
        if found["plpython3u"]:
            await transaction.execute(_DROP_POST_AND_WAIT)
            done.append("removed scheduler.post_and_wait; the extension plpython3u stays")
    return done


async def _unschedule(transaction: Transaction) -> list[str]:
    async with as_cron(transaction):
        removed = list(await transaction.fetch(_UNSCHEDULE_TICK, []))
    removed += await transaction.fetch(_UNSCHEDULE_PURGE, PURGE, True)
    done = [f"removed the job {row['jobname']}" for row in removed]
    return done + await _unschedule_purges_of_others(transaction)


async def _unschedule_purges_of_others(transaction: Transaction) -> list[str]:
    """Another administrator's does the same as one's own. Only a superuser may take it away."""
    async with kept_if_it_works(transaction):
        removed = await transaction.fetch(_UNSCHEDULE_PURGE, PURGE, False)
        return [f"removed the job {row['jobname']} of another administrator" for row in removed]
    return [f"the job {PURGE} of another administrator stays: this role may not remove it"]


@asynccontextmanager
async def _open_transaction(database: Database) -> AsyncIterator[Transaction]:
    try:
        async with open_tick_transaction(database) as transaction:
            yield transaction
    except StatementFailed as error:
        sentence = _SENTENCES.get(error.sqlstate, f"{error} The server's log says more.")
        raise TickError(f"{sentence} Nothing was changed.") from error


async def _inspect(transaction: Transaction) -> Any:
    """What is here. Raises TickError where nothing can have been installed."""
    [found] = await transaction.fetch(_INSPECT)
    if not found["is_migrated"]:
        raise TickError("The database is not migrated to this version; run `scenario-scheduler migrate`.")
    return found


async def _configure(transaction: Transaction, url: str, timeout_ms: int) -> str:
    """Returns the secret's name in Vault."""
    try:
        [configured] = await transaction.fetch(_CONFIGURE, url, timeout_ms)
    except StatementFailed as error:
        if error.sqlstate != _CHECK_VIOLATION:
            raise
        raise InvalidTick(f"{_wrong_with(url)} Nothing was changed.") from error
    return str(configured["secret_name"])


def _wrong_with(url: str) -> str:
    """What the check of scheduler.settings has against the URL. It is stricter than the settings are."""
    parts = re.fullmatch(r"(https?)://(\[[^\]]*\]|[^/?:]*)(:[^/?]*)?(?:[/?].*)?", url)
    if parts is None or "@" in url or not re.fullmatch(r"[\x21-\x7e]+", url):
        return (
            "The URL must be https, or http to this machine, in ASCII, without a user part and without '@'."
        )
    if refused := [each for each in "\\#" if each in url]:
        return f"The URL must be without {refused[0]}."
    scheme, host, port = parts.groups()
    if port is not None and not (re.fullmatch(r":[0-9]{1,5}", port) and 1 <= int(port[1:]) <= 65_535):
        return f"The port of the URL must be a number from 1 to 65535, not {port[1:] or 'empty'}."
    if scheme == "http" and not is_loopback(host.strip("[]")):
        return f"The URL must be https, because {host} is not this machine."
    if scheme == "http":
        return f"To this machine the host of the URL must be localhost, 127.0.0.1 or [::1], not {host}."
    return (
        "The host of the URL must be of letters, digits, '.', '-' and '_', and begin with a letter or digit, "
        f"or be an address in brackets, not {host or 'empty'}."
    )


async def _schedule(transaction: Transaction, job: Job) -> None:
    try:
        await transaction.fetch(_SCHEDULE_TICK, job.name, job.schedule, job.scenario_types)
    except StatementFailed as error:
        if error.sqlstate in ("22023", "XX000"):
            raise InvalidTick(
                f"pg_cron does not take the schedule {job.schedule!r}; write five fields, such as "
                "'*/5 * * * *'. Nothing was changed."
            ) from error
        raise


@cache
def _post_and_wait() -> Statement:
    return Statement("post_and_wait", files("engine.sql").joinpath("post_and_wait.sql").read_text("utf-8"))
