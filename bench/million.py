"""This file times the in-database engine on up to a million active mentors, a tenth of them due.

    python -m bench.million [--sizes 10000,100000,1000000] [--runs N]

A whole run (pages, channel, dispatchers, notifications) with default settings, against

- one_call: one call of scheduler.evaluate over everybody;
- two_halves: two calls at once, each over half the range of ids;
- hand_fused: one statement without a function per scenario, bench/hand_fused.sql.

Every one begins with neither notifications nor cooldowns, and must send exactly what is due. They take
turns, the first a different one each round, after a round of warming up. `--runs`: rounds; otherwise 5, and 3
from a million on. Writes the plan of the hand-fused statement at the largest size beside the results. Exits
with 1 if a bound is missed at a million; at other sizes the figures are shown and not judged.
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import structlog
import trio

from bench.results import RESULTS, write_result
from bench.seed import POSTGRES_SETTINGS, seed_active
from engine import (
    Database,
    RunRequest,
    Scheduler,
    find_binaries,
    load_settings,
    migrate,
    open_database,
    open_embedded_postgres,
    open_scheduler,
)
from engine.statements import Statement

# The bounds: seconds for a million mentors, and ratios of medians there.
JUDGED_FROM = 1_000_000
MOST_SECONDS = 15.0
MOST_TO_ONE_CALL = 0.75
MOST_TO_TWO_HALVES = 1.1
MOST_PER_MENTOR_TO_A_TENTH = 1.15

# Truncated tables have never been analyzed, so every way begins with the statistics of a first run. The
# checkpoint keeps the writes of one way out of the time of the next.
_EMPTY = Statement("empty", "truncate scheduler.notifications, scheduler.cooldowns")
_CHECKPOINT = Statement("checkpoint", "checkpoint")

_COUNT_SENT = Statement(
    "count_sent",
    "select (select count(*) from scheduler.notifications) as notifications, "
    "(select count(*) from scheduler.cooldowns) as cooldowns",
)

# The mentors of a range that the walk would find, and what became of them, in the database from end to end:
# no id and no answer crosses to the client.
_EVALUATE_RANGE = Statement(
    "evaluate_range",
    """
select coalesce(sum(cardinality(dispatched)), 0)::bigint as dispatched
  from scheduler.evaluate(
         (select array_agg(m.id order by m.id)
            from scheduler.mentors m
           where m.status = 'active'
             and m.id >= $1
             and m.id <= $2
             and exists (select
                           from scheduler.assignments a
                          where a.mentor_id = m.id
                            and a.status = 'active')),
         run_id => $3::uuid)
