"""`scheduler.evaluate`: everybody once per window, whoever calls, and however many at once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing

from engine.database import Database, Transaction
from engine.errors import StatementFailed
from tests.postgres.conftest import (
    Answers,
    Mentor,
    add_activities,
    add_mentor,
    count_notifications,
    evaluate,
    move_back,
    query,
    value,
    wait_until_blocked,
)

INVALID_PARAMETER_VALUE = "22023"
NOT_NULL_VIOLATION = "23502"
RUN = UUID(int=1)
OTHER_RUN = UUID(int=2)


async def add_idle(database: Database) -> Mentor:
    return await add_mentor(database, last_activity=20)


async def cooldowns(database: Database) -> list[tuple[Any, ...]]:
    rows = await query(database, "select * from scheduler.cooldowns order by 1, 2")
    return [tuple(row) for row in rows]


# --- What is answered, and what is written ---


async def test_what_is_due_is_dispatched_and_written_with_its_run(database: Database) -> None:
    idle = await add_idle(database)
    both = await add_mentor(database, activities=10, expires_in=3)
    nothing = await add_mentor(database)
    answers = await evaluate(database, [idle, both, nothing], run_id=RUN)
    assert answers == {idle.id: (["inactivity"], []), both.id: (["expiry", "milestone"], [])}
    rows = await query(
        database,
        "select mentor_id, user_id, scenario_type, run_id, cooldown_window_start = created_at as at_once, "
        "evaluation_date = (created_at at time zone 'utc')::date as on_its_day "
        "from scheduler.notifications order by 1, 3",
    )
    expected = [(idle, "inactivity"), (both, "expiry"), (both, "milestone")]
    assert {tuple(row) for row in rows} == {
        (mentor.id, mentor.user_id, scenario_type, RUN, True, True) for mentor, scenario_type in expected
    }


@pytest.mark.parametrize("mentor_ids", [None, []])
@pytest.mark.parametrize("run_id", [None, RUN])
async def test_nobody_given_is_nobody_evaluated(
    database: Database, mentor_ids: list[UUID] | None, run_id: UUID | None
) -> None:
    await add_idle(database)
    rows = await query(database, "select * from scheduler.evaluate($1, null, false, $2)", mentor_ids, run_id)
    assert list(rows) == []
    assert await count_notifications(database) == 0


async def test_duplicates_and_ids_of_nobody_do_no_harm(database: Database) -> None:
    idle = await add_idle(database)
    stranger = uuid4()
    assert await evaluate(database, [idle, stranger, idle, idle], run_id=RUN) == {
        idle.id: (["inactivity"], [])
    }
    rows = await query(
        database,
        "select * from scheduler.evaluate(array[null, $1::uuid, null], null, false, $2)",
        idle.id,
        RUN,
    )
    assert [tuple(row) for row in rows] == [(idle.id, ["inactivity"], [])]


@pytest.mark.parametrize("status", ["paused", "deactivated"])
async def test_a_mentor_deactivated_since_the_page_was_fetched_has_nothing_due(
    database: Database, status: str
) -> None:
    mentor = await add_mentor(database, status=status, last_activity=20, activities=10, expires_in=3)
    assert await evaluate(database, [mentor]) == {}


async def test_only_the_scenario_types_asked_for_are_evaluated(database: Database) -> None:
    mentor = await add_mentor(database, activities=10, expires_in=3)
    assert await evaluate(database, [mentor], types=["expiry"]) == {mentor.id: (["expiry"], [])}
    assert await evaluate(database, [mentor], types=[]) == {}
    assert await evaluate(database, [mentor]) == {mentor.id: (["milestone"], ["expiry"])}


async def test_a_disabled_scenario_is_not_evaluated_though_it_is_asked_for(database: Database) -> None:
    mentor = await add_mentor(database, activities=10, expires_in=3)
    await query(
        database,
        "update scheduler.scenario_evaluation_config set enabled = false where scenario_type = 'expiry'",
    )
    assert await evaluate(database, [mentor], types=["expiry"]) == {}
    assert await evaluate(database, [mentor]) == {mentor.id: (["milestone"], [])}


@pytest.mark.parametrize("types", [["birthday"], ["expiry", "Expiry"], [None]])
async def test_an_unknown_scenario_type_is_refused(database: Database, types: list[str]) -> None:
    idle = await add_idle(database)
    with pytest.raises(StatementFailed) as caught:
        await evaluate(database, [idle], types=types)
    assert caught.value.sqlstate == INVALID_PARAMETER_VALUE


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_mentor_without_a_user_is_an_error_of_the_data(database: Database, dry_run: bool) -> None:
    idle = await add_idle(database)
    await query(database, "update public.peer_mentors set user_id = null")
    with pytest.raises(StatementFailed) as caught:
        await evaluate(database, [idle], dry_run=dry_run)
    assert caught.value.sqlstate == NOT_NULL_VIOLATION


async def test_params_of_the_config_decide(database: Database) -> None:
    idle = await add_idle(database)
    await query(
        database,
        "update scheduler.scenario_evaluation_config set params = '{\"days\": 30}' "
        "where scenario_type = 'inactivity'",
    )
    assert await evaluate(database, [idle]) == {}


# --- The window ---


async def test_a_second_call_is_suppressed_and_writes_and_locks_nothing(database: Database) -> None:
    idle = await add_idle(database)
    await evaluate(database, [idle])
    async with database.open_transaction() as transaction:
        await query(transaction, "set transaction read only")
        assert await evaluate(transaction, [idle]) == {idle.id: ([], ["inactivity"])}
    assert await count_notifications(database) == 1


@pytest.mark.parametrize(("ago", "is_sent"), [("7 days", True), ("6 days 23:59:00", False)])
async def test_the_window_slides_with_what_was_sent(database: Database, ago: str, is_sent: bool) -> None:
    idle = await add_idle(database)
    await evaluate(database, [idle])
    await move_back(database, f"interval '{ago}'")
    assert await evaluate(database, [idle]) == {
        idle.id: (["inactivity"], []) if is_sent else ([], ["inactivity"])
    }


async def test_just_before_and_just_after_midnight_is_one_notification(database: Database) -> None:
    # Any window rounded to days has its edge there, whatever its length.
    idle = await add_idle(database)
    await query(database, "update scheduler.scenario_evaluation_config set cooldown = '1 day'")
    await evaluate(database, [idle])
    await move_back(database, "now() - date_trunc('day', now(), 'utc') + interval '1 microsecond'")
    days = "select (now() at time zone 'utc')::date - evaluation_date from scheduler.notifications"
    assert await value(database, days) == 1
    assert await evaluate(database, [idle]) == {idle.id: ([], ["inactivity"])}


async def test_a_day_is_24_hours_when_the_clocks_change_as_well(database: Database) -> None:
    idle = await add_idle(database)
    await query(database, "update scheduler.scenario_evaluation_config set cooldown = '1 day'")
    await evaluate(database, [idle])
    await move_back(database, "interval '23 hours 30 minutes'")
    await query(database, "update scheduler.notifications set evaluation_date = evaluation_date - 1")
    async with database.open_transaction() as transaction:
        # A zone that has put its clocks forward twelve hours ago: there, a day before now was 23 hours ago.
        spring = await value(
            transaction,
            "select 'J' || extract(doy from t) || '/' || to_char(t, 'HH24:MI:SS') "
            "from (select now() at time zone 'utc' - interval '12 hours' as t) t",
        )
        await query(transaction, f"set local timezone = 'AAA0BBB-1,{spring},J365/23'")
        assert await value(transaction, "select now() - (now() - interval '1 day') < interval '23:30:00'")
        assert await evaluate(transaction, [idle]) == {idle.id: ([], ["inactivity"])}


async def test_a_cooldown_shorter_than_a_day_is_not_storable(database: Database) -> None:
    with pytest.raises(StatementFailed) as caught:
        await query(database, "update scheduler.scenario_evaluation_config set cooldown = '23:59:59'")
    assert caught.value.sqlstate == "23514"


async def test_a_refused_insert_is_suppressed_and_leaves_the_cooldown_as_it_was(database: Database) -> None:
    untouched, absent, moved, free = [await add_idle(database) for _ in range(4)]
    await evaluate(database, [untouched, absent, moved])
    await query(
        database, "delete from scheduler.cooldowns where user_id in ($1, $2)", absent.user_id, moved.user_id
    )
    await query(
        database,
        "insert into scheduler.cooldowns values ($1, 'inactivity', now() - interval '30 days')",
        moved.user_id,
    )
    before = await cooldowns(database)
    assert len(before) == 2
    assert await evaluate(database, [untouched, absent, moved, free]) == {
        **{mentor.id: ([], ["inactivity"]) for mentor in (untouched, absent, moved)},
        free.id: (["inactivity"], []),
    }
    after = [row for row in await cooldowns(database) if row[0] != free.user_id]
    assert after == before
    assert await count_notifications(database) == 4


# --- Many at once ---


async def evaluate_and_hold(
    database: Database,
    mentors: list[Mentor],
    release: trio.Event,
    run_id: UUID | None = None,
    *,
    roll_back: bool = False,
    task_status: trio.TaskStatus[Answers],
) -> None:
    async with database.open_transaction() as transaction:
        answers = await evaluate(transaction, mentors, run_id=run_id)
        task_status.started(answers)
        await release.wait()
        if roll_back:
            await query(transaction, "rollback")


async def test_a_call_at_the_same_time_waits_and_hears_suppressed(database: Database) -> None:
    idle = await add_idle(database)
    release = trio.Event()
    answers: Answers = {}

    async def second() -> None:
        answers.update(await evaluate(database, [idle]))

    async with trio.open_nursery() as nursery:
        first = await nursery.start(evaluate_and_hold, database, [idle], release)
        nursery.start_soon(second)
        await wait_until_blocked(database)
        release.set()
    assert first == {idle.id: (["inactivity"], [])}
    assert answers == {idle.id: ([], ["inactivity"])}
    assert await count_notifications(database) == 1


async def test_a_call_at_the_same_time_on_the_other_side_of_midnight_hears_suppressed(
    database: Database,
) -> None:
    # Neither unique key can refuse it: the lock and the window have to.
    idle = await add_idle(database)
    answers: Answers = {}

    async def second() -> None:
        answers.update(await evaluate(database, [idle]))

    async with trio.open_nursery() as nursery, database.open_transaction() as transaction:
        await evaluate(transaction, [idle])
        await move_back(transaction, "interval '1 second'")
        await query(transaction, "update scheduler.notifications set evaluation_date = evaluation_date - 1")
        nursery.start_soon(second)
        await wait_until_blocked(database)
    assert answers == {idle.id: ([], ["inactivity"])}
    assert await count_notifications(database) == 1


async def test_a_call_at_the_same_time_sends_if_the_first_is_rolled_back(database: Database) -> None:
    idle = await add_idle(database)
    release = trio.Event()
    answers: Answers = {}

    async def second() -> None:
        answers.update(await evaluate(database, [idle]))

    async with trio.open_nursery() as nursery:
        await nursery.start(_rolling_back, database, [idle], release)
        nursery.start_soon(second)
        await wait_until_blocked(database)
        release.set()
    assert answers == {idle.id: (["inactivity"], [])}
    assert await count_notifications(database) == 1


async def _rolling_back(
    database: Database, mentors: list[Mentor], release: trio.Event, *, task_status: trio.TaskStatus[Answers]
) -> None:
    await evaluate_and_hold(database, mentors, release, roll_back=True, task_status=task_status)


async def test_fifty_calls_at_once_over_overlapping_chunks_send_everything_once(database: Database) -> None:
    mentors = [await add_mentor(database, activities=10, expires_in=3) for _ in range(40)]
    heard: list[str] = []
    go = trio.Event()

    async def call(number: int) -> None:
        start = number % 4 * 5
        chunk = mentors[start : start + 25][:: 1 if number % 2 else -1]
        async with database.open_transaction() as transaction:
            await query(transaction, "select 1")
            await go.wait()
            for _, (dispatched, suppressed) in (await evaluate(transaction, chunk)).items():
                heard.extend(dispatched)
                assert set(dispatched) | set(suppressed) <= {"expiry", "milestone"}

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(call, number)
        nursery.start_soon(_set_soon, go)
    assert sorted(heard) == ["expiry"] * 40 + ["milestone"] * 40
    assert await count_notifications(database) == 80


async def _set_soon(event: trio.Event) -> None:
    await trio.testing.wait_all_tasks_blocked(0.2)
    event.set()


async def test_chunks_in_opposite_order_do_not_wait_for_one_another_in_a_circle(database: Database) -> None:
    mentors = [await add_idle(database) for _ in range(10)]
    lowest = min(mentors, key=lambda mentor: mentor.user_id)
    last = [mentor for mentor in mentors if mentor is not lowest]
    release = trio.Event()
    answers: list[Answers] = []

    async def call(chunk: list[Mentor]) -> None:
        answers.append(await evaluate(database, chunk))

    # While somebody holds the first of all locks, neither call may have taken one that the other needs.
    async with trio.open_nursery() as nursery:
        await nursery.start(_rolling_back, database, [lowest], release)
        nursery.start_soon(call, [lowest, *last])
        nursery.start_soon(call, [*last, lowest])
        await wait_until_blocked(database, 2)
        async with database.open_transaction() as transaction:
            for mentor in last:
                await query(
                    transaction,
                    "insert into scheduler.cooldowns values ($1, 'inactivity', now()) on conflict do nothing",
                    mentor.user_id,
                )
            await query(transaction, "rollback")
        release.set()
    assert await count_notifications(database) == 10
    assert (
        sorted(len(dispatched) for call in answers for dispatched, _ in call.values()) == [0] * 10 + [1] * 10
    )


# --- A retry ---


async def test_a_retry_of_the_same_run_hears_dispatched(database: Database) -> None:
    idle = await add_idle(database)
    both = await add_mentor(database, activities=10, expires_in=3)
    first = await evaluate(database, [idle, both], run_id=RUN)
    assert first == {idle.id: (["inactivity"], []), both.id: (["expiry", "milestone"], [])}
    assert await evaluate(database, [idle, both], run_id=RUN) == first
    assert await evaluate(database, [idle, both], run_id=OTHER_RUN) == {
        idle.id: ([], ["inactivity"]),
        both.id: ([], ["expiry"]),  # a milestone that was told is not due again
    }
    assert await count_notifications(database) == 3


async def test_a_retry_hears_of_its_own_mentors_and_scenario_types_alone(database: Database) -> None:
    mentors = sorted(
        [await add_mentor(database, activities=10, expires_in=3) for _ in range(3)],
        key=lambda mentor: mentor.id,
    )
    await evaluate(database, mentors, run_id=RUN)
    outer = [mentors[0], mentors[2]]
    assert await evaluate(database, outer, types=["milestone"], run_id=RUN) == {
        mentor.id: (["milestone"], []) for mentor in outer
    }


async def test_a_retry_sends_what_has_become_due_since(database: Database) -> None:
    mentor = await add_mentor(database, expires_in=3)
    await evaluate(database, [mentor], run_id=RUN)
    await add_activities(database, mentor, 10)
    assert await evaluate(database, [mentor], run_id=RUN) == {mentor.id: (["expiry", "milestone"], [])}


async def test_a_retry_while_the_first_call_is_under_way_hears_dispatched(database: Database) -> None:
    mentors = [await add_mentor(database, activities=10, expires_in=3) for _ in range(3)]
    release = trio.Event()
    answers: Answers = {}

    async def retry() -> None:
        answers.update(await evaluate(database, mentors, run_id=RUN))

    async with trio.open_nursery() as nursery:
        first = await nursery.start(evaluate_and_hold, database, mentors, release, RUN)
        nursery.start_soon(retry)
        await wait_until_blocked(database)
        release.set()
    assert answers == first == {mentor.id: (["expiry", "milestone"], []) for mentor in mentors}
    assert await count_notifications(database) == 6


# --- A dry run ---


async def test_a_dry_run_says_what_a_call_would_do_and_writes_nothing(database: Database) -> None:
    idle = await add_idle(database)
    both = await add_mentor(database, activities=10, expires_in=3)
    by_hand = await add_idle(database)
    await evaluate(database, [both], types=["expiry"])
    await evaluate(database, [by_hand])
    await query(database, "delete from scheduler.cooldowns where user_id = $1", by_hand.user_id)
    everybody = [idle, both, by_hand]
    before = await cooldowns(database), await count_notifications(database)
    async with database.open_transaction() as transaction:
        await query(transaction, "set transaction read only")
        would = await evaluate(transaction, everybody, dry_run=True)
    assert (await cooldowns(database), await count_notifications(database)) == before
    assert would == await evaluate(database, everybody)
    assert would == {
        idle.id: (["inactivity"], []),
        both.id: (["milestone"], ["expiry"]),
        by_hand.id: ([], ["inactivity"]),
    }


async def test_a_dry_run_waits_for_nobody(database: Database) -> None:
    idle = await add_idle(database)
    release = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(evaluate_and_hold, database, [idle], release)
        with trio.fail_after(10):
            assert await evaluate(database, [idle], dry_run=True) == {idle.id: (["inactivity"], [])}
        release.set()


async def test_a_dry_run_tries_other_params_and_cooldowns(database: Database) -> None:
    mentor = await add_mentor(database, last_activity=12, expires_in=3)
    await evaluate(database, [mentor])
    await move_back(database, "interval '3 days'")
    assert await evaluate(database, [mentor], dry_run=True) == {mentor.id: ([], ["expiry"])}
    overrides = {"inactivity": {"params": {"days": 10}}, "expiry": {"cooldown": "3 days"}}
    assert await evaluate(database, [mentor], dry_run=True, overrides=overrides) == {
        mentor.id: (["expiry", "inactivity"], [])
    }
    assert await evaluate(database, [mentor], dry_run=True, overrides={}) == {mentor.id: ([], ["expiry"])}


async def test_overrides_without_a_dry_run_are_refused(database: Database) -> None:
    idle = await add_idle(database)
    with pytest.raises(StatementFailed) as caught:
        await evaluate(database, [idle], overrides={"inactivity": {"params": {"days": 10}}})
    assert caught.value.sqlstate == INVALID_PARAMETER_VALUE
    assert await count_notifications(database) == 0


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        "inactivity",
        {"birthday": {}},
        {"inactivity": None},
        {"inactivity": []},
        {"inactivity": {"enabled": True}},
        {"inactivity": {"params": []}},
        {"inactivity": {"params": {"dayz": 10}}},
        {"inactivity": {"cooldown": 3}},
        {"inactivity": {"cooldown": None}},
        {"inactivity": {"cooldown": "soon"}},
        {"inactivity": {"cooldown": "23 hours"}},
        {"inactivity": {}, "expiry": {"cooldown": "1 fortnight"}},
    ],
)
async def test_overrides_that_can_not_be_used_are_refused(database: Database, overrides: Any) -> None:
    idle = await add_idle(database)
    with pytest.raises(StatementFailed) as caught:
        await evaluate(database, [idle], dry_run=True, overrides=overrides)
    assert caught.value.sqlstate == INVALID_PARAMETER_VALUE


# --- A scenario of one's own, and who may call ---


async def test_a_scenario_is_added_with_a_function_and_a_row(database: Database) -> None:
    mentor, other = await add_mentor(database), await add_mentor(database)
    async with database.open_transaction() as transaction:
        await query(
            transaction,
            """
            create function scheduler.scenario_welcome(mentor_ids uuid[], as_of timestamptz, params jsonb)
            returns table (mentor_id uuid, user_id uuid, payload jsonb)
            language sql stable
            as $$
              select m.id, m.user_id, jsonb_build_object('text', params ->> 'text')
                from scheduler.mentors m
               where m.id = any (mentor_ids)
                 and m.status = 'active'
                 and m.created_at > as_of - make_interval(days => (params ->> 'days')::int)
            $$
            """,
        )
        await query(
            transaction,
            "insert into scheduler.scenario_evaluation_config (scenario_type, params, cooldown) "
            """values ('welcome', '{"days": 3, "text": "it''s $1 %I %L"}', '365 days')""",
        )
    await query(database, "update public.peer_mentors set created_at = now() where id = $1", mentor.id)
    chunk = [mentor, other]
    assert await evaluate(database, chunk, run_id=RUN) == {mentor.id: (["welcome"], [])}
    assert await evaluate(database, chunk, run_id=RUN) == {mentor.id: (["welcome"], [])}
    assert await evaluate(database, chunk) == {mentor.id: ([], ["welcome"])}
    assert await value(database, "select payload ->> 'text' from scheduler.notifications") == "it's $1 %I %L"


@pytest.mark.parametrize("scenario_type", ["", "Welcome", "1st", "wel come", "we'll", "a" * 55, "a\n"])
async def test_a_scenario_type_that_can_not_name_a_function_is_not_storable(
    database: Database, scenario_type: str
) -> None:
    with pytest.raises(StatementFailed) as caught:
        await query(
            database,
            "insert into scheduler.scenario_evaluation_config (scenario_type, cooldown) values ($1, '1 day')",
            scenario_type,
        )
    assert caught.value.sqlstate == "23514"


async def test_a_scenario_without_its_function_is_storable_only_while_disabled(database: Database) -> None:
    insert = "insert into scheduler.scenario_evaluation_config (scenario_type, cooldown, enabled) values "
    with pytest.raises(StatementFailed) as caught:
        await query(database, insert + "('ghost', '1 day', true)")
    assert caught.value.sqlstate == "42883"
    await query(database, insert + "('ghost', '1 day', false)")
    with pytest.raises(StatementFailed):
        await query(database, "update scheduler.scenario_evaluation_config set enabled = true")


async def test_the_caller_needs_no_right_but_to_call_and_is_not_bound_by_row_level_security(
    database: Database, database_url: str
) -> None:
    idle = await add_idle(database)
    async with database.open_transaction() as transaction:
        role = f"caller_{uuid4().hex}"
        for statement in (
            f"create role {role}",
            "alter table public.peer_mentors enable row level security",
            "alter table public.activities enable row level security",
            "select scheduler.grant_rights()",
            f"grant usage on schema scheduler to {role}",
            f"grant execute on function scheduler.evaluate to {role}",
            f"set local role {role}",
        ):
            await query(transaction, statement)
        assert await evaluate(transaction, [idle]) == {idle.id: (["inactivity"], [])}
        await query(transaction, "reset role")
        await query(transaction, f"drop owned by {role}")
        await query(transaction, f"drop role {role}")


async def test_nobody_may_call_it_without_being_granted_that(database: Database) -> None:
    role = f"stranger_{uuid4().hex}"
    functions = (
        "select proname, has_function_privilege($1, oid, 'execute') as may from pg_proc "
        "where pronamespace = 'scheduler'::regnamespace"
    )
    async with database.open_transaction() as transaction:
        await query(transaction, f"create role {role}")
        rows = await query(transaction, functions, role)
        assert len(rows) > 6
        assert not [row["proname"] for row in rows if row["may"]]
        assert not await value(transaction, "select has_schema_privilege($1, 'scheduler', 'usage')", role)
        await query(transaction, f"drop role {role}")


@pytest.mark.parametrize("type_name", ["jsonb", "text", "uuid", "date"])
async def test_a_type_of_the_callers_own_does_not_stand_in_for_ours(
    database: Database, type_name: str
) -> None:
    idle = await add_idle(database)
    ids = f"array['{idle.id}']::pg_catalog.uuid[]"
    async with database.open_transaction() as transaction:
        await _deceive(transaction, type_name)
        rows = await query(transaction, f"select mentor_id from scheduler.evaluate({ids})")
        assert [row["mentor_id"] for row in rows] == [idle.id]


async def _deceive(transaction: Transaction, type_name: str) -> None:
    """From here on, a cast to the type fails wherever temporary objects are looked at first."""
    await query(transaction, "create temporary table makes_the_schema ()")
    await query(
        transaction, f"create domain pg_temp.{type_name} as pg_catalog.{type_name} check (value is null)"
    )


async def test_no_call_leaves_anything_in_the_catalog(database: Database) -> None:
    chunks = pairwise([await add_idle(database) for _ in range(4)])
    catalog = (
        "select (select count(*) from pg_class), (select count(*) from pg_type), "
        "(select sum(n_tup_ins) from pg_stat_sys_tables where relname in ('pg_class', 'pg_attribute'))"
    )
    async with database.open_transaction() as transaction:
        before = tuple((await query(transaction, catalog))[0])
        for chunk in chunks:
            await evaluate(transaction, chunk)
        assert tuple((await query(transaction, catalog))[0]) == before
