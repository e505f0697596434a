"""What users of such systems complain of in public, part two: what only the database can keep from happening.

As in part one: each scenario is asked as we are, and with the mechanism against the complaint taken away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import trio

import engine.explanation
import engine.mentors.postgres
from engine import RunInProgress, RunRequest, Scheduler, load_settings
from engine.database import Database, open_database
from engine.freshness import measure_freshness
from engine.mentors.postgres import PostgresMentors
from engine.parts import Parts
from engine.statements import Statement
from engine.trigger.in_database import InDatabaseTriggerEngine
from engine.trigger.protocol import Evaluation, RunContext, TriggerEngine
from tests.fakes import FOREVER, FakeTriggerEngine, ids
from tests.postgres.conftest import Mentor, add_mentor, evaluate, move_back, query, value
from tests.postgres.test_freshness import LIMIT, add_run


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Migrated, with the example tables, empty."""
    async with open_database(database_url) as database:
        yield database


@asynccontextmanager
async def process(
    database: Database, trigger_engine: TriggerEngine, page_size: int = 10
) -> AsyncIterator[Scheduler]:
    """A scheduler of its own over that database. Leaving the block kills it."""
    settings = load_settings(database_url="postgresql://unused@unused/unused", page_size=page_size)
    async with trio.open_nursery() as runs:
        mentors = PostgresMentors(database, settings.eligible_assignment_statuses)
        parts = Parts(database, mentors, trigger_engine, None)  # type: ignore[arg-type]
        yield Scheduler(settings, parts, runs)
        runs.cancel_scope.cancel()


async def run_to_its_end(scheduler: Scheduler) -> Any:
    return await (await scheduler.start(RunRequest())).summary()


async def rewrite(database: Database, function: str, *replacements: tuple[str, str]) -> None:
    """Replace parts of a function by others; each is there exactly once."""
    [row] = await query(database, "select pg_get_functiondef(to_regproc($1))", function)
    source: str = row[0]
    for old, new in replacements:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    await query(database, source)


# --- Partial walks called finished, once more: what looks like the end of the list ---


async def evaluated_behind_a_stretch_of_strangers(database: Database) -> int:
    """More in a row who are not to be walked than a page holds, in the middle of those who are."""
    for number, mentor_id in enumerate(ids(60)):
        await add_mentor(database, id=mentor_id, assignment="active" if number % 50 < 10 else "ended")
    async with process(database, FakeTriggerEngine()) as scheduler:
        summary = await run_to_its_end(scheduler)
    assert summary.completed
    return int(summary.total_evaluated)


