"""Where the tick's secret comes from, if there is a Vault that is not ours to read."""

from __future__ import annotations

from engine.database import Database
from engine.statements import Statement
from engine.tick.install import install_tick
from engine.tick.jobs import plan_jobs

CLOSED_VAULT = """
    create schema vault;
    create view vault.decrypted_secrets as
      select 'scheduler_secret'::text as name, 'other'::text as decrypted_secret;
    revoke all on schema vault from public;
    set local role scheduler_owner
"""


async def test_a_closed_vault_leaves_the_tick_the_secret_of_the_settings(administrator: Database) -> None:
    await install_tick(
        administrator,
        url="http://127.0.0.1:1/run",
        secret="0123456789abcdef" * 4,
        platform_limit=30.0,
        jobs=plan_jobs("*/5 * * * *"),
        with_plpython3u=True,
    )
    async with administrator.open_transaction() as transaction:
        await transaction.execute(Statement("closed_vault", CLOSED_VAULT))
        [row] = await transaction.fetch(Statement("read", "select scheduler.read_secret() as secret"))
    assert row["secret"] == "0123456789abcdef" * 4
