"""This file is how the tick does: its jobs, what pg_cron says of them, what was posted and what came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from engine.database import Database
from engine.errors import StatementFailed, TickError
from engine.statements import load_statement
from engine.tick.as_cron import as_cron
from engine.tick.jobs import PURGE
from engine.tick.transaction import open_tick_transaction

# Invocations that are looked at, latest first: an hour of them at a tick every five minutes.
INVOCATIONS = 12

_INSPECT = load_statement("inspect_tick")
_READ_SETTINGS = load_statement("read_tick_settings")
_RECORD_ANSWERS = load_statement("record_answers")
_LIST_JOBS = load_statement("list_jobs")
_FIND_PURGE = load_statement("find_purge")
_LIST_INVOCATIONS = load_statement("list_invocations")
_SCENARIO_TYPES = load_statement("enabled_scenario_types")


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job of pg_cron, and how it went last; what tells of that is None before. `age` in seconds.

    `status` is pg_cron's: `succeeded` says that the SQL ran, and nothing of the service's answer.
    """

    name: str
    schedule: str
    command: str
    active: bool
    started_at: datetime | None
    age: float | None
    status: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Invocation:
    """A tick. `age` in seconds. `status_code` of HTTP, None without an answer; `verdict` of its run."""

    id: int
    invoked_at: datetime
    age: float
    is_overdue: bool
    scenario_types: Sequence[str] | None
    answered_at: datetime | None
    status_code: int | None
    error: str | None
    run_id: UUID | None
    verdict: str | None


@dataclass(frozen=True, slots=True)
class TickStatus:
    """All there is to see of the tick. `pg_cron` and `pg_net` are versions, None where not installed.

    `url` and `timeout_ms` are None before the tick was installed. `invocations` latest first.
    """

    pg_cron: str | None
    pg_net: str | None
    plpython3u: bool
    vault: bool
    url: str | None
    timeout_ms: int | None
    has_fallback_secret: bool
    enabled_types: Sequence[str]
    has_purge: bool
    jobs: Sequence[JobStatus]
    invocations: Sequence[Invocation]

    def as_json(self) -> dict[str, Any]:
        """The fields in this order, ready for `json.dumps`; instants in ISO 8601, in UTC."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


async def read_tick_status(database: Database) -> TickStatus:
    """Look at it as the administrator, and bring pg_net's latest answers into the invocations.

    Raises TickError, DatabaseUnavailable.

    **Cancellation:** leaves nothing behind.
    """
    try:
        async with open_tick_transaction(database) as transaction:
            [found] = await transaction.fetch(_INSPECT)
            if not found["is_migrated"]:
                raise TickError(
                    "The database is not migrated to this version; run `scenario-scheduler migrate`."
                )
            await transaction.fetch(_RECORD_ANSWERS)
            settings = [dict(row) for row in await transaction.fetch(_READ_SETTINGS)]
            unset = {"url": None, "timeout_ms": None, "has_fallback_secret": False}
            types = await transaction.fetch(_SCENARIO_TYPES)
            invocations = await transaction.fetch(_LIST_INVOCATIONS, INVOCATIONS)
            jobs: Sequence[Any] = []
            has_purge = False
            if found["pg_cron"]:
                [purge] = await transaction.fetch(_FIND_PURGE, PURGE)
                has_purge = purge["is_there"]
                async with as_cron(transaction):
                    jobs = await transaction.fetch(_LIST_JOBS)
    except StatementFailed as error:
        if error.sqlstate != "42501":
            raise
        raise TickError(
            "The role may not look at the tick; let SCHEDULER_ADMIN_DATABASE_URL name who installed it."
        ) from error
    return TickStatus(
        **{name: found[name] for name in ("pg_cron", "pg_net", "plpython3u", "vault")},
        **(settings[0] if settings else unset),
        enabled_types=[row["scenario_type"] for row in types if row["enabled"]],
        has_purge=has_purge,
        jobs=[JobStatus(**row) for row in jobs],
        invocations=[Invocation(**row) for row in invocations],
    )
