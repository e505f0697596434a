"""Who may do what, each by trying, as the role itself: what Postgres refuses, not what its catalog says."""

from __future__ import annotations

import pytest

from engine.database import Database
from tests.attempts import REFUSED, execute, find_things, logged_in_as, sqlstate_of, uses_not_refused
from tests.postgres.conftest import add_mentor, query, value

STRANGER = ["create role stranger login"]
THAT_MAY_LOOK_ROUND = [*STRANGER, "grant usage on schema scheduler to stranger"]


def columns(verb: str, *names: str) -> set[str]:
    return {f"{verb} {name}" for name in names}


# Everything that is in the schema, and what those may do with it who are neither owner nor administrator.
# What is not here fails a test, so that nobody adds a table or a function without deciding.
LEDGER = columns(
    "select",
    *("id", "verdict", "stop_reason", "scenario_types", "evaluated_types", "started_at", "heartbeat_at"),
    *("finished_at", "hard_deadline_at", "duration_ms", "started_after", "low_water_mark", "stretch_mentors"),
    *("stretch_evaluated", "total_evaluated", "total_errors", "total_unprocessed", "total_active_mentors"),
    *(
        "remaining_known",
        "total_dispatched",
        "total_suppressed",
        "dispatched",
        "suppressed",
        "errors",
        "covers",
        "is_sharded",
    ),
)
SHARDS = columns(
    "select",
    *(
        "run_id",
        "shard_index",
        "after_id",
        "until_id",
        "state",
        "worker",
        "claim",
        "deliveries",
        "claimed_at",
        "wanted_at",
    ),
    *("heartbeat_at", "finished_at", "is_completed", "low_water_mark", "stretch_mentors"),
    *("stretch_evaluated", "total_evaluated", "total_errors", "total_unprocessed", "total_dispatched"),
    *("total_suppressed", "covers"),
)
SERVICE = {
    "mentors": columns("select", "id", "user_id", "status", "created_at"),
    "assignments": columns("select", "mentor_id", "status", "expires_at"),
    "activities": columns("select", "user_id", "activity_date"),
    "migrations": columns("select", "version", "name", "checksum", "applied_at"),
    "scenario_evaluation_config": columns(
        "select",
        *("scenario_type", "enabled", "enabled_since", "params", "cooldown"),
        *("last_run_evaluated", "last_run_dispatched", "last_run_suppressed"),
    )
    | columns("update", "last_run_evaluated", "last_run_dispatched", "last_run_suppressed"),
    "runs": LEDGER | {use.replace("select", "update") for use in LEDGER} | {"insert", "delete"},
    "shards": SHARDS | {use.replace("select", "update") for use in SHARDS} | {"insert", "delete"},
    "evaluate": {"call", "plan"},
    "explain": {"call", "plan"},
}
CRON = {"invoke": {"call", "plan"}}
NOBODYS = {
    "cooldowns",
    "notifications",
    "notifications_id_seq",
    "settings",
    "fallback_secret",
    "invocations",
    "invocations_id_seq",
    "scenario_inactivity",
    "scenario_milestone",
    "scenario_expiry",
    "explain_inactivity",
    "explain_milestone",
    "explain_expiry",
    "check_scenario_function",
    "note_enabled_since",
    "can_override",
    "find_extensions",
    "read_secret",
    "read_answer",
    "record_answers",
    "grant_rights",
    "grant_tick_rights",
    "can_meddle",
}


async def test_every_table_view_sequence_and_function_has_been_decided_on(database: Database) -> None:
    assert {thing.name for thing in await find_things(database, "scheduler")} == {*SERVICE, *CRON, *NOBODYS}


@pytest.mark.parametrize(
    "before", [STRANGER, THAT_MAY_LOOK_ROUND], ids=["closed", "though it may look round"]
)
async def test_an_ordinary_role_may_do_nothing_with_anything(database: Database, before: list[str]) -> None:
    things = await find_things(database, "scheduler")
    async with logged_in_as(database, "stranger", before=before) as stranger:
        assert await uses_not_refused(stranger, things) == {}
        for sql in ("create table scheduler.mine ()", "set role scheduler_owner", "set role scheduler_cron"):
            assert await sqlstate_of(stranger, sql) == REFUSED


async def test_scheduler_cron_may_call_invoke_and_nothing_else(database: Database) -> None:
    things = await find_things(database, "scheduler") + await find_things(database, "public")
    async with logged_in_as(database, "scheduler_cron") as cron:
        assert await uses_not_refused(cron, things) == CRON
        for sql in (
            "create table scheduler.mine ()",
            "set role scheduler_owner",
            "set role scheduler_service",
        ):
            assert await sqlstate_of(cron, sql) == REFUSED


