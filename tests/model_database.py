"""A model of the database, statement by statement, in virtual time. It passes the ledger's tests as well.

Its clock is trio's, put forward by `clock_offset`. A statement takes `latency` seconds, takes effect in the
middle of them, and fails while the database is `away`.
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
from engine.errors import DatabaseUnavailable
from engine.migrations import load_migrations
from engine.statements import Statement


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
    counts: dict[str, Any] = field(default_factory=dict)


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


class ModelDatabase:
    """Stands in for engine.database.Database."""

    def __init__(self, mentor_ids: Iterable[UUID] = (), *, latency: float = 0.0) -> None:
        self.mentor_ids = sorted(mentor_ids)
        self.latency = latency
        self.clock_offset = 0.0
        self.away: Callable[[float], bool] = lambda now: False
        self.hangs: Callable[[str, float], bool] = lambda statement, now: False
        self.scenario_types = {"expiry": True, "inactivity": True, "milestone": True}
        self.runs: list[RunRow] = []
        self.statements: list[tuple[str, float]] = []

    @property
    def now(self) -> float:
        return trio.current_time() + self.clock_offset

    def add_mentor(self, mentor_id: UUID) -> None:
        insort(self.mentor_ids, mentor_id)

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
            rows = getattr(self, f"_{statement.name}")(*arguments)
            await trio.sleep(self.latency / 2)
            self._refuse_while_away()
            return [Row(row) for row in rows]
        raise DatabaseUnavailable("Postgres did not answer in time.")

    def _refuse_while_away(self) -> None:
        if self.away(trio.current_time()):
            raise DatabaseUnavailable("Postgres is away.")

    # What follows is the statements of engine/sql/statements, named for their files.

    def _applied_migrations(self) -> list[dict[str, Any]]:
        return [{"version": each.version, "checksum": each.checksum} for each in load_migrations()]

    def _enabled_scenario_types(self) -> list[dict[str, Any]]:
        return [{"scenario_type": each, "enabled": on} for each, on in sorted(self.scenario_types.items())]

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
        mark = None
        if same and same[-1].verdict != "completed":
            mark = same[-1].low_water_mark or same[-1].started_after
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
        counts, (verdict, stop_reason, _, _, retention) = rest[: len(_COUNTS)], rest[len(_COUNTS) :]
        for row in self._running(run_id):
            self._record_heartbeat(run_id, mark, *counts)
            row.verdict, row.stop_reason, row.finished_at = str(verdict), stop_reason, self.now
            self.runs = [each for each in self.runs if each.started_at >= self.now - retention]
            return [{"id": run_id}]
        return []

    def _covering_runs(
        self, started_at: float | None, run_id: UUID | None, scenario_types: Sequence[str], page_size: int
    ) -> list[dict[str, Any]]:
        newest_first = sorted(self.runs, key=lambda row: (row.started_at, row.id), reverse=True)
        return [
            {
                "id": row.id,
                "started_at": row.started_at,
                "age": self.now - row.started_at,
                "is_completed": row.verdict == "completed",
                "started_after": row.started_after,
                "low_water_mark": row.low_water_mark,
                "evaluated_types": row.evaluated_types,
            }
            for row in newest_first
            if _covers(row)
            and (run_id is None or (row.started_at, row.id) < (started_at, run_id))
            and set(row.evaluated_types) & set(scenario_types)
        ][:page_size]

    def _running(self, run_id: UUID) -> list[RunRow]:
        return [row for row in self.runs if row.id == run_id and row.verdict == "running"]


async def _hang() -> None:
    """As long as the caller waits, and then as long as a connection to a silent server is given back for."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(RELEASE_TIMEOUT)


def _covers(row: RunRow) -> bool:
    is_stretch = row.verdict == "completed" or row.low_water_mark is not None
    mentors, evaluated = (row.counts.get(name, 0) for name in ("stretch_mentors", "stretch_evaluated"))
    return is_stretch and evaluated * 10 >= mentors * 9


def _begun(**values: Any) -> dict[str, Any]:
    return {"is_begun": None, "started_after": None, "abandoned_id": None, "retry_after": None} | values


def decoded(counts: dict[str, Any]) -> dict[str, Any]:
    """With what is kept as JSON read."""
    return counts | {name: json.loads(counts[name]) for name in _COUNTS[-3:] if name in counts}
