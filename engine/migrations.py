"""This file brings the schema `scheduler` up to date: every migration once, in order, each in a transaction.

It promises:

- A file takes effect as a whole or not at all, and so does the record that it was applied.
- Of two at once, the second waits, and finds done what the first has done.
- A file that was changed after it was applied is noticed before anything is applied.
- No lock is waited for longer than LOCK_TIMEOUT.
- What `supabase db push` has applied counts as applied.

Forward only: what a migration did is mended by another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from engine.database import Database, Transaction
from engine.errors import MigrationError, StatementFailed
from engine.statements import Statement, load_statement

# How long one migration waits for another, or for a table somebody uses. A file holds its locks for
# milliseconds, so that waiting longer means a forgotten transaction; and who waits for a table makes all who
# come later wait for it as well.
LOCK_TIMEOUT = "10s"

# The oldest major version that the tests run on.
OLDEST_POSTGRES = 15

# What a refusal means: migrating makes roles, owns a schema and grants rights on the user's tables.
WHO_MIGRATES = (
    "Let SCHEDULER_ADMIN_DATABASE_URL name a superuser, or a role with CREATEROLE that may create in this "
    "database and owns the tables to be read (on Supabase: postgres). Where another database of the server "
    "has made scheduler_owner, scheduler_service and scheduler_cron, who made them has to grant them to it."
)

_TAKE_TURNS = load_statement("take_turns")
_INSPECT = load_statement("inspect_database")
_PREPARE = load_statement("prepare_migrations")
_MISSING = load_statement("missing_relations")
_APPLIED = load_statement("applied_migrations")
_APPLIED_BY_SUPABASE = load_statement("migrations_applied_by_supabase")
_RECORD = load_statement("record_migration")

_UNDEFINED_TABLE = "42P01"
_INSUFFICIENT_PRIVILEGE = "42501"
_LOCK_NOT_AVAILABLE = "55P03"

_BOTH_WAYS_ON = """\
The database does not have what the scheduler reads: {missing} missing.
To try it out, run `scenario-scheduler migrate --with-example-tables`, which makes tables of these names.
To use tables of your own, say in three views where everything is, and run `scenario-scheduler migrate` again:

  create schema if not exists scheduler;
  create view scheduler.mentors as select … as id, … as user_id, … as status, … as created_at from …;
  create view scheduler.assignments as select … as mentor_id, … as status, … as expires_at from …;
  create view scheduler.activities as select … as user_id, … as activity_date from …;"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `<version>_<what it does>.sql`, in Supabase's naming."""

    script: Statement
    version: str
    checksum: str


async def migrate(database: Database, *, with_example_tables: bool = False) -> list[str]:
    """Apply what was not applied yet, and return the names. With the example tables, make them if need be.

    Raises MigrationError, which says what to do, and DatabaseUnavailable.

    **Cancellation:** the files before the one under way stay applied; that one was applied as a whole or not
    at all.
    """
    async with _open_locked_transaction(database) as transaction:
        await _prepare(transaction, with_example_tables)
        pending = _pending(await _applied(transaction))
    applied = []
    for migration in pending:
        async with _open_locked_transaction(database) as transaction:
            if migration not in _pending(await _applied(transaction)):
                continue  # somebody else was faster
            await transaction.execute(migration.script)
            await _record(transaction, migration)
            applied.append(migration.script.name)
    return applied


async def pending_migrations(database: Database) -> list[str]:
    """The names of those not applied yet: one statement. Raises as `migrate`.

    **Cancellation:** leaves nothing behind.
    """
    try:
        rows = await database.fetch(_APPLIED)
    except StatementFailed as error:
        if error.sqlstate != _UNDEFINED_TABLE:
            raise MigrationError(
                f"scheduler.migrations can't be read (SQLSTATE {error.sqlstate}); "
                "let the role of DATABASE_URL read it."
            ) from error
        rows = []
    applied = {row["version"]: row["checksum"] for row in rows}
    return [migration.script.name for migration in _pending(applied)]


@cache
def load_migrations() -> tuple[Migration, ...]:
    """Those that come with this version, in order."""
    folder = files("engine.sql").joinpath("migrations")
    return tuple(
        _migration(name.removesuffix(".sql"), folder.joinpath(name).read_text("utf-8"))
        for name in sorted(file.name for file in folder.iterdir())
        if name.endswith(".sql")
    )


def _migration(name: str, sql: str) -> Migration:
    version, _, _ = name.partition("_")
    return Migration(Statement(name, sql), version, hashlib.sha256(sql.encode()).hexdigest())


def _pending(applied: Mapping[str, str]) -> list[Migration]:
    """Those whose version is not among the applied ones; raises if an applied one had another checksum."""
    changed = [
        migration.script.name
        for migration in load_migrations()
        if applied.get(migration.version, migration.checksum) != migration.checksum
    ]
    if changed:
        raise MigrationError(
            f"Changed since it was applied to this database: {', '.join(changed)}; "
            "bring the file back to what it was, and put the change into a new migration."
        )
    return [migration for migration in load_migrations() if migration.version not in applied]


@asynccontextmanager
async def _open_locked_transaction(database: Database) -> AsyncIterator[Transaction]:
    try:
        async with database.open_transaction() as transaction:
            await transaction.fetch(_TAKE_TURNS, LOCK_TIMEOUT)
            yield transaction
    except StatementFailed as error:
        if error.sqlstate == _LOCK_NOT_AVAILABLE:
            raise MigrationError(
                f"{error.statement} waited {LOCK_TIMEOUT} for a lock in vain, and was not kept; end the "
                "transactions that have been open for long, or another migration, and run this again."
            ) from error
        if error.sqlstate == _INSUFFICIENT_PRIVILEGE:
            raise MigrationError(f"{error.statement} was refused. {WHO_MIGRATES}") from error
        raise MigrationError(
            f"{error} Nothing of it was kept; the server's log says more, and the role needs the right to "
            "create in this database."
        ) from error


async def _prepare(transaction: Transaction, with_example_tables: bool) -> None:
    """Check that the migrations can be applied here, and make the bookkeeping."""
    [database] = await transaction.fetch(_INSPECT)
    if database["server_version"] < OLDEST_POSTGRES * 10_000:
        raise MigrationError(
            f"This is Postgres {database['server_version'] // 10_000}; "
            f"the scheduler needs {OLDEST_POSTGRES} or newer."
        )
    if with_example_tables:
        await transaction.execute(_example_tables())
    missing = [row["missing"] for row in await transaction.fetch(_MISSING)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MigrationError(_BOTH_WAYS_ON.format(missing=f"{'; '.join(missing)} {verb}"))
    if not database["is_prepared"]:
        await transaction.execute(_PREPARE)
    if database["is_known_to_supabase"]:
        await _adopt(transaction)


async def _adopt(transaction: Transaction) -> None:
    """Record as applied what `supabase db push` has applied."""
    by_supabase = {row["version"] for row in await transaction.fetch(_APPLIED_BY_SUPABASE)}
    for migration in _pending(await _applied(transaction)):
        if migration.version in by_supabase:
            await _record(transaction, migration)


async def _applied(transaction: Transaction) -> dict[str, str]:
    return {row["version"]: row["checksum"] for row in await transaction.fetch(_APPLIED)}


async def _record(transaction: Transaction, migration: Migration) -> None:
    await transaction.fetch(_RECORD, migration.version, migration.script.name, migration.checksum)


@cache
def _example_tables() -> Statement:
    return Statement("example_tables", files("engine.sql").joinpath("example_tables.sql").read_text("utf-8"))
