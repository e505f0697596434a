"""A model of the database, statement by statement, in virtual time. It passes the ledger's tests as well.

Its clock is trio's unless it is given another, put forward by `clock_offset`. A statement takes `latency`
seconds, takes effect in the middle of them, and fails while the database is `away`, or `refuses` it. Held
against Postgres by tests/postgres/test_model_differential.py.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import trio

from engine.database import RELEASE_TIMEOUT
from engine.errors import DatabaseUnavailable, StatementFailed
from engine.migrations import load_migrations
from engine.statements import Statement
from tests.model_evaluate import DAY, ModelEvaluate


class Row(dict[str, Any]):
    """As asyncpg's records: by name, and by position."""

    def __getitem__(self, key: str | int) -> Any:
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


@dataclass
class RunRow:
    """A row of scheduler.runs."""

    id: UUID
    scenario_types: list[str] | None
    evaluated_types: list[str]
    started_at: float
    heartbeat_at: float
    hard_deadline_at: float
    started_after: UUID | None
    verdict: str = "running"
    stop_reason: str | None = None
    finished_at: float | None = None
    low_water_mark: UUID | None = None
    remaining_known: bool = False
    counts: dict[str, Any] = field(default_factory=dict)
    is_sharded: bool = False

    def refuse_nonsense(self) -> None:
        """The table's checks."""
        counts = self.counts
        assert 0 <= counts["stretch_evaluated"] <= counts["stretch_mentors"], counts
        assert min(counts[name] for name in _COUNTS[2:7]) >= 0, counts
        assert (self.verdict in ("running", "abandoned")) == (self.finished_at is None)
        assert (self.verdict in ("completed", "partial")) == (self.stop_reason is not None)
        assert (self.verdict == "completed") == (self.stop_reason == "finished")
        if self.verdict == "completed":
            assert self.low_water_mark is None
            assert counts["total_unprocessed"] == 0
            assert self.remaining_known


@dataclass
class ShardRow:
    """A row of scheduler.shards."""

    run_id: UUID
    shard_index: int
    after_id: UUID | None
    until_id: UUID | None
    state: str = "waiting"
    worker: str | None = None
    claim: UUID | None = None
    deliveries: int = 0
    heartbeat_at: float | None = None
    wanted_at: float | None = None
    finished_at: float | None = None
    is_completed: bool = False
    low_water_mark: UUID | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SHARD_COUNTS, 0))


_COUNTS = (
    "stretch_mentors",
    "stretch_evaluated",
    "total_evaluated",
    "total_errors",
    "total_unprocessed",
    "total_dispatched",
    "total_suppressed",
    "dispatched",
    "suppressed",
    "errors",
)


_SHARD_COUNTS = _COUNTS[:7]


