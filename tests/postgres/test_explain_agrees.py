"""What `explain` and a dry run say is what a real run then does: random mentors and configurations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Explanation, Outcome, RunRequest, Scheduler, StartedRun, load_settings, open_scheduler
from engine.database import Database
from engine.errors import StatementFailed
from engine.statements import Statement
from tests.postgres.conftest import evaluate, fingerprint, query

# Of a scenario of the user's own: it looks at no status, fails for some, and has nobody to tell its facts.
QUIRKY = """
create function scheduler.scenario_quirky(mentor_ids uuid[], as_of timestamptz, params jsonb)
returns table (mentor_id uuid, user_id uuid, payload jsonb)
language sql stable
as $$
  select m.id,
         m.user_id,
         jsonb_build_object('ratio', 12 / ((params ->> 'fails_at')::int - counted.activities))
    from scheduler.mentors m
   cross join lateral (
           select count(*) from scheduler.activities a where a.user_id = m.user_id) counted(activities)
   where m.id = any (mentor_ids)
     and counted.activities % 2 = 1
$$;
insert into scheduler.scenario_evaluation_config (scenario_type, params, cooldown)
values ('quirky', '{"fails_at": 3}', '1 day')
"""

TYPES = ("expiry", "inactivity", "milestone", "quirky")

EMPTY = """
delete from public.peer_mentors;
delete from public.assignments;
delete from public.activities;
delete from scheduler.cooldowns;
delete from scheduler.notifications;
delete from scheduler.runs
"""

# Ages in hours or days before this moment; hours, so that none is over within the milliseconds of an example.
FILL = {
    "insert into public.peer_mentors (id, user_id, status, created_at)": (
        "select r.id, r.user_id, r.status, now() - make_interval(days => r.age)",
        "id uuid, user_id uuid, status text, age int",
    ),
    "insert into public.assignments (id, mentor_id, status, expires_at)": (
        "select gen_random_uuid(), r.mentor_id, r.status, (now() at time zone 'utc')::date + r.expires_in",
        "mentor_id uuid, status text, expires_in int",
    ),
    "insert into public.activities (user_id, activity_date)": (
        "select r.user_id, (now() at time zone 'utc')::date - r.days_ago",
        "user_id uuid, days_ago int",
    ),
    "insert into scheduler.cooldowns (user_id, scenario_type, cooldown_window_start)": (
        "select r.user_id, r.scenario_type, now() - make_interval(hours => r.hours_ago)",
        "user_id uuid, scenario_type text, hours_ago int",
    ),
    "insert into scheduler.notifications (mentor_id, user_id, scenario_type, cooldown_window_start, "
    "evaluation_date, payload)": (
        "select r.mentor_id, r.user_id, r.scenario_type, sent.at, (sent.at at time zone 'utc')::date, "
        "jsonb_build_object('milestone', r.milestone)",
        "mentor_id uuid, user_id uuid, scenario_type text, hours_ago int, milestone int",
    ),
}

CONFIGURE = """
update scheduler.scenario_evaluation_config c
   set enabled = coalesce((n.config ->> 'enabled')::boolean, c.enabled),
       params = c.params || coalesce(n.config -> 'params', '{}'),
       cooldown = coalesce((n.config ->> 'cooldown')::interval, c.cooldown)
  from jsonb_each($1::jsonb) n(scenario_type, config)
 where c.scenario_type = n.scenario_type
