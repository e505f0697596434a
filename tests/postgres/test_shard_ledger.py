"""The ledger of shards: what its statements promise. The model of tests/model_database.py is held to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from engine import load_settings
from engine.chunk import Chunk
from engine.database import Database
from engine.errors import StatementFailed
from engine.fleet.agreement import agreement_of
from engine.fleet.plan import PastShard
from engine.fleet.protocol import ACK_WAIT
from engine.fleet.shard import Shard, ShardResult
from engine.fleet.shard_ledger import RETENTION, Outcome, ShardLedger
from engine.freshness import measure_freshness
from engine.invocations import INVOCATION_BOUNDS
from engine.lease import FENCE_AFTER
from engine.ledger import LEASE, Ledger, Verdict
from engine.low_water_mark import LowWaterMark
from engine.mentors.postgres import PostgresMentors
from engine.mentors.protocol import IdRange
from engine.run_id import new_run_id
from engine.shard_record import list_shards
from engine.statements import Statement, load_statement
from engine.tally import StopReason, Tally, summarise
from tests.model_database import ModelDatabase
from tests.postgres.conftest import query, value, wait_until_blocked

HARD_DEADLINE = 28.0
A, B, C = (UUID(int=quarter << 126) for quarter in (1, 2, 3))
THREE = [IdRange(None, A), IdRange(A, B), IdRange(B, None)]


class PostgresWorld:
    """The ledger on Postgres, and a hand on its clock."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def shards(self) -> Sequence[dict[str, Any]]:
        rows = await query(self.database, "select * from scheduler.shards order by run_id, shard_index")
        return [dict(row) for row in rows]

    async def pass_time(self, seconds: float, *, but_for: str = "") -> None:
        """For every row, or for all but the runs' heartbeats. Deadlines stay, as messages have them."""
        heartbeat = "" if but_for == "runs" else "heartbeat_at = heartbeat_at - make_interval(secs => $1), "
        await query(
            self.database,
            f"update scheduler.runs set {heartbeat} started_at = started_at - make_interval(secs => $1), "
            "finished_at = finished_at - make_interval(secs => $1)",
            seconds,
        )
        await query(
            self.database,
            "update scheduler.shards set heartbeat_at = heartbeat_at - make_interval(secs => $1)",
            seconds,
        )


class ModelWorld:
    """The same of the model."""

    def __init__(self) -> None:
        self.database = ModelDatabase()

    async def shards(self) -> Sequence[dict[str, Any]]:
        rows = sorted(self.database.shards, key=lambda row: (row.run_id, row.shard_index))
        return [vars(row) | row.counts for row in rows]

    async def pass_time(self, seconds: float, *, but_for: str = "") -> None:
        self.database.clock_offset += seconds
        if but_for == "runs":
            for run in self.database.runs:
                run.heartbeat_at += seconds


World = PostgresWorld | ModelWorld


@pytest.fixture(params=["postgres", "model"])
async def world(request: pytest.FixtureRequest, database: Database) -> World:
    return PostgresWorld(database) if request.param == "postgres" else ModelWorld()


@pytest.fixture
def ledger(world: World) -> ShardLedger:
    return ShardLedger(world.database)


class Planned:
    """A run with three shards."""

    def __init__(self, run_id: UUID, at: float, types: tuple[str, ...] | None) -> None:
        self.run_id = run_id
        self.at = at
        self.types = types

    def shard(self, index: int, **otherwise: Any) -> Shard:
        fields = {
            "run_id": self.run_id,
            "index": index,
            "after": THREE[index % 3].after,
            "until": THREE[index % 3].until,
            "scenario_types": self.types,
            "soft_threshold_at": self.at + 25.0,
            "hard_deadline_at": self.at + 27.0,
            "max_concurrency": 2,
            "agreement": agreement_of(load_settings()),
        }
        return Shard(**(fields | otherwise))


async def begin(world: World, *types: str) -> UUID:
    run_id = new_run_id()
    await Ledger(world.database).begin_run(run_id, types or None, HARD_DEADLINE)
    return run_id


async def plan(world: World, *types: str) -> Planned:
    run_id = await begin(world, *types)
    at = await ShardLedger(world.database).plan_shards(run_id, THREE)
    assert at is not None
    return Planned(run_id, at, types or None)


