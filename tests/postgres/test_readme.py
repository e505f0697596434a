"""What the README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

from engine import Settings
from engine.database import Database
from engine.ledger import LEASE, RETENTION
from engine.statements import Statement
from tests.postgres.conftest import add_mentor, evaluate

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


async def test_the_readmes_scenario_is_evaluated(database: Database) -> None:
    [sql] = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    async with database.open_transaction() as transaction:
        await transaction.execute(Statement("README", sql))
    newcomer, old_hand = await add_mentor(database, age=0), await add_mentor(database, age=30)
    assert await evaluate(database, [newcomer, old_hand]) == {newcomer.id: (["welcome"], [])}
    assert await evaluate(database, [newcomer, old_hand]) == {newcomer.id: ([], ["welcome"])}


def test_the_readme_has_every_setting_and_its_default() -> None:
    rows = dict(re.findall(r"^\| (.*?) \| (.*?) \|", README, re.MULTILINE))
    settings = Settings.model_construct()
    for field, info in Settings.model_fields.items():
        name = str(info.validation_alias or f"SCHEDULER_{field.upper()}")
        [shown] = [default for names, default in rows.items() if f"`{name}`" in names.split(", ")]
        default = getattr(settings, field)
        if isinstance(default, tuple):
            default = ",".join(default)
        if isinstance(default, bool):
            default = str(default).lower()
        if default is None:
            assert shown.startswith(("none", "required")) or field in ("page_size", "mentors_per_invocation")
        else:
            assert shown.strip("`") == f"{default:g}" if isinstance(default, float) else str(default) in shown


def test_the_readme_says_how_long_a_lease_lasts_and_a_row_is_kept() -> None:
    rows = dict(re.findall(r"^\| (.*?) \| (.*?) \|", README, re.MULTILINE))
    assert rows["lease"].endswith(f"no older than {LEASE:g} s")
    assert rows["ledger"].endswith(f"kept for {RETENTION / 86_400:g} days")
