"""This file looks at how the walk and the scenarios would read: by index, or a table as a whole?

It asks Postgres, not for the names of indexes: it plans with everything discouraged that is not an index,
so that small and empty tables are planned like large ones. A table that is read whole even then lacks one.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from engine.database import Transaction
from engine.doctor.finding import Outcome, broken, holds
from engine.doctor.installation import Installation
from engine.doctor.plan import Plan, Relation, read_plan
from engine.doctor.views import ANYBODY, READINGS
from engine.settings import Settings
from engine.statements import Statement, load_statement

# Bytes up to which a scenario may read a table of its own whole, in every chunk: a millisecond.
SMALL_TABLE = 1 << 20

# Of the page that is planned.
PAGE_SIZE = 100

_FETCH_PAGE = load_statement("fetch_page")
_EXPLAIN_FETCH_PAGE = Statement("explain_fetch_page", f"explain (format json, verbose) {_FETCH_PAGE.sql}")
_FAVOUR_INDEXES = load_statement("favour_indexes")
_PLAN_SCENARIOS = load_statement("plan_scenarios")
_TAKE_FOUND = load_statement("take_found")
_SIZES_OF = load_statement("sizes_of")
_LIST_SOURCES = load_statement("list_sources")

_MENTORS, _ASSIGNMENTS, _ACTIVITIES = "scheduler.mentors", "scheduler.assignments", "scheduler.activities"


async def check_mentors_index(installation: Installation) -> Outcome:
    """Pages are read in order of the id, from anywhere: no table read whole, and nothing sorted."""
    settings = installation.settings
    statuses = list(settings.eligible_assignment_statuses)
    async with _open_planning(installation) as transaction:
        plan = await _plan_of_view(transaction, _MENTORS, settings)
        highest = UUID(int=2**128 - 1)
        [row] = await transaction.fetch(_EXPLAIN_FETCH_PAGE, ANYBODY, highest, statuses, PAGE_SIZE)
        page = await read_plan(transaction, row[0])
        said_below = await _badly_read(transaction, _ASSIGNMENTS, settings)
    whole = [each for each in page.read_whole if each not in said_below]
    if not _is_served(_MENTORS, plan) or whole or page.is_sorted_by_hand:
        return _lacks(_MENTORS, plan, plan.read_whole or whole)
    return holds("a page is read by id, wherever it begins")


async def check_assignments_index(installation: Installation) -> Outcome:
    return await _check_lookup(installation, _ASSIGNMENTS, "those of a mentor are read by index")


async def check_activities_index(installation: Installation) -> Outcome:
    return await _check_lookup(installation, _ACTIVITIES, "those of a user since a day are read by index")


async def check_scenarios(installation: Installation) -> Outcome:
    """Every enabled scenario's function. What an index above was found missing for is not said again."""
    async with _open_planning(installation) as transaction:
        said_above: set[Relation] = set()
        for view in READINGS:
            said_above |= await _badly_read(transaction, view, installation.settings)
        await transaction.execute(_PLAN_SCENARIOS)
        [row] = await transaction.fetch(_TAKE_FOUND)
        found: dict[str, Any] = dict(sorted(json.loads(row["found"]).items()))
        plans = {
            name: await read_plan(transaction, each["plan"]) for name, each in found.items() if "plan" in each
        }
        read_whole = {each for plan in plans.values() for each in plan.read_whole} - said_above
        read_whole -= await _small_tables(transaction, read_whole)
    unplanned = [f"{name} (SQLSTATE {each['sqlstate']})" for name, each in found.items() if name not in plans]
    if unplanned:
        return broken(
            f"can't be planned: {', '.join(unplanned)}",
            "mend its function scheduler.scenario_<type>, or its params, or set enabled = false",
        )
    faults = [
        f"{name} reads {_named(relation)} whole"
        for name, plan in plans.items()
        for relation in plan.read_whole
        if relation in read_whole
    ]
    if faults:
        return broken("; ".join(faults), "make an index for what the function asks of it")
    if not plans:
        return broken(
            "none is enabled, so nobody is evaluated", "enable one in scheduler.scenario_evaluation_config"
        )
    closed = [name for name, plan in plans.items() if f"scenario_{name}" in plan.functions]
    note = f"; {', '.join(closed)} can't be looked into, because not inlined" if closed else ""
    return holds(f"{', '.join(plans)}: none reads a table whole{note}")


async def _check_lookup(installation: Installation, view: str, what: str) -> Outcome:
    async with _open_planning(installation) as transaction:
        plan = await _plan_of_view(transaction, view, installation.settings)
    return holds(what) if _is_served(view, plan) else _lacks(view, plan, plan.read_whole)


def _is_served(view: str, plan: Plan) -> bool:
    """Whether an index takes it straight to what is looked for; to mentors in their order."""
    in_order = view == _MENTORS
    return not (
        plan.read_whole
        or (in_order and plan.is_sorted_by_hand)
        or not plan.looks_up(*READINGS[view].sought, by_equality=not in_order)
    )


async def _badly_read(transaction: Transaction, view: str, settings: Settings) -> set[Relation]:
    """What is behind the view, if that has not the index it needs."""
    plan = await _plan_of_view(transaction, view, settings)
    return set() if _is_served(view, plan) else {access.relation for access in plan.accesses}


def _lacks(view: str, plan: Plan, whole: Sequence[Relation]) -> Outcome:
    relations = whole or sorted({access.relation for access in plan.accesses})
    tables = ", ".join(map(_named, relations)) or view
    how = "is read whole" if whole else "is not read as it should be"
    return broken(
        f"{tables} {how}, for want of an index on {READINGS[view].wanted}",
        f"create one on {tables}, by the names of its columns; engine/sql/example_tables.sql shows it",
    )


@asynccontextmanager
async def _open_planning(installation: Installation) -> AsyncIterator[Transaction]:
    """A transaction as scheduler_owner, as whom scheduler.evaluate runs, in which indexes are favoured."""
    async with installation.open_as_owner() as transaction:
        await transaction.execute(_FAVOUR_INDEXES)
        yield transaction


async def _plan_of_view(transaction: Transaction, view: str, settings: Settings) -> Plan:
    reading = READINGS[view]
    [row] = await transaction.fetch(reading.explain, *reading.arguments(settings))
    return await read_plan(transaction, row[0])


def _named(relation: Relation) -> str:
    return ".".join(relation)


async def _small_tables(transaction: Transaction, relations: set[Relation]) -> set[Relation]:
    """Those that may be read whole: small, and not what grows with the number of mentors."""
    sources = {row["oid"] for row in await transaction.fetch(_LIST_SOURCES)}
    rows = await transaction.fetch(
        _SIZES_OF, [schema for schema, _ in relations], [name for _, name in relations]
    )
    return {
        (row["schema"], row["name"])
        for row in rows
        if row["bytes"] <= SMALL_TABLE and row["oid"] not in sources
    }
