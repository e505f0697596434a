"""This file is what the database tests share: mentors by property, `scheduler.evaluate`, waiting."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from engine.database import Database, Transaction, open_database
from engine.statements import Statement
from tests.postgrest import Postgrest, open_postgrest

# Seconds within which the server must have come to where a test wants it. Only a failing test waits so long.
PATIENCE = 10.0

# What PostgREST needs, and nothing else here does, to know that assignments belong to mentors.
FOREIGN_KEY = "alter table public.assignments add foreign key (mentor_id) references public.peer_mentors (id)"

# Of the stand-in for PostgREST.
REST_KEY = "service-role-key"

Answers = dict[UUID, tuple[list[str], list[str]]]


@dataclass(frozen=True)
class Mentor:
    id: UUID
    user_id: UUID


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Migrated, with the example tables, empty."""
    async with open_database(database_url, max_connections=60) as database:
        yield database


@pytest.fixture
async def postgrest(database: Database) -> AsyncIterator[Postgrest]:
    """A stand-in for PostgREST over the tables of this test's database, which belong together."""
    await query(database, FOREIGN_KEY)
    async with open_postgrest(database, key=REST_KEY) as postgrest:
        yield postgrest


async def query(on: Database | Transaction, sql: str, *arguments: Any) -> Sequence[Any]:
    return await on.fetch(Statement("test", sql), *arguments)


async def value(on: Database | Transaction, sql: str, *arguments: Any) -> Any:
    [row] = await query(on, sql, *arguments)
    return row[0]


async def add_mentor(
    on: Database | Transaction,
    *,
    id: UUID | None = None,
    status: str | None = "active",
    age: int = 100,
    last_activity: int | None = 0,
    activities: int = 1,
    assignment: str | None = "active",
    expires_in: int = 60,
) -> Mentor:
    """With nothing due, unless it is said otherwise. Everything in days, before today and after it."""
    mentor = Mentor(id or uuid4(), uuid4())
    await query(
        on,
        "insert into public.peer_mentors (id, user_id, status, created_at) "
        "values ($1, $2, $3, now() - make_interval(days => $4))",
        *(mentor.id, mentor.user_id, status, age),
    )
    await add_assignment(on, mentor.id, assignment, expires_in)
    if last_activity is not None:
        await add_activities(on, mentor, activities, last_activity)
    return mentor


async def add_assignment(
    on: Database | Transaction, mentor_id: UUID, status: str | None = "active", expires_in: int = 60
) -> None:
    await query(
        on,
        "insert into public.assignments (id, mentor_id, status, expires_at) "
        "values (gen_random_uuid(), $1, $2, (now() at time zone 'utc')::date + $3::int)",
        *(mentor_id, status, expires_in),
    )


async def add_activities(
    on: Database | Transaction, mentor: Mentor, activities: int = 1, days_ago: int = 0
) -> None:
    await query(
        on,
        "insert into public.activities (user_id, activity_date, kind) "
        "select $1, (now() at time zone 'utc')::date - $3::int, 'visit' from generate_series(1, $2::int)",
        *(mentor.user_id, activities, days_ago),
    )


async def evaluate(
    on: Database | Transaction,
    mentors: Sequence[Mentor | UUID],
    *,
    types: Sequence[str] | None = None,
    dry_run: bool = False,
    run_id: UUID | None = None,
    overrides: Any = None,
) -> Answers:
    """Dispatched and suppressed types per mentor."""
    rows = await query(
        on,
        "select * from scheduler.evaluate($1, $2, $3, $4, $5)",
        [mentor.id if isinstance(mentor, Mentor) else mentor for mentor in mentors],
        *(types, dry_run, run_id, None if overrides is None else json.dumps(overrides)),
    )
    return {row["mentor_id"]: (sorted(row["dispatched"]), sorted(row["suppressed"])) for row in rows}


async def count_notifications(on: Database | Transaction) -> int:
    return int(await value(on, "select count(*) from scheduler.notifications"))


async def fingerprint(on: Database | Transaction) -> dict[str, str]:
    """Of every table and sequence: its rows, with what a write or a row lock leaves on them."""
    relations = await query(
        on,
        "select c.oid::regclass::text as name, c.relkind = 'S' as is_sequence from pg_class c "
        "where c.relkind in ('r', 'S') "
        "and c.relnamespace in ('public'::regnamespace, 'scheduler'::regnamespace) order by 1",
    )
    of_table = "md5(string_agg(concat_ws(' ', t.ctid, t.xmin, t.xmax, t::text), ',' order by t.ctid))"
    of_sequence = "min(concat_ws(' ', t.last_value, t.is_called))"
    rows = await query(
        on,
        " union all ".join(
            f"select '{name}', {of_sequence if is_sequence else of_table} from {name} t"
            for name, is_sequence in relations
        ),
    )
    return {name: digest for name, digest in rows}


async def move_back(on: Database | Transaction, by: str) -> None:
    """As if all that was sent had been sent earlier, by an interval given as an SQL expression."""
    await query(
        on,
        f"update scheduler.cooldowns set cooldown_window_start = cooldown_window_start - ({by})",
    )
    await query(
        on,
        f"update scheduler.notifications set cooldown_window_start = cooldown_window_start - ({by}), "
        f"evaluation_date = ((cooldown_window_start - ({by})) at time zone 'utc')::date",
    )


_BLOCKED = """
    select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""
_RUNNING = """
    select count(*) from pg_stat_activity
     where state = 'active' and query like '%' || $1 || '%' and pid <> pg_backend_pid()
"""


async def wait_until_blocked(on: Database, sessions: int = 1) -> None:
    """Until so many sessions of this database wait for a lock."""
    await wait_until(on, lambda blocked: blocked >= sessions, _BLOCKED)


async def wait_until_running(on: Database, marker: str) -> None:
    """Until another session runs a statement that holds the marker."""
    await wait_until(on, lambda running: running > 0, _RUNNING, marker)


async def wait_until_gone(on: Database, marker: str) -> None:
    """Until no other session runs a statement that holds the marker."""
    await wait_until(on, lambda running: running == 0, _RUNNING, marker)


async def wait_until(on: Database, is_so: Callable[[int], bool], sql: str, *arguments: Any) -> None:
    """Ask the server until it is so: nothing but asking tells of a state of another session."""
    with trio.fail_after(PATIENCE):
        while not is_so(await value(on, sql, *arguments)):  # noqa: ASYNC110
            await trio.sleep(0.005)