async def end(
    world: World, run_id: UUID, verdict: Verdict = Verdict.PARTIAL, *, up_to: UUID | None = None
) -> None:
    left = 0 if verdict is Verdict.COMPLETED else 9
    ended_by = StopReason.SOFT_THRESHOLD
    summary = summarise(Tally(), unfetched=left, ended_by=ended_by, duration=1.0, run_id=run_id)
    assert await Ledger(world.database).finish_run(run_id, verdict, summary, *counted(up_to))


def counted(mark: UUID | None, mentors: int = 10, evaluated: int = 10) -> tuple[Tally, LowWaterMark]:
    """So many mentors up to the mark."""
    tally, low_water_mark = Tally(), LowWaterMark()
    if mark is not None:
        tally.count_fetched(mentors)
        tally.evaluated = evaluated
        low_water_mark.finish(Chunk(0, [mark] * mentors), evaluated)
    return tally, low_water_mark


def result(shard: Shard, *, evaluated: int = 10, errors: int = 0, unprocessed: int = 0) -> ShardResult:
    return ShardResult(
        run_id=shard.run_id,
        index=shard.index,
        evaluated=evaluated,
        errors={"timeout": errors} if errors else {},
        unprocessed=unprocessed,
        remaining_known=True,
        dispatched={"expiry": 3},
        suppressed={"expiry": 2},
        stop_reason=StopReason.SOFT_THRESHOLD if unprocessed else StopReason.FINISHED,
        stretch_mentors=evaluated + errors,
        stretch_evaluated=evaluated,
        invocations=(0,) * (len(INVOCATION_BOUNDS) + 1),
        invocations_sum=0.0,
    )


async def claim(ledger: ShardLedger, shard: Shard, *, by: str = "one", claim: UUID | None = None) -> UUID:
    claim = claim or uuid4()
    answer = await ledger.claim_shard(shard, by, claim)
    assert answer.outcome is Outcome.CLAIMED
    return claim


async def outcome_of(ledger: ShardLedger, shard: Shard) -> Outcome:
    return (await ledger.claim_shard(shard, "another", uuid4())).outcome


# --- The life of a shard ---


async def test_a_shard_is_planned_claimed_kept_and_finished(world: World, ledger: ShardLedger) -> None:
    planned = await plan(world)
    shard = planned.shard(1)
    mine = await claim(ledger, shard)
    [_, row, _] = await world.shards()
    assert (row["state"], row["worker"], row["claim"], row["deliveries"]) == ("running", "one", mine, 1)
    kept = await ledger.record_shard_heartbeat(shard, mine, *counted(A))
    assert kept is not None
    assert kept.run_age == pytest.approx(0, abs=5)
    assert not kept.is_wanted
    [_, row, _] = await world.shards()
    assert (row["low_water_mark"], row["stretch_mentors"], row["total_evaluated"]) == (A, 10, 10)
    assert await ledger.finish_shard(result(shard, errors=1), mine, counted(B)[1])
    [untouched, row, _] = await world.shards()
    assert untouched["state"] == "waiting"
    assert (row["state"], row["is_completed"], row["low_water_mark"]) == ("finished", True, None)
    assert (row["stretch_mentors"], row["stretch_evaluated"], row["total_errors"]) == (11, 10, 1)
    assert (row["total_dispatched"], row["total_suppressed"]) == (3, 2)


async def test_a_shard_that_was_not_finished_keeps_its_mark(world: World, ledger: ShardLedger) -> None:
    planned = await plan(world)
    mine = await claim(ledger, planned.shard(0))
    assert await ledger.finish_shard(result(planned.shard(0), unprocessed=4), mine, counted(UUID(int=7))[1])
    [row, _, _] = await world.shards()
    assert (row["is_completed"], row["low_water_mark"], row["total_unprocessed"]) == (
        False,
        UUID(int=7),
        4,
    )


async def test_the_clock_is_told_in_seconds_since_1970(postgres_world: PostgresWorld) -> None:
    planned = await plan(postgres_world)
    answer = await ShardLedger(postgres_world.database).claim_shard(planned.shard(0), "one", uuid4())
    now = await value(postgres_world.database, "select extract(epoch from now())::double precision")
    assert planned.at <= answer.at <= now < planned.at + 10
    assert 0 <= answer.run_age < 10


