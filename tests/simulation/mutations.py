"""This file is the promises broken on purpose, one at a time, at named seams.

Most of these break the product's own code. Not so those whose promise is kept by SQL, which is not here: they
break what stands in for it, tests/model_database.py and tests/model_evaluate.py, and so show that the witness
would notice, and no more. They are:

- `no_single_flight`, `postgres_forgets_every_mark` and
  `a_second_try_at_the_verdict_is_taken_for_a_lost_lease`: begin_run.sql, record_heartbeat.sql and
  finish_run.sql;
- `cooldown_off`, `cooldown_and_keys_off`: scheduler.evaluate and the unique keys of the notifications;
- `freshness_believes_a_dead_engine`: the column `covers`;
- `freshness_believes_what_began_before_a_scenario_was_enabled`: enabled_scenario_types.sql.

That the SQL itself keeps these promises is held by tests/postgres, and that the stand-in says what it says by
tests/postgres/test_model_differential.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import trio

import engine.coverage
import engine.dispatcher
import engine.freshness
import engine.run
import engine.runner
import engine.scheduler
import engine.started_run
import engine.trigger.direct
import engine.trigger.in_database
from engine.errors import InvocationFailed
from engine.fence import Fence
from engine.ledger import Ledger, Verdict
from engine.low_water_mark import LowWaterMark
from engine.mentors.postgres import PostgresMentors
from engine.mentors.protocol import IdRange, Page
from engine.run import Limits, Progress
from engine.tally import Tally
from engine.trigger.http import HttpTriggerEngine
from engine.trigger.protocol import Evaluation
from engine.walk import Walk
from tests.model_database import ModelDatabase
from tests.model_evaluate import ModelEvaluate

Mutation = Callable[[pytest.MonkeyPatch], None]


def mark_moved_at_fetch(patch: pytest.MonkeyPatch) -> None:
    """Whoever was fetched and never evaluated is lost (listmonk #3022, sidekiq #6405)."""

    def fetching(walk: Walk, **fields: Any) -> Progress:
        progress = Progress(walk, **fields)
        advance = walk.advance

        def advance_with_the_mark(page: Page) -> None:
            advance(page)
            if page.mentor_ids:
                mark = progress.low_water_mark
                mark.last_id = page.mentor_ids[-1]
                mark.mentors += len(page.mentor_ids)

        walk.advance = advance_with_the_mark  # type: ignore[method-assign]
        return progress

    patch.setattr(engine.scheduler, "Progress", fetching)
    patch.setattr(LowWaterMark, "finish", lambda self, chunk, evaluated: None)


def mark_moved_past_a_gap(patch: pytest.MonkeyPatch) -> None:
    """The last chunk that was finished, whatever is missing before it."""

    def finish(self: LowWaterMark, chunk: Any, evaluated: int) -> None:
        self.last_id = chunk.mentor_ids[-1]
        self.mentors += len(chunk.mentor_ids)
        self.evaluated += evaluated

    patch.setattr(LowWaterMark, "finish", finish)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """A run that has lost its database, or was frozen, goes on though another has begun."""
    patch.setattr(Fence, "put_off_until", lambda self, moment: None)


def no_lease_check_in_heartbeats(patch: pytest.MonkeyPatch) -> None:
    record = Ledger.record_heartbeat

    async def record_and_believe(self: Ledger, *arguments: Any) -> bool:
        await record(self, *arguments)
        return True

    patch.setattr(Ledger, "record_heartbeat", record_and_believe)


def no_single_flight(patch: pytest.MonkeyPatch) -> None:
    """Whoever begins takes the lease, whether or not its holder still lives (mautic #1737, oban #1488)."""
    begin = ModelDatabase._begin_run

    def begin_anyway(self: ModelDatabase, run_id: UUID, types: Any, hard: float, lease: float) -> Any:
        return begin(self, run_id, types, hard, -1.0)

    patch.setattr(ModelDatabase, "_begin_run", begin_anyway)


def no_look_at_the_deadline_before_an_invocation(patch: pytest.MonkeyPatch) -> None:
    """A process that was frozen in mid-pass acts once more per dispatcher before trio cuts it."""

    patch.setattr(engine.dispatcher, "look_at_deadline", _look_at_nothing)


def no_look_at_the_deadline_before_a_call_is_made_again(patch: pytest.MonkeyPatch) -> None:
    """As it was before the simulation found it."""
    patch.setattr(engine.trigger.in_database, "look_at_deadline", _look_at_nothing)


async def _look_at_nothing() -> None:
    pass


def cooldown_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ModelEvaluate, "is_open", lambda *arguments: True)


def cooldown_and_keys_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ModelEvaluate, "is_open", lambda *arguments: True)
    patch.setattr(ModelEvaluate, "is_new", lambda *arguments: True)


