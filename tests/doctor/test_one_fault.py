"""Break one thing, and that one line goes red, and no other.

Each is mended again. What a test failed to mend shows in the next one, as a second line.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from engine.database import Database
from tests.doctor.conftest import Healthy, broken_of, run_script
from tests.end_to_end.conftest import SECRET


@dataclass(frozen=True)
class Fault:
    """`breaking` and `mending` are scripts for the administrator; `said` is in what the check found.

    `unreadies`: the service that runs sees it as well, once its /readyz has forgotten the answer before.
    """

    check: str
    said: str
    breaking: str
    mending: str
    unreadies: bool = False


LATEST = "where version = '20261126000002'"
UNINDEXED = """
    alter table public.peer_mentors drop constraint peer_mentors_pkey;
    drop index peer_mentors_status_id_with_user_id_created_at;
"""
INDEXED = """
    alter table public.peer_mentors add primary key (id);
    create index peer_mentors_status_id_with_user_id_created_at
      on public.peer_mentors (status, id) include (user_id, created_at);
"""
OWNER_READS = "create policy everything on public.peer_mentors for select to scheduler_owner using (true);"
# A scenario of one's own, which looks something up for each mentor.
CUSTOM = """
    create function scheduler.scenario_custom(mentor_ids uuid[], as_of timestamptz, params jsonb)
    returns table (mentor_id uuid, user_id uuid, payload jsonb)
    language sql stable
    as $$
      select m.id, m.user_id, '{{}}'::jsonb
        from scheduler.mentors m
       where m.id = any (mentor_ids)
         and exists (select from {looked_up} offset 0)
    $$;
    revoke all on function scheduler.scenario_custom from public;
    grant execute on function scheduler.scenario_custom to scheduler_owner;
    insert into scheduler.scenario_evaluation_config (scenario_type, cooldown) values ('custom', '1 day');
"""
NOT_CUSTOM = """
    delete from scheduler.scenario_evaluation_config where scenario_type = 'custom';
    drop function scheduler.scenario_custom;
"""
BADGES = """
    create table public.badges (kind text, user_id uuid);
    create index badges_kind on public.badges (kind, user_id);
    grant select on public.badges to scheduler_owner;
"""
BADGES_OF_USER = CUSTOM.format(looked_up="public.badges b where b.user_id = m.user_id")
MANY_BADGES = "insert into public.badges select 'gold', gen_random_uuid() from generate_series(1, 30000);"
VAULT = """
    create schema vault;
    create view vault.decrypted_secrets as select 'other'::text as name, 'other'::text as decrypted_secret;
"""
PG_NET = """
    create schema net;
    create table net.http_request_queue (id bigserial, method text, url text, headers jsonb, body bytea);
    create table net._http_response (id bigint, status_code integer, content text, timed_out bool,
                                     error_msg text, created timestamptz not null default now());
    create function net.http_post(url text, body jsonb default '{}', params jsonb default '{}',
                                  headers jsonb default '{}', timeout_milliseconds int default 5000)
    returns bigint language sql as 'insert into net.http_request_queue (url, headers) values (url, headers)
                                    returning id';
"""
# As pg_net does it, by `create extension`.
OPEN_PG_NET = """
    grant usage on schema net to public;
    grant all on all tables in schema net to public;
    grant all on all sequences in schema net to public;
