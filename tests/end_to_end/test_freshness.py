"""Whether an uptime monitor hears of it: a budget that is short by design, and a dead trigger engine."""

from __future__ import annotations

from tests.end_to_end.conftest import StartService, open_trigger_engine, seed


async def test_a_dead_trigger_engine_turns_freshness_red_and_a_short_budget_does_not(
    database_url: str, start_service: StartService
) -> None:
    await seed(database_url, 100)
    async with open_trigger_engine(lambda mentor_id: 0.2) as engine:
        settings = {
            "DATABASE_URL": database_url,
            "SCHEDULER_TRIGGER_ENGINE": engine.url,
            "SCHEDULER_PAGE_SIZE": "10",
            "SCHEDULER_SOFT_THRESHOLD": "0.5",
        }
        service = await start_service(**settings)
        before = await service.get("/freshness")
        short = [(await service.tick()).json() for _ in range(4)]
        after = await service.get("/freshness")
    assert (before.status_code, before.json()["error"]) == (503, "never_covered")
    assert all(summary["partial"] for summary in short)
    assert (after.status_code, after.json()["status"]) == (200, "fresh")

    # Nobody listens there any more. The limit is shorter than these runs take, as 900 s is for an outage.
    dead = await start_service(**settings, SCHEDULER_FRESHNESS_LIMIT="1")
    failed = [(await dead.tick()).json() for _ in range(4)]
    assert all(summary["total_errors"] > 0 == summary["total_evaluated"] for summary in failed)
    red = await dead.get("/freshness")
    assert (red.status_code, red.json()["error"]) == (503, "stale")
