"""The shipped scenarios: who is due, to the day."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.database import Database
from tests.postgres.conftest import Mentor, add_activities, add_mentor, evaluate, move_back, query

PARAMS = {"inactivity": {"days": 14}, "milestone": {"counts": [10, 25, 50]}, "expiry": {"days": 7}}


async def due(database: Database, scenario_type: str, mentor: Mentor, **params: Any) -> dict[str, Any] | None:
    """The payload, or None."""
    rows = await query(
        database,
        f"select * from scheduler.scenario_{scenario_type}($1, now(), $2)",
        *([mentor.id], json.dumps({**PARAMS[scenario_type], **params})),
    )
    if not rows:
        return None
    [row] = rows
    assert (row["mentor_id"], row["user_id"]) == (mentor.id, mentor.user_id)
    payload: dict[str, Any] = json.loads(row["payload"])
    return payload


@pytest.mark.parametrize(("days_ago", "is_due"), [(0, False), (14, False), (15, True)])
async def test_inactivity_is_due_after_the_days_without_an_activity(
    database: Database, days_ago: int, is_due: bool
) -> None:
    mentor = await add_mentor(database, last_activity=days_ago)
    payload = await due(database, "inactivity", mentor)
    last = (await query(database, "select (now() at time zone 'utc')::date - $1::int as day", days_ago))[0]
    assert payload == ({"last_activity": last["day"].isoformat()} if is_due else None)


async def test_inactivity_looks_at_the_last_activity_alone(database: Database) -> None:
    mentor = await add_mentor(database, last_activity=40, activities=3)
    assert await due(database, "inactivity", mentor)
    await add_activities(database, mentor, days_ago=3)
    assert await due(database, "inactivity", mentor) is None
    assert await due(database, "inactivity", mentor, days=2)


@pytest.mark.parametrize(("age", "is_due"), [(13, False), (14, True), (100, True)])
async def test_inactivity_is_due_without_any_activity_unless_the_mentor_is_newer(
    database: Database, age: int, is_due: bool
) -> None:
    mentor = await add_mentor(database, last_activity=None, age=age)
    assert await due(database, "inactivity", mentor) == ({"last_activity": None} if is_due else None)


async def test_inactivity_takes_a_mentor_of_unknown_age_for_an_old_one(database: Database) -> None:
    mentor = await add_mentor(database, last_activity=None)
    await query(database, "update public.peer_mentors set created_at = null")
    assert await due(database, "inactivity", mentor)


@pytest.mark.parametrize(
    ("activities", "milestone"), [(9, None), (10, 10), (24, 10), (25, 25), (50, 50), (51, 50), (500, 50)]
)
async def test_milestone_is_the_highest_count_reached(
    database: Database, activities: int, milestone: int | None
) -> None:
    mentor = await add_mentor(database, activities=activities)
    payload = await due(database, "milestone", mentor)
    assert payload == (None if milestone is None else {"milestone": milestone})


async def test_milestone_is_notified_once_each_and_a_skipped_one_never(database: Database) -> None:
    mentor = await add_mentor(database, activities=26)
    told = []
    for more in (0, 0, 10, 20, 100):
        await move_back(database, f"interval '{2 + more} days'")
        await add_activities(database, mentor, more)
        payload = await due(database, "milestone", mentor)
        told.append(payload and payload["milestone"])
        await evaluate(database, [mentor])
    assert told == [25, None, None, 50, None]


async def test_milestone_without_counts_is_never_due(database: Database) -> None:
    mentor = await add_mentor(database, activities=100)
    assert await due(database, "milestone", mentor, counts=[]) is None


@pytest.mark.parametrize(("expires_in", "is_due"), [(-1, False), (0, True), (7, True), (8, False)])
async def test_expiry_is_due_while_an_active_assignment_ends_within_the_days(
    database: Database, expires_in: int, is_due: bool
) -> None:
    mentor = await add_mentor(database, expires_in=expires_in)
    assert bool(await due(database, "expiry", mentor)) is is_due


async def test_expiry_tells_the_soonest_end_and_looks_at_active_assignments_alone(database: Database) -> None:
    mentor = await add_mentor(database, expires_in=5)
    [today] = await query(database, "select (now() at time zone 'utc')::date + 4 as soonest")
    for status, expires_in in [("active", 4), ("ended", 2), ("active", -3)]:
        await query(
            database,
            "insert into public.assignments (id, mentor_id, status, expires_at) "
            "values (gen_random_uuid(), $1, $2, (now() at time zone 'utc')::date + $3::int)",
            *(mentor.id, status, expires_in),
        )
    assert await due(database, "expiry", mentor) == {"expires_at": today["soonest"].isoformat()}


@pytest.mark.parametrize("scenario_type", PARAMS)
@pytest.mark.parametrize("status", ["paused", "deactivated", None])
async def test_a_mentor_who_is_not_active_has_nothing_due(
    database: Database, scenario_type: str, status: str
) -> None:
    mentor = await add_mentor(database, last_activity=40, activities=30, expires_in=3)
    assert await due(database, scenario_type, mentor)
    await query(database, "update public.peer_mentors set status = $1", status)
    assert await due(database, scenario_type, mentor) is None


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])  # 14 hours ahead of UTC, 12 behind it
async def test_days_are_days_in_utc_in_every_session(database: Database, zone: str) -> None:
    idle = await add_mentor(database, last_activity=15)
    not_idle = await add_mentor(database, last_activity=14)
    ends_today = await add_mentor(database, expires_in=0)
    ended = await add_mentor(database, expires_in=-1)
    far = await add_mentor(database, expires_in=8)
    everybody = [mentor.id for mentor in (idle, not_idle, ends_today, ended, far)]
    async with database.open_transaction() as transaction:
        await query(transaction, f"set local timezone = '{zone}'")
        for scenario_type, expected in (("inactivity", idle), ("expiry", ends_today)):
            rows = await query(
                transaction,
                f"select mentor_id from scheduler.scenario_{scenario_type}($1, now(), $2)",
                *(everybody, json.dumps(PARAMS[scenario_type])),
            )
            assert [row["mentor_id"] for row in rows] == [expected.id]


@pytest.mark.parametrize("scenario_type", PARAMS)
async def test_a_scenario_function_is_inlined_and_reads_only_what_belongs_to_its_mentors(
    database: Database, scenario_type: str
) -> None:
    await query(
        database,
        "insert into public.peer_mentors (id, user_id, status, created_at) "
        "select md5('m' || i)::uuid, md5('u' || i)::uuid, 'active', '2020-01-01' "
        "from generate_series(1, 20000) i",
    )
    await query(
        database,
        "insert into public.assignments select md5('a' || i)::uuid, md5('m' || i)::uuid, 'active', "
        "(now() at time zone 'utc')::date + 3 from generate_series(1, 20000) i",
    )
    await query(
        database,
        "insert into public.activities (user_id, activity_date) select md5('u' || i % 20000)::uuid, "
        "(now() at time zone 'utc')::date - 30 from generate_series(1, 240000) i",
    )
    await query(
        database,
        "insert into scheduler.notifications "
        "(mentor_id, user_id, scenario_type, cooldown_window_start, evaluation_date, payload) "
        "select md5('m' || i)::uuid, md5('u' || i)::uuid, 'expiry', now(), now(), '{\"milestone\": 5}' "
        "from generate_series(1, 20000) i",
    )
    explain = (
        "explain (analyze, buffers, format json) select * from "
        f"scheduler.scenario_{scenario_type}("
        "array(select md5('m' || i)::uuid from generate_series(1, 20) i), now(), "
        f"'{json.dumps(PARAMS[scenario_type])}')"
    )
    # As it is planned inside scheduler.evaluate: before there are statistics, with them, and with old ones.
    for statistics in (
        "select 1",
        "analyze",
        "update scheduler.notifications set scenario_type = 'milestone'",
    ):
        await query(database, statistics)
        async with database.open_transaction() as transaction:
            ids = await query(transaction, "select md5('m' || i)::uuid from generate_series(1, 20) i")
            literal = "{" + ",".join(str(row[0]) for row in ids) + "}"
            await query(transaction, "set local enable_seqscan = off")
            [row] = await query(
                transaction,
                explain.replace(
                    "array(select md5('m' || i)::uuid from generate_series(1, 20) i)", f"'{literal}'::uuid[]"
                ),
            )
        [plan] = json.loads(row[0])
        assert plan["Plan"]["Actual Rows"] == 20
        nodes = list(_nodes(plan["Plan"]))
        assert not [node for node in nodes if node["Node Type"] == "Seq Scan"]
        functions = {node["Function Name"] for node in nodes if node["Node Type"] == "Function Scan"}
        assert functions <= {"jsonb_array_elements_text"}
        # 20 mentors, each at most five descents of three pages and a dozen rows anywhere in the table.
        buffers = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
        assert buffers < 20 * (5 * 3 + 12)


def _nodes(plan: dict[str, Any]) -> Any:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
