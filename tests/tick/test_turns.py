"""Who looks at the tick or changes it takes turns, waits for nobody for ever, and can be cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

import engine.rights
import engine.tick.transaction
from engine.database import Database
from engine.errors import MigrationError, TickError
from engine.rights import grant_rights, set_service_password
from engine.statements import Statement
from engine.tick.as_cron import as_cron
from engine.tick.install import enabled_scenario_types, remove_tick
from engine.tick.status import read_tick_status
from engine.tick.transaction import open_tick_transaction
from tests.postgres.conftest import wait_until_blocked
from tests.tick.test_install import install, nothing_was_changed, secret_of_the_tick
from tests.tick.ticking import fetch, run_script

Command = Callable[[Database], Awaitable[object]]

USES_PG_CRON = "select has_schema_privilege('scheduler_cron', 'cron', 'usage')"


async def cancel_when_blocked(
    database: Database, lock: str, command: Callable[[], Awaitable[object]]
) -> None:
    """Cancel the command when it has come to what another session has locked."""

    async def run() -> None:
        await command()
        raise AssertionError("it was to be cancelled")

    async with database.open_transaction() as transaction:
        await transaction.execute(Statement("lock", lock))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await wait_until_blocked(database)
            nursery.cancel_scope.cancel()
        await transaction.execute(Statement("rollback", "rollback"))


# --- Turns ---


async def test_many_at_once_all_come_through(administrator: Database) -> None:
    await install(administrator)
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(read_tick_status, administrator)
            nursery.start_soon(install, administrator)
            nursery.start_soon(set_service_password, administrator, "a" * 64)
    assert len((await read_tick_status(administrator)).jobs) == 1
    assert await fetch(administrator, USES_PG_CRON) == [(False,)]


@pytest.mark.parametrize("table", ["scheduler.settings", "cron.job"])
@pytest.mark.parametrize("command", [install, read_tick_status, remove_tick])
async def test_a_table_that_somebody_has_locked_is_not_waited_for_for_ever(
    administrator: Database, command: Command, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await install(administrator)
    monkeypatch.setattr(engine.tick.transaction, "LOCK_TIMEOUT", "50ms")
    async with administrator.open_transaction() as transaction:
        await transaction.execute(Statement("lock", f"lock {table} in access exclusive mode"))
        with pytest.raises(TickError, match=r"waited 50ms for a lock in vain, .*; end the transactions"):
            await command(administrator)
    assert (await read_tick_status(administrator)).has_purge
    assert await secret_of_the_tick(administrator) is not None


async def test_a_password_is_not_waited_for_for_ever(
    administrator: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.rights, "LOCK_TIMEOUT", "50ms")
    async with open_tick_transaction(administrator):
        with pytest.raises(
            MigrationError, match="waited 50ms for a lock in vain, and the password is the one"
        ):
            await set_service_password(administrator, "a" * 64)


# --- Cancellation ---


async def test_installing_that_is_cancelled_has_changed_nothing(administrator: Database) -> None:
    # At its last step but one, in the role of scheduler_cron.
    lock = "lock cron.job in access exclusive mode"
    await cancel_when_blocked(administrator, lock, lambda: install(administrator))
    assert await nothing_was_changed(administrator)


async def test_removing_that_is_cancelled_has_changed_nothing(administrator: Database) -> None:
    await install(administrator)
    # Its jobs are unscheduled by then.
    lock = "lock scheduler.settings in access exclusive mode"
    await cancel_when_blocked(administrator, lock, lambda: remove_tick(administrator))
    status = await read_tick_status(administrator)
    assert (len(status.jobs), status.has_purge, status.has_fallback_secret) == (1, True, True)


async def test_looking_that_is_cancelled_leaves_nothing_behind(administrator: Database) -> None:
    await install(administrator)
    lock = "lock scheduler.scenario_evaluation_config in access exclusive mode"
    for command in (read_tick_status, enabled_scenario_types):
        await cancel_when_blocked(administrator, lock, lambda command=command: command(administrator))  # type: ignore[misc]
    assert await fetch(administrator, "select from pg_locks where locktype = 'advisory'") == []


async def test_the_use_of_pg_cron_is_not_lent_for_longer_by_a_cancel(administrator: Database) -> None:
    async def look() -> None:
        async with open_tick_transaction(administrator) as transaction, as_cron(transaction):
            await transaction.fetch(Statement("look", "select from cron.job"))

    await cancel_when_blocked(administrator, "lock cron.job in access exclusive mode", look)
    assert await fetch(administrator, USES_PG_CRON) == [(False,)]


async def test_granting_that_is_cancelled_has_granted_nothing(administrator: Database) -> None:
    await run_script(
        administrator,
        "revoke select on scheduler.activities from scheduler_service;"
        "alter table public.peer_mentors enable row level security",
    )
    # What the service reads is granted by then, and the policy is yet to come.
    lock = "lock public.peer_mentors in access share mode"
    await cancel_when_blocked(administrator, lock, lambda: grant_rights(administrator))
    reads = "select has_table_privilege('scheduler_service', 'scheduler.activities', 'select')"
    policies = "select from pg_policy where polrelid = 'public.peer_mentors'::regclass"
    assert await fetch(administrator, reads) == [(False,)]
    assert await fetch(administrator, policies) == []
    assert len(await grant_rights(administrator)) == 2


async def test_a_password_whose_setting_is_cancelled_is_the_one_before(administrator: Database) -> None:
    await set_service_password(administrator, "a" * 64)
    password = "select rolpassword from pg_authid where rolname = 'scheduler_service'"
    before = await fetch(administrator, password)
    await cancel_when_blocked(
        administrator,
        "alter role scheduler_service connection limit 7",
        lambda: set_service_password(administrator, "b" * 64),
    )
    assert await fetch(administrator, password) == before
