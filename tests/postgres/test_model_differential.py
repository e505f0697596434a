"""The model of tests/model_database.py against Postgres: the same histories, the same answers.

What the simulation finds is worth as much as its model of the database. Time passes in both by moving what is
stored into the past, or forward, as when a clock is put back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from random import Random
from typing import Any
from uuid import UUID

import pytest

from engine.database import Database, Transaction
from engine.ledger import LEASE
from engine.statements import load_statement
from tests.model_database import ModelDatabase, covers, decoded
from tests.model_evaluate import ModelEvaluate
from tests.postgres.conftest import add_mentor, evaluate, move_back, query, value

# 16 histories of 40 steps take 3 s on either version of Postgres.
HISTORIES, STEPS = 16, 40

RETENTION = 5_000_000.0

TYPES = ("expiry", "inactivity", "milestone")

EMPTY = (
    "truncate scheduler.runs, scheduler.shards, scheduler.cooldowns, scheduler.notifications, "
    "public.peer_mentors, public.assignments, public.activities",
    "update scheduler.scenario_evaluation_config set enabled = true",
    "update scheduler.scenario_evaluation_config set enabled_since = null, "
    "last_run_evaluated = null, last_run_dispatched = null, last_run_suppressed = null",
)

ROWS = """
    select id, verdict, stop_reason, scenario_types, evaluated_types, started_after, low_water_mark,
           remaining_known, covers, finished_at is not null as has_finished, stretch_mentors,
           stretch_evaluated, total_evaluated, total_errors, total_unprocessed, total_dispatched,
           total_suppressed, dispatched, suppressed, errors
      from scheduler.runs order by started_at, id
"""
SENT = """
    select mentor_id, scenario_type, run_id,
           extract(epoch from cooldown_window_start)::double precision as sent_at
      from scheduler.notifications order by cooldown_window_start, mentor_id, scenario_type
"""
LAST_RUN = """
    select scenario_type, last_run_evaluated, last_run_dispatched, last_run_suppressed
      from scheduler.scenario_evaluation_config where last_run_evaluated is not null order by 1
