"""This file is every check, in the order a person reads them, and what is said of one that can't be made."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from engine.doctor.database import (
    check_login,
    check_migrations,
    check_pooler,
    check_postgres,
    check_same_database,
)
from engine.doctor.encryption import check_encryption
from engine.doctor.exposure import check_exposure
from engine.doctor.finding import Check, Finding, Outcome, broken
from engine.doctor.indexes import (
    check_activities_index,
    check_assignments_index,
    check_mentors_index,
    check_scenarios,
)
from engine.doctor.installation import Installation, open_installation
from engine.doctor.rights import (
    check_cron_rights,
    check_roles,
    check_service_limits,
    check_service_rights,
)
from engine.doctor.service import (
    check_clock,
    check_mentor_source,
    check_service,
    check_trigger_engine,
    check_url,
)
from engine.doctor.tick import (
    check_last_tick,
    check_pg_cron,
    check_pg_net,
    check_queue,
    check_readers_of_secret,
    check_secret,
    check_timeout,
    check_vault,
)
from engine.doctor.views import check_row_level_security, check_views
from engine.errors import DatabaseUnavailable, SchedulerError, StatementFailed
from engine.settings import Settings

# Seconds for one check. Each takes milliseconds, an invocation of the trigger engine up to its own time-out;
# so long means that somebody holds a lock, or that the network went silent.
CHECK_TIMEOUT = 15.0

# From what everything stands on to what shows only once the rest holds.
CHECKS: dict[str, Check] = {
    "Postgres": check_postgres,
    "migrations": check_migrations,
    "login": check_login,
    "TLS to Postgres": check_encryption,
    "same database": check_same_database,
    "pooler": check_pooler,
    "roles": check_roles,
    "service's rights": check_service_rights,
    "service's limits": check_service_limits,
    "cron's rights": check_cron_rights,
    "views": check_views,
    "row-level security": check_row_level_security,
    "mentors' index": check_mentors_index,
    "assignments' index": check_assignments_index,
    "activities' index": check_activities_index,
    "scenarios": check_scenarios,
    "pg_cron": check_pg_cron,
    "pg_net": check_pg_net,
    "pg_net's queue": check_queue,
    "time-out": check_timeout,
    "Vault": check_vault,
    "secret": check_secret,
    "secret's readers": check_readers_of_secret,
    "mentor source": check_mentor_source,
    "trigger engine": check_trigger_engine,
    "clock": check_clock,
    "service": check_service,
    "tick's URL": check_url,
    "exposure": check_exposure,
    "last tick": check_last_tick,
}

# Something that is not there (appendix A of Postgres's manual): schema, table, function, column, role; the
# last one is what `set role` says of a role.
_MISSING = ("3F000", "42P01", "42883", "42703", "42704", "22023")
_INSUFFICIENT_PRIVILEGE = "42501"


async def examine(settings: Settings, *, clock: Callable[[], float] = time.time) -> list[Finding]:
    """A finding for each check, in the order of CHECKS, whatever the others found.

    `clock` is this machine's. Needs `database_url` or `admin_database_url`, and changes nothing but that
    answers pg_net has brought meanwhile are written down.

    **Cancellation:** leaves nothing behind.
    """
    async with open_installation(settings, clock) as installation:
        findings = []
        for name, check in CHECKS.items():
            outcome = await _outcome(check, installation)
            findings.append(Finding(name, outcome.ok, outcome.found, outcome.mend))
        return findings


async def _outcome(check: Check, installation: Installation) -> Outcome:
    with trio.move_on_after(CHECK_TIMEOUT):
        try:
            return await check(installation)
        except SchedulerError as error:
            return _not_made(error)
    return broken(
        f"could not be made within {CHECK_TIMEOUT:g} s", "end the transactions that have been open for long"
    )


def _not_made(error: SchedulerError) -> Outcome:
    if isinstance(error, DatabaseUnavailable):
        return broken("could not be made without the database", "see the first line and `login`")
    if isinstance(error, StatementFailed) and error.sqlstate == _INSUFFICIENT_PRIVILEGE:
        return broken(
            "could not be made: the role may not look there",
            "let SCHEDULER_ADMIN_DATABASE_URL name a superuser, or who ran `scenario-scheduler migrate`",
        )
    if isinstance(error, StatementFailed) and error.sqlstate in _MISSING:
        return broken(
            f"could not be made: something is missing (SQLSTATE {error.sqlstate})",
            "run `scenario-scheduler migrate`",
        )
    found, _, mend = str(error).rstrip(".").partition("; ")
    return broken(f"could not be made: {found}", mend or "the server's log says more")
