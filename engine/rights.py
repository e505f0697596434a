"""This file gives the roles what they need of what is not ours. What is ours is granted by the migrations."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

from engine.database import Database
from engine.errors import MigrationError, StatementFailed
from engine.migrations import LOCK_TIMEOUT, WHO_MIGRATES
from engine.statements import load_statement

_GRANT_RIGHTS = load_statement("grant_rights")
_TAKE_TURNS = load_statement("take_turns")
_KEEP_OUT_OF_LOG = load_statement("keep_parameters_out_of_log")
_HAND_OVER_PASSWORD = load_statement("hand_over_password")
_SET_SERVICE_PASSWORD = load_statement("set_service_password")

# What the query of a URL can say of who logs in: passwords, certificates, and what names a file of them.
_OF_THE_ADMINISTRATOR = frozenset(
    {"user", "password", "passfile", "sslcert", "sslkey", "sslpassword", "service", "servicefile", "role"}
)

_INSUFFICIENT_PRIVILEGE = "42501"
_LOCK_NOT_AVAILABLE = "55P03"
_UNDEFINED_OBJECT = "42704"
_UNDEFINED_TABLE = "42P01"


async def grant_rights(database: Database) -> list[str]:
    """Let the scheduler's owner read the user's tables through the three views. Safe to repeat.

    Returns a line for each right that was not there yet, and for what it can't mend. To be run again when a
    view was replaced, or when row-level security was turned on. Raises MigrationError, DatabaseUnavailable.

    **Cancellation:** all was granted, or nothing.
    """
    try:
        return [row["done"] for row in await database.fetch(_GRANT_RIGHTS)]
    except StatementFailed as error:
        if error.sqlstate == _UNDEFINED_TABLE:
            raise MigrationError(
                "Of the views scheduler.mentors, scheduler.assignments, scheduler.activities one is missing; "
                "make it again, then run `scenario-scheduler migrate`."
            ) from error
        if error.sqlstate != _INSUFFICIENT_PRIVILEGE:
            raise
        raise MigrationError(
            f"The tables that the views read can't be opened to scheduler_owner. {WHO_MIGRATES}"
        ) from error


async def set_service_password(database: Database, password: str) -> None:
    """Let the service log in as scheduler_service with this password, and no longer with another.

    The server's log does not get to see it, as it does when a person types `alter role`. Raises
    MigrationError, DatabaseUnavailable.

    **Cancellation:** the password was set, or not.
    """
    try:
        async with database.open_transaction() as transaction:
            await transaction.fetch(_TAKE_TURNS, LOCK_TIMEOUT)
            await transaction.fetch(_KEEP_OUT_OF_LOG)
            await transaction.fetch(_HAND_OVER_PASSWORD, password)
            await transaction.execute(_SET_SERVICE_PASSWORD)
    except StatementFailed as error:
        if error.sqlstate == _UNDEFINED_OBJECT:
            raise MigrationError(
                "There is no role scheduler_service yet; run `scenario-scheduler migrate`."
            ) from error
        if error.sqlstate == _LOCK_NOT_AVAILABLE:
            raise MigrationError(
                f"{error.statement} waited {LOCK_TIMEOUT} for a lock in vain, and the password is the one "
                "before; end the transactions that have been open for long, or another command, and run "
                "this again."
            ) from error
        if error.sqlstate != _INSUFFICIENT_PRIVILEGE:
            raise
        raise MigrationError(f"The password of scheduler_service can't be set. {WHO_MIGRATES}") from error


def service_database_url(administrator_url: str, password: str) -> str:
    """The URL with which the service logs in where the administrator does with the other one.

    Of its query only what is about the server stays. A pooler of Supabase's knows the project by what follows
    the dot in the user's name.
    """
    parts = urlsplit(administrator_url)
    kept, user = [], unquote(parts.username or "")
    for each in parts.query.split("&"):
        name, _, value = (unquote(part) for part in each.partition("="))
        if name == "user":
            user = user or value
        if each and name not in _OF_THE_ADMINISTRATOR:
            kept.append(each)
    _, dot, project = user.partition(".")
    server = parts.netloc.rpartition("@")[2]
    login = f"scheduler_service{dot}{quote(project, safe='')}:{password}"
    return parts._replace(netloc=f"{login}@{server}", query="&".join(kept)).geturl()