""",
)
_LOWEST_ID, _MIDDLE_ID, _HIGHEST_ID = UUID(int=0), UUID(int=2**127), UUID(int=2**128 - 1)
_BELOW_MIDDLE = UUID(int=2**127 - 1)

_HAND_FUSED = Statement("hand_fused", Path(__file__).with_name("hand_fused.sql").read_text("utf-8"))

# A way to evaluate everybody: returns what it dispatched.
Way = Callable[[], Awaitable[int]]


async def whole_run(scheduler: Scheduler, mentors: int) -> int:
    summary = await (await scheduler.start(RunRequest())).summary()
    assert summary.completed, summary
    assert summary.total_evaluated == summary.total_active_mentors == mentors, summary
    assert summary.total_errors == summary.total_unprocessed == summary.total_suppressed == 0, summary
    return summary.total_dispatched


async def evaluate_range(database: Database, first_id: UUID, last_id: UUID, run_id: UUID) -> int:
    [row] = await database.fetch(_EVALUATE_RANGE, first_id, last_id, run_id, answer_within=math.inf)
    return int(row["dispatched"])


async def two_halves(database: Database) -> int:
    run_id, dispatched = uuid4(), []

    async def evaluate_half(first_id: UUID, last_id: UUID) -> None:
        dispatched.append(await evaluate_range(database, first_id, last_id, run_id))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(evaluate_half, _LOWEST_ID, _BELOW_MIDDLE)
        nursery.start_soon(evaluate_half, _MIDDLE_ID, _HIGHEST_ID)
    return sum(dispatched)


async def hand_fused(database: Database) -> int:
    [row] = await database.fetch(_HAND_FUSED, uuid4(), answer_within=math.inf)
    assert row["suppressed"] == 0, row
    return int(row["dispatched"])


async def empty(database: Database) -> None:
    await database.fetch(_EMPTY, answer_within=math.inf)
    await database.fetch(_CHECKPOINT, answer_within=math.inf)


async def timed(way: Way, database: Database, due: int) -> float:
    """Seconds that one way took, begun with nothing sent, after which all that is due was."""
    await empty(database)
    began = time.perf_counter()
    dispatched = await way()
    seconds = time.perf_counter() - began
    [sent] = await database.fetch(_COUNT_SENT, answer_within=60)
    assert dispatched == sent["notifications"] == sent["cooldowns"] == due, (dispatched, sent, due)
    return seconds


async def measure(database_url: str, mentors: int, rounds: int) -> tuple[dict[str, list[float]], str]:
    """Seconds of every round by way, and the plan of the hand-fused statement."""
    async with open_database(database_url) as database:
        await migrate(database, with_example_tables=True)
        due = await seed_active(database, mentors)
        async with open_scheduler(load_settings(database_url=database_url)) as scheduler:
            ways: dict[str, Way] = {
                "whole_run": lambda: whole_run(scheduler, mentors),
                "one_call": lambda: evaluate_range(database, _LOWEST_ID, _HIGHEST_ID, uuid4()),
                "two_halves": lambda: two_halves(database),
                "hand_fused": lambda: hand_fused(database),
            }
            names = list(ways)
            seconds: dict[str, list[float]] = {name: [] for name in names}
            for number in range(rounds + 1):
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    taken = await timed(ways[name], database, due)
                    if number > 0:  # the first round warms up
                        seconds[name].append(taken)
        return seconds, await plan_of_hand_fused(database)


async def plan_of_hand_fused(database: Database) -> str:
    await empty(database)
    explain = Statement("explain", f"explain (analyze, buffers) {_HAND_FUSED.sql}")
    rows = await database.fetch(explain, uuid4(), answer_within=math.inf)
    return "\n".join(row[0] for row in rows) + "\n"


def compare(medians: dict[int, dict[str, float]]) -> dict[str, tuple[float, float]]:
    """What there are bounds on, at the largest size, each with its bound."""
    largest = max(medians)
    taken = medians[largest]
    figures = {
        "to_one_call": (taken["whole_run"] / taken["one_call"], MOST_TO_ONE_CALL),
        "to_two_halves": (taken["whole_run"] / taken["two_halves"], MOST_TO_TWO_HALVES),
        "seconds": (taken["whole_run"], MOST_SECONDS),
    }
    if largest // 10 in medians:
        ratio = taken["whole_run"] / 10 / medians[largest // 10]["whole_run"]
        figures["per_mentor_to_a_tenth"] = (ratio, MOST_PER_MENTOR_TO_A_TENTH)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--runs", type=int)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sizes: dict[str, Any] = {}
    medians: dict[int, dict[str, float]] = {}
    plan = ""
    for mentors in sorted(int(size) for size in arguments.sizes.split(",")):
        rounds = arguments.runs or (3 if mentors >= 1_000_000 else 5)
        with open_embedded_postgres(find_binaries(None), POSTGRES_SETTINGS) as postgres:
            seconds, plan = trio.run(measure, postgres.dsn, mentors, rounds)
            postgres_version = postgres.version
        medians[mentors] = {name: statistics.median(taken) for name, taken in seconds.items()}
        sizes[str(mentors)] = {"seconds": seconds, "median": medians[mentors]}
        print(f"{mentors:,} mentors, medians of {rounds}:")
        for name, median in medians[mentors].items():
            print(f"  {name:<10} {median:8.3f} s  {median / mentors * 1e6:6.2f} us a mentor", flush=True)
    compared = compare(medians)
    write_result(
        "million",
        {
            "postgres": postgres_version,
            "sizes": sizes,
            "largest": {name: figure for name, (figure, _) in compared.items()},
        },
    )
    (RESULTS / "hand_fused_plan.txt").write_text(plan)
    print(f"at {max(medians):,}, and the bound at {JUDGED_FROM:,}:")
    for name, (figure, bound) in compared.items():
        print(f"  {name:<22} {figure:7.3f}, at most {bound:g}")
    missed = [name for name, (figure, bound) in compared.items() if figure > bound]
    if missed and max(medians) >= JUDGED_FROM:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
