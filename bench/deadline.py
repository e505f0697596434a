"""This file times the answer to a run whose trigger engine never answers.

    python -m bench.deadline [--mentors 100000] [--runs 50]

Hard deadline 2 s. Every answer must come within 250 ms after it, with the remaining count in it and right.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from functools import partial

import structlog
import trio

from bench.results import write_result
from bench.walk import SEED
from engine import (
    RunRequest,
    find_binaries,
    load_settings,
    migrate,
    open_database,
    open_embedded_postgres,
    open_scheduler,
)
from engine.statements import Statement

HARD_DEADLINE = 2.0
BOUND = 0.25


async def never_answer(stream: trio.SocketStream) -> None:
    async with stream:
        async for _ in stream:
            pass


async def measure(database_url: str, mentors: int, runs: int) -> None:
    async with open_database(database_url) as database:
        await migrate(database, with_example_tables=True)
        await database.fetch(Statement("seed", SEED), mentors, answer_within=120)
        await database.fetch(Statement("analyze", "analyze"), answer_within=120)
    late = []
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, never_answer, 0, host="127.0.0.1"))
        settings = load_settings(
            database_url=database_url,
            trigger_engine=f"http://127.0.0.1:{listener.socket.getsockname()[1]}/",
            soft_threshold=1.0,
            hard_deadline=HARD_DEADLINE,
            platform_limit=4.0,
            invocation_timeout=60,
        )
        async with open_scheduler(settings) as scheduler:
            for _ in range(runs):
                asked_at = trio.current_time()
                summary = await (await scheduler.start(RunRequest(), asked_at=asked_at)).summary()
                late.append(trio.current_time() - asked_at - HARD_DEADLINE)
                assert summary.stop_reason == "hard_deadline", summary
                assert summary.remaining_known, summary
                assert summary.total_unprocessed == summary.total_active_mentors == mentors, summary
        nursery.cancel_scope.cancel()
    figures = {"runs": runs, "mentors": mentors, "median": statistics.median(late), "max": max(late)}
    print(
        f"after the hard deadline: median {figures['median'] * 1e3:.1f} ms, max {figures['max'] * 1e3:.1f} ms"
    )
    assert max(late) <= BOUND
    write_result("deadline", figures)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mentors", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=50)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with open_embedded_postgres(find_binaries(None)) as postgres:
        trio.run(measure, postgres.dsn, arguments.mentors, arguments.runs)


if __name__ == "__main__":
    main()