"""

USERS = [UUID(int=100 + number) for number in range(6)]

days = st.integers(-3, 20)
ages = st.none() | st.integers(0, 30)
hours = st.integers(-3, 24 * 12)

mentors = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["active", "active", "active", "paused", None]),
        "age": ages,
        "has_user": st.sampled_from([True, True, True, True, False]),
        "assignments": st.lists(
            st.tuples(st.sampled_from(["active", "active", "ended", "on leave", None]), st.none() | days),
            max_size=3,
        ),
        "activities": st.lists(st.integers(-2, 25), max_size=6),
        "cooldowns": st.dictionaries(st.sampled_from(TYPES), hours),
        "sent": st.lists(
            st.tuples(st.sampled_from(TYPES), hours, st.sampled_from([None, 1, 2, 4])), max_size=4
        ),
    }
)
cooldowns = st.sampled_from(["1 day", "30 hours", "3 days", "7 days", "1 mon", "9 years"])
any_days = st.fixed_dictionaries({"days": st.integers(-2, 25)})
any_params = {
    "expiry": any_days,
    "inactivity": any_days,
    "milestone": st.fixed_dictionaries({"counts": st.lists(st.integers(0, 6), max_size=3)}),
    "quirky": st.fixed_dictionaries({"fails_at": st.sampled_from([3, 3, 99])}),
}
configurations = st.fixed_dictionaries(
    {
        each: st.fixed_dictionaries(
            {"enabled": st.sampled_from([True, True, True, False]), "params": params, "cooldown": cooldowns}
        )
        for each, params in any_params.items()
    }
)
# Below zero is refused where what is stored is above.
other_days = st.fixed_dictionaries({"days": st.integers(0, 25)})
other_params = any_params | {"expiry": other_days, "inactivity": other_days}
other_configurations = st.fixed_dictionaries(
    {},
    optional={
        each: st.fixed_dictionaries({}, optional={"params": params, "cooldown": cooldowns})
        for each, params in other_params.items()
    },
)
worlds = st.lists(mentors, min_size=1, max_size=len(USERS))


async def fill(database: Database, world: list[dict[str, Any]], configuration: dict[str, Any]) -> list[UUID]:
    """These mentors and nobody else. Returns their ids."""
    rows: list[list[dict[str, Any]]] = [[] for _ in FILL]
    ids = [UUID(int=1 + number) for number in range(len(world))]
    for id, user, mentor in zip(ids, USERS, world, strict=False):
        whose = {"mentor_id": str(id), "user_id": str(user)}
        user_id = str(user) if mentor["has_user"] else None
        rows[0].append({"id": str(id), "user_id": user_id, "status": mentor["status"], "age": mentor["age"]})
        rows[1] += [whose | {"status": status, "expires_in": end} for status, end in mentor["assignments"]]
        rows[2] += [whose | {"days_ago": ago} for ago in mentor["activities"]]
        rows[3] += [
            whose | {"scenario_type": each, "hours_ago": h} for each, h in mentor["cooldowns"].items()
        ]
        rows[4] += [
            whose | {"scenario_type": each, "hours_ago": h, "milestone": told}
            for each, h, told in mentor["sent"]
        ]
    async with database.open_transaction() as transaction:
        await transaction.execute(Statement("empty", EMPTY))
        await query(transaction, CONFIGURE, json.dumps(configuration))
        for (insert, (select, columns)), records in zip(FILL.items(), rows, strict=True):
            sent = "cross join lateral (select now() - make_interval(hours => r.hours_ago)) sent(at)"
            await query(
                transaction,
                f"{insert} {select} from jsonb_to_recordset($1::jsonb) r({columns}) "
                f"{sent if 'sent.at' in select else ''} on conflict do nothing",
                json.dumps(records),
            )
    return ids


async def walk(scheduler: Scheduler, **request: Any) -> StartedRun:
    started = await scheduler.start(RunRequest(**request))
    summary = await started.summary()
    assert summary.completed
    return started


def counts(started: StartedRun) -> tuple[Counter[str], Counter[str], Counter[str]]:
    tally = started.progress.tally
    return tally.dispatched, tally.suppressed, tally.errors


def told(explanation: Explanation, outcome: Outcome) -> list[str]:
    return [each.scenario_type for each in explanation.scenarios if each.outcome is outcome]


async def answer(database: Database, mentor_id: UUID, *, dry_run: bool) -> dict[Outcome, list[str]]:
    """What evaluating this one mentor comes to, in the words of an explanation."""
    try:
        answers = await evaluate(database, [mentor_id], dry_run=dry_run)
    except StatementFailed:
        rows = await query(
            database, "select scenario_type, enabled from scheduler.scenario_evaluation_config"
        )
        enabled = sorted(row["scenario_type"] for row in rows if row["enabled"])
        return {Outcome.DISPATCHED: [], Outcome.SUPPRESSED: [], Outcome.ERROR: enabled}
    dispatched, suppressed = answers.get(mentor_id, ([], []))
    return {Outcome.DISPATCHED: dispatched, Outcome.SUPPRESSED: suppressed, Outcome.ERROR: []}


def check_facts(explanation: Explanation) -> None:
    """What is told as facts and threshold leads to the verdict that is told."""
    is_due = {each.scenario_type: each.is_due for each in explanation.scenarios}
    facts = {each.scenario_type: dict(each.facts or {}) for each in explanation.scenarios}
    active = explanation.status == "active"
    inactivity, milestone, expiry = (facts[each] for each in ("inactivity", "milestone", "expiry"))
    assert is_due["inactivity"] == (
        active
        and (inactivity["last_activity"] or "") < inactivity["none_since"]
        and (inactivity["mentor_since"] or "") < inactivity["older_than"]
    )
    reached, highest_told = milestone["reached"], milestone["highest_told"]
    assert is_due["milestone"] == (
        active and reached is not None and (highest_told is None or highest_told < reached)
    )
    soonest = expiry["soonest_end"]
    assert is_due["expiry"] == (active and soonest is not None and soonest <= expiry["until"])


async def for_all(check: Callable[..., Awaitable[None]], examples: int, *strategies: Any) -> None:
    """Examples one after another on the connections that are open: Hypothesis by itself knows no trio."""

    @settings(max_examples=examples, deadline=None)
    @given(st.tuples(*strategies))
    def try_one(drawn: tuple[Any, ...]) -> None:
        trio.from_thread.run(check, *drawn)

    await trio.to_thread.run_sync(try_one)


async def test_explain_and_dry_run_agree_with_what_a_real_run_then_does_and_write_nothing(
    database: Database, database_url: str
) -> None:
    async def check(world: list[dict[str, Any]], configuration: dict[str, Any]) -> None:
        ids = await fill(database, world, configuration)
        before = await fingerprint(database)
        explained = {id: await scheduler.explain(id) for id in ids}
        rehearsed = {id: await answer(database, id, dry_run=True) for id in ids}
        dry = await walk(scheduler, dry_run=True)
        assert await fingerprint(database) == before

        for id, explanation in explained.items():
            assert {outcome: told(explanation, outcome) for outcome in rehearsed[id]} == rehearsed[id]
            assert explanation.is_reached or explanation.hindrances
            check_facts(explanation)

        real = await walk(scheduler)
        assert counts(dry) == counts(real)
        rows = await query(
            database,
            "select mentor_id, scenario_type from scheduler.notifications where run_id = $1 order by 1, 2",
            real.context.run_id,
        )
        reached = {id: each for id, each in explained.items() if each.is_reached}
        assert real.progress.tally.fetched == len(reached)
        assert [tuple(row) for row in rows] == [
            (id, scenario_type)
            for id, explanation in reached.items()
            for scenario_type in told(explanation, Outcome.DISPATCHED)
        ]
        suppressed = Counter(each for one in reached.values() for each in told(one, Outcome.SUPPRESSED))
        assert real.progress.tally.suppressed == suppressed
        failing = [id for id, each in reached.items() if told(each, Outcome.ERROR)]
        assert real.progress.tally.errors.total() == len(failing)

        for id in explained.keys() - reached.keys():
            assert await answer(database, id, dry_run=False) == rehearsed[id]

    await database_with_quirky(database)
    settings = load_settings(database_url=database_url, eligible_assignment_statuses="active,on leave")
    async with open_scheduler(settings) as scheduler:
        await for_all(check, 60, worlds, configurations)


async def test_a_dry_run_of_another_configuration_agrees_with_a_real_run_once_it_is_in_force(
    database: Database, database_url: str
) -> None:
    async def check(
        world: list[dict[str, Any]], configuration: dict[str, Any], other: dict[str, Any]
    ) -> None:
        await fill(database, world, configuration)
        other = {each: how for each, how in other.items() if configuration[each]["enabled"]}
        assignments = [
            f"{scenario_type}.{name}={text}"
            for scenario_type, how in other.items()
            for name, text in [
                *((name, json.dumps(each)) for name, each in how.get("params", {}).items()),
                *([("cooldown", how["cooldown"])] if "cooldown" in how else []),
            ]
        ]
        overrides = await scheduler.read_overrides(assignments, None)
        before = await fingerprint(database)
        tried = await walk(scheduler, dry_run=True, overrides=overrides)
        assert await fingerprint(database) == before
        await query(database, CONFIGURE, json.dumps(other))
        assert counts(tried) == counts(await walk(scheduler))

    await database_with_quirky(database)
    async with open_scheduler(load_settings(database_url=database_url)) as scheduler:
        await for_all(check, 60, worlds, configurations, other_configurations)


async def database_with_quirky(database: Database) -> None:
    async with database.open_transaction() as transaction:
        await transaction.execute(Statement("quirky", QUIRKY))