async def test_scheduler_service_may_walk_evaluate_and_keep_the_ledger_and_nothing_else(
    database: Database,
) -> None:
    things = await find_things(database, "scheduler") + await find_things(database, "public")
    async with logged_in_as(database, "scheduler_service") as service:
        assert await uses_not_refused(service, things) == SERVICE
        for sql in ("create table scheduler.mine ()", "set role scheduler_owner", "set role scheduler_cron"):
            assert await sqlstate_of(service, sql) == REFUSED


async def test_everything_in_the_schema_is_the_owners_and_nobody_logs_in_as_it(database: Database) -> None:
    foreign = await query(
        database,
        """
        select pg_describe_object(s.classid, s.oid, 0)
          from (select 'pg_class'::regclass as classid, oid, relowner as owner from pg_class
                 where relnamespace = 'scheduler'::regnamespace
                 union all
                select 'pg_proc'::regclass, oid, proowner from pg_proc
                 where pronamespace = 'scheduler'::regnamespace
                 union all
                select 'pg_namespace'::regclass, oid, nspowner from pg_namespace
                 where nspname = 'scheduler') s
         where s.owner <> 'scheduler_owner'::regrole
        """,
    )
    assert list(foreign) == []
    assert (
        await value(database, "select rolcanlogin from pg_roles where rolname = 'scheduler_owner'") is False
    )


# --- A right granted by mistake ---


@pytest.mark.parametrize("is_on", [True, False], ids=["as it is", "control"])
@pytest.mark.parametrize("table", ["settings", "fallback_secret"])
async def test_who_was_let_read_the_secret_or_the_url_by_mistake_sees_no_row(
    database: Database, table: str, is_on: bool
) -> None:
    before = [
        *THAT_MAY_LOOK_ROUND,
        "insert into scheduler.settings (url) values ('https://example.org/run')",
        f"insert into scheduler.fallback_secret (secret) values ('{SECRET}')",
        f"grant select on scheduler.{table} to stranger",
    ]
    if not is_on:
        before.append(f"alter table scheduler.{table} disable row level security")
    async with logged_in_as(database, "stranger", before=before) as stranger:
        assert len(await query(stranger, f"select from scheduler.{table}")) == (0 if is_on else 1)


# --- Whose `text` is it? ---

# A domain of the caller's own, named like the type that a function declares: wherever it is looked up first,
# its check runs with the rights of the function's owner, and sees what that sees.
TEMP_DOMAIN = """
    create temporary table stolen (by name, secret pg_catalog.text);
    grant insert on stolen to public;
    create function pg_temp.steal() returns boolean language plpgsql as $$
    begin
      insert into pg_temp.stolen select current_user, f.secret from scheduler.fallback_secret f;
      return true;
    exception
      when insufficient_privilege then
        return true;
    end $$;
    create domain pg_temp.text as pg_catalog.text check (pg_temp.steal());
"""
SECRET = "5ec4e7" * 8


@pytest.mark.parametrize(
    ("search_path", "is_stolen"), [(None, False), ("''", True)], ids=["as it is", "control"]
)
async def test_a_domain_of_the_callers_own_named_text_sees_nothing(
    database: Database, search_path: str | None, is_stolen: bool
) -> None:
    await add_mentor(database, last_activity=30)
    mentors = await value(database, "select array_agg(id) from scheduler.mentors")
    before = [f"insert into scheduler.fallback_secret (secret) values ('{SECRET}')"]
    if search_path is not None:
        before.append(f"alter function scheduler.evaluate set search_path to {search_path}")
    async with logged_in_as(database, "scheduler_service", before=before) as service:
        await execute(service, TEMP_DOMAIN)
        await query(service, "select from scheduler.evaluate($1)", mentors)
        stolen = {tuple(row) for row in await query(service, "select by, secret from pg_temp.stolen")}
    assert stolen == ({("scheduler_owner", SECRET)} if is_stolen else set())


async def test_every_function_has_its_search_path_but_those_that_are_inlined(database: Database) -> None:
    rows = await query(
        database,
        """
        select p.proname from pg_proc p
         where p.pronamespace = 'scheduler'::regnamespace
           and not 'search_path=pg_catalog, pg_temp' = any (coalesce(p.proconfig, '{}'))
        """,
    )
    assert {row["proname"] for row in rows} == {
        "scenario_inactivity",
        "scenario_milestone",
        "scenario_expiry",
    }
