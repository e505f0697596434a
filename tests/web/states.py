"""What a ledger can look like, made up: each state that the dashboard has a face for. No database."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from engine import DatabaseUnavailable, Freshness, LiveRun, RunRecord, ShardRecord
from tests.web.conftest import FakeScheduler

NOW = datetime(2026, 11, 23, 10, 0, 40, tzinfo=UTC)
TYPES = ("expiry", "inactivity", "milestone")
LIMIT = 900.0

# As long as a scenario type can be.
LONG_TYPE = "a_scenario_of_the_users_own_whose_type_is_54_long_____"

MENTORS = 12_300


def run_id(number: int) -> UUID:
    return UUID(int=0x0193A0B0_C0D0_7000_8000_000000000000 + number)


def record(
    number: int,
    started_at: datetime,
    *,
    verdict: str = "completed",
    stop_reason: str | None = "finished",
    seconds: float = 7.5,
    mentors: int = MENTORS,
    unprocessed: int = 0,
    errors: Mapping[str, int] | None = None,
    dispatched: Mapping[str, int] | None = None,
    suppressed: Mapping[str, int] | None = None,
    shards: int = 0,
    workers: int = 0,
    redelivered: int = 0,
) -> RunRecord:
    errors, dispatched, suppressed = errors or {}, dispatched or {}, suppressed or {}
    failed = sum(errors.values())
    ended = verdict in ("completed", "partial", "failed")
    return RunRecord(
        run_id=run_id(number),
        verdict=verdict,
        stop_reason=stop_reason if verdict in ("completed", "partial") else None,
        scenario_types=None,
        evaluated_types=TYPES,
        resumed=False,
        started_at=started_at,
        heartbeat_at=started_at + timedelta(seconds=seconds),
        finished_at=started_at + timedelta(seconds=seconds) if ended else None,
        duration_ms=round(seconds * 1000),
        total_active_mentors=mentors,
        total_evaluated=mentors - unprocessed - failed,
        total_dispatched=sum(dispatched.values()),
        total_suppressed=sum(suppressed.values()),
        total_errors=failed,
        total_unprocessed=unprocessed,
        remaining_known=verdict in ("completed", "partial"),
        stretch_mentors=mentors - unprocessed,
        stretch_evaluated=mentors - unprocessed - failed,
        dispatched=dispatched,
        suppressed=suppressed,
        errors=errors,
        total_shards=shards,
        total_workers=workers,
        total_redelivered=redelivered,
    )


def shard(
    index: int,
    state: str = "finished",
    *,
    worker: str | None = "worker-a.example:71",
    deliveries: int = 1,
    age: float = 0.4,
    seconds: float = 2.1,
    evaluated: int = 380,
    errors: int = 0,
    unprocessed: int = 0,
    share: float = 0.031,
) -> ShardRecord:
    """`age` in seconds since its last heartbeat."""
    if state in ("waiting", "withdrawn"):
        worker, deliveries, evaluated = None, 0, 0
    heartbeat_at = NOW - timedelta(seconds=age) if deliveries else None
    return ShardRecord(
        shard_index=index,
        state=state,
        worker=worker,
        deliveries=deliveries,
        heartbeat_at=heartbeat_at,
        heartbeat_age=age if deliveries else None,
        finished_at=heartbeat_at if state == "finished" else None,
        duration_ms=round(seconds * 1000) if deliveries else None,
        is_completed=state == "finished" and not unprocessed,
        total_active_mentors=evaluated + errors + unprocessed,
        total_evaluated=evaluated,
        total_dispatched=evaluated // 60,
        total_suppressed=evaluated // 8,
        total_errors=errors,
        total_unprocessed=unprocessed,
        share=share if deliveries else 0.0,
    )


WORKERS = ("worker-a.example:71", "worker-b.example:1204", "worker-c.example:9")


def shards_of(states: Sequence[str], redelivered: int = 17) -> list[ShardRecord]:
    """Of three workers in turn, one of them delivered twice, and one with errors."""
    return [
        shard(
            index,
            state,
            worker=WORKERS[index % 3],
            deliveries=1 + (index == redelivered),
            age={"lost": 4.2, "running": 0.2 + (index % 3) / 4}.get(state, 20.0 - index / 2),
            evaluated=384 - 20 * (index % 5) if state == "finished" else 150,
            errors=4 * (index == 6),
            unprocessed=12 if state in ("running", "lost") else 0,
        )
        for index, state in enumerate(states)
    ]


def history(count: int = 60, until: datetime = NOW - timedelta(seconds=40)) -> list[RunRecord]:
    """Ordinary days: a run every five minutes, newest first, now and then an error."""
    chance = random.Random(7)
    runs = []
    for number in range(count):
        started_at = until - timedelta(minutes=5 * (count - 1 - number), seconds=chance.random())
        busy = 1 + 0.6 * abs((number % 24) / 12 - 1)
        dispatched = {
            "inactivity": int(chance.expovariate(1 / 30) * busy),
            "expiry": int(chance.expovariate(1 / 6)),
            "milestone": int(chance.expovariate(1 / 9) * busy),
        }
        suppressed = {"inactivity": 1_600 + chance.randrange(60), "expiry": 210 + chance.randrange(20)}
        errors = {"timeout": chance.randrange(1, 30)} if chance.random() < 0.12 else {}
        if number % 23 == 9:
            errors |= {"http_502": chance.randrange(1, 12)}
        runs.append(
            record(
                number,
                started_at,
                seconds=chance.gauss(7.4, 0.7) * busy,
                mentors=MENTORS - 3 * (count - number),
                errors=errors,
                dispatched=dispatched,
                suppressed=suppressed,
            )
        )
    return runs[::-1]


def fresh(age: float = 40.0) -> Freshness:
    return Freshness(LIMIT, dict.fromkeys(TYPES, age))


def good(scheduler: FakeScheduler) -> None:
    """Everybody was reached; among the last runs there is one of each verdict."""
    runs = history()
    runs[0] = replace(runs[0], errors={}, total_errors=0)
    runs[21] = record(38, runs[21].started_at, verdict="abandoned", seconds=3.1, unprocessed=8_000)
    runs[34] = record(25, runs[34].started_at, verdict="failed", seconds=1.2, unprocessed=11_000)
    for index, left in ((44, 2_900), (45, 1_100)):
        runs[index] = record(
            59 - index,
            runs[index].started_at,
            verdict="partial",
            stop_reason="soft_threshold",
            seconds=25.4,
            unprocessed=left,
            dispatched={"inactivity": 64},
            suppressed={"inactivity": 1_300},
        )
    scheduler.records, scheduler.freshness = runs, fresh()


def live(scheduler: FakeScheduler) -> None:
    good(scheduler)
    latest = record(60, NOW - timedelta(seconds=4), verdict="running", seconds=4, mentors=5_412)
    scheduler.records = [latest, *scheduler.records[:59]]
    scheduler.freshness = fresh(304)
    scheduler.live_run = LiveRun(latest.run_id, 4.0, 5_390, 22, 31, 702)


def sharded(scheduler: FakeScheduler) -> None:
    """A fleet carries the runs out. The one under way is another process's, and has lost a worker."""
    live(scheduler)
    scheduler.live_run = None
    scheduler.records = [
        replace(each, total_shards=32, total_workers=3, total_redelivered=int(index % 4 == 1))
        for index, each in enumerate(scheduler.records)
    ]
    latest, ended = scheduler.records[:2]
    scheduler.shards = {
        latest.run_id: shards_of(
            ["finished"] * 13 + ["running", "lost", "running", "running", "lost"] + ["waiting"] * 14,
            redelivered=9,
        ),
        ended.run_id: shards_of(["finished"] * 32),
    }


