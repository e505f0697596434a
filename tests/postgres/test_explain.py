"""Why did this one person not get it: what is told, and that asking writes nothing and waits for nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import trio

from engine import (
    Explanation,
    MentorNotFound,
    NotReady,
    Outcome,
    RunRequest,
    ScenarioExplanation,
    Scheduler,
    load_settings,
    open_scheduler,
)
from engine.database import Database
from engine.explanation import explain
from engine.statements import Statement
from tests.fakes import FakeMentors
from tests.postgres.conftest import (
    add_activities,
    add_mentor,
    evaluate,
    fingerprint,
    move_back,
    query,
    value,
)

RUN = UUID(int=1)


@asynccontextmanager
async def open_on(url: str, **given: Any) -> AsyncIterator[Scheduler]:
    async with open_scheduler(load_settings(database_url=url, **given)) as scheduler:
        yield scheduler


@pytest.fixture
async def scheduler(database_url: str) -> AsyncIterator[Scheduler]:
    async with open_on(database_url) as scheduler:
        yield scheduler


def scenario(explanation: Explanation, scenario_type: str) -> ScenarioExplanation:
    [found] = [each for each in explanation.scenarios if each.scenario_type == scenario_type]
    return found


async def add_scenario(
    database: Database, scenario_type: str, function: str, kind: str = "sql stable"
) -> None:
    await query(
        database,
        f"create function scheduler.scenario_{scenario_type}(mentor_ids uuid[], as_of timestamptz, "
        f"params jsonb) returns table (mentor_id uuid, user_id uuid, payload jsonb) language {kind} "
        f"as $$ {function} $$",
    )
    await query(
        database,
        "insert into scheduler.scenario_evaluation_config (scenario_type, params, cooldown) "
        """values ($1, '{"days": 3}', '1 day')""",
        scenario_type,
    )


FOR_EVERYBODY = "select m.id, m.user_id, '{}'::jsonb from scheduler.mentors m where m.id = any (mentor_ids)"


# --- What is told ---


async def test_everything_is_told_of_what_was_sent_and_what_keeps_the_next_one_in(
    database: Database, scheduler: Scheduler
) -> None:
    mentor = await add_mentor(database, last_activity=20)
    before = scenario(await scheduler.explain(mentor.id), "inactivity")
    assert (before.outcome, before.is_cooling, before.last_sent_at) == (Outcome.DISPATCHED, False, None)
    await evaluate(database, [mentor], run_id=RUN)
    told = scenario(await scheduler.explain(mentor.id), "inactivity")
    assert told.outcome is Outcome.SUPPRESSED
    assert told.is_due
    assert (
        told.payload
        == told.last_payload
        == {"last_activity": str(await value(database, "select max(activity_date) from public.activities"))}
    )
    assert told.last_run_id == RUN
    [sent] = await query(
        database, "select *, created_at + interval '7 days' as until from scheduler.notifications"
    )
    assert (told.last_sent_at, told.cooldown_until) == (sent["created_at"], sent["until"])
    await move_back(database, "interval '7 days'")
    after = scenario(await scheduler.explain(mentor.id), "inactivity")
    assert (after.outcome, after.cooldown_until) == (Outcome.DISPATCHED, None)


async def test_the_facts_say_in_words_what_was_compared_with_what(
    database: Database, scheduler: Scheduler
) -> None:
    mentor = await add_mentor(database, age=100, last_activity=20, activities=10, expires_in=3)
    dates = await query(
        database,
        "select today - 20, today - 14, today - 100, today + 3, today + 7 "
        "from (select (now() at time zone 'utc')::date) t(today)",
    )
    last, threshold, since, end, until = (str(each) for each in dates[0])
    explanation = await scheduler.explain(mentor.id)
    words = {each.scenario_type: (each.facts or {})["words"] for each in explanation.scenarios}
    assert words == {
        "inactivity": [
            f"The last activity was on {last}; a mentor since {since}.",
            f"Due without an activity since {threshold} (14 days ago), for a mentor from before then.",
        ],
        "milestone": [
            "Activities: 10. Of the counts 10, 25, 50, the highest reached is 10, and the highest told is "
            "none.",
            "Due when the one reached is higher than the one told.",
        ],
        "expiry": [
            f"The next active assignment to end does so on {end}.",
            f"Due when one ends by {until} (within 7 days).",
        ],
    }


async def test_a_disabled_scenario_is_told_with_what_it_would_say(
    database: Database, scheduler: Scheduler
) -> None:
    mentor = await add_mentor(database, last_activity=20)
    await query(database, "update scheduler.scenario_evaluation_config set enabled = false")
    told = scenario(await scheduler.explain(mentor.id), "inactivity")
    assert (told.outcome, told.enabled, told.is_due) == (Outcome.DISABLED, False, True)


async def test_a_scenario_of_ones_own_tells_its_payload_and_its_facts_once_it_has_a_function_for_them(
    database: Database, scheduler: Scheduler
) -> None:
    mentor = await add_mentor(database)
    await add_scenario(database, "welcome", FOR_EVERYBODY)
    told = scenario(await scheduler.explain(mentor.id), "welcome")
    assert (told.outcome, told.payload, told.facts) == (Outcome.DISPATCHED, {}, None)
    await query(
        database,
        "create function scheduler.explain_welcome(mentor_id uuid, as_of timestamptz, params jsonb) "
        "returns jsonb language sql stable as $$ select jsonb_build_object('who', mentor_id, "
        "'days', params -> 'days') $$",
    )
    told = scenario(await scheduler.explain(mentor.id), "welcome")
    assert told.facts == {"who": str(mentor.id), "days": 3}


async def test_facts_that_can_not_be_told_leave_the_rest_as_it_is(
    database: Database, scheduler: Scheduler
) -> None:
    mentor = await add_mentor(database, last_activity=20)
    await query(
        database,
        "create or replace function scheduler.explain_inactivity(mentor_id uuid, as_of timestamptz, "
        "params jsonb) returns jsonb language sql stable as $$ "
        "select to_jsonb(1 / (params ->> 'zero')::int) $$",
    )
    await query(
        database, """update scheduler.scenario_evaluation_config set params = params || '{"zero": 0}'"""
    )
    told = scenario(await scheduler.explain(mentor.id), "inactivity")
    assert (told.outcome, told.facts) == (Outcome.DISPATCHED, None)


async def test_a_scenario_that_fails_for_a_mentor_is_told_with_its_code_and_costs_the_others_their_turn(
    database: Database, scheduler: Scheduler
) -> None:
    mentor = await add_mentor(database, last_activity=20)
    await add_scenario(
        database, "broken", FOR_EVERYBODY.replace("'{}'::jsonb", "to_jsonb(1 / (m.status <> 'active')::int)")
    )
    explanation = await scheduler.explain(mentor.id)
    assert scenario(explanation, "broken").error == "22012"
    idle = scenario(explanation, "inactivity")
    assert (idle.outcome, idle.is_due, idle.error) == (Outcome.ERROR, True, None)
    summary = await (await scheduler.start(RunRequest())).summary()
    assert (summary.total_errors, summary.total_dispatched) == (1, 0)


async def test_a_window_without_an_end_is_told_as_for_good(database: Database, scheduler: Scheduler) -> None:
    mentor = await add_mentor(database, last_activity=20)
    await query(database, "update scheduler.scenario_evaluation_config set cooldown = '90000 years'")
    await evaluate(database, [mentor])
    told = scenario(await scheduler.explain(mentor.id), "inactivity")
    assert (told.outcome, told.is_cooling, told.cooldown_until) == (Outcome.SUPPRESSED, True, None)


async def test_who_is_not_there_is_said_to_be_not_there(scheduler: Scheduler) -> None:
    with pytest.raises(MentorNotFound) as caught:
        await scheduler.explain(RUN)
    assert str(RUN) not in str(caught.value)


# --- The walk ---


@pytest.mark.parametrize(
    ("mentor", "is_reached", "sentences"),
    [
        ({}, True, []),
        ({"status": "paused"}, False, ["Its status is paused"]),
        ({"status": None}, False, ["Its status is null"]),
        (
            {"assignment": "ended"},
            False,
            ["None of its assignments is eligible: they are ended, and eligible is"],
        ),
        ({"assignment": None}, False, ["None of its assignments is eligible: they are null"]),
        ({"assignment": "on leave"}, True, []),
        ({"status": "paused", "assignment": "ended"}, False, ["Its status", "None of its assignments"]),
    ],
)
async def test_whether_the_walk_reaches_a_mentor_is_told_and_why_not_and_the_mend(
    mentor: dict[str, Any], is_reached: bool, sentences: list[str], database: Database, database_url: str
) -> None:
    await add_mentor(database, id=RUN, **mentor)
    async with open_on(database_url, eligible_assignment_statuses="active,on leave") as scheduler:
        explanation = await scheduler.explain(RUN)
    assert explanation.is_reached is is_reached
    assert len(explanation.hindrances) == len(sentences)
    for hindrance, sentence in zip(explanation.hindrances, sentences, strict=True):
        assert hindrance.startswith(sentence)


@pytest.mark.parametrize("id", [UUID(int=0), UUID(int=2**128 - 1)])
async def test_the_lowest_and_the_highest_id_are_reached(
    id: UUID, database: Database, scheduler: Scheduler
) -> None:
    await add_mentor(database, id=id)
    assert (await scheduler.explain(id)).is_reached


async def test_a_mentor_without_assignment_or_user_is_told_both(
    database: Database, scheduler: Scheduler
) -> None:
    await query(
        database,
        "insert into public.peer_mentors (id, status, created_at) values ($1, 'active', '2020-01-01')",
        RUN,
    )
    explanation = await scheduler.explain(RUN)
    first, second = explanation.hindrances
    assert first.startswith("It has no assignment")
    assert second.startswith("It has no user")
    assert scenario(explanation, "inactivity").error == "23502"


async def test_a_mentor_that_the_rest_api_hides_is_not_reached_though_the_views_show_it(
    database: Database, database_url: str
) -> None:
    mentor = await add_mentor(database)
    settings = load_settings(
        database_url=database_url, mentor_source="http://127.0.0.1:1/rest/v1", service_role_key="k" * 32
    )
    explanation = await explain(database, FakeMentors([]), settings, mentor.id)
    assert not explanation.is_reached
    [sentence] = explanation.hindrances
    assert "row-level security" in sentence
    assert (await explain(database, FakeMentors([mentor.id]), settings, mentor.id)).hindrances == []


async def test_a_trigger_engine_of_ones_own_is_said_to_decide_for_itself(
    database: Database, database_url: str
) -> None:
    mentor = await add_mentor(database)
    async with open_on(database_url, trigger_engine="http://127.0.0.1:1/") as scheduler:
        [remark] = (await scheduler.explain(mentor.id)).remarks
    assert "SCHEDULER_TRIGGER_ENGINE" in remark


async def test_the_run_that_last_passed_is_told(database: Database, scheduler: Scheduler) -> None:
    low, middle, high = [await add_mentor(database, id=UUID(int=number)) for number in (10, 20, 30)]
    assert (await scheduler.explain(low.id)).last_visit is None
    complete = await scheduler.start(RunRequest())
    await complete.summary()
    await query(
        database,
        "insert into scheduler.runs (id, verdict, stop_reason, evaluated_types, hard_deadline_at, "
        "finished_at, low_water_mark, started_after, started_at) values ($1, 'partial', 'draining', "
        "'{expiry}', now(), now(), $2, $3, now() + interval '1 second')",
        *(RUN, middle.id, low.id),
    )
    visits = [(await scheduler.explain(mentor.id)).last_visit for mentor in (low, middle, high)]
    assert [visit and visit.run_id for visit in visits] == [
        complete.context.run_id,
        RUN,
        complete.context.run_id,
    ]


# --- What asking does not do ---


async def test_asking_takes_no_transaction_id_and_leaves_every_row_as_it_was(database: Database) -> None:
    mentor = await add_mentor(database, last_activity=20, activities=10, expires_in=3)
    await evaluate(database, [mentor], types=["expiry"])
    before = await fingerprint(database)
    async with database.open_transaction() as transaction:
        await query(transaction, "select * from scheduler.explain($1)", mentor.id)
        await evaluate(transaction, [mentor], dry_run=True)
        assert await value(transaction, "select pg_current_xact_id_if_assigned() is null")
    assert await fingerprint(database) == before


async def test_a_scenario_of_ones_own_that_writes_writes_nothing_when_asked(
    database: Database, scheduler: Scheduler
) -> None:
    mentor = await add_mentor(database)
    await add_scenario(
        database,
        "writing",
        "update scheduler.scenario_evaluation_config set last_run_evaluated = 7 "
        f"where scenario_type = 'writing'; {FOR_EVERYBODY}",
        "sql volatile",
    )
    before = await fingerprint(database)
    told = scenario(await scheduler.explain(mentor.id), "writing")
    assert told.error == "25006"
    assert await fingerprint(database) == before


async def test_explain_and_dry_run_answer_while_others_hold_every_lock_a_run_waits_for(
    database: Database, scheduler: Scheduler
) -> None:
    mentor = await add_mentor(database, last_activity=20)
    await evaluate(database, [mentor])
    async with database.open_transaction() as transaction:
        await query(transaction, "select from scheduler.cooldowns for update")
        await query(transaction, "select from scheduler.notifications for update")
        await query(transaction, "select from public.peer_mentors for update")
        await query(transaction, "lock table scheduler.cooldowns, scheduler.notifications in exclusive mode")
        with trio.fail_after(10):
            told = scenario(await scheduler.explain(mentor.id), "inactivity")
            summary = await (await scheduler.start(RunRequest(dry_run=True))).summary()
    assert told.outcome is Outcome.SUPPRESSED
    assert (summary.total_suppressed, summary.total_dispatched) == (1, 0)


# --- Who may ---


async def test_the_service_may_ask_though_it_reads_neither_cooldowns_nor_notifications(
    database: Database,
) -> None:
    mentor = await add_mentor(database, last_activity=20)
    await query(database, "alter table public.peer_mentors enable row level security")
    await query(database, "select scheduler.grant_rights()")
    async with database.open_transaction() as transaction:
        await query(transaction, "set local role scheduler_service")
        rows = await query(transaction, "select scenario_type, is_due from scheduler.explain($1)", mentor.id)
        assert [tuple(row) for row in rows] == [("expiry", False), ("inactivity", True), ("milestone", False)]
        may = "select has_function_privilege('scheduler.' || $1 || '(uuid, timestamptz, jsonb)', 'execute')"
        assert not await value(transaction, may, "explain_milestone")
        assert not await value(transaction, "select has_table_privilege('scheduler.notifications', 'select')")


@pytest.mark.parametrize("type_name", ["jsonb", "text", "uuid", "date"])
async def test_a_type_of_the_callers_own_does_not_stand_in_for_ours(
    database: Database, type_name: str
) -> None:
    mentor = await add_mentor(database, last_activity=20)
    async with database.open_transaction() as transaction:
        await query(transaction, "create temporary table makes_the_schema ()")
        await query(
            transaction,
            f"create domain pg_temp.{type_name} as pg_catalog.{type_name} check (value is null)",
        )
        due = await value(
            transaction,
            f"select count(*) from scheduler.explain('{mentor.id}'::pg_catalog.uuid) "
            "where is_due and facts is not null",
        )
        assert due == 1


async def test_the_session_of_who_asks_changes_neither_days_nor_words(database: Database) -> None:
    mentor = await add_mentor(database, last_activity=20, activities=10, expires_in=3)
    facts = "select string_agg(facts ->> 'words' || cooldown, ' ' order by 1) from scheduler.explain($1)"
    plain = await value(database, facts, mentor.id)
    async with database.open_transaction() as transaction:
        for setting in (
            "timezone = 'Pacific/Kiritimati'",
            "datestyle = 'German'",
            "intervalstyle = 'iso_8601'",
        ):
            await query(transaction, f"set local {setting}")
        assert await value(transaction, facts, mentor.id) == plain


async def test_a_database_that_is_not_migrated_says_the_mend(empty_database_url: str) -> None:
    async with open_on(empty_database_url) as scheduler:
        with pytest.raises(NotReady, match="scenario-scheduler migrate"):
            await scheduler.explain(RUN)


async def test_without_a_scenario_there_is_still_the_walk_to_tell_of(
    database: Database, scheduler: Scheduler
) -> None:
    mentor = await add_mentor(database)
    await add_activities(database, mentor)
    async with database.open_transaction() as transaction:
        await transaction.execute(Statement("empty", "delete from scheduler.scenario_evaluation_config"))
    explanation = await scheduler.explain(mentor.id)
    assert (explanation.is_reached, explanation.scenarios) == (True, ())