@pytest.fixture
def postgres_world(database: Database) -> PostgresWorld:
    return PostgresWorld(database)


async def test_a_plan_written_twice_is_the_first_one(world: World, ledger: ShardLedger) -> None:
    planned = await plan(world)
    mine = await claim(ledger, planned.shard(0))
    assert await ledger.plan_shards(planned.run_id, THREE) is not None
    rows = await world.shards()
    assert [row["claim"] for row in rows] == [mine, None, None]


async def test_a_run_that_has_lost_its_lease_plans_nothing(world: World, ledger: ShardLedger) -> None:
    run_id = await begin(world)
    await end(world, run_id)
    assert await ledger.plan_shards(run_id, THREE) is None
    assert await world.shards() == []


# --- Who may take one ---


async def test_a_shard_that_is_held_can_be_taken_when_its_heartbeat_is_ack_wait_old(
    world: World, ledger: ShardLedger
) -> None:
    planned = await plan(world)
    shard = planned.shard(2)
    first = await claim(ledger, shard)
    await world.pass_time(ACK_WAIT - 0.5)
    answer = await ledger.claim_shard(shard, "two", uuid4())
    assert answer.outcome is Outcome.HELD
    assert 0 < answer.held_for <= 0.5
    await world.pass_time(0.5)
    second = await claim(ledger, shard, by="two")
    # The first one may have been frozen: nothing that it still says is written.
    assert await ledger.record_shard_heartbeat(shard, first, *counted(C)) is None
    assert not await ledger.finish_shard(result(shard), first, counted(C)[1])
    [_, _, row] = await world.shards()
    assert (row["state"], row["worker"], row["claim"], row["deliveries"]) == ("running", "two", second, 2)


async def test_a_heartbeat_puts_off_when_the_shard_can_be_taken(world: World, ledger: ShardLedger) -> None:
    planned = await plan(world)
    shard = planned.shard(0)
    mine = await claim(ledger, shard)
    await world.pass_time(ACK_WAIT - 0.5)
    assert await ledger.record_shard_heartbeat(shard, mine, *counted(None)) is not None
    await world.pass_time(ACK_WAIT - 0.5)
    assert await outcome_of(ledger, shard) is Outcome.HELD


async def test_who_was_not_answered_claims_again_at_once(world: World, ledger: ShardLedger) -> None:
    planned = await plan(world)
    mine = await claim(ledger, planned.shard(0))
    await claim(ledger, planned.shard(0), claim=mine)


@pytest.mark.parametrize("index", [0, 1, 2])
async def test_of_two_who_claim_at_once_one_has_it(postgres_world: PostgresWorld, index: int) -> None:
    """The second waits for the first one's transaction, and then looks again at what it wanted to change."""
    database = postgres_world.database
    planned = await plan(postgres_world)
    shard = planned.shard(index)
    outcomes = []

    async def second() -> None:
        outcomes.append(await outcome_of(ShardLedger(database), shard))

    async with trio.open_nursery() as nursery, database.open_transaction() as first:
        await query(
            first,
            "update scheduler.shards set state = 'running', claim = gen_random_uuid(), heartbeat_at = now() "
            "where run_id = $1 and shard_index = $2",
            *(shard.run_id, shard.index),
        )
        nursery.start_soon(second)
        await wait_until_blocked(database)
    assert outcomes != [Outcome.CLAIMED]
    assert await outcome_of(ShardLedger(database), shard) is Outcome.HELD


@pytest.mark.parametrize(
    "otherwise",
    [
        {"after": UUID(int=5)},
        {"until": C},
        {"until": None},
        {"scenario_types": ("expiry",)},
        {"hard_deadline_at": 1e10},
    ],
    ids=lambda otherwise: "-".join(otherwise),
)
async def test_a_message_that_says_what_the_ledger_does_not_takes_nothing(
    world: World, ledger: ShardLedger, otherwise: dict[str, Any]
) -> None:
    planned = await plan(world)
    assert await outcome_of(ledger, planned.shard(1, **otherwise)) is Outcome.CONTRADICTED
    assert await outcome_of(ledger, planned.shard(1)) is Outcome.CLAIMED