"""

# Seconds: within a lease and beyond it, within a cooldown and beyond it; and a clock that is put back.
PASSING = (1.0, 4.0, 9.0, 11.0, 60.0, 3_600.0, 40_000.0, 90_000.0, 610_000.0, -3.0, -700.0)


class Both:
    """The model and a Postgres, in step."""

    def __init__(self, database: Database, rng: Random) -> None:
        self.rng = rng
        self.steps: list[str] = []
        self._database = database
        self._now = 0.0
        self.model = ModelDatabase(clock=lambda: self._now)
        self.model.evaluations.is_due = self._is_due
        self._due: dict[UUID, set[str]] = {}
        self._run_ids = [UUID(int=rng.getrandbits(128))]
        self._ids = sorted(UUID(int=rng.getrandbits(128)) for _ in range(8))

    def _is_due(self, mentor_id: UUID, scenario_type: str) -> bool:
        if mentor_id not in self.model.mentor_ids or scenario_type not in self._due[mentor_id]:
            return False
        sent = self.model.evaluations.notifications
        # A milestone is told once, whatever its cooldown.
        return scenario_type != "milestone" or not any(
            each.mentor_id == mentor_id and each.scenario_type == "milestone" for each in sent
        )

    async def ask(self, name: str, *arguments: Any) -> list[dict[str, Any]]:
        """The statement, of both. What both say."""
        self.steps.append(f"{name} {arguments}")
        async with self._database.open_transaction() as transaction:
            await self._tell_time(transaction)
            rows = await transaction.fetch(load_statement(name), *arguments)
        said = [dict(row) for row in self.model.execute(name, *arguments)]
        found = [_in_seconds(row) for row in rows]
        if name == "evaluate_and_count":
            found.sort(key=lambda row: str(row["scenario_type"]))  # grouped, which no order follows from
        self.compare([_nearly(row) for row in said], found)
        return said

    async def _tell_time(self, transaction: Transaction) -> None:
        self._now = float(await value(transaction, "select extract(epoch from now())::double precision"))

    def compare(self, said: Any, found: Any) -> None:
        steps = "\n".join(self.steps)
        assert said == found, f"The model says {said}, Postgres {found}, after\n{steps}"

    async def compare_rows(self) -> None:
        found = [decoded(dict(row)) for row in await query(self._database, ROWS)]
        none = dict.fromkeys(("dispatched", "suppressed", "errors"), "{}")
        said = []
        for row in sorted(self.model.runs, key=lambda row: (row.started_at, row.id)):
            names = ("id", "verdict", "stop_reason", "scenario_types", "evaluated_types", "started_after")
            names += ("low_water_mark", "remaining_known")
            said.append(
                {name: getattr(row, name) for name in names}
                | {"covers": covers(row), "has_finished": row.finished_at is not None}
                | dict.fromkeys(COUNTS, 0)
                | decoded(none | row.counts)
            )
        self.compare(said, found)
        counts = {row[0]: tuple(row)[1:] for row in await query(self._database, LAST_RUN)}
        self.compare(self.model.last_run, counts)

    # The steps.

    async def begin(self) -> None:
        run_id = UUID(int=self.rng.getrandbits(128))
        types = self.rng.choice((None, None, ["expiry"], ["expiry", "milestone"], ["inactivity"]))
        [row] = await self.ask("begin_run", run_id, types, self.rng.choice((5.0, 28.0)), LEASE)
        if row["is_begun"]:
            self._run_ids.append(run_id)

    async def beat(self) -> None:
        await self.ask("record_heartbeat", self._some_run(), *self._progress(self.rng.randint(0, 9)))

    async def finish(self) -> None:
        verdict = self.rng.choice(("completed", "partial", "failed"))
        left = 0 if verdict == "completed" else self.rng.randint(0, 9)
        mark, *counts = self._progress(left)
        stop_reason = {"completed": "finished", "partial": "soft_threshold", "failed": None}[verdict]
        arguments = (None if verdict == "completed" else mark, *counts, verdict, stop_reason)
        known = verdict == "completed" or self.rng.random() < 0.5
        asked = (self._some_run(), *arguments, known, 1500, RETENTION)
        await self.ask("finish_run", *asked)
        if self.rng.random() < 0.3:
            await self.ask("finish_run", *asked)  # the answer was lost

    def _some_run(self) -> UUID:
        return self._run_ids[-1] if self.rng.random() < 0.7 else self.rng.choice(self._run_ids)

    def _progress(self, unprocessed: int) -> tuple[Any, ...]:
        rng = self.rng
        mentors = rng.randint(0, 40)
        evaluated = mentors - rng.choice((0, 0, mentors // 10, mentors // 8, mentors))
        by_type = [json.dumps({each: rng.randint(0, 5) for each in rng.sample(TYPES, 2)}) for _ in range(2)]
        totals = [sum(json.loads(each).values()) for each in by_type]
        errors = mentors - evaluated
        counts = (mentors, evaluated, evaluated, errors, unprocessed, *totals, *by_type)
        return rng.choice((None, *self._ids)), *counts, json.dumps({"timeout": errors} if errors else {})

    async def fetch(self) -> None:
        first, last = (self.rng.choice((UUID(int=0), UUID(int=2**128 - 1), *self._ids)) for _ in range(2))
        await self.ask("fetch_page", first, last, ["active"], self.rng.randint(1, 5))
        await self.ask("count_mentors", first, last, ["active"])

    async def come(self) -> None:
        mentor_id = self.rng.choice(self._ids)
        if mentor_id in self._due:
            return
        due = {each for each in TYPES if self.rng.random() < 0.5}
        self.steps.append(f"comes {mentor_id} {due}")
        self._due[mentor_id] = due
        self.model.add_mentor(mentor_id)
        await add_mentor(
            self._database,
            id=mentor_id,
            # Their day is today or long ago, so that nobody falls due as the hours of a test pass.
            last_activity=40 if "inactivity" in due else 0,
            activities=10 if "milestone" in due else 1,
            expires_in=3 if "expiry" in due else 60,
        )

    async def go(self) -> None:
        if not self.model.mentor_ids:
            return
        mentor_id = self.rng.choice(self.model.mentor_ids)
        self.steps.append(f"goes {mentor_id}")
        self.model.remove_mentor(mentor_id)
        await query(
            self._database,
            "update public.peer_mentors set status = 'deactivated' where id = $1",
            mentor_id,
        )

    async def switch(self) -> None:
        scenario_type, enabled = self.rng.choice(TYPES), self.rng.random() < 0.7
        self.steps.append(f"{scenario_type} is enabled: {enabled}")
        async with self._database.open_transaction() as transaction:
            await self._tell_time(transaction)
            await query(
                transaction,
                "update scheduler.scenario_evaluation_config set enabled = $2 where scenario_type = $1",
                *(scenario_type, enabled),
            )
        self.model.switch(scenario_type, enabled=enabled)
        await self.ask("enabled_scenario_types")

    async def look(self) -> None:
        """All pages of the runs that cover."""
        types = self.rng.sample(TYPES, self.rng.randint(1, 3))
        page_size = self.rng.randint(1, 4)
        statement = load_statement("covering_runs")
        last: tuple[Any, Any] = (None, None), (None, None)
        self.steps.append(f"covering_runs {types} {page_size}")
        while True:
            async with self._database.open_transaction() as transaction:
                await self._tell_time(transaction)
                rows = await transaction.fetch(statement, *last[0], types, page_size)
            said = self.model.execute("covering_runs", *last[1], types, page_size)
            # The same moment is another number on the model's clock.
            found = [{name: row[name] for name in dict(row) if name != "started_at"} for row in rows]
            known = [_nearly({name: row[name] for name in row if name != "started_at"}) for row in said]
            self.compare(known, found)
            if len(said) < page_size:
                break
            last = (rows[-1]["started_at"], rows[-1]["id"]), (said[-1]["started_at"], said[-1]["id"])

    async def evaluate(self) -> None:
        mentor_ids = self.rng.choices(self._ids, k=self.rng.randint(1, 8))
        types = self.rng.choice((None, None, ["expiry"], ["inactivity", "milestone"]))
        dry_run = self.rng.random() < 0.2
        run_id = self.rng.choice((None, *self._run_ids[-2:]))
        if self.rng.random() < 0.5:
            await self.ask("evaluate_and_count", mentor_ids, types, dry_run, run_id, None)
            await self._compare_notifications()
            return
        self.steps.append(f"evaluate {mentor_ids} {types} {dry_run} {run_id}")
        async with self._database.open_transaction() as transaction:
            await self._tell_time(transaction)
            found = await evaluate(transaction, mentor_ids, types=types, dry_run=dry_run, run_id=run_id)
        said = self.model.evaluate(mentor_ids, types, dry_run=dry_run, run_id=run_id)
        self.compare(said, found)
        await self._compare_notifications()

    async def _compare_notifications(self) -> None:
        """Who was sent what, by which run, and when: what is counted is not all that is said."""
        found = [tuple(row) for row in await query(self._database, SENT)]
        said = [
            (each.mentor_id, each.scenario_type, each.run_id, each.sent_at)
            for each in self.model.evaluations.notifications
        ]
        said.sort(key=lambda sent: (sent[3], sent[0], sent[1]))
        self.compare([each[:3] for each in said], [each[:3] for each in found])
        self.compare([pytest.approx(each[3], abs=1e-3) for each in said], [each[3] for each in found])

    async def forget(self) -> None:
        """Somebody takes a cooldown's row away; a key stands behind it."""
        if not self.model.evaluations.windows:
            return
        mentor_id, scenario_type = self.rng.choice(list(self.model.evaluations.windows))
        self.steps.append(f"the cooldown of {mentor_id} for {scenario_type} is forgotten")
        del self.model.evaluations.windows[mentor_id, scenario_type]
        await query(
            self._database,
            "delete from scheduler.cooldowns c using scheduler.mentors m "
            "where m.id = $1 and c.user_id = m.user_id and c.scenario_type = $2",
            *(mentor_id, scenario_type),
        )

    async def pass_time(self) -> None:
        seconds = self.rng.choice(PASSING)
        self.steps.append(f"{seconds} s pass")
        for row in self.model.runs:
            row.started_at -= seconds
            row.heartbeat_at -= seconds
            row.hard_deadline_at -= seconds
        since = self.model.enabled_since
        self.model.enabled_since = {each: moment - seconds for each, moment in since.items()}
        self.model.evaluations.move_back(seconds)
        await query(
            self._database,
            "update scheduler.scenario_evaluation_config "
            "set enabled_since = enabled_since - make_interval(secs => $1)",
            seconds,
        )
        await query(
            self._database,
            "update scheduler.runs set started_at = started_at - make_interval(secs => $1), "
            "heartbeat_at = heartbeat_at - make_interval(secs => $1), "
            "hard_deadline_at = hard_deadline_at - make_interval(secs => $1)",
            seconds,
        )
        await move_back(self._database, f"interval '{seconds} seconds'")