def empty(scheduler: FakeScheduler) -> None:
    scheduler.records, scheduler.freshness = [], Freshness(LIMIT, dict.fromkeys(TYPES))


def nobody(scheduler: FakeScheduler) -> None:
    """The walk goes over nobody: a view is empty, or row-level security hides everybody."""
    scheduler.records = [
        record(59 - index, each.started_at, seconds=0.1, mentors=0) for index, each in enumerate(history())
    ]
    scheduler.freshness = fresh()


def partial(scheduler: FakeScheduler) -> None:
    """One budget does not suffice: every run is partial, and it takes two to reach everybody."""
    mentors, runs = 41_000, history()
    scheduler.records = [
        record(
            59 - index,
            each.started_at,
            verdict="partial",
            stop_reason="soft_threshold",
            seconds=25.3,
            mentors=mentors,
            unprocessed=9_000 + 37 * (index % 9),
            dispatched={LONG_TYPE: index % 7, **each.dispatched},
            suppressed=each.suppressed,
        )
        for index, each in enumerate(runs)
    ]
    scheduler.freshness = fresh(340)


def failing(scheduler: FakeScheduler) -> None:
    """The trigger engine has been failing for 22 minutes."""
    runs = history()
    for index in range(5):
        runs[index] = record(
            59 - index,
            runs[index].started_at,
            seconds=28.1 if index else 25.6,
            verdict="partial",
            stop_reason="hard_deadline" if index else "soft_threshold",
            errors={"timeout": 9_200 - 40 * index, "http_503": 310},
            unprocessed=1_900,
            dispatched={"inactivity": 2},
        )
    scheduler.records = runs
    scheduler.freshness = Freshness(LIMIT, {"expiry": 1320.0, "inactivity": 1320.0, "milestone": 1320.0})


def stale(scheduler: FakeScheduler) -> None:
    """Nobody has called for 17 minutes; and there was a pause earlier, too."""
    runs = history(until=NOW - timedelta(minutes=17))
    scheduler.records = [
        replace(each, started_at=each.started_at - timedelta(minutes=40)) if index >= 30 else each
        for index, each in enumerate(runs)
    ]
    scheduler.freshness = fresh(1020)


def away(scheduler: FakeScheduler) -> None:
    """From here on the ledger can't be read."""
    scheduler.error = DatabaseUnavailable(
        "Postgres can't be used: nobody listens there; check DATABASE_URL and that the server is up."
    )


def draining(scheduler: FakeScheduler) -> None:
    good(scheduler)
    scheduler.drain()


STATES: Sequence[Callable[[FakeScheduler], None]] = (
    good, live, sharded, empty, nobody, partial, failing, stale, away, draining,
)  # fmt: skip