@pytest.mark.parametrize("filters_before_the_page_is_cut", [True, False])
async def test_a_page_of_people_who_are_left_out_does_not_end_the_walk(
    filters_before_the_page_is_cut: bool, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """listmonk #1155 and its likes: as many blocked people in a row as a page holds, and the rest is lost."""
    if not filters_before_the_page_is_cut:
        cut_first = Statement(
            "fetch_page",
            "select p.id from (select m.id from scheduler.mentors m where m.status = 'active' "
            "and m.id >= $1 and m.id <= $2 order by m.id limit $4) p where exists (select from "
            "scheduler.assignments a where a.mentor_id = p.id and a.status = any ($3)) order by p.id",
        )
        monkeypatch.setattr(engine.mentors.postgres, "_FETCH_PAGE", cut_first)
    reached = await evaluated_behind_a_stretch_of_strangers(database)
    assert reached == (20 if filters_before_the_page_is_cut else 10)


# --- Restarts that send again ---


class StopsAfter:
    """The engine in the database, which answers so many invocations and then no more."""

    def __init__(self, database: Database, invocations: int) -> None:
        self._engine = InDatabaseTriggerEngine(database)
        self._left = self._unanswered = invocations
        self.stopped = trio.Event()

    @asynccontextmanager
    async def open_session(self, context: RunContext) -> AsyncIterator[StopsAfter]:
        self._context = context
        yield self

    async def evaluate(self, mentor_ids: Sequence[UUID]) -> Evaluation:
        if self._left == 0:
            await trio.sleep_forever()
        self._left -= 1
        evaluation = await self._engine.count(mentor_ids, self._context)
        self._unanswered -= 1
        if self._unanswered == 0:
            self.stopped.set()
        return evaluation


async def sent_twice_by_a_restart(database: Database) -> int:
    """A run is killed before a heartbeat could tell how far it was, and so the next one starts anew."""
    for mentor_id in ids(40):
        await add_mentor(database, id=mentor_id, last_activity=30)
    dies = StopsAfter(database, 2)
    async with process(database, dies) as scheduler:
        await scheduler.start(RunRequest())
        await dies.stopped.wait()
    await query(database, "update scheduler.runs set heartbeat_at = heartbeat_at - interval '11 seconds'")
    async with process(database, InDatabaseTriggerEngine(database)) as scheduler:
        assert (await run_to_its_end(scheduler)).total_evaluated == 40
    assert await value(database, "select count(distinct user_id) from scheduler.notifications") == 40
    return int(await value(database, "select count(*) from scheduler.notifications")) - 40


@pytest.mark.parametrize("remembers_what_was_sent", [True, False])
async def test_a_restart_sends_nothing_again(remembers_what_was_sent: bool, database: Database) -> None:
    """listmonk #2313: resumed after an error, it begins at the top of the list, and sends five copies."""
    if not remembers_what_was_sent:
        await query(
            database,
            "alter table scheduler.notifications "
            "drop constraint notifications_user_id_scenario_type_cooldown_window_start_key, "
            "drop constraint notifications_user_id_scenario_type_evaluation_date_key",
        )
        await rewrite(
            database,
            "scheduler.evaluate",
            ("(c.window_start + d.cooldown <= $2) is not false as is_open", "true as is_open"),
            (
                "where held.cooldown_window_start + (select",
                "where true or held.cooldown_window_start + (select",
            ),
        )
    sent_again = await sent_twice_by_a_restart(database)
    assert (sent_again == 0) is remembers_what_was_sent


# --- The same cron run by two leaders ---


async def leaders_of_one_tick(database: Database) -> int:
    """Three processes are ticked at once."""
    await add_mentor(database)
    hangs = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    begun = 0

    async def tick(scheduler: Scheduler) -> None:
        nonlocal begun
        with suppress(RunInProgress):
            await scheduler.start(RunRequest())
            begun += 1

    async with AsyncExitStack() as processes:
        schedulers = [await processes.enter_async_context(process(database, hangs)) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for scheduler in schedulers:
                nursery.start_soon(tick, scheduler)
    return begun


@pytest.mark.parametrize("one_row_can_run", [True, False])
async def test_of_processes_ticked_at_once_one_runs(one_row_can_run: bool, database: Database) -> None:
    """oban #1488: two nodes were leaders, and each inserted every entry of the crontab."""
    if not one_row_can_run:
        await query(database, "drop index scheduler.runs_one_running")
    assert (await leaders_of_one_tick(database) == 1) is one_row_can_run


# --- Windows that let two through at their edge ---


async def sent_again_across_an_edge(database: Database) -> int:
    """Sent two days ago, with a cooldown of seven; whoever rounds has had an edge an hour ago."""
    mentor = await add_mentor(database, last_activity=30)
    assert await evaluate(database, [mentor]) == {mentor.id: (["inactivity"], [])}
    await move_back(database, "interval '2 days'")
    answers = await evaluate(database, [mentor])
    return len(answers[mentor.id][0])


@pytest.mark.parametrize("the_window_slides", [True, False])
async def test_no_two_go_out_at_the_edge_of_a_window(the_window_slides: bool, database: Database) -> None:
    """stiphle #6, pg-boss #8: one a day, by the day's number, is two within a minute at midnight."""
    if not the_window_slides:
        edge = await value(database, "select now() - interval '1 hour'")
        rounded = f"date_bin('7 days', {{}}, '{edge.isoformat()}')"
        in_a_string = rounded.replace("'", "''")
        is_open = (
            f"({in_a_string.format('c.window_start')} < {in_a_string.format('$2')}) is not false as is_open"
        )
        await rewrite(
            database,
            "scheduler.evaluate",
            ("(c.window_start + d.cooldown <= $2) is not false as is_open", is_open),
            (
                "where held.cooldown_window_start + (select",
                f"where {rounded.format('held.cooldown_window_start')} < "
                f"{rounded.format('excluded.cooldown_window_start')} "
                "or held.cooldown_window_start + (select",
            ),
        )
    assert await sent_again_across_an_edge(database) == (0 if the_window_slides else 1)


# --- Breakers on a cumulative ratio that never trip ---


async def is_fresh_with_a_dead_engine(database: Database, *, cumulative: bool) -> bool:
    """Weeks of good runs, and for an hour none that evaluated anybody."""
    for hours in range(2, 502):
        await add_run(database, 3600.0 * hours)
    for minutes in range(5, 61, 5):
        await add_run(database, 60.0 * minutes, evaluated=0)
    if cumulative:  # each run's share is one of all that came before it
        await query(
            database,
            "update scheduler.runs r set (stretch_mentors, stretch_evaluated) = "
            "(select sum(b.stretch_mentors), sum(b.stretch_evaluated) from scheduler.runs b "
            "where b.started_at <= r.started_at)",
        )
    return (await measure_freshness(database, LIMIT)).is_fresh


@pytest.mark.parametrize("each_run_counts_by_itself", [True, False])
async def test_an_engine_that_dies_after_weeks_is_seen_within_the_limit(
    each_run_counts_by_itself: bool, database: Database
) -> None:
    """Breakers on a cumulative ratio: after 50,000 successes, 1,200 failures in a row are still 98 % good."""
    fresh = await is_fresh_with_a_dead_engine(database, cumulative=not each_run_counts_by_itself)
    assert fresh is not each_run_counts_by_itself


# --- No way to see why one user did not get a message ---


async def people_who_got_nothing(database: Database) -> dict[str, Mentor]:
    people = {
        "not due": await add_mentor(database, last_activity=1),
        "new": await add_mentor(database, last_activity=None, age=3),
        "paused": await add_mentor(database, last_activity=30, status="paused"),
        "no assignment": await add_mentor(database, last_activity=30, assignment="ended"),
        "told already": await add_mentor(database, last_activity=30),
    }
    await evaluate(database, [people["told already"]])
    return people


async def told_of_each(database: Database) -> dict[str, tuple[Any, ...]]:
    """What an operator is told of five people of whom a run says nothing, by why they got nothing."""
    people = await people_who_got_nothing(database)
    told = {}
    async with process(database, InDatabaseTriggerEngine(database)) as scheduler:
        assert (await run_to_its_end(scheduler)).total_dispatched == 0
        for why, mentor in people.items():
            explanation = await scheduler.explain(mentor.id)
            [inactivity] = [s for s in explanation.scenarios if s.scenario_type == "inactivity"]
            words = str(inactivity.facts and inactivity.facts["words"])
            told[why] = (tuple(explanation.hindrances), str(inactivity.outcome), inactivity.is_cooling, words)
    return told


@pytest.mark.parametrize("reasons_are_told", [True, False])
async def test_why_one_of_them_got_nothing_can_be_seen(
    reasons_are_told: bool, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """listmonk #2221 and others: who did not receive it, and why? The log does not say."""
    if not reasons_are_told:
        # What a run itself knows is left: whether the scenario is due and cooling.
        monkeypatch.setattr(engine.explanation, "_hindrances", lambda *mentor, **how: ())
        describe = engine.explanation._scenario
        monkeypatch.setattr(
            *(engine.explanation, "_scenario"), lambda row, **how: replace(describe(row, **how), facts=None)
        )
    told = await told_of_each(database)
    assert (len(set(told.values())) == len(told)) is reasons_are_told
    assert told["paused"][0] == () or told["paused"][0][0].startswith("Its status is paused")
    assert told["told already"][1:3] == ("suppressed", True)
    assert {told[each][1] for each in ("not due", "new")} == {"not_due"}
    assert (told["not due"] == told["new"]) is not reasons_are_told
    hindrances = [told[each][0] for each in ("paused", "no assignment")]
    assert all(hindrances) is any(hindrances) is reasons_are_told
