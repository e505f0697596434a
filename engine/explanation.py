"""This file is why one person did, or did not, get it: what a run at this moment would do with one mentor.

It promises to write nothing, which Postgres enforces, to wait for no lock, and to agree with what a run then
does. The walk is asked by its own query, and the scenarios by `scheduler.explain`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import trio

from engine.coverage import stretches_of
from engine.database import STATEMENT_TIMEOUT, Database
from engine.errors import DatabaseUnavailable, MentorNotFound, NotReady, StatementFailed
from engine.mentors.protocol import IdRange, MentorSource
from engine.settings import Settings
from engine.statements import Statement, load_statement

_EXPLAIN = load_statement("explain")
_COVERING_RUNS = load_statement("covering_runs")
_READ_ONLY = Statement("read_only", "set transaction isolation level repeatable read, read only")

# Runs looked through, latest first, for the one that came by last: eight hours at one every five minutes.
VISITS_LOOKED_THROUGH = 100

# No schema, table, function or column that came later.
_NOT_MIGRATED = ("3F000", "42P01", "42883", "42703")

_HIDDEN = (
    "The REST API at SCHEDULER_MENTOR_SOURCE does not show it: check that it reads the tables that the views "
    "read, and that row-level security lets the role of its key see them."
)
_CHANGED = "It has changed at this very moment: ask again."

# Seconds after which to ask again a database that is not migrated: somebody has to do it by hand.
_RETRY_AFTER = 5.0


class Outcome(StrEnum):
    """What a run at this moment would make of one scenario for one mentor."""

    DISPATCHED = "dispatched"
    SUPPRESSED = "suppressed"
    NOT_DUE = "not_due"
    DISABLED = "disabled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ScenarioExplanation:
    """One scenario, for one mentor.

    `is_due` is what its function says, also of a disabled one, with the `payload` to send. `error` is the
    SQLSTATE it failed with, 23502 where there is no user to notify. `facts` as its explain function tells
    them, None without one. While `is_cooling` nothing goes out, until `cooldown_until`, or for good if that
    is None. `cooldown` is an interval as Postgres writes it. The `last_…` are of the notification sent last.
    """

    scenario_type: str
    outcome: Outcome
    enabled: bool
    is_due: bool
    payload: Mapping[str, Any] | None
    error: str | None
    facts: Mapping[str, Any] | None
    params: Mapping[str, Any]
    cooldown: str
    is_cooling: bool
    cooldown_until: datetime | None
    last_sent_at: datetime | None
    last_payload: Mapping[str, Any] | None
    last_run_id: UUID | None


@dataclass(frozen=True, slots=True)
class Visit:
    """The latest run that has this id in what it finished without a gap, and when it began."""

    run_id: UUID
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything there is to say about one mentor.

    `is_reached`: the walk finds this mentor. `hindrances`: a sentence, and the mend, for whatever keeps the
    walk from it or a run from notifying it. `remarks`: what else there is to know about the answer itself.
    `last_visit` is None if none of the latest walks passed its id.
    """

    mentor_id: UUID
    status: str | None
    created_at: datetime | None
    has_user: bool
    assignment_statuses: Sequence[str]
    is_reached: bool
    hindrances: Sequence[str]
    remarks: Sequence[str]
    last_visit: Visit | None
    scenarios: Sequence[ScenarioExplanation]

    def as_json(self) -> dict[str, Any]:
        """The fields in this order, ready for `json.dumps`; instants in ISO 8601, in UTC."""
        return {name: _plain(value) for name, value in asdict(self).items()}


async def explain(
    database: Database, mentors: MentorSource, settings: Settings, mentor_id: UUID
) -> Explanation:
    """Why each scenario would or would not fire for one mentor, and whether the walk reaches it.

    Raises MentorNotFound, NotReady, DatabaseUnavailable, StatementFailed.

    **Cancellation:** leaves nothing behind.
    """
    rows = await _read(database, mentor_id, list(settings.eligible_assignment_statuses))
    if not rows:
        raise MentorNotFound(
            "The view scheduler.mentors has no mentor of this id; check the id, and what the view shows."
        )
    page = await mentors.fetch_page(_only(mentor_id), 1)
    is_reached = mentor_id in page.mentor_ids
    described = [row for row in rows if row["scenario_type"] is not None]
    return Explanation(
        mentor_id=mentor_id,
        status=rows[0]["status"],
        created_at=rows[0]["created_at"],
        has_user=rows[0]["has_user"],
        assignment_statuses=tuple(rows[0]["assignment_statuses"]),
        is_reached=is_reached,
        hindrances=_hindrances(rows[0], settings, is_reached=is_reached),
        remarks=tuple(_remarks(settings)),
        last_visit=await _last_visit(database, mentor_id, [each["scenario_type"] for each in described]),
        scenarios=_scenarios(described),
    )


