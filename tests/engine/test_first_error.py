"""What is logged of errors: the first of a class at once, the count at the end, and nobody's id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

import engine
from engine.errors import InvocationFailed, RunFailed
from engine.remedies import remedy_of
from engine.tally import CLASSES_LOGGED
from engine.trigger.protocol import Evaluation
from tests.engine.test_scheduler import open_model, run_to_its_end
from tests.fakes import FakeTriggerEngine, ids
from tests.model_database import ModelDatabase

NOW = "at"


def _stamp(logger: object, method: str, event: dict[str, Any]) -> dict[str, Any]:
    return event | {NOW: trio.current_time()}


async def lines_of_a_run(
    mentors: int, engine: FakeTriggerEngine, *, runs: int = 1, **settings: Any
) -> list[dict[str, Any]]:
    """Everything that is logged of some runs, with the moment and what is bound to the context."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars, _stamp]) as logs:
        async with open_model(ModelDatabase(ids(mentors)), engine, **settings) as scheduler:
            for _ in range(runs):
                await run_to_its_end(scheduler)
    return logs


def firsts(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in logs if line["event"] == "first_error_of_class"]


async def test_a_run_without_errors_is_two_lines(autojump_clock: MockClock) -> None:
    logs = await lines_of_a_run(50, FakeTriggerEngine())
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("run_started", "info"),
        ("run_ended", "info"),
    ]


async def test_the_first_error_of_a_class_is_logged_at_once_and_the_others_are_counted(
    autojump_clock: MockClock,
) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        if 20 < chunk[0].int <= 40:
            raise InvocationFailed("http_401")
        if chunk[0].int > 90:
            return Evaluation(errors={"mentor_error": 1})
        return Evaluation()

    logs = await lines_of_a_run(100, FakeTriggerEngine(latency=lambda chunk: 1.0, act=act))
    assert [(line[NOW], line["error_class"], line["mentors"]) for line in firsts(logs)] == [
        (3.0, "http_401", 1),
        (10.0, "mentor_error", 1),
    ]
    assert firsts(logs)[0]["remedy"] == (
        "Check that SCHEDULER_SERVICE_ROLE_KEY is the key that the trigger engine expects."
    )
    assert {line["log_level"] for line in firsts(logs)} == {"warning"}
    assert logs[-1]["event"] == "run_ended"
    assert logs[-1]["errors"] == {"http_401": 20, "mentor_error": 10}


async def test_each_run_says_its_own_first_errors_and_every_line_says_which_run_it_is_of(
    autojump_clock: MockClock,
) -> None:
    engine = FakeTriggerEngine(act=lambda chunk: Evaluation(errors={"mentor_error": 1}))
    logs = await lines_of_a_run(30, engine, runs=3)
    assert [line["event"] for line in logs] == ["run_started", "first_error_of_class", "run_ended"] * 3
    runs = [line["run_id"] for line in logs]
    assert len(set(runs)) == 3
    assert runs[0::3] == runs[1::3] == runs[2::3]
    assert "run_id" not in structlog.contextvars.get_contextvars()


async def test_a_run_that_a_bug_ended_says_what_it_had_counted(autojump_clock: MockClock) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        if chunk[0].int == 51:
            raise ZeroDivisionError
        return Evaluation(errors={"mentor_error": 1})

    engine = FakeTriggerEngine(latency=lambda chunk: 1.0, act=act)
    with capture_logs() as logs:
        async with open_model(ModelDatabase(ids(100)), engine) as scheduler:
            with pytest.raises(RunFailed):
                await run_to_its_end(scheduler)
    assert [line["event"] for line in logs] == [
        *("run_started", "first_error_of_class", "run_failed", "run_ended")
    ]
    ended = logs[-1]
    assert (ended["verdict"], ended["log_level"]) == ("failed", "error")
    assert ended["total_errors"] == ended["errors"]["mentor_error"] >= 50
    assert ended["total_active_mentors"] == 100
    assert "stop_reason" not in ended


async def test_classes_without_end_are_not_lines_without_end(autojump_clock: MockClock) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        raise InvocationFailed(f"sql_{chunk[0].int:05}")

    logs = await lines_of_a_run(200, FakeTriggerEngine(act=act))
    assert len(firsts(logs)) == CLASSES_LOGGED
    assert len(logs[-1]["errors"]) == 200


async def test_an_error_is_logged_without_whom_it_concerns(autojump_clock: MockClock) -> None:
    mentors = ids(40)

    def act(chunk: Sequence[UUID]) -> Evaluation:
        raise InvocationFailed(f"http_{500 + chunk[0].int % 5}", bisectable=True)

    logs = await lines_of_a_run(40, FakeTriggerEngine(act=act), mentors_per_invocation=4)
    assert len(firsts(logs)) == 5
    assert not [mentor for mentor in mentors if str(mentor) in str(logs)]


def test_every_error_class_of_ours_has_a_remedy() -> None:
    """Those that the code names in one piece; of the others, `http_…` and `sql_…`, any."""
    sources = Path(engine.__file__).parent.rglob("*.py")
    named = {
        name
        for source in sources
        for name in re.findall(
            r'(?:InvocationFailed|ConnectionFailed)\(\s*"(\w+)"', source.read_text("utf-8")
        )
    }
    named |= {"mentor_error", "mentor_missing", "mentor_answered_twice", "http_418", "sql_xx000"}
    assert len(named) > 10
    assert [each for each in named if remedy_of(each) is None] == []
    assert remedy_of("nonsense") is None


@pytest.mark.parametrize(
    ("error_class", "word"),
    [
        ("http_401", "SCHEDULER_SERVICE_ROLE_KEY"),
        ("http_404", "path"),
        ("http_503", "broke"),
        ("http_418", "status"),
        ("connection_refused", "up"),
        ("connection_cut", "restarted"),
        ("sql_42p01", "migrate"),
        ("sql_22p02", "data"),
        ("sql_57p03", "appendix A"),
    ],
)
def test_the_most_exact_remedy_is_the_one_given(error_class: str, word: str) -> None:
    assert word in (remedy_of(error_class) or "")
