"""This file looks at the three views: are they there, can the service read them, do they show every row?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from engine.doctor.finding import Outcome, broken, holds
from engine.doctor.installation import Installation
from engine.errors import StatementFailed
from engine.settings import Settings
from engine.statements import Statement, load_statement

# Nobody's: only looked for in plans, never in a table.
ANYBODY = UUID("d0c70000-0000-4000-8000-000000000000")
SOME_DAY = date(2001, 2, 3)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a view is read. Explaining it reads no row, and asks for the same rights as reading.

    `sought` are those of the arguments that an index has to be entered with; `wanted` is that index.
    """

    explain: Statement
    arguments: Callable[[Settings], tuple[object, ...]]
    sought: tuple[object, ...]
    wanted: str


READINGS = {
    "scheduler.mentors": Reading(
        load_statement("explain_mentors"), lambda _: (ANYBODY,), (ANYBODY,), "id, best (status, id)"
    ),
    "scheduler.assignments": Reading(
        load_statement("explain_assignments"),
        lambda settings: (ANYBODY, list(settings.eligible_assignment_statuses)),
        (ANYBODY,),
        "(mentor_id, status, expires_at)",
    ),
    "scheduler.activities": Reading(
        load_statement("explain_activities"),
        lambda _: (ANYBODY, SOME_DAY),
        (ANYBODY, SOME_DAY),
        "(user_id, activity_date)",
    ),
}

_LIST_SOURCES = load_statement("list_sources")

_REASONS = {
    "42501": "may not be read by scheduler_service, or its owner not read what is behind it",
    "42P01": "is not there",
    "42703": "lacks a column",
    "42883": "has a column of another type than it must, such as an id that is not a uuid",
}


async def check_views(installation: Installation) -> Outcome:
    faults = []
    for view, reading in READINGS.items():
        try:
            async with installation.open_as_service() as transaction:
                await transaction.fetch(reading.explain, *reading.arguments(installation.settings))
        except StatementFailed as error:
            if error.sqlstate not in _REASONS:
                raise
            faults.append(f"{view} {_REASONS[error.sqlstate]}")
    if faults:
        return broken(
            "; ".join(faults),
            "run `scenario-scheduler migrate`, which grants what they need; their columns are in the README",
        )
    return holds("mentors, assignments and activities can be read")


async def check_row_level_security(installation: Installation) -> Outcome:
    """A table closed to who reads it is empty to it, without an error: a run over nobody, and complete."""
    async with installation.open_as_administrator() as transaction:
        sources = await transaction.fetch(_LIST_SOURCES)
    hidden = [f"{row['relation']} is closed to {row['reader']}" for row in sources if row["is_hidden"]]
    if hidden:
        return broken(
            f"{'; '.join(hidden)}: no policy shows it every row",
            "run `scenario-scheduler migrate`, which adds one (scheduler_owner_reads)",
        )
    narrowed = [
        f"the restrictive policy {row['hidden_by']} hides rows of {row['relation']} from {row['reader']}"
        for row in sources
        if row["hidden_by"] is not None
    ]
    if narrowed:
        return broken("; ".join(narrowed), "name in it the roles it is meant for (`alter policy … to …`)")
    return holds("no row of your tables is hidden from scheduler_owner")