async def test_the_scenario_types_of_the_message_are_those_of_the_run(
    world: World, ledger: ShardLedger
) -> None:
    planned = await plan(world, "expiry", "milestone")
    assert await outcome_of(ledger, planned.shard(0, scenario_types=None)) is Outcome.CONTRADICTED
    assert await outcome_of(ledger, planned.shard(0)) is Outcome.CLAIMED


async def test_a_shard_of_no_run_and_one_of_no_plan_are_unknown(world: World, ledger: ShardLedger) -> None:
    planned = await plan(world)
    answer = await ledger.claim_shard(planned.shard(0, run_id=new_run_id()), "one", uuid4())
    assert (answer.outcome, answer.run_age) == (Outcome.UNKNOWN, float("inf"))
    assert await outcome_of(ledger, planned.shard(3)) is Outcome.UNKNOWN


async def test_a_run_that_has_ended_has_no_shards_for_anybody(world: World, ledger: ShardLedger) -> None:
    planned = await plan(world)
    mine = await claim(ledger, planned.shard(0))
    await end(world, planned.run_id)
    assert await outcome_of(ledger, planned.shard(1)) is Outcome.ENDED
    assert await ledger.record_shard_heartbeat(planned.shard(0), mine, *counted(A)) is None


async def test_a_run_that_says_nothing_any_more_has_no_shards_before_another_can_begin(
    world: World, ledger: ShardLedger
) -> None:
    planned = await plan(world)
    mine = await claim(ledger, planned.shard(0))
    await world.pass_time(FENCE_AFTER + 0.5)
    assert FENCE_AFTER + 0.5 < LEASE
    assert await outcome_of(ledger, planned.shard(1)) is Outcome.ENDED
    assert await ledger.record_shard_heartbeat(planned.shard(0), mine, *counted(A)) is None


async def test_a_heartbeat_is_told_how_old_that_of_the_run_is(world: World, ledger: ShardLedger) -> None:
    planned = await plan(world)
    await world.pass_time(2.0)
    answer = await ledger.claim_shard(planned.shard(0), "one", mine := uuid4())
    assert 2.0 <= answer.run_age < 4.0
    await world.pass_time(2.0)
    kept = await ledger.record_shard_heartbeat(planned.shard(0), mine, *counted(None))
    assert kept is not None
    assert 4.0 <= kept.run_age < 6.0


async def test_who_holds_a_shard_is_told_when_another_wants_it_and_who_takes_it_then_is_not(
    world: World, ledger: ShardLedger
) -> None:
    planned = await plan(world)
    shard = planned.shard(0)
    mine = await claim(ledger, shard)
    assert await outcome_of(ledger, shard) is Outcome.HELD
    kept = await ledger.record_shard_heartbeat(shard, mine, *counted(None))
    assert kept is not None
    assert kept.is_wanted
    await world.pass_time(ACK_WAIT + 0.5, but_for="runs")
    second = await claim(ledger, shard, by="two")
    kept = await ledger.record_shard_heartbeat(shard, second, *counted(None))
    assert kept is not None
    assert not kept.is_wanted


@pytest.mark.parametrize("verdict", [Verdict.COMPLETED, Verdict.PARTIAL, Verdict.FAILED])
async def test_no_shard_of_a_run_begins_while_somebody_may_be_at_one_of_another_run(
    world: World, ledger: ShardLedger, verdict: Verdict
) -> None:
    planned = await plan(world)
    mine = await claim(ledger, planned.shard(0))
    done = await claim(ledger, planned.shard(1))
    await ledger.finish_shard(result(planned.shard(1)), done, LowWaterMark())
    await world.pass_time(1.0)
    assert await ledger.record_shard_heartbeat(planned.shard(0), mine, *counted(None)) is not None
    await end(world, planned.run_id, verdict)
    after = await plan(world)
    answer = await ledger.claim_shard(after.shard(2), "two", uuid4())
    assert (answer.outcome, answer.held_for) == (Outcome.HELD, pytest.approx(ACK_WAIT, abs=0.9))
    await world.pass_time(ACK_WAIT, but_for="runs")
    await claim(ledger, after.shard(2), by="two")


