"""This file times whole walks over HTTP against their floor.

    python -m bench.walk [--mentors 5000] [--latency lognormal:0.02:1] [--runs 3] [--transport direct]

The floor is the greedy schedule of the very latencies of the mentors, in the order they were called in, over
ten in flight: with that order and ten in flight, no walk is faster. Prints each walk's ratio to it and the
median, and fails if the accounts of a run don't add up, or anybody was called twice or not at all.
"""

from __future__ import annotations

import argparse
import heapq
import logging
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import httpx
import structlog
import trio

from bench.trigger_engine import latency_function
from engine import (
    RunRequest,
    Settings,
    Summary,
    find_binaries,
    load_settings,
    migrate,
    open_database,
    open_embedded_postgres,
    open_scheduler,
)
from engine.statements import Statement

# Everybody active and eligible, so that the number asked for is the number walked. Ids from a fixed seed.
SEED = """
with m as (insert into public.peer_mentors (id, user_id, status, created_at)
           select md5('bench:' || i)::uuid, md5('user:' || i)::uuid, 'active', now() - interval '1 year'
             from generate_series(1, $1::int) i returning id)
insert into public.assignments (id, mentor_id, status, expires_at)
select md5(id::text)::uuid, id, 'active', current_date + 365 from m
"""


def greedy_floor(latencies: Sequence[float], in_flight: int) -> float:
    """Seconds until the last of these ends, each begun in order when one of `in_flight` places is free."""
    free_at = [0.0] * in_flight
    for latency in latencies:
        heapq.heapreplace(free_at, free_at[0] + latency)
    return max(free_at)


@contextmanager
def trigger_engine_process(latency: str) -> Iterator[str]:
    """A stand-in trigger engine in a process of its own. Yields its URL."""
    command = [sys.executable, "-m", "bench.trigger_engine", latency]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
        process.stdin.close()


async def walk(settings: Settings) -> Summary:
    async with open_scheduler(settings) as scheduler:
        return await (await scheduler.start(RunRequest())).summary()


async def measure(arguments: argparse.Namespace, settings: Settings) -> None:
    async with open_database(settings.database_url.get_secret_value()) as database:
        await migrate(database, with_example_tables=True)
        await database.fetch(Statement("seed", SEED), arguments.mentors, answer_within=60)
        await database.fetch(Statement("analyze", "analyze"), answer_within=60)
    latency = latency_function(arguments.latency)
    ratios = []
    async with httpx.AsyncClient(trust_env=False) as client:
        for number in range(arguments.runs):
            summary = await walk(settings)
            report = (await client.get(settings.trigger_engine)).json()
            called = report["mentor_ids"]
            assert summary.completed, summary
            assert summary.total_evaluated == summary.total_active_mentors == arguments.mentors, summary
            assert len(called) == len(set(called)) == arguments.mentors
            assert report["peak_in_flight"] <= settings.max_concurrency
            floor = greedy_floor([latency(UUID(each)) for each in called], settings.max_concurrency)
            measured_floor = greedy_floor(report["service_times"], settings.max_concurrency)
            seconds = summary.duration_ms / 1000
            line = f"walk {number + 1}: {seconds:.3f} s, {seconds / arguments.mentors * 1e6:.0f} us a mentor"
            if floor:
                ratios.append(seconds / floor)
                line += (
                    f"; floor {floor:.3f} s, ratio {ratios[-1]:.4f}"
                    f" (to the service times as measured by the engine: {seconds / measured_floor:.4f})"
                )
            print(line, flush=True)
    if ratios:
        print(f"median ratio to the floor: {statistics.median(ratios):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mentors", type=int, default=5_000)
    parser.add_argument("--latency", default="lognormal:0.02:1")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--transport", default="direct")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with (
        open_embedded_postgres(find_binaries(None)) as postgres,
        trigger_engine_process(arguments.latency) as url,
    ):
        settings = load_settings(database_url=postgres.dsn, trigger_engine=url, transport=arguments.transport)
        trio.run(measure, arguments, settings)


if __name__ == "__main__":
    main()
