"""This file looks at the database as a whole: its version, its migrations, who logs in, what lies between."""

from __future__ import annotations

from engine.database import Database, open_database
from engine.doctor.finding import Outcome, broken, holds
from engine.doctor.installation import SERVICE, Installation, Login, required
from engine.errors import MigrationError, SchedulerError, StatementFailed
from engine.migrations import OLDEST_POSTGRES, load_migrations, pending_migrations
from engine.statements import load_statement

# Questions to each of two sessions, by turns. PgBouncer gives a session to whoever comes next, so that two
# would do; one that draws from five at random is missed twice in a million times.
ROUNDS = 5

# What Postgres says when a statement was prepared in another session than it is run in.
_PREPARED_ELSEWHERE = ("26000", "42P05")

_INSPECT = load_statement("inspect_database")
_WHICH_DATABASE = load_statement("which_database")
_WHICH_SESSION = load_statement("which_session")


async def check_postgres(installation: Installation) -> Outcome:
    if not isinstance(installation.administrator, Login):
        setting = installation.settings.administrator_setting
        reason = str(installation.administrator).partition(";")[0].removesuffix(".")
        return broken(reason, f"check {setting}, and that the server is up")
    async with installation.open_as_administrator() as transaction:
        [database] = await transaction.fetch(_INSPECT)
    major, minor = divmod(database["server_version"], 10_000)
    if major < OLDEST_POSTGRES:
        return broken(f"version {major}.{minor}", f"upgrade the server to {OLDEST_POSTGRES} or newer")
    return holds(f"version {major}.{minor}")


async def check_migrations(installation: Installation) -> Outcome:
    try:
        pending = await pending_migrations(required(installation.administrator).database)
    except MigrationError as error:
        found, _, mend = str(error).partition("; ")
        return broken(found, mend.removesuffix("."))
    if pending:
        return broken(f"not applied: {', '.join(pending)}", "run `scenario-scheduler migrate`")
    return holds(f"all {len(load_migrations())} are applied")


async def check_login(installation: Installation) -> Outcome:
    """Who the service is, to the server: nobody else may be so little."""
    service = installation.service
    mend = (
        "put what `scenario-scheduler service-url` prints into DATABASE_URL, and keep the administrator's "
        "in SCHEDULER_ADMIN_DATABASE_URL"
    )
    if installation.settings.database_url is None:
        return broken("DATABASE_URL is not set, so the service has no login", mend)
    if not isinstance(service, Login):
        reason = str(service).partition(";")[0].removesuffix(".")
        return broken(f"DATABASE_URL does not log in: {reason}", "check it, and that the server is up")
    if service.name != SERVICE:
        rank = ", a superuser" if service.is_superuser else ""
        return broken(f"DATABASE_URL logs in as {service.name}{rank}", mend)
    return holds(f"DATABASE_URL logs in as {SERVICE}")


async def check_same_database(installation: Installation) -> Outcome:
    """What the administrator's URL shows says nothing of a service that keeps its ledger elsewhere."""
    settings = installation.settings
    if settings.database_url is None or settings.admin_database_url is None:
        return holds("there is one URL, and everything is looked at there")
    found = []
    for login in (required(installation.service), required(installation.administrator)):
        async with login.database.open_transaction(kept=False) as transaction:
            [row] = await transaction.fetch(_WHICH_DATABASE)
        found.append(row)
    of_service, of_administrator = found
    if of_service["started_at"] != of_administrator["started_at"]:
        return broken(
            "DATABASE_URL and SCHEDULER_ADMIN_DATABASE_URL lead to two servers",
            "let both lead to the server that the service is to use",
        )
    if of_service["oid"] != of_administrator["oid"]:
        return broken(
            f"DATABASE_URL leads to the database {of_service['name']}, SCHEDULER_ADMIN_DATABASE_URL to "
            f"{of_administrator['name']}",
            "let both lead to the database that the service is to use",
        )
    return holds(f"both URLs lead to {of_service['name']}")


async def check_pooler(installation: Installation) -> Outcome:
    """Whether a session keeps its server's process. Asked of DATABASE_URL, which the service walks with."""
    settings = installation.settings
    url = settings.database_url or settings.administrator_url
    assert url is not None  # noqa: S101 - doctor is not started without
    required(installation.service if settings.database_url else installation.administrator)
    if await _is_shared(url.get_secret_value()):
        if settings.database_pooler == "session":
            return broken(
                "a pooler in transaction mode lies between, where prepared statements get lost",
                "set SCHEDULER_DATABASE_POOLER=transaction, or use the port of its session mode",
            )
        return holds("a pooler in transaction mode lies between, and SCHEDULER_DATABASE_POOLER says so")
    if settings.database_pooler == "transaction":
        return holds("sessions are kept; SCHEDULER_DATABASE_POOLER=transaction is not needed, and harmless")
    return holds("sessions are kept")


async def _is_shared(url: str) -> bool:
    """Whether two sessions, open at once, are served by the same process, or one of them by several."""
    seen: tuple[set[int], set[int]] = (set(), set())
    fault: SchedulerError | None = None
    async with (
        open_database(url, max_connections=1, pooler="transaction") as one,
        open_database(url, max_connections=1, pooler="transaction") as other,
    ):
        try:
            for _ in range(ROUNDS):
                for database, sessions in zip((one, other), seen, strict=True):
                    sessions.add(await _session(database))
        except SchedulerError as error:
            fault = error  # raised outside: the loop of each would wrap it in a group
    if isinstance(fault, StatementFailed) and fault.sqlstate in _PREPARED_ELSEWHERE:
        return True
    if fault is not None:
        raise fault
    return len(seen[0]) > 1 or len(seen[1]) > 1 or seen[0] == seen[1]


async def _session(database: Database) -> int:
    async with database.open_transaction(kept=False) as transaction:
        [row] = await transaction.fetch(_WHICH_SESSION)
    return int(row["session"])
