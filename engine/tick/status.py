"""This file is how the tick does: its jobs, what pg_cron says of them, what was posted and what came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from engine.database import Database
from engine.errors import StatementFailed, TickError
from engine.statements import load_statement
from engine.tick.as_cron import as_cron
from engine.tick.jobs import PURGE
from engine.tick.transaction import open_tick_transaction

# Invocations that are looked at, latest first: an hour of them at a tick every five minutes. Those that tell
# of a job come on top, so that one that seldom ticks is not lost behind the others.
INVOCATIONS = 12

# Runs of each job by pg_cron: enough to see whether it fails for once or always, few enough for a terminal.
RUNS = 3

_INSPECT = load_statement("inspect_tick")
_READ_SETTINGS = load_statement("read_tick_settings")
_RECORD_ANSWERS = load_statement("record_answers")
_LIST_JOBS = load_statement("list_jobs")
_FIND_PURGE = load_statement("find_purge")
_LIST_INVOCATIONS = load_statement("list_invocations")
_SCENARIO_TYPES = load_statement("enabled_scenario_types")

_FOUND = ("database", "cron_database", "pg_cron", "pg_net", "plpython3u", "vault")


@dataclass(frozen=True, slots=True)
class JobRun:
    """One time that pg_cron ran a job. `age` in seconds; None, as `started_at`, if it did not get to run it.

    `status` is pg_cron's: `succeeded` says that the SQL ran, and nothing of the service's answer.
    """

    started_at: datetime | None
    age: float | None
    status: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job of pg_cron. `scenario_types` None for every enabled one. `runs` are the last few, latest first.

    With cron.log_run off there are no runs, however often it ran.
    """

    name: str
    schedule: str
    command: str
    active: bool
    scenario_types: Sequence[str] | None
    runs: Sequence[JobRun]


@dataclass(frozen=True, slots=True)
class Invocation:
    """A tick. `age` in seconds. `status_code` of HTTP, None without an answer; `verdict` of its run.

    `verdict` is None without a run, and if that run is not in this database's ledger.
    """

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

    `cron_database` is the one that pg_cron can be in, None where that can't be seen. `url`, `timeout_ms` and
    what tells of the last installing, its age in seconds, are None before the tick was installed.
    `invocations` latest first: the latest of all, and of each job as many as it takes to judge it.
    """

    database: str
    cron_database: str | None
    pg_cron: str | None
    pg_net: str | None
    plpython3u: bool
    vault: bool
    url: str | None
    timeout_ms: int | None
    has_fallback_secret: bool
    installed_at: datetime | None
    installed_age: float | None
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
            unset: dict[str, Any] = dict.fromkeys(("url", "timeout_ms", "installed_at", "installed_age"))
            unset["has_fallback_secret"] = False
            types = await transaction.fetch(_SCENARIO_TYPES)
            jobs: list[JobStatus] = []
            has_purge = False
            if found["pg_cron"]:
                [purge] = await transaction.fetch(_FIND_PURGE, PURGE)
                has_purge = purge["is_there"]
                async with as_cron(transaction):
                    jobs = _grouped(await transaction.fetch(_LIST_JOBS, RUNS))
            groups = [_as_array(job.scenario_types) for job in jobs]
            invocations = await transaction.fetch(_LIST_INVOCATIONS, INVOCATIONS, groups)
    except StatementFailed as error:
        if error.sqlstate != "42501":
            raise
        raise TickError(
            "The role may not look at the tick; let SCHEDULER_ADMIN_DATABASE_URL name who installed it."
        ) from error
    return TickStatus(
        **{name: found[name] for name in _FOUND},
        **(settings[0] if settings else unset),
        enabled_types=[row["scenario_type"] for row in types if row["enabled"]],
        has_purge=has_purge,
        jobs=jobs,
        invocations=[Invocation(**row) for row in invocations],
    )


def _grouped(rows: Sequence[Any]) -> list[JobStatus]:
    """The jobs, out of a row for each of their runs."""
    jobs = []
    for _, of_job in groupby(rows, key=lambda row: row["job_id"]):
        first, *others = of_job
        runs = [
            JobRun(**{name: row[name] for name in ("started_at", "age", "status", "message")})
            for row in (first, *others)
            if row["run_id"] is not None
        ]
        named = {name: first[name] for name in ("name", "schedule", "command", "active", "scenario_types")}
        jobs.append(JobStatus(**named, runs=runs))
    return jobs


def _as_array(scenario_types: Sequence[str] | None) -> str | None:
    """As Postgres writes it; no scenario type has anything in it that would have to be quoted."""
    return None if scenario_types is None else f"{{{','.join(scenario_types)}}}"