async def test_a_finished_shard_is_not_taken_again(world: World, ledger: ShardLedger) -> None:
    planned = await plan(world)
    mine = await claim(ledger, planned.shard(0))
    await ledger.finish_shard(result(planned.shard(0)), mine, LowWaterMark())
    await world.pass_time(ACK_WAIT + 1, but_for="runs")
    assert await outcome_of(ledger, planned.shard(0)) is Outcome.FINISHED


async def test_a_worker_may_say_what_became_of_a_shard_after_its_run_has_ended(
    world: World, ledger: ShardLedger
) -> None:
    planned = await plan(world)
    mine = await claim(ledger, planned.shard(0))
    await end(world, planned.run_id)
    assert await ledger.finish_shard(result(planned.shard(0)), mine, LowWaterMark())


async def test_what_nobody_has_begun_is_withdrawn_and_what_somebody_has_goes_on(
    world: World, ledger: ShardLedger
) -> None:
    planned = await plan(world)
    mine = await claim(ledger, planned.shard(1))
    assert await ledger.withdraw_shards(planned.run_id) == {0, 2}
    assert await ledger.withdraw_shards(planned.run_id) == {0, 2}
    assert await outcome_of(ledger, planned.shard(0)) is Outcome.WITHDRAWN
    assert await ledger.record_shard_heartbeat(planned.shard(1), mine, *counted(None)) is not None
    assert [row["state"] for row in await world.shards()] == ["withdrawn", "running", "withdrawn"]


# --- What the next run is told ---


async def test_the_next_run_is_told_of_the_shards_and_their_marks(world: World, ledger: ShardLedger) -> None:
    planned = await plan(world)
    finished, cut = await claim(ledger, planned.shard(0)), await claim(ledger, planned.shard(1))
    await ledger.finish_shard(result(planned.shard(0)), finished, LowWaterMark())
    await ledger.record_shard_heartbeat(planned.shard(1), cut, *counted(UUID(int=A.int + 5)))
    await world.pass_time(LEASE + 1)  # nobody has ended it
    run_id = await begin(world)
    assert await ledger.previous_shards(run_id) == [
        PastShard(THREE[0], None, is_completed=True),
        PastShard(THREE[1], UUID(int=A.int + 5), is_completed=False),
        PastShard(THREE[2], None, is_completed=False),
    ]


async def test_only_the_latest_run_of_the_same_types_counts_and_only_if_it_left_something(
    world: World, ledger: ShardLedger
) -> None:
    await end(world, (await plan(world)).run_id)
    await end(world, (await plan(world, "expiry")).run_id, Verdict.COMPLETED)
    run_id = await begin(world)
    assert len(await ledger.previous_shards(run_id)) == 3
    await end(world, run_id, up_to=A)  # it had no shards, and got somewhere
    for types in ((), ("expiry",), ("milestone",)):
        run_id = await begin(world, *types)
        assert await ledger.previous_shards(run_id) == []
        await end(world, run_id)


async def test_runs_that_ended_before_their_plan_are_looked_behind(world: World, ledger: ShardLedger) -> None:
    await end(world, (await plan(world, "milestone")).run_id)
    await end(world, (await plan(world)).run_id)
    for _ in range(3):
        await end(world, await begin(world))  # such as a run that was drained at once
        await begin(world)
        await world.pass_time(LEASE + 1)  # and one whose process was killed
    run_id = await begin(world)
    assert len(await ledger.previous_shards(run_id)) == 3
    await end(world, run_id, Verdict.COMPLETED)
    await end(world, await begin(world))
    for types in ((), ("expiry",)):
        run_id = await begin(world, *types)
        assert await ledger.previous_shards(run_id) == []
        await end(world, run_id)


async def test_shards_go_when_their_time_is_over(world: World, ledger: ShardLedger) -> None:
    await end(world, (await plan(world)).run_id)
    await world.pass_time(RETENTION - 3_600)
    await end(world, (await plan(world)).run_id)
    assert len(await world.shards()) == 6
    await world.pass_time(7_200)
    planned = await plan(world)
    assert {row["run_id"] for row in await world.shards()} >= {planned.run_id}
    assert len(await world.shards()) == 6


# --- What is shown, and what counts as covered ---