def cap_off(patch: pytest.MonkeyPatch) -> None:
    def one_more(**limits: Any) -> Limits:
        return replace(Limits(**limits), max_concurrency=limits["max_concurrency"] + 1)

    patch.setattr(engine.runner, "Limits", one_more)


def failures_counted_as_evaluated(patch: pytest.MonkeyPatch) -> None:
    count_with = Tally.count_evaluation

    def count_all(self: Tally, mentors: int, evaluation: Evaluation) -> int:
        return count_with(self, mentors, replace(evaluation, errors={}))

    patch.setattr(Tally, "count_evaluation", count_all)


def a_chunk_that_failed_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tally, "count_failure", lambda self, mentors, error_class: None)


def a_run_that_resumes_does_not_wrap_round(patch: pytest.MonkeyPatch) -> None:
    """A partial walk is called finished (listmonk #1155, #2591)."""

    def first_stretch_only(stretches: Sequence[IdRange], **how: Any) -> Walk:
        return Walk(stretches[:1], **how)

    patch.setattr(engine.scheduler, "Walk", first_stretch_only)


def a_run_begins_at_the_beginning(patch: pytest.MonkeyPatch) -> None:
    """Whoever comes late in the ids waits for ever behind a budget."""

    def from_the_beginning(stretches: Sequence[IdRange], **how: Any) -> Walk:
        return Walk([IdRange()], **how)

    patch.setattr(engine.scheduler, "Walk", from_the_beginning)


def a_page_is_taken_for_the_last(patch: pytest.MonkeyPatch) -> None:
    fetch = PostgresMentors.fetch_page

    async def fetch_last(self: PostgresMentors, stretch: IdRange, page_size: int) -> Page:
        return replace(await fetch(self, stretch, page_size), is_last=True)

    patch.setattr(PostgresMentors, "fetch_page", fetch_last)


def no_hard_deadline(patch: pytest.MonkeyPatch) -> None:
    class Patient:
        """trio, but for the deadline."""

        def __getattr__(self, name: str) -> Any:
            return (lambda moment: trio.CancelScope()) if name == "move_on_at" else getattr(trio, name)

    patch.setattr(engine.run, "trio", Patient())


def the_answer_waits_for_its_row(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.started_run, "LAST_WRITE_GRACE", 60.0)


def a_drain_begins_what_was_fetched(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Walk, "draining", False)


def freshness_believes_every_run(patch: pytest.MonkeyPatch) -> None:
    stretches = engine.coverage.covered_stretches

    def all_of_it(started_after: UUID | None, mark: UUID | None, *, is_completed: bool) -> Any:
        return stretches(started_after, mark, is_completed=True)

    patch.setattr(engine.coverage, "covered_stretches", all_of_it)


def freshness_believes_a_dead_engine(patch: pytest.MonkeyPatch) -> None:
    """A run counts though all of its stretch were errors."""
    patch.setattr("tests.model_database._is_evaluated", lambda row: True)


def freshness_believes_what_began_before_a_scenario_was_enabled(patch: pytest.MonkeyPatch) -> None:
    """As it was before the simulation found it: disabled and enabled again in mid-run."""
    ask = ModelDatabase._enabled_scenario_types

    def since_ever(self: ModelDatabase) -> list[dict[str, Any]]:
        return [row | {"enabled_since": None} for row in ask(self)]

    patch.setattr(ModelDatabase, "_enabled_scenario_types", since_ever)


def a_second_try_at_the_verdict_is_taken_for_a_lost_lease(patch: pytest.MonkeyPatch) -> None:
    """As it was before the simulation found it."""
    finish = ModelDatabase._finish_run

    def finish_once(self: ModelDatabase, run_id: UUID, *rest: Any) -> Any:
        return finish(self, run_id, *rest) if self._running(run_id) else []

    patch.setattr(ModelDatabase, "_finish_run", finish_once)


def a_session_is_left_open(patch: pytest.MonkeyPatch) -> None:
    open_session = HttpTriggerEngine.open_session
    kept = []

    class Kept:
        def __init__(self, *arguments: Any) -> None:
            self._session = open_session(*arguments)
            kept.append(self._session)

        async def __aenter__(self) -> Any:
            return await self._session.__aenter__()

        async def __aexit__(self, *error: object) -> None:
            pass

    patch.setattr(HttpTriggerEngine, "open_session", lambda *arguments: Kept(*arguments))


