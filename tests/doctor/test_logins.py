"""Who logs in, over what, and what is said where somebody can't."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

import engine.doctor.database
import engine.doctor.examine
from engine.database import Database, open_database
from engine.doctor.examine import CHECKS
from engine.doctor.finding import Finding
from engine.migrations import migrate
from engine.statements import Statement
from tests.doctor.conftest import Healthy, broken_of, run_script
from tests.doctor.pgbouncer import open_pgbouncer
from tests.end_to_end.conftest import as_service
from tests.postgres.conftest import wait_until, wait_until_blocked

NOBODY = "postgresql://nobody@127.0.0.1:1/nowhere"

# The session that tries what must be refused to the service.
OF_DOCTOR = """
    select count(*)
      from pg_stat_activity
     where application_name = 'scenario-scheduler'
       and query like '%made_by_service%'
       and pid <> pg_backend_pid()
"""

# What can be looked at without any database.
WITHOUT_DATABASE = {"TLS to Postgres", "exposure", "service"}


def finding(findings: list[Finding], check: str) -> Finding:
    return next(each for each in findings if each.check == check)


def with_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}").geturl()


# --- One line goes red ---


async def test_an_old_postgres(healthy: Healthy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.doctor.database, "OLDEST_POSTGRES", 16)
    findings = await healthy.examine()
    assert broken_of(findings) == ["Postgres"]
    assert finding(findings, "Postgres").mend == "upgrade the server to 16 or newer"


async def test_a_service_that_logs_in_as_a_superuser(healthy: Healthy) -> None:
    findings = await healthy.examine(DATABASE_URL=healthy.postgres.dsn)
    assert broken_of(findings) == ["login"]
    assert finding(findings, "login").found == "DATABASE_URL logs in as app, a superuser"


async def test_a_service_that_logs_in_as_somebody_else(healthy: Healthy, administrator: Database) -> None:
    await run_script(administrator, "create role somebody login password 'word'")
    try:
        url = with_user(healthy.postgres.dsn, "somebody:word")
        findings = await healthy.examine(DATABASE_URL=url)
    finally:
        await run_script(administrator, "drop role somebody")
    assert broken_of(findings) == ["login"]
    assert finding(findings, "login").found == "DATABASE_URL logs in as somebody"


async def test_a_service_whose_way_to_postgres_may_be_in_the_clear(healthy: Healthy) -> None:
    url = healthy.settings["DATABASE_URL"].replace("sslmode=disable", "sslmode=prefer")
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    name, _, port = host.partition(":")
    # The first one answers.
    hosts = f"host={name},db.example&port={port},5432&{parts.query}"
    url = parts._replace(netloc=f"{login}@", query=hosts).geturl()
    findings = await healthy.examine(DATABASE_URL=url)
    assert broken_of(findings) == ["TLS to Postgres"]
    assert "DATABASE_URL leads to another machine with sslmode=prefer" in findings[3].found


async def test_a_service_that_uses_another_database_of_the_server(
    healthy: Healthy, administrator: Database
) -> None:
    await administrator.fetch(Statement("create", "create database elsewhere"))
    elsewhere = urlsplit(healthy.settings["DATABASE_URL"])._replace(path="/elsewhere").geturl()
    try:
        async with open_database(
            urlsplit(healthy.postgres.dsn)._replace(path="/elsewhere").geturl()
        ) as other:
            await migrate(other, with_example_tables=True)
        findings = await healthy.examine(DATABASE_URL=elsewhere)
    finally:
        await administrator.fetch(Statement("drop", "drop database elsewhere with (force)"))
    assert broken_of(findings) == ["same database"]
    assert (
        finding(findings, "same database").found
        == "DATABASE_URL leads to the database elsewhere, SCHEDULER_ADMIN_DATABASE_URL to postgres"
    )


async def test_a_service_that_uses_another_server(healthy: Healthy, database_url: str) -> None:
    findings = await healthy.examine(DATABASE_URL=await as_service(database_url))
    assert broken_of(findings) == ["same database"]
    assert "two servers" in finding(findings, "same database").found


async def test_a_transaction_pooler_that_the_settings_do_not_name(healthy: Healthy) -> None:
    async with open_pgbouncer(healthy.settings["DATABASE_URL"], "transaction") as url:
        findings = await healthy.examine(DATABASE_URL=url)
        named = await healthy.examine(DATABASE_URL=url, SCHEDULER_DATABASE_POOLER="transaction")
    assert broken_of(findings) == ["pooler"]
    assert "SCHEDULER_DATABASE_POOLER=transaction" in str(finding(findings, "pooler").mend)
    assert broken_of(named) == []


# --- All lines stay green ---


async def test_a_session_pooler_holds(healthy: Healthy) -> None:
    async with open_pgbouncer(healthy.settings["DATABASE_URL"], "session") as url:
        assert broken_of(await healthy.examine(DATABASE_URL=url)) == []


async def test_naming_a_pooler_that_is_not_there_does_no_harm(healthy: Healthy) -> None:
    assert broken_of(await healthy.examine(SCHEDULER_DATABASE_POOLER="transaction")) == []


# --- A login is missing ---


async def test_without_the_services_url_the_rest_is_looked_at_all_the_same(healthy: Healthy) -> None:
    findings = await healthy.examine(DATABASE_URL=None)
    assert broken_of(findings) == ["login"]
    assert finding(findings, "login").found == "DATABASE_URL is not set, so the service has no login"


async def test_a_wrong_password_is_the_logins_fault_and_its_to_ask_where_it_leads(healthy: Healthy) -> None:
    url = with_user(healthy.postgres.dsn, "scheduler_service:wrong")
    findings = await healthy.examine(DATABASE_URL=url)
    assert broken_of(findings) == ["login", "same database", "pooler"]
    assert "the login was refused" in finding(findings, "login").found


async def test_without_the_administrators_url_what_it_is_needed_for_says_so(healthy: Healthy) -> None:
    findings = await healthy.examine(SCHEDULER_ADMIN_DATABASE_URL=None)
    seen_by_the_service = {
        *("Postgres", "migrations", "login", "TLS to Postgres", "same database", "pooler", "roles"),
        *("service's rights", "service's limits", "views", "row-level security", "mentor source"),
        *("trigger engine", "clock", "service", "exposure", "secret's readers"),
    }
    assert set(broken_of(findings)) == set(CHECKS) - seen_by_the_service
    for each in findings:
        if not each.ok:
            assert "SCHEDULER_ADMIN_DATABASE_URL" in f"{each.found} {each.mend}"


@pytest.mark.parametrize("url", [NOBODY, "wrong password"])
async def test_without_a_database_every_line_is_short_and_none_is_missing(healthy: Healthy, url: str) -> None:
    if url == "wrong password":
        url = with_user(healthy.postgres.dsn, "app:wrong")
    findings = await healthy.examine(DATABASE_URL=url, SCHEDULER_ADMIN_DATABASE_URL=url)
    assert set(broken_of(findings)) == set(CHECKS) - WITHOUT_DATABASE
    assert [each.check for each in findings] == list(CHECKS)
    assert "SCHEDULER_ADMIN_DATABASE_URL" in str(findings[0].mend)
    assert "wrong" not in str(findings)


async def test_a_lock_that_somebody_holds_is_not_waited_for_for_ever(
    healthy: Healthy, administrator: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.doctor.examine, "CHECK_TIMEOUT", 0.3)
    async with administrator.open_transaction() as transaction:
        await transaction.execute(Statement("lock", "lock scheduler.notifications in access exclusive mode"))
        findings = await healthy.examine()
    assert finding(findings, "service's rights").found == "could not be made within 0.3 s"
    limits = "could not be made: what the service may do was not to be seen in time"
    assert finding(findings, "service's limits").found == limits
    assert [each.check for each in findings] == list(CHECKS)


async def test_a_cancelled_examination_leaves_no_session(healthy: Healthy, administrator: Database) -> None:
    async with administrator.open_transaction() as transaction:
        await transaction.execute(Statement("lock", "lock scheduler.notifications in access exclusive mode"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(healthy.examine)
            await wait_until_blocked(administrator)
            nursery.cancel_scope.cancel()
    await wait_until(administrator, lambda sessions: sessions == 0, OF_DOCTOR)


async def test_findings_hold_no_password(healthy: Healthy, tmp_path: Path) -> None:
    passwords = [urlsplit(healthy.settings[name]).password for name in ("DATABASE_URL",)]
    passwords += [urlsplit(healthy.postgres.dsn).password, healthy.settings["SCHEDULER_SECRET"]]
    for changed in ({}, {"DATABASE_URL": None}, {"SCHEDULER_ADMIN_DATABASE_URL": NOBODY}):
        said = str(await healthy.examine(**changed))
        assert not any(str(password) in said for password in passwords)
