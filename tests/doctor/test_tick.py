"""The tick's secret while it is rotated, and the same installation with pg_net and Vault in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio

import engine.doctor.examine
import engine.doctor.installation
from engine.database import Database
from engine.statements import Statement
from engine.tick.install import install_tick
from engine.tick.jobs import plan_jobs
from engine.tick.status import TickStatus, read_tick_status
from tests.doctor.conftest import SCHEDULE, Healthy, broken_of, run_script
from tests.doctor.test_logins import finding
from tests.doctor.test_one_fault import OPEN_PG_NET, PG_NET
from tests.end_to_end.conftest import SECRET

# A stand-in for Vault, with its names: what it encrypts is a matter of its own.
VAULT = """
    create schema vault;
    create table vault.secrets (id uuid primary key default gen_random_uuid(), name text unique, secret text);
    create view vault.decrypted_secrets as select id, name, secret as decrypted_secret from vault.secrets;
    create function vault.create_secret(new_secret text, new_name text, new_description text) returns uuid
    language sql as 'insert into vault.secrets (secret, name) values (new_secret, new_name) returning id';
    create function vault.update_secret(secret_id uuid, new_secret text) returns void
    language sql as 'update vault.secrets set secret = new_secret where id = secret_id';
"""


async def install(healthy: Healthy, administrator: Database, *, with_plpython3u: bool) -> None:
    await install_tick(
        administrator,
        url=f"{healthy.service.url}/run",
        secret=SECRET,
        platform_limit=30.0,
        jobs=plan_jobs(SCHEDULE),
        with_plpython3u=with_plpython3u,
    )


@pytest.fixture
async def vault(healthy: Healthy, administrator: Database) -> AsyncIterator[None]:
    """Installed with a Vault, in which the secret is then."""
    await run_script(administrator, VAULT)
    await install(healthy, administrator, with_plpython3u=True)
    yield
    await run_script(administrator, "drop schema vault cascade")
    await install(healthy, administrator, with_plpython3u=True)


async def test_the_next_secret_is_accepted_while_it_is_rotated(healthy: Healthy) -> None:
    findings = await healthy.examine(SCHEDULER_SECRET="ab" * 32, SCHEDULER_SECRET_NEXT=SECRET)
    assert broken_of(findings) == []
    assert "SCHEDULER_SECRET_NEXT" in finding(findings, "secret").found


async def test_a_service_without_a_secret_is_red_and_not_refused(healthy: Healthy) -> None:
    findings = await healthy.examine(SCHEDULER_SECRET=None)
    assert broken_of(findings) == ["secret"]
    assert "SCHEDULER_SECRET is not set" in finding(findings, "secret").found


async def test_a_secret_in_vault_is_green(healthy: Healthy, vault: None) -> None:
    findings = await healthy.examine()
    assert broken_of(findings) == []
    assert finding(findings, "Vault").found == "it keeps the secret"


async def test_a_short_secret_in_vault(healthy: Healthy, vault: None, administrator: Database) -> None:
    await run_script(administrator, f"update vault.secrets set secret = '{SECRET[:31]}'")
    findings = await healthy.examine()
    assert broken_of(findings) == ["secret"]
    assert finding(findings, "secret").found == "it has 31 digits, fewer than 32"


async def test_a_vault_that_the_service_can_read(
    healthy: Healthy, vault: None, administrator: Database
) -> None:
    await run_script(
        administrator,
        "grant usage on schema vault to scheduler_service; "
        "grant select on vault.decrypted_secrets to scheduler_service",
    )
    findings = await healthy.examine()
    assert broken_of(findings) == ["service's limits"]
    assert "read Vault" in finding(findings, "service's limits").found


async def test_installing_the_tick_closes_the_queue_of_pg_net(
    healthy: Healthy, administrator: Database
) -> None:
    await run_script(administrator, PG_NET + OPEN_PG_NET)
    try:
        before = await healthy.examine()
        await install(healthy, administrator, with_plpython3u=False)
        after = await healthy.examine()
    finally:
        await run_script(administrator, "drop schema net cascade")
    assert broken_of(before) == ["pg_net's queue"]
    assert broken_of(after) == []
    assert finding(after, "pg_net").found == "version unknown"


async def test_looking_installing_and_examining_at_once_all_come_through(
    healthy: Healthy, administrator: Database
) -> None:
    async def examine() -> None:
        assert broken_of(await healthy.examine()) == []

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(partial(install, healthy, administrator, with_plpython3u=True))
            nursery.start_soon(read_tick_status, administrator)
            nursery.start_soon(examine)


async def test_a_tick_that_was_not_to_be_seen_in_time_is_looked_at_once(
    healthy: Healthy, administrator: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.doctor.examine, "CHECK_TIMEOUT", 0.3)
    looks = []

    async def look(database: Database) -> TickStatus:
        looks.append(database)
        return await read_tick_status(database)

    monkeypatch.setattr(engine.doctor.installation, "read_tick_status", look)
    async with administrator.open_transaction() as transaction:
        await transaction.execute(Statement("lock", "lock scheduler.invocations in access exclusive mode"))
        findings = await healthy.examine()
    assert len(looks) == 1
    assert finding(findings, "pg_cron").found == "could not be made within 0.3 s"
    for check in ("pg_net", "time-out", "tick's URL", "last tick"):
        assert finding(findings, check).found == "could not be made: the tick was not to be seen in time"
