"""A run that was begun, in virtual time: however it ends, who waits is told, the ledger and the log agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from engine import RunInProgress, RunRequest
from engine.errors import RunFailed
from engine.ledger import LEASE
from engine.started_run import StartedRun
from engine.statements import Statement
from engine.trigger.protocol import Evaluation
from tests.engine.test_scheduler import open_model, run_to_its_end
from tests.fakes import FakeTriggerEngine, ids
from tests.model_database import ModelDatabase, Row


class OverheardDatabase(ModelDatabase):
    """A model that keeps what it was asked: the arguments of each statement, by its name."""

    def __init__(self, mentor_ids: Sequence[UUID]) -> None:
        super().__init__(mentor_ids)
        self.asked: dict[str, list[tuple[Any, ...]]] = {}

    async def fetch(self, statement: Statement, *arguments: Any, answer_within: float = 5.0) -> Sequence[Row]:
        self.asked.setdefault(statement.name, []).append(arguments)
        return await super().fetch(statement, *arguments, answer_within=answer_within)


def break_at(mentor_id: UUID) -> FakeTriggerEngine:
    """One that has a bug: it breaks over this mentor, after ten mentors each tenth of a second."""

    def act(chunk: Sequence[UUID]) -> Evaluation:
        if chunk == [mentor_id]:
            raise ZeroDivisionError
        return Evaluation()

    return FakeTriggerEngine(latency=lambda chunk: 0.1, act=act)


async def test_a_run_that_a_bug_ended_is_told_of_and_logged_with_its_cause_and_how_long_it_took(
    autojump_clock: MockClock,
) -> None:
    await trio.sleep(50.0)
    database = OverheardDatabase(ids(100))
    with capture_logs() as logs:
        async with open_model(database, break_at(UUID(int=60))) as scheduler:
            started = await scheduler.start(RunRequest())
            with pytest.raises(RunFailed) as failed:
                await started.summary()
    assert str(failed.value) == "The run was ended by a bug; its cause is in the log of the service."
    [line] = [each for each in logs if each["event"] == "run_failed"]
    assert line == {
        "event": "run_failed",
        "log_level": "error",
        "exc_info": True,
        "run_id": str(started.context.run_id),
    }
    ended = logs[-1]
    assert ended["total_evaluated"] + ended["total_unprocessed"] == 100
    assert ended == {
        "event": "run_ended",
        "log_level": "error",
        "run_id": str(started.context.run_id),
        "verdict": "failed",
        "total_active_mentors": 100,
        "total_evaluated": ended["total_evaluated"],
        "total_dispatched": 0,
        "total_suppressed": 0,
        "total_errors": 0,
        "total_unprocessed": ended["total_unprocessed"],
        "errors": {},
    }
    [finished] = database.asked["finish_run"]
    verdict, stop_reason, remaining_known, duration_ms, _ = finished[-5:]
    assert (verdict, stop_reason, remaining_known, duration_ms) == ("failed", None, False, 600)


@pytest.mark.parametrize(
    ("evaluation", "level"),
    [(Evaluation(dispatched={"expiry": 1}), "info"), (Evaluation(errors={"mentor_error": 1}), "warning")],
)
async def test_a_run_that_has_ended_is_logged_with_its_summary_and_its_errors(
    evaluation: Evaluation, level: str, autojump_clock: MockClock
) -> None:
    engine = FakeTriggerEngine(act=lambda chunk: evaluation)
    with capture_logs() as logs:
        async with open_model(ModelDatabase(ids(1)), engine) as scheduler:
            summary = await run_to_its_end(scheduler)
    line = {"event": "run_ended", "log_level": level, "errors": evaluation.errors}
    assert [each for each in logs if each["event"] == "run_ended"] == [line | summary.as_json()]


async def test_whoever_waits_for_a_run_that_is_cut_is_told_so(autojump_clock: MockClock) -> None:
    answers: list[str] = []

    async def wait(started: StartedRun) -> None:
        try:
            await started.summary()
        except RunFailed as failed:
            answers.append(str(failed))

    database = ModelDatabase(ids(100))
    async with trio.open_nursery() as nursery:
        async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 1.0)) as scheduler:
            started = await scheduler.start(RunRequest())
            nursery.start_soon(wait, started)
            await trio.sleep(2.5)
            assert not started.has_ended
        await started.ended()
    assert started.has_ended
    assert answers == ["The run was cut: the service was told to stop at once."]
    assert [row.verdict for row in database.runs] == ["running"]


async def test_a_bug_in_writing_the_verdict_costs_the_verdict_and_nothing_else(
    autojump_clock: MockClock,
) -> None:
    def hangs(name: str, now: float) -> bool:
        if name == "finish_run" and now < 5.0:
            raise ZeroDivisionError
        return False

    database = ModelDatabase(ids(10))
    database.hangs = hangs
    with capture_logs() as logs:
        async with open_model(database, FakeTriggerEngine(latency=lambda chunk: 0.3)) as scheduler:
            started = await scheduler.start(RunRequest())
            assert (await started.summary()).completed
            assert trio.current_time() == 0.3 + 0.5
            with pytest.raises(RunInProgress) as refused:
                await scheduler.start(RunRequest())
            await trio.sleep(LEASE)
            assert (await run_to_its_end(scheduler)).completed
    assert str(refused.value) == "Another run is under way; ask again when its budget is over."
    assert [each for each in logs if each["event"] == "verdict_not_recorded"] == [
        {
            "event": "verdict_not_recorded",
            "log_level": "error",
            "exc_info": True,
            "run_id": str(started.context.run_id),
        }
    ]
    assert [row.verdict for row in database.runs] == ["abandoned", "completed"]


@pytest.mark.parametrize(("mentors", "lines"), [(0, 1), (1, 0)])
async def test_a_run_over_nobody_says_so(mentors: int, lines: int, autojump_clock: MockClock) -> None:
    with capture_logs() as logs:
        async with open_model(ModelDatabase(ids(mentors)), FakeTriggerEngine()) as scheduler:
            started = await scheduler.start(RunRequest())
            await started.summary()
    line = {"event": "no_active_mentors", "log_level": "info", "run_id": str(started.context.run_id)}
    assert [each for each in logs if each["event"] == "no_active_mentors"] == lines * [line]