async def _read(database: Database, mentor_id: UUID, statuses: list[str]) -> Sequence[Any]:
    """In a transaction that Postgres lets write nothing: a scenario function of the user's own might."""
    try:
        with trio.move_on_after(STATEMENT_TIMEOUT):
            async with database.open_transaction() as transaction:
                await transaction.fetch(_READ_ONLY)
                return await transaction.fetch(_EXPLAIN, mentor_id, statuses)
    except StatementFailed as error:
        if error.sqlstate not in _NOT_MIGRATED:
            raise
        raise NotReady(
            "The database can't explain yet; run `scenario-scheduler migrate`.", _RETRY_AFTER
        ) from error
    raise DatabaseUnavailable(
        f"Postgres did not answer within {STATEMENT_TIMEOUT:g} s; check the network and its load."
    )


def _only(mentor_id: UUID) -> IdRange:
    return IdRange(UUID(int=mentor_id.int - 1) if mentor_id.int else None, mentor_id)


def _hindrances(mentor: Any, settings: Settings, *, is_reached: bool) -> Sequence[str]:
    eligible = ", ".join(settings.eligible_assignment_statuses)
    statuses = ", ".join(mentor["assignment_statuses"])
    found = []
    if mentor["status"] != "active":
        status = mentor["status"] or "null"
        found.append(f"Its status is {status}, and only active mentors are walked: make it active.")
    if not statuses:
        found.append(f"It has no assignment: give it one whose status is eligible ({eligible}).")
    elif not mentor["is_eligible"]:
        found.append(
            f"None of its assignments is eligible: they are {statuses}, and eligible is {eligible}. "
            "Change one, or SCHEDULER_ELIGIBLE_ASSIGNMENT_STATUSES."
        )
    if not (is_reached or found):
        found.append(_HIDDEN if settings.mentors_over_rest else _CHANGED)
    if not mentor["has_user"]:
        found.append("It has no user, so that whatever is due costs its run an error: give it a user_id.")
    return found


def _remarks(settings: Settings) -> Iterable[str]:
    if settings.over_http and not settings.trigger_engine_is_built_in:
        yield (
            "Runs ask the trigger engine at SCHEDULER_TRIGGER_ENGINE, which may decide otherwise; this is "
            "what the built-in one would do."
        )


def _scenarios(rows: Sequence[Any]) -> Sequence[ScenarioExplanation]:
    """One that fails costs the others their turn: a mentor is evaluated as a whole."""
    fails = any(row["enabled"] and row["error"] for row in rows)
    return tuple(_scenario(row, fails=fails) for row in rows)


def _scenario(row: Any, *, fails: bool) -> ScenarioExplanation:
    if not row["enabled"]:
        outcome = Outcome.DISABLED
    elif fails:
        outcome = Outcome.ERROR
    elif not row["is_due"]:
        outcome = Outcome.NOT_DUE
    else:
        outcome = Outcome.SUPPRESSED if row["is_cooling"] else Outcome.DISPATCHED
    return ScenarioExplanation(
        scenario_type=row["scenario_type"],
        outcome=outcome,
        enabled=row["enabled"],
        is_due=row["is_due"],
        payload=_from_json(row["payload"]),
        error=row["error"],
        facts=_from_json(row["facts"]),
        params=_from_json(row["params"]),
        cooldown=row["cooldown"],
        is_cooling=row["is_cooling"],
        cooldown_until=row["cooldown_until"],
        last_sent_at=row["last_sent_at"],
        last_payload=_from_json(row["last_payload"]),
        last_run_id=row["last_run_id"],
    )


async def _last_visit(database: Database, mentor_id: UUID, scenario_types: Sequence[str]) -> Visit | None:
    runs = await database.fetch(_COVERING_RUNS, None, None, scenario_types, VISITS_LOOKED_THROUGH)
    for run in runs:
        if any(_holds(stretch, mentor_id) for stretch in stretches_of(run)):
            return Visit(run["id"], run["started_at"])
    return None


def _holds(stretch: IdRange, mentor_id: UUID) -> bool:
    return (stretch.after is None or mentor_id > stretch.after) and (
        stretch.until is None or mentor_id <= stretch.until
    )


def _from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