class ModelDatabase:
    """Stands in for engine.database.Database."""

    def __init__(
        self,
        mentor_ids: Iterable[UUID] = (),
        *,
        latency: float = 0.0,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.mentor_ids = sorted(mentor_ids)
        self.latency = latency
        self.clock = clock
        self.clock_offset = 0.0
        self.away: Callable[[float], bool] = lambda now: False
        self.hangs: Callable[[str, float], bool] = lambda statement, now: False
        self.refuses: Callable[[str, float], bool] = lambda statement, now: False
        self.scenario_types = {"expiry": True, "inactivity": True, "milestone": True}
        self.enabled_since: dict[str, float] = {}
        self.runs: list[RunRow] = []
        self.shards: list[ShardRow] = []
        self.last_run: dict[str, tuple[int, int, int]] = {}
        self.evaluations = ModelEvaluate({"expiry": 7 * DAY, "inactivity": 7 * DAY, "milestone": DAY})
        self.statements: list[tuple[str, float]] = []

    @property
    def now(self) -> float:
        return self.clock() + self.clock_offset

    def add_mentor(self, mentor_id: UUID) -> None:
        insort(self.mentor_ids, mentor_id)

    def switch(self, scenario_type: str, *, enabled: bool) -> None:
        """An operator enables the scenario, or disables it."""
        if enabled and not self.scenario_types[scenario_type]:
            self.enabled_since[scenario_type] = self.now
        self.scenario_types[scenario_type] = enabled

    def remove_mentor(self, mentor_id: UUID) -> None:
        self.mentor_ids.remove(mentor_id)

    async def fetch(self, statement: Statement, *arguments: Any, answer_within: float = 5.0) -> Sequence[Row]:
        asked_at = trio.current_time()
        self.statements.append((statement.name, asked_at))
        await trio.lowlevel.checkpoint()
        with trio.move_on_at(asked_at + answer_within):
            await trio.sleep(self.latency / 2)
            if self.hangs(statement.name, trio.current_time()):
                await _hang()
            self._refuse_while_away()
            if self.refuses(statement.name, trio.current_time()):
                raise StatementFailed(statement.name, "57014")
            rows = self.execute(statement.name, *arguments)
            await trio.sleep(self.latency / 2)
            self._refuse_while_away()
            return rows
        raise DatabaseUnavailable("Postgres did not answer in time.")

    def execute(self, name: str, *arguments: Any) -> list[Row]:
        """The statement of that name, at this moment."""
        return [Row(row) for row in getattr(self, f"_{name}")(*arguments)]

    def _refuse_while_away(self) -> None:
        if self.away(trio.current_time()):
            raise DatabaseUnavailable("Postgres is away.")

    # What follows is the statements of engine/sql/statements, named for their files.

    def _applied_migrations(self) -> list[dict[str, Any]]:
        return [{"version": each.version, "checksum": each.checksum} for each in load_migrations()]

    def _enabled_scenario_types(self) -> list[dict[str, Any]]:
        return [
            {"scenario_type": each, "enabled": on, "enabled_since": self.enabled_since.get(each)}
            for each, on in sorted(self.scenario_types.items())
        ]

    def _fetch_page(self, first: UUID, last: UUID, statuses: object, page_size: int) -> list[dict[str, Any]]:
        begin, end = bisect_left(self.mentor_ids, first), bisect_right(self.mentor_ids, last)
        return [{"id": each} for each in self.mentor_ids[begin : min(end, begin + page_size)]]

    def _count_mentors(self, first: UUID, last: UUID, statuses: object) -> list[dict[str, Any]]:
        begin, end = bisect_left(self.mentor_ids, first), bisect_right(self.mentor_ids, last)
        return [{"mentors": max(end - begin, 0)}]

    def _begin_run(
        self, run_id: UUID, scenario_types: Sequence[str] | None, hard_deadline: float, lease: float
    ) -> list[dict[str, Any]]:
        abandoned = None
        for row in self.runs:
            if row.verdict == "running" and row.heartbeat_at < self.now - lease:
                row.verdict, abandoned = "abandoned", row.id
        for holder in self.runs:
            if holder.verdict == "running":
                left = holder.hard_deadline_at - self.now
                return [_begun(is_begun=False, abandoned_id=abandoned, retry_after=left)]
        types = None if scenario_types is None else list(scenario_types)
        same = [row for row in self.runs if (row.scenario_types or []) == (types or [])]
        latest = max(same, key=lambda row: (row.started_at, row.id), default=None)
        mark = None
        if latest is not None and latest.verdict != "completed":
            mark = latest.low_water_mark or latest.started_after
        enabled = sorted(each for each, on in self.scenario_types.items() if on)
        self.runs.append(
            RunRow(
                *(run_id, types, enabled if types is None else types),
                *(self.now, self.now, self.now + hard_deadline, mark),
            )
        )
        return [_begun(is_begun=True, started_after=mark, abandoned_id=abandoned)]

    def _record_heartbeat(self, run_id: UUID, mark: UUID | None, *counts: Any) -> list[dict[str, Any]]:
        for row in self._running(run_id):
            row.heartbeat_at = self.now
            row.low_water_mark = mark
            row.counts = dict(zip(_COUNTS, counts, strict=True))
            return [{"id": run_id}]
        return []

    def _finish_run(self, run_id: UUID, mark: UUID | None, *rest: Any) -> list[dict[str, Any]]:
        counts, (verdict, stop_reason, remaining_known, _, retention) = (
            rest[: len(_COUNTS)],
            rest[len(_COUNTS) :],
        )
        for row in self._running(run_id):
            self._record_heartbeat(run_id, mark, *counts)
            row.verdict, row.stop_reason, row.finished_at = str(verdict), stop_reason, self.now
            row.remaining_known = remaining_known
            row.refuse_nonsense()
            for scenario_type in set(row.evaluated_types) & set(self.scenario_types):
                by_type = [json.loads(row.counts[name]) for name in ("dispatched", "suppressed")]
                self.last_run[scenario_type] = (
                    row.counts["total_evaluated"],
                    *(each.get(scenario_type, 0) for each in by_type),
                )
            self.runs = [each for each in self.runs if each is row or each.started_at >= self.now - retention]
            return [{"id": run_id}]
        return [{"id": row.id} for row in self.runs if row.id == run_id and row.verdict == verdict]

    def _covering_runs(
        self, started_at: float | None, run_id: UUID | None, scenario_types: Sequence[str], page_size: int
    ) -> list[dict[str, Any]]:
        newest_first = sorted(self.runs, key=lambda row: (row.started_at, row.id), reverse=True)
        return [
            {
                "id": row.id,
                "started_at": row.started_at,
                "age": max(self.now - row.started_at, 0.0),
                "is_completed": row.verdict == "completed" and _is_evaluated(row),
                "started_after": row.started_after,
                "low_water_mark": row.low_water_mark,
                "evaluated_types": row.evaluated_types,
            }
            | self._covered_by_shards(row)
            for row in newest_first
            if covers(row)
            and (run_id is None or (row.started_at, row.id) < (started_at, run_id))
            and set(row.evaluated_types) & set(scenario_types)
        ][:page_size]

    def _covered_by_shards(self, run: RunRow) -> dict[str, Any]:
        covering = [each for each in self._shards_of(run.id) if covers(each)]
        if not covering:
            return {"after_ids": None, "until_ids": None}
        return {
            "after_ids": [each.after_id for each in covering],
            "until_ids": [each.until_id if each.is_completed else each.low_water_mark for each in covering],
        }

    def _sample_mentors(self, size: int) -> list[dict[str, Any]]:
        step = max(len(self.mentor_ids) // size, 1)
        return [{"id": each} for each in self.mentor_ids[step - 1 :: step]]

    def _span_of_mentors(self) -> list[dict[str, Any]]:
        ends = [self.mentor_ids[0], self.mentor_ids[-1]] if self.mentor_ids else [None, None]
        return [dict(zip(("lowest", "highest"), ends, strict=True))]

    def _previous_shards(self, run_id: UUID) -> list[dict[str, Any]]:
        [this] = [row for row in self.runs if row.id == run_id]
        before = [
            row
            for row in self.runs
            if (row.scenario_types or []) == (this.scenario_types or [])
            and (row.started_at, row.id) < (this.started_at, this.id)
            and (row.is_sharded or row.low_water_mark is not None or row.verdict == "completed")
        ]
        latest = max(before, key=lambda row: (row.started_at, row.id), default=None)
        if latest is None or latest.verdict == "completed":
            return []
        names = ("after_id", "until_id", "low_water_mark", "is_completed")
        return [{name: getattr(each, name) for name in names} for each in self._shards_of(latest.id)]

    def _plan_shards(
        self,
        run_id: UUID,
        after_ids: Sequence[UUID | None],
        until_ids: Sequence[UUID | None],
        retention: float,
    ) -> list[dict[str, Any]]:
        for row in self._running(run_id):
            row.is_sharded = True
            known = {each.shard_index for each in self._shards_of(run_id)}
            for index, (after, until) in enumerate(zip(after_ids, until_ids, strict=True)):
                if index not in known:
                    self.shards.append(ShardRow(run_id, index, after, until))
            old = {
                run.id
                for run in self.runs
                if retention < self.now - run.started_at < retention + 86_400 and run.is_sharded
            }
            self.shards = [each for each in self.shards if each.run_id not in old]
            return [{"at": self.now}]
        return []

    def _claim_shard(
        self,
        run_id: UUID,
        shard_index: int,
        after_id: UUID | None,
        until_id: UUID | None,
        scenario_types: Sequence[str] | None,
        hard_deadline_at: float,
        worker: str,
        claim: UUID,
        ack_wait: float,
        fence_after: float,
    ) -> list[dict[str, Any]]:
        runs = [row for row in self.runs if row.id == run_id]
        shards = [each for each in self._shards_of(run_id) if each.shard_index == shard_index]
        answer = {"outcome": "unknown", "at": self.now, "run_age": None, "held_for": None}
        for run in runs:
            answer["run_age"] = self.now - run.heartbeat_at
            types = None if scenario_types is None else list(scenario_types)
            others = [
                each.heartbeat_at + ack_wait - self.now
                for each in self.shards
                if each.state == "running" and each.heartbeat_at is not None and each.run_id != run_id
            ]
            others_for = max(others, default=0.0)
            for shard in shards:
                held_for = 0.0
                if shard.state == "running" and shard.heartbeat_at is not None:
                    held_for = shard.heartbeat_at + ack_wait - self.now
                answer["held_for"] = max(held_for, others_for)
                if (run.scenario_types, shard.after_id, shard.until_id) != (types, after_id, until_id) or (
                    run.hard_deadline_at < hard_deadline_at - 1
                ):
                    answer["outcome"] = "contradicted"
                elif not self._lives(run, fence_after):
                    answer["outcome"] = "ended"
                elif shard.state in ("finished", "withdrawn"):
                    answer["outcome"] = shard.state
                elif held_for > 0 and shard.claim != claim:
                    answer["outcome"], shard.wanted_at = "held", self.now
                elif others_for > 0:
                    answer["outcome"] = "held"
                else:
                    answer["outcome"] = "claimed"
                    shard.deliveries += shard.claim != claim
                    shard.state, shard.worker, shard.claim = "running", worker, claim
                    shard.heartbeat_at, shard.wanted_at = self.now, None
        return [answer]

    def _record_shard_heartbeat(
        self,
        run_id: UUID,
        shard_index: int,
        claim: UUID,
        fence_after: float,
        mark: UUID | None,
        *counts: int,
    ) -> list[dict[str, Any]]:
        for run in self._running(run_id):
            for shard in self._claimed(run_id, shard_index, claim):
                if self._lives(run, fence_after):
                    shard.heartbeat_at, shard.low_water_mark = self.now, mark
                    shard.counts = dict(zip(_SHARD_COUNTS, counts, strict=True))
                    is_wanted = shard.wanted_at is not None
                    return [{"run_age": self.now - run.heartbeat_at, "is_wanted": is_wanted}]
        return []

    def _finish_shard(
        self, run_id: UUID, shard_index: int, claim: UUID, mark: UUID | None, *rest: Any
    ) -> list[dict[str, Any]]:
        for shard in self._claimed(run_id, shard_index, claim):
            *counts, is_completed = rest
            shard.state, shard.heartbeat_at, shard.finished_at = "finished", self.now, self.now
            shard.low_water_mark, shard.is_completed = mark, is_completed
            shard.counts = dict(zip(_SHARD_COUNTS, counts, strict=True))
            return [{"shard_index": shard_index}]
        return []

    def _withdraw_shards(self, run_id: UUID) -> list[dict[str, Any]]:
        for shard in self._shards_of(run_id):
            if shard.state == "waiting":
                shard.state = "withdrawn"
        return [
            {"shard_index": shard.shard_index}
            for shard in self._shards_of(run_id)
            if shard.state == "withdrawn"
        ]

    def _shards_of(self, run_id: UUID) -> list[ShardRow]:
        return [shard for shard in self.shards if shard.run_id == run_id]

    def _claimed(self, run_id: UUID, shard_index: int, claim: UUID) -> list[ShardRow]:
        return [
            shard
            for shard in self._shards_of(run_id)
            if (shard.shard_index, shard.claim, shard.state) == (shard_index, claim, "running")
        ]

    def _lives(self, run: RunRow, fence_after: float) -> bool:
        return run.verdict == "running" and run.heartbeat_at >= self.now - fence_after

    def _evaluate_and_count(
        self,
        mentor_ids: Sequence[UUID],
        scenario_types: Sequence[str] | None,
        dry_run: bool,
        run_id: UUID | None,
        overrides: str | None,
    ) -> list[dict[str, Any]]:
        assert overrides is None, "the model knows one configuration"
        answers = self.evaluate(mentor_ids, scenario_types, dry_run=dry_run, run_id=run_id).values()
        counted = {}
        for position, name in enumerate(("dispatched", "suppressed")):
            for answer in answers:
                for scenario_type in answer[position]:
                    counts = counted.setdefault(scenario_type, {"dispatched": 0, "suppressed": 0})
                    counts[name] += 1
        return [{"scenario_type": each, **counts} for each, counts in sorted(counted.items())]

    def evaluate(
        self,
        mentor_ids: Sequence[UUID],
        scenario_types: Sequence[str] | None,
        *,
        dry_run: bool = False,
        run_id: UUID | None = None,
    ) -> dict[UUID, tuple[list[str], list[str]]]:
        """scheduler.evaluate: dispatched and suppressed types per mentor."""
        enabled = [each for each, on in self.scenario_types.items() if on]
        types = [each for each in enabled if scenario_types is None or each in scenario_types]
        return self.evaluations.evaluate(mentor_ids, types, dry_run=dry_run, run_id=run_id, now=self.now)

    def _running(self, run_id: UUID) -> list[RunRow]:
        return [row for row in self.runs if row.id == run_id and row.verdict == "running"]


async def _hang() -> None:
    """As long as the caller waits, and then as long as a connection to a silent server is given back for."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(RELEASE_TIMEOUT)


def covers(row: RunRow | ShardRow) -> bool:
    """The column of that name: of a run with shards it is up to each of these."""
    if isinstance(row, RunRow):
        is_completed, is_sharded = row.verdict == "completed", row.is_sharded
    else:
        is_completed, is_sharded = row.is_completed, False
    return is_sharded or ((is_completed or row.low_water_mark is not None) and _is_evaluated(row))


def _is_evaluated(row: RunRow | ShardRow) -> bool:
    mentors, evaluated = (row.counts.get(name, 0) for name in ("stretch_mentors", "stretch_evaluated"))
    return evaluated * 10 >= mentors * 9


def _begun(**values: Any) -> dict[str, Any]:
    return {"is_begun": None, "started_after": None, "abandoned_id": None, "retry_after": None} | values


def decoded(counts: dict[str, Any]) -> dict[str, Any]:
    """With what is kept as JSON read."""
    return counts | {name: json.loads(counts[name]) for name in _COUNTS[-3:] if name in counts}