def a_retry_without_end(patch: pytest.MonkeyPatch) -> None:
    """More than one retry, one after the other, without a look at the time that is left."""

    async def invoke_again_and_again(*arguments: Any) -> Any:
        while True:
            try:
                with trio.CancelScope(shield=True):
                    return await engine.dispatcher._invoke(*arguments[:4])
            except InvocationFailed as failure:
                if not failure.retryable:
                    raise
                await trio.sleep(0.5)

    patch.setattr(engine.dispatcher, "_invoke_with_retry", invoke_again_and_again)


def no_retry(patch: pytest.MonkeyPatch) -> None:
    async def once(*arguments: Any) -> Any:
        return await engine.dispatcher._invoke(*arguments[:4])

    patch.setattr(engine.dispatcher, "_invoke_with_retry", once)


def three_retries(patch: pytest.MonkeyPatch) -> None:
    async def four_times(*arguments: Any) -> Any:
        for _ in range(3):
            try:
                return await engine.dispatcher._invoke(*arguments[:4])
            except InvocationFailed as failure:
                if not failure.retryable:
                    raise
                await trio.sleep(max(0.3, failure.retry_after or 0.0))
        return await engine.dispatcher._invoke(*arguments[:4])

    patch.setattr(engine.dispatcher, "_invoke_with_retry", four_times)


def whatever_failed_is_tried_again(patch: pytest.MonkeyPatch) -> None:
    _fail_with(patch, retryable=True)


def retry_after_is_not_read(patch: pytest.MonkeyPatch) -> None:
    _fail_with(patch, retry_after=None)


def a_fence_that_is_near_is_no_time_for_a_retry(patch: pytest.MonkeyPatch) -> None:
    """As it was before the simulation found it."""
    ask = engine.dispatcher._invoke_with_retry

    async def ask_before_the_fence(*arguments: Any) -> Any:
        return await ask(*arguments[:4], trio.current_effective_deadline())

    patch.setattr(engine.dispatcher, "_invoke_with_retry", ask_before_the_fence)


def no_chunk_is_halved(patch: pytest.MonkeyPatch) -> None:
    _fail_with(patch, bisectable=False)


def every_chunk_that_failed_is_halved(patch: pytest.MonkeyPatch) -> None:
    _fail_with(patch, bisectable=True)


def _fail_with(patch: pytest.MonkeyPatch, **instead: Any) -> None:
    make = InvocationFailed.__init__

    def make_with(self: InvocationFailed, error_class: str, **how: Any) -> None:
        make(self, error_class, **how | instead)

    patch.setattr(InvocationFailed, "__init__", make_with)


def a_retry_has_a_key_of_its_own(patch: pytest.MonkeyPatch) -> None:
    encode = engine.trigger.direct._encode
    number = count()

    def encode_numbered(headers: Any) -> str:
        if "Idempotency-Key" in headers:
            headers = headers | {"Idempotency-Key": f"{headers['Idempotency-Key']}:{next(number)}"}
        return encode(headers)

    patch.setattr(engine.trigger.direct, "_encode", encode_numbered)


def no_look_at_the_deadline_after_connecting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.trigger.direct, "look_at_deadline", _look_at_nothing)


def a_mark_is_never_recorded(patch: pytest.MonkeyPatch) -> None:
    """Every run begins where the last one did: whoever comes late in the ids waits for ever."""
    heartbeats_do_not_record_the_mark(patch)
    finish = Ledger.finish_run

    async def finish_without(self: Ledger, run_id: UUID, verdict: Any, *rest: Any) -> bool:
        if verdict is Verdict.PARTIAL:
            rest = (*rest[:-1], LowWaterMark())
        return await finish(self, run_id, verdict, *rest)

    patch.setattr(Ledger, "finish_run", finish_without)


def heartbeats_do_not_record_the_mark(patch: pytest.MonkeyPatch) -> None:
    """What a killed run has done is lost."""
    record = Ledger.record_heartbeat

    async def record_without(self: Ledger, run_id: UUID, tally: Tally, mark: LowWaterMark) -> bool:
        return await record(self, run_id, tally, LowWaterMark())

    patch.setattr(Ledger, "record_heartbeat", record_without)


def the_mark_lags_by_a_chunk(patch: pytest.MonkeyPatch) -> None:
    finish = LowWaterMark.finish

    def finish_all_but_the_first(self: LowWaterMark, chunk: Any, evaluated: int) -> None:
        if chunk.index:
            finish(self, chunk, evaluated)

    patch.setattr(LowWaterMark, "finish", finish_all_but_the_first)


def postgres_forgets_every_mark(patch: pytest.MonkeyPatch) -> None:
    """What a run has done is lost between the wire and the row."""
    record = ModelDatabase._record_heartbeat

    def record_without(self: ModelDatabase, run_id: UUID, mark: Any, *counts: Any) -> Any:
        return record(self, run_id, None, *counts)

    patch.setattr(ModelDatabase, "_record_heartbeat", record_without)
