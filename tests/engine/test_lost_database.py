"""What is said, and when, of a database that is away: once as long as it lasts, with the reason."""

from __future__ import annotations

from typing import Any

import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from engine import RunRequest, StopReason
from engine.lease import LONGEST_PAUSE
from tests.engine.test_scheduler import open_model
from tests.fakes import FakeMentors, FakeTriggerEngine, Walkthrough, ids
from tests.model_database import ModelDatabase


def _stamp(logger: object, method: str, event: dict[str, Any]) -> dict[str, Any]:
    return event | {"at": trio.current_time()}


def _logs() -> Any:
    return capture_logs(processors=[_stamp])


async def test_pages_that_can_not_be_fetched_are_one_line_until_one_was_fetched(
    autojump_clock: MockClock,
) -> None:
    mentors = FakeMentors(ids(300), page_latency=1.0, away=lambda now: now < 2.5 or 3.0 < now < 5.0)
    with _logs() as logs:
        summary = await Walkthrough(mentors, FakeTriggerEngine()).run()
    assert summary.completed
    line = {"event": "page_not_fetched", "log_level": "warning", "reason": "gone"}
    assert logs == [line | {"at": 1.0}, line | {"at": 3.5}]


async def test_heartbeats_that_are_not_recorded_are_one_line_until_one_was_recorded(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(1000))
    database.away = lambda now: 0.5 < now < 3.5 or 6.5 < now < 8.5
    engine = FakeTriggerEngine(latency=lambda chunk: 0.1)
    with _logs() as logs:
        async with open_model(database, engine, page_size=2000) as scheduler:
            started = await scheduler.start(RunRequest())
            await started.summary()
    line = {
        "event": "heartbeat_not_recorded",
        "log_level": "warning",
        "run_id": str(started.context.run_id),
        "reason": "Postgres is away.",
    }
    lines = [each for each in logs if each["event"] == "heartbeat_not_recorded"]
    assert lines == [line | {"at": 1.0}, line | {"at": 7.0}]


async def test_a_verdict_that_is_not_recorded_is_a_line_each_time_it_was_tried_ever_more_slowly(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(10))
    database.away = lambda now: 0.2 < now < 100.0
    with _logs() as logs:
        async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 0.25)) as scheduler:
            started = await scheduler.start(RunRequest())
            with trio.fail_after(1000.0):
                await started.accounted_for()
    line = {
        "event": "verdict_not_recorded",
        "log_level": "warning",
        "run_id": str(started.context.run_id),
        "reason": "Postgres is away.",
    }
    pauses = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE)
    tries = [0.25 + sum(pauses[:number]) for number in range(len(pauses) + 1)]
    assert [each for each in logs if each["event"] == "verdict_not_recorded"] == [
        line | {"at": at} for at in tries if at < 100.0
    ]
    assert trio.current_time() == next(at for at in tries if at >= 100.0)


async def test_a_lease_that_was_lost_is_why_the_walk_stopped_and_is_said_once(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(1000))
    engine = FakeTriggerEngine(latency=lambda chunk: 0.1)
    with capture_logs() as logs:
        async with open_model(database, engine) as scheduler:
            started = await scheduler.start(RunRequest())
            await trio.sleep(2.55)
            database.runs[0].verdict = "abandoned"
            await started.summary()
    [counted] = [each for each in logs if each["event"] == "remaining_counted"]
    assert counted["stop_reason"] is StopReason.LEASE_LOST
    assert [each for each in logs if each["event"] == "lease_lost"] == [
        {"event": "lease_lost", "log_level": "warning", "run_id": str(started.context.run_id)}
    ]


async def test_a_dry_run_has_no_lease_to_lose(autojump_clock: MockClock) -> None:
    budget = {"soft_threshold": 1.5, "hard_deadline": 9.0, "platform_limit": 12.0, "page_size": 10}
    engine = FakeTriggerEngine(latency=lambda chunk: 1.0)
    database = ModelDatabase(ids(100))
    async with open_model(database, engine, trigger_engine_dry_run=True, **budget) as scheduler:
        summary = await (await scheduler.start(RunRequest(dry_run=True))).summary()
    assert (summary.partial, summary.stop_reason) == (True, StopReason.SOFT_THRESHOLD)
