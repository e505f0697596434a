"""A healthy installation is green, and is left as it was."""

from __future__ import annotations

from engine.database import Database
from engine.doctor.examine import CHECKS
from tests.doctor.conftest import Healthy, broken_of
from tests.postgres.conftest import query

# All that a run or a tick writes, and all that grants do.
LEFT_ALONE = """
    select (select count(*) from scheduler.runs) as runs,
           (select count(*) from scheduler.notifications) as notifications,
           (select count(*) from scheduler.cooldowns) as cooldowns,
           (select count(*) from scheduler.invocations) as invocations,
           (select string_agg(c.oid || ' ' || coalesce(c.relacl::text, ''), ', ' order by c.oid)
              from pg_class c where c.relnamespace = 'scheduler'::regnamespace) as rights
"""


async def test_a_healthy_installation_is_all_green(healthy: Healthy) -> None:
    findings = await healthy.examine()
    assert [finding.found for finding in findings if not finding.ok] == []
    assert [finding.check for finding in findings] == list(CHECKS)


async def test_examining_begins_no_run_sends_nothing_and_grants_nothing(
    healthy: Healthy, administrator: Database
) -> None:
    # Somebody who is due, whom a run would notify.
    await query(administrator, "delete from scheduler.cooldowns")
    await query(administrator, "delete from scheduler.notifications")
    before = await query(administrator, LEFT_ALONE)
    for trigger_engine in ("in-database", f"{healthy.service.url}/trigger-engine"):
        assert broken_of(await healthy.examine(SCHEDULER_TRIGGER_ENGINE=trigger_engine)) == []
    assert await query(administrator, LEFT_ALONE) == before
    assert before[0]["runs"] == before[0]["invocations"] == 1