async def test_what_is_listed_of_shards_names_no_mentor(postgres_world: PostgresWorld) -> None:
    planned = await plan(postgres_world)
    ledger = ShardLedger(postgres_world.database)
    mine = await claim(ledger, planned.shard(1), by="host:1")
    await ledger.record_shard_heartbeat(planned.shard(1), mine, *counted(UUID(int=A.int + 5)))
    records = await list_shards(postgres_world.database, planned.run_id, ack_wait=ACK_WAIT)
    assert [(each.shard_index, each.state, each.worker, each.total_evaluated) for each in records] == [
        (0, "waiting", None, 0),
        (1, "running", "host:1", 10),
        (2, "waiting", None, 0),
    ]
    shown = json.dumps([each.as_json() for each in records])
    assert not any(str(id) in shown for id in (A, B, UUID(int=A.int + 5)))
    assert await list_shards(postgres_world.database, new_run_id(), ack_wait=ACK_WAIT) == []


async def finish(ledger: ShardLedger, planned: Planned, index: int, **counts: int) -> None:
    mine = await claim(ledger, planned.shard(index))
    mark = counted(UUID(int=(THREE[index].after or UUID(int=0)).int + 9))[1]
    assert await ledger.finish_shard(result(planned.shard(index), **counts), mine, mark)


async def test_shards_of_a_partial_run_cover_their_stretches(world: World, ledger: ShardLedger) -> None:
    planned = await plan(world)
    for index in (0, 1):
        await finish(ledger, planned, index)
    await end(world, planned.run_id)
    assert (await measure_freshness(world.database, 900.0)).never_covered
    await world.pass_time(100.0)
    planned = await plan(world)
    await finish(ledger, planned, 2)
    await end(world, planned.run_id)
    freshness = await measure_freshness(world.database, 900.0)
    assert freshness.is_fresh
    assert all(100.0 <= age < 110.0 for age in freshness.ages.values())


async def test_a_shard_covers_no_further_than_its_mark(world: World, ledger: ShardLedger) -> None:
    planned = await plan(world)
    for index in (0, 2):
        await finish(ledger, planned, index)
    await finish(ledger, planned, 1, unprocessed=5)
    await end(world, planned.run_id)
    assert (await measure_freshness(world.database, 900.0)).never_covered


async def test_a_shard_of_which_more_than_a_tenth_were_errors_covers_nothing(
    world: World, ledger: ShardLedger
) -> None:
    planned = await plan(world)
    for index, errors in enumerate((0, 1, 2)):
        await finish(ledger, planned, index, errors=errors, evaluated=10)
    await end(world, planned.run_id)
    assert (await measure_freshness(world.database, 900.0)).never_covered
    planned = await plan(world)
    await finish(ledger, planned, 2, errors=1, evaluated=10)
    await end(world, planned.run_id)
    assert (await measure_freshness(world.database, 900.0)).is_fresh


# --- What is done in one statement is found by an index ---