"""

FAULTS = {
    "a migration not applied": Fault(
        "migrations",
        "20261126000002_roles",
        f"update scheduler.migrations set version = '1' {LATEST}",
        "update scheduler.migrations set version = '20261126000002' where version = '1'",
        unreadies=True,
    ),
    "a migration changed since": Fault(
        "migrations",
        "Changed since it was applied",
        f"update scheduler.migrations set checksum = 'x' || checksum {LATEST}",
        f"update scheduler.migrations set checksum = substr(checksum, 2) {LATEST}",
        unreadies=True,
    ),
    "a service that makes databases": Fault(
        "roles",
        "scheduler_service may make databases",
        "alter role scheduler_service createdb",
        "alter role scheduler_service nocreatedb",
    ),
    "an owner that logs in": Fault(
        "roles",
        "scheduler_owner may log in",
        "alter role scheduler_owner login",
        "alter role scheduler_owner nologin",
    ),
    "a cron role that passes by row-level security": Fault(
        "roles",
        "scheduler_cron may pass by row-level security",
        "alter role scheduler_cron bypassrls",
        "alter role scheduler_cron nobypassrls",
    ),
    "a cron role that can't log in": Fault(
        "roles",
        "scheduler_cron may not log in",
        "alter role scheduler_cron nologin",
        "alter role scheduler_cron login",
    ),
    "a function that lends a superuser's rights": Fault(
        "roles",
        "scheduler.invoke(text[]) belongs to app",
        "alter function scheduler.invoke owner to app",
        "alter function scheduler.invoke owner to scheduler_owner",
    ),
    "a ledger that can't be written": Fault(
        "service's rights",
        "begin a run",
        "revoke insert on scheduler.runs from scheduler_service",
        "grant insert on scheduler.runs to scheduler_service",
    ),
    "counts that can't be written": Fault(
        "service's rights",
        "count what a scenario did",
        "revoke update (last_run_evaluated) on scheduler.scenario_evaluation_config from scheduler_service",
        "grant update (last_run_evaluated) on scheduler.scenario_evaluation_config to scheduler_service",
    ),
    "migrations that can't be read": Fault(
        "service's rights",
        "read scheduler.migrations",
        "revoke select on scheduler.migrations from scheduler_service",
        "grant select on scheduler.migrations to scheduler_service",
        unreadies=True,
    ),
    "a table open to the service": Fault(
        "service's limits",
        "read public.peer_mentors",
        "grant select on public.peer_mentors to scheduler_service",
        "revoke select on public.peer_mentors from scheduler_service",
    ),
    "a column open to the service": Fault(
        "service's limits",
        "read public.assignments",
        "grant select (status) on public.assignments to scheduler_service",
        "revoke select (status) on public.assignments from scheduler_service",
    ),
    "rows that the service can remove": Fault(
        "service's limits",
        "remove rows of public.activities",
        "grant delete on public.activities to scheduler_service",
        "revoke delete on public.activities from scheduler_service",
    ),
    "a table behind a view of the user's own, open to the service": Fault(
        "service's limits",
        "read public.deep",
        """
        create table public.deep (user_id uuid, activity_date date);
        create index deep_user on public.deep (user_id, activity_date);
        create view public.between as select * from public.deep;
        grant select on public.between to scheduler_owner;
        create or replace view scheduler.activities as select user_id, activity_date from public.between;
        grant select on public.deep to scheduler_service;
        """,
        """
        create or replace view scheduler.activities as select user_id, activity_date from public.activities;
        drop view public.between;
        drop table public.deep;
        """,
    ),
    "a secret that the service can read": Fault(
        "service's limits",
        "read the secret",
        "grant execute on function scheduler.read_secret to scheduler_service",
        "revoke execute on function scheduler.read_secret from scheduler_service",
    ),
    "settings that the service can read": Fault(
        "service's limits",
        "read scheduler.settings",
        "grant select (url) on scheduler.settings to scheduler_service",
        "revoke select (url) on scheduler.settings from scheduler_service",
    ),
    "a secret in the table that the service can read": Fault(
        "service's limits",
        "read scheduler.fallback_secret",
        "grant select (secret) on scheduler.fallback_secret to scheduler_service",
        "revoke select (secret) on scheduler.fallback_secret from scheduler_service",
    ),
    "a service that can tick": Fault(
        "service's limits",
        "tick",
        "grant execute on function scheduler.invoke to scheduler_service",
        "revoke execute on function scheduler.invoke from scheduler_service",
    ),
    "a service that can post": Fault(
        "service's limits",
        "post to any URL",
        "grant execute on function scheduler.post_and_wait to scheduler_service",
        "revoke execute on function scheduler.post_and_wait from scheduler_service",
    ),
    "a service that can change scenarios": Fault(
        "service's limits",
        "change a scenario",
        "grant update (enabled) on scheduler.scenario_evaluation_config to scheduler_service",
        "revoke update (enabled) on scheduler.scenario_evaluation_config from scheduler_service",
    ),
    "a service that can forget what was sent": Fault(
        "service's limits",
        "forget what was sent, forget a cooldown",
        "grant delete on scheduler.notifications, scheduler.cooldowns to scheduler_service",
        "revoke delete on scheduler.notifications, scheduler.cooldowns from scheduler_service",
    ),
    "a service that can make functions": Fault(
        "service's limits",
        "make things in the schema scheduler",
        "grant create on schema scheduler to scheduler_service",
        "revoke create on schema scheduler from scheduler_service",
    ),
    "a service that can grant": Fault(
        "service's limits",
        "grant rights",
        "grant execute on function scheduler.grant_rights to scheduler_service",
        "revoke execute on function scheduler.grant_rights from scheduler_service",
    ),
    "a service that can become the owner": Fault(
        "service's limits",
        "become scheduler_owner",
        "grant scheduler_owner to scheduler_service",
        "revoke scheduler_owner from scheduler_service",
    ),
    "a cron role that can't tick": Fault(
        "cron's rights",
        "scheduler_cron can't tick",
        "revoke execute on function scheduler.invoke from scheduler_cron",
        "grant execute on function scheduler.invoke to scheduler_cron",
    ),
    "a cron role that can evaluate": Fault(
        "cron's rights",
        "evaluate mentors",
        "grant execute on function scheduler.evaluate to scheduler_cron",
        "revoke execute on function scheduler.evaluate from scheduler_cron",
    ),
    "a cron role that can read the secret in the table": Fault(
        "cron's rights",
        "read scheduler.fallback_secret",
        "grant select on scheduler.fallback_secret to scheduler_cron",
        "revoke select on scheduler.fallback_secret from scheduler_cron",
    ),
    "a cron role that can change the secret": Fault(
        "cron's rights",
        "change scheduler.fallback_secret",
        "grant update (secret) on scheduler.fallback_secret to scheduler_cron",
        "revoke update (secret) on scheduler.fallback_secret from scheduler_cron",
    ),
    "a cron role that can read the settings": Fault(
        "cron's rights",
        "read scheduler.settings",
        "grant select (url) on scheduler.settings to scheduler_cron",
        "revoke select (url) on scheduler.settings from scheduler_cron",
    ),
    "a cron role that can read a view": Fault(
        "cron's rights",
        "read scheduler.mentors",
        "grant select on scheduler.mentors to scheduler_cron",
        "revoke select on scheduler.mentors from scheduler_cron",
    ),
    "a cron role that can read a table": Fault(
        "cron's rights",
        "read public.activities",
        "grant select on public.activities to scheduler_cron",
        "revoke select on public.activities from scheduler_cron",
    ),
    "a cron role that can become the service": Fault(
        "cron's rights",
        "become scheduler_service",
        "grant scheduler_service to scheduler_cron",
        "revoke scheduler_service from scheduler_cron",
    ),
    "a cron role that can make jobs": Fault(
        "cron's rights",
        "make jobs",
        "grant usage on schema cron to scheduler_cron",
        "revoke usage on schema cron from scheduler_cron",
    ),
    "a view that the service can't read": Fault(
        "views",
        "scheduler.activities may not be read",
        "revoke select on scheduler.activities from scheduler_service",
        "grant select on scheduler.activities to scheduler_service",
    ),
    "row-level security without a policy": Fault(
        "row-level security",
        "public.peer_mentors is closed to scheduler_owner",
        "alter table public.peer_mentors enable row level security",
        "alter table public.peer_mentors disable row level security",
    ),
    "a policy that shows some rows": Fault(
        "row-level security",
        "public.peer_mentors is closed to scheduler_owner",
        "alter table public.peer_mentors enable row level security; "
        "create policy few on public.peer_mentors for select using (organisation_id is null)",
        "drop policy few on public.peer_mentors; alter table public.peer_mentors disable row level security",
    ),
    "a restrictive policy": Fault(
        "row-level security",
        "the restrictive policy no_more hides rows of public.peer_mentors from scheduler_owner",
        f"alter table public.peer_mentors enable row level security; {OWNER_READS}"
        "create policy no_more on public.peer_mentors as restrictive for select using (false)",
        "drop policy no_more on public.peer_mentors; drop policy everything on public.peer_mentors; "
        "alter table public.peer_mentors disable row level security",
    ),
    "mentors without an index": Fault(
        "mentors' index",
        "public.peer_mentors",
        UNINDEXED,
        INDEXED,
    ),
    "mentors with an index that begins with another column": Fault(
        "mentors' index",
        "public.peer_mentors",
        UNINDEXED + "create index other on public.peer_mentors (organisation_id, id)",
        INDEXED + "drop index other",
    ),
    "assignments without an index": Fault(
        "assignments' index",
        "public.assignments",
        "drop index assignments_mentor_id_status_expires_at",
        "create index assignments_mentor_id_status_expires_at "
        "on public.assignments (mentor_id, status, expires_at)",
    ),
    "activities without an index": Fault(
        "activities' index",
        "public.activities",
        "drop index activities_user_id_activity_date",
        "create index activities_user_id_activity_date on public.activities (user_id, activity_date)",
    ),
    "activities with an index of the user alone": Fault(
        "activities' index",
        "public.activities",
        "drop index activities_user_id_activity_date; create index other on public.activities (user_id)",
        "create index activities_user_id_activity_date on public.activities (user_id, activity_date); "
        "drop index other",
    ),
    "activities with an index that begins with the day": Fault(
        "activities' index",
        "public.activities",
        "drop index activities_user_id_activity_date; "
        "create index other on public.activities (activity_date, user_id)",
        "create index activities_user_id_activity_date on public.activities (user_id, activity_date); "
        "drop index other",
    ),
    "a scenario of one's own that reads a table whole": Fault(
        "scenarios",
        "custom reads public.activities whole",
        CUSTOM.format(looked_up="scheduler.activities a where a.activity_date = as_of::date"),
        NOT_CUSTOM,
    ),
    "a scenario that looks into a large index for a column that is not its first": Fault(
        "scenarios",
        "custom reads public.badges whole",
        BADGES + MANY_BADGES + BADGES_OF_USER,
        NOT_CUSTOM + "drop table public.badges",
    ),
    "no scenario": Fault(
        "scenarios",
        "none is enabled",
        "update scheduler.scenario_evaluation_config set enabled = false",
        "update scheduler.scenario_evaluation_config set enabled = true",
    ),
    "a job that is switched off": Fault(
        "pg_cron",
        "switched off",
        "update cron.job set active = false where username = 'scheduler_cron'",
        "update cron.job set active = true where username = 'scheduler_cron'",
    ),
    "no job": Fault(
        "pg_cron",
        "no job ticks this database",
        "update cron.job set database = 'template1' where username = 'scheduler_cron'",
        "update cron.job set database = 'postgres' where username = 'scheduler_cron'",
    ),
    "no purge": Fault(
        "pg_cron",
        "nothing removes what pg_cron keeps",
        "update cron.job set jobname = 'other' where jobname = 'scenario-scheduler purge'",
        "update cron.job set jobname = 'scenario-scheduler purge' where jobname = 'other'",
    ),
    "nothing to post with": Fault(
        "pg_net",
        "nothing here can post",
        "alter function scheduler.post_and_wait rename to post_no_more",
        "alter function scheduler.post_no_more rename to post_and_wait",
    ),
    "a pg_net that the owner may not use": Fault(
        "pg_net",
        "scheduler_owner may not post with it",
        PG_NET,
        "drop schema net cascade",
    ),
    "a queue that everybody can read": Fault(
        "pg_net's queue",
        "can be read by scheduler_cron, scheduler_service",
        PG_NET + OPEN_PG_NET,
        "drop schema net cascade",
    ),
    "a queue that somebody can read": Fault(
        "pg_net's queue",
        "can be read by reader",
        PG_NET + "create role reader; grant usage on schema net to reader; "
        "grant select (headers) on net.http_request_queue to reader; "
        "grant usage on schema net to scheduler_owner; "
        "grant select, insert on all tables in schema net to scheduler_owner",
        "drop schema net cascade; drop role reader",
    ),
    "a tick that does not wait for the answer": Fault(
        "time-out",
        "the tick waits 30 s, and a run may take 30 s",
        "update scheduler.settings set timeout_ms = 30000",
        "update scheduler.settings set timeout_ms = 45000",
    ),
    "a Vault that the owner may not read": Fault(
        "Vault",
        "scheduler_owner may not read it",
        VAULT,
        "drop schema vault cascade",
    ),
    "a Vault that is not used": Fault(
        "Vault",
        "the secret lies in scheduler.fallback_secret all the same",
        VAULT + "grant usage on schema vault to scheduler_owner; "
        "grant select on vault.decrypted_secrets to scheduler_owner",
        "drop schema vault cascade",
    ),
    "another secret": Fault(
        "secret",
        "the tick has another than the service",
        "update scheduler.fallback_secret set secret = repeat('ab', 32)",
        f"update scheduler.fallback_secret set secret = '{SECRET}'",
    ),
    "no secret": Fault(
        "secret",
        "the tick has none",
        "delete from scheduler.fallback_secret",
        f"insert into scheduler.fallback_secret (secret) values ('{SECRET}')",
    ),
    "a secret that somebody can read": Fault(
        "secret's readers",
        "scheduler.fallback_secret is open to reader",
        "create role reader; grant select (secret) on scheduler.fallback_secret to reader",
        "drop owned by reader; drop role reader",
    ),
    "a secret on which somebody can have a trigger": Fault(
        "secret's readers",
        "scheduler.fallback_secret is open to reader",
        "create role reader; grant trigger on scheduler.fallback_secret to reader",
        "drop owned by reader; drop role reader",
    ),
    "a URL that somebody can change": Fault(
        "secret's readers",
        "scheduler.settings is open to reader",
        "create role reader; grant update (url) on scheduler.settings to reader",
        "drop owned by reader; drop role reader",
    ),
    "a secret that somebody can ask for": Fault(
        "secret's readers",
        "scheduler.read_secret() is open to reader",
        "create role reader; grant execute on function scheduler.read_secret to reader",
        "drop owned by reader; drop role reader",
    ),
    "a trigger engine that may not be called": Fault(
        "trigger engine",
        "SQLSTATE 42501",
        "revoke execute on function scheduler.evaluate from scheduler_service",
        "grant execute on function scheduler.evaluate to scheduler_service",
    ),
    "a URL where nobody listens": Fault(
        "tick's URL",
        "http://127.0.0.1:1/run does not answer",
        "update scheduler.settings set secret_name = url, url = 'http://127.0.0.1:1/run'",
        "update scheduler.settings set url = secret_name, secret_name = 'scheduler_secret'",
    ),
    "a URL of something else": Fault(
        "tick's URL",
        "answers 405",
        "update scheduler.settings set url = replace(url, '/run', '/healthz')",
        "update scheduler.settings set url = replace(url, '/healthz', '/run')",
    ),
    "a tick that was answered with an error": Fault(
        "last tick",
        "the service failed (500)",
        "insert into scheduler.invocations (invoked_at, answered_at, status_code, error) "
        "values (now(), now(), 500, 'internal')",
        "delete from scheduler.invocations where status_code = 500",
    ),
    "a tick that was answered by the service of another database": Fault(
        "last tick",
        "the service works in another database",
        "insert into scheduler.invocations (invoked_at, answered_at, status_code, run_id) "
        "values (now(), now(), 200, gen_random_uuid())",
        "delete from scheduler.invocations i where i.run_id not in (select id from scheduler.runs)",
    ),
    "a tick that was not answered": Fault(
        "last tick",
        "did not answer the last tick",
        "insert into scheduler.invocations (invoked_at, answered_at, error) values (now(), now(), 'timeout')",
        "delete from scheduler.invocations where status_code is null",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_that_line_goes_red_and_no_other(
    healthy: Healthy, administrator: Database, fault: Fault
) -> None:
    await run_script(administrator, fault.breaking)
    try:
        findings = await healthy.examine()
    finally:
        await run_script(administrator, fault.mending)
        if fault.unreadies:
            await healthy.wait_until_ready()
    broken = [check for check in broken_of(findings) if not (fault.unreadies and check == "service")]
    assert broken == [fault.check], [f for f in findings if not f.ok]
    assert fault.said in next(finding.found for finding in findings if not finding.ok)


async def test_a_scenario_may_read_a_small_table_of_its_own_whole(
    healthy: Healthy, administrator: Database
) -> None:
    await run_script(administrator, BADGES + BADGES_OF_USER)
    try:
        findings = await healthy.examine()
    finally:
        await run_script(administrator, NOT_CUSTOM + "drop table public.badges")
    assert broken_of(findings) == []


async def test_a_scenario_that_is_not_inlined_is_green_and_said(
    healthy: Healthy, administrator: Database
) -> None:
    closed = CUSTOM.format(looked_up="scheduler.activities a").replace("language sql", "strict language sql")
    await run_script(administrator, closed)
    try:
        findings = await healthy.examine()
    finally:
        await run_script(administrator, NOT_CUSTOM)
    assert broken_of(findings) == []
    assert "custom can't be looked into" in str(findings)