COUNTS = (
    *("stretch_mentors", "stretch_evaluated", "total_evaluated", "total_errors", "total_unprocessed"),
    *("total_dispatched", "total_suppressed"),
)

Steps = Mapping[Callable[[Both], Any], int]

OF_RUNS: Steps = {Both.begin: 5, Both.beat: 3, Both.finish: 4, Both.fetch: 2, Both.look: 2, Both.switch: 1}
OF_MENTORS: Steps = {Both.come: 3, Both.go: 1, Both.evaluate: 6, Both.forget: 1, Both.pass_time: 4}

WRITING = (Both.begin, Both.beat, Both.finish)


# Seconds by which the two may differ: two of these are of a moment after the statement began.
WITHIN = {"age": 1e-3, "retry_after": 2.0, "enabled_since": 2.0}


def _in_seconds(row: Any) -> dict[str, Any]:
    return {name: each.timestamp() if isinstance(each, datetime) else each for name, each in row.items()}


def _nearly(row: Mapping[str, Any]) -> dict[str, Any]:
    """Equal to a row of Postgres's if it is right."""
    return {
        name: pytest.approx(each, abs=WITHIN[name]) if name in WITHIN and each is not None else each
        for name, each in row.items()
    }


async def compare_histories(database: Database, choices: Steps) -> None:
    for seed in range(HISTORIES):
        for sql in EMPTY:
            await query(database, sql)
        rng = Random(seed)
        both = Both(database, rng)
        both.steps.append(f"History {seed}")
        for step in rng.choices(list(choices), list(choices.values()), k=STEPS):
            await step(both)
            if step in WRITING:
                await both.compare_rows()


async def test_the_model_says_what_postgres_says_in_every_history(database: Database) -> None:
    await compare_histories(database, {**OF_RUNS, **OF_MENTORS})


@pytest.mark.parametrize("seam", ["is_open", "is_new"])
async def test_a_model_without_a_window_or_a_key_is_found_out(
    seam: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelEvaluate, seam, lambda *arguments: True)
    with pytest.raises(AssertionError, match="The model says"):
        await compare_histories(database, OF_MENTORS)


async def test_a_model_that_takes_over_too_early_is_found_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = ModelDatabase._begin_run
    monkeypatch.setattr(
        ModelDatabase, "_begin_run", lambda self, *others: begin(self, *others[:-1], others[-1] - 2.0)
    )
    with pytest.raises(AssertionError, match="The model says"):
        await compare_histories(database, {Both.begin: 5, Both.beat: 1, Both.pass_time: 4})