async def plan_of(database: Database, name: str, types: str, arguments: str, mode: str) -> dict[str, Any]:
    async with database.open_transaction() as transaction:
        await query(transaction, f"set local plan_cache_mode = {mode}")
        signature = f"({types})" if types else ""
        prepare = f"prepare it {signature} as {load_statement(name).sql}"
        await transaction.execute(Statement("prepare", prepare))
        [row] = await query(
            transaction, f"explain (analyze, buffers, format json) execute it{arguments and f'({arguments})'}"
        )
        await query(transaction, "deallocate it")
    found: dict[str, Any] = json.loads(row[0])[0]["Plan"]
    return found


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for below in plan.get("Plans", ()) for node in nodes(below))]


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_the_shards_of_a_run_and_those_before_are_found_by_their_keys(
    database: Database, mode: str
) -> None:
    """Also behind 900 runs that ended before their plan."""
    await query(
        database,
        "insert into scheduler.runs (id, started_at, hard_deadline_at, finished_at, verdict, stop_reason, "
        "evaluated_types, is_sharded) select md5(i::text)::uuid, now() - i * interval '1 minute', now(), "
        "now(), "
        "'partial', 'soft_threshold', '{}', i not between 10 and 909 from generate_series(1, 5000) i",
    )
    await query(
        database,
        "insert into scheduler.shards (run_id, shard_index) "
        "select r.id, i from scheduler.runs r, generate_series(0, 9) i where r.is_sharded",
    )
    await query(database, "vacuum (analyze) scheduler.runs, scheduler.shards")
    run = "md5('9')::uuid"
    claim = f"{run}, 3, null, null, null, 0, 'one', gen_random_uuid(), 3, 8"
    double = "double precision"
    types = f"uuid, integer, uuid, uuid, text[], {double}, text, uuid, {double}, {double}"
    for name, its_types, arguments in (
        ("previous_shards", "uuid", run),
        ("list_shards", f"uuid, {double}", f"{run}, 3"),
        ("find_run", f"uuid, {double}", f"{run}, 10"),
        ("withdraw_shards", "uuid", run),
        ("claim_shard", types, claim),
        ("plan_shards", "uuid, uuid[], uuid[], double precision", f"{run}, '{{null}}', '{{null}}', 2678400"),
    ):
        plan = await plan_of(database, name, its_types, arguments, mode)
        assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan)}, name
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 200, name
        assert name != "previous_shards" or plan["Actual Rows"] == 10


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_sample_is_of_an_index_alone_and_sorts_nothing(database: Database, mode: str) -> None:
    await query(
        database,
        "insert into public.peer_mentors (id, user_id, status, created_at) "
        "select md5('m' || i)::uuid, md5('u' || i)::uuid, "
        "case when i % 5 = 0 then 'paused' else 'active' end, '2020-01-01' from generate_series(1, 20000) i",
    )
    await query(database, "vacuum (analyze) public.peer_mentors")
    plan = await plan_of(database, "sample_mentors", "bigint", "1000", mode)
    assert "Sort" not in {node["Node Type"] for node in nodes(plan)}
    [numbering] = [node for node in nodes(plan) if node["Node Type"] == "WindowAgg"]
    assert [node["Node Type"] for node in nodes(numbering)] == ["WindowAgg", "Index Only Scan"]
    assert sum(node.get("Heap Fetches", 0) for node in nodes(plan)) == 0
    sample = await PostgresMentors(database, ["active"]).sample(1000)
    assert 1000 <= len(sample) < 1100
    assert sample == sorted(sample)
    # Evenly: a sixteenth of the ids has a sixteenth of the sample.
    for part in range(16):
        assert 50 <= sum(part << 124 <= id.int < part + 1 << 124 for id in sample) <= 80


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_the_ends_of_the_ids_are_the_ends_of_an_index(database: Database, mode: str) -> None:
    await query(
        database,
        "insert into public.peer_mentors (id, user_id, status, created_at) "
        "select md5('m' || i)::uuid, md5('u' || i)::uuid, 'active', '2020-01-01' "
        "from generate_series(1, 20000) i",
    )
    await query(database, "vacuum (analyze) public.peer_mentors")
    plan = await plan_of(database, "span_of_mentors", "", "", mode)
    assert {"Sort", "Seq Scan"}.isdisjoint(node["Node Type"] for node in nodes(plan))
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 20
    [found] = await query(database, load_statement("span_of_mentors").sql)
    ids = await query(database, "select id from public.peer_mentors order by id")
    assert (found["lowest"], found["highest"]) == (ids[0]["id"], ids[-1]["id"])


async def test_a_sample_of_few_is_all_of_them_and_of_none_is_none(database: Database) -> None:
    mentors = PostgresMentors(database, ["active"])
    assert await mentors.sample(100) == []
    await query(
        database,
        "insert into public.peer_mentors (id, user_id, status, created_at) "
        "select md5('m' || i)::uuid, md5('u' || i)::uuid, 'active', now() from generate_series(1, 7) i",
    )
    assert len(await mentors.sample(100)) == 7


@pytest.mark.parametrize(
    "nonsense",
    [
        "state = 'running'",
        "state = 'finished', claim = gen_random_uuid()",
        "claim = gen_random_uuid()",
        "is_completed = true",
        "stretch_evaluated = 1",
        "total_errors = -1",
        "state = 'lost'",
    ],
)
async def test_nonsense_is_not_storable(postgres_world: PostgresWorld, nonsense: str) -> None:
    await plan(postgres_world)
    with pytest.raises(StatementFailed, match="23514"):
        await query(postgres_world.database, f"update scheduler.shards set {nonsense}")
