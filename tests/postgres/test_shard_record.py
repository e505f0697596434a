"""The shards of a run read by an operator: what the ledger says of each, and of the run they belong to."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from engine import load_settings
from engine.database import Database
from engine.fleet.agreement import agreement_of
from engine.fleet.protocol import ACK_WAIT
from engine.fleet.shard import Shard
from engine.fleet.shard_ledger import Outcome, ShardLedger
from engine.ledger import LEASE
from engine.mentors.protocol import IdRange
from engine.overview import read_overview
from engine.run_record import find_run, list_runs
from engine.shard_record import ShardRecord, list_shards
from tests.postgres.conftest import query
from tests.postgres.test_run_record import MENTORS, add_run

CLAIM = UUID(int=7)


async def add_shard(database: Database, run: UUID, index: int, state: str, **columns: Any) -> None:
    """A shard of a run; `columns` as SQL, and what its state needs besides."""
    values = {"run_id": f"'{run}'", "shard_index": str(index), "state": f"'{state}'"}
    if state in ("running", "finished"):
        values |= {
            "worker": "'a'",
            "claim": f"'{CLAIM}'",
            "deliveries": "1",
            "claimed_at": "now() - interval '3 s'",
            "heartbeat_at": "now() - interval '1 s'",
        }
    if state == "finished":
        values["finished_at"] = "now() - interval '1 s'"
    values |= columns
    await query(database, "update scheduler.runs set is_sharded = true where id = $1", run)
    await query(
        database, f"insert into scheduler.shards ({', '.join(values)}) values ({', '.join(values.values())})"
    )


async def shards_of(database: Database, run: UUID) -> list[ShardRecord]:
    return await list_shards(database, run, ack_wait=ACK_WAIT)


async def only(database: Database, run: UUID) -> ShardRecord:
    [shard] = await shards_of(database, run)
    return shard


# --- What it says of a shard ---


async def test_shards_are_told_in_the_order_in_which_they_go_out_and_of_one_run(database: Database) -> None:
    run, other = await add_run(database, 1), await add_run(database, 2)
    for index in (2, 0, 1):
        await add_shard(database, run, index, "waiting")
    await add_shard(database, other, 9, "waiting")
    assert [shard.shard_index for shard in await shards_of(database, run)] == [0, 1, 2]
    assert await shards_of(database, await add_run(database, 3)) == []


async def test_a_shard_is_told_with_all_its_counts_and_as_json(database: Database) -> None:
    run = await add_run(database, 1)
    await add_shard(
        database, run, 0, "finished", worker="'host:7'", deliveries="2", total_evaluated="60",
        total_errors="10", total_unprocessed="5", total_dispatched="3", total_suppressed="4",
    )  # fmt: skip
    await add_shard(database, run, 1, "running", total_evaluated="25")
    record = (await shards_of(database, run))[0].as_json()
    assert list(record) == list(ShardRecord.__dataclass_fields__)
    for instant in ("heartbeat_at", "finished_at"):
        assert datetime.fromisoformat(record.pop(instant)).utcoffset() == timedelta(0)
    assert 1.0 <= record.pop("heartbeat_age") < 9.0
    assert json.loads(json.dumps(record)) == {
        "shard_index": 0,
        "state": "finished",
        "worker": "host:7",
        "deliveries": 2,
        "duration_ms": 2000,
        "is_completed": False,
        "total_active_mentors": 75,
        "total_evaluated": 60,
        "total_dispatched": 3,
        "total_suppressed": 4,
        "total_errors": 10,
        "total_unprocessed": 5,
        "share": 0.75,
    }


async def test_a_shard_that_nobody_has_taken_has_neither_worker_nor_age(database: Database) -> None:
    for number, state in enumerate(("waiting", "withdrawn")):
        run = await add_run(database, number)
        await add_shard(database, run, 0, state)
        shard = await only(database, run)
        assert (shard.state, shard.worker, shard.deliveries, shard.share) == (state, None, 0, 0.0)
        assert (shard.heartbeat_at, shard.heartbeat_age, shard.duration_ms) == (None, None, None)
        json.dumps(shard.as_json())


@pytest.mark.parametrize(
    ("state", "silent", "seen"),
    [
        ("running", ACK_WAIT - 1, "running"),
        ("running", ACK_WAIT + 0.1, "lost"),
        ("finished", ACK_WAIT + 60, "finished"),
    ],
)
async def test_a_shard_whose_worker_is_silent_for_too_long_is_lost_before_another_one_comes(
    state: str, silent: float, seen: str, database: Database
) -> None:
    run = await add_run(database, 1, "running", started=0.0)
    heartbeat_at = f"now() - interval '{silent} s'"
    await add_shard(database, run, 0, state, heartbeat_at=heartbeat_at)
    assert (await only(database, run)).state == seen


async def test_a_shard_takes_until_now_or_until_its_worker_was_last_heard_of(database: Database) -> None:
    run = await add_run(database, 1, "running", started=0.0)
    taken = {"claimed_at": "now() - interval '20 s'"}
    await add_shard(database, run, 0, "running", **taken)
    await add_shard(database, run, 1, "running", **taken, heartbeat_at="now() - interval '9 s'")
    await add_shard(database, run, 2, "running", claimed_at="now() + interval '1 s'")
    running, lost, early = await shards_of(database, run)
    assert 20_000 <= (running.duration_ms or 0) < 28_000
    assert (lost.duration_ms, early.duration_ms) == (11_000, 0)


async def test_a_shard_that_is_taken_again_is_told_of_its_latest_worker(database: Database) -> None:
    run = await add_run(database, 1, "running", started=0.0)
    ledger = ShardLedger(database)
    at = await ledger.plan_shards(run, [IdRange()])
    assert at is not None
    await query(database, "update scheduler.runs set hard_deadline_at = now() + interval '28 s'")
    shard = Shard(
        run_id=run, index=0, after=None, until=None, scenario_types=None,
        soft_threshold_at=at + 25, hard_deadline_at=at + 27, max_concurrency=2,
        agreement=agreement_of(load_settings()),
    )  # fmt: skip
    for _ in range(2):  # the first answer may have been lost: that is no second delivery
        assert (await ledger.claim_shard(shard, "a", UUID(int=1))).outcome is Outcome.CLAIMED
    told = await only(database, run)
    assert (told.state, told.worker, told.deliveries) == ("running", "a", 1)
    await query(
        database,
        "update scheduler.shards set claimed_at = now() - interval '60 s', "
        "heartbeat_at = now() - interval '50 s'",
    )
    told = await only(database, run)
    assert (told.state, told.worker, told.duration_ms) == ("lost", "a", 10_000)
    assert (await ledger.claim_shard(shard, "b", UUID(int=2))).outcome is Outcome.CLAIMED
    told = await only(database, run)
    assert (told.state, told.worker, told.deliveries) == ("running", "b", 2)
    assert (told.duration_ms or 0) < 9_000


async def test_no_shard_holds_a_mentors_id(database: Database) -> None:
    run = await add_run(database, 1)
    marks = {
        "after_id": f"'{MENTORS[0]}'",
        "until_id": f"'{MENTORS[1]}'",
        "low_water_mark": f"'{MENTORS[1]}'",
    }
    await add_shard(database, run, 0, "finished", **marks)
    shard = await only(database, run)
    for said in (json.dumps(shard.as_json()), repr(shard)):
        for hidden in (*MENTORS, CLAIM):
            assert str(hidden) not in said
            assert hidden.hex not in said


# --- What the run is told to have had ---


async def test_a_run_is_told_with_how_many_shards_and_workers_it_had(database: Database) -> None:
    run, alone = await add_run(database, 2), await add_run(database, 1)
    for index, worker in enumerate("aabbc"):
        await add_shard(
            database, run, index, "finished", worker=f"'{worker}'", deliveries=str(1 + index // 3)
        )
    await add_shard(database, run, 5, "withdrawn")
    found = await find_run(database, run, lease=LEASE)
    for record in (*await list_runs(database, before=None, limit=5, lease=LEASE), found):
        assert record is not None
        counts = (record.total_shards, record.total_workers, record.total_redelivered)
        assert counts == ((0, 0, 0) if record.run_id == alone else (6, 3, 2))


async def test_an_overview_has_the_shards_of_the_latest_run_that_has_ended(database: Database) -> None:
    for number in (1, 2):
        await add_shard(database, await add_run(database, number), number, "finished")
    await add_shard(database, await add_run(database, 3, "running", started=1.0), 3, "running")

    async def shown() -> list[int]:
        overview = await read_overview(
            database, limit=9, lease=LEASE, ack_wait=ACK_WAIT, freshness_limit=900.0
        )
        return [shard.shard_index for shard in overview.shards]

    assert await shown() == [2]
    await add_run(database, 4, started=0.5)  # which had none
    assert await shown() == []
