"""This file times whole walks over HTTP against their floor, and against what a user would pick instead.

    python -m bench.walk [--mentors 5000] [--latency lognormal:0.02:1]... [--rounds 5] [--peers]
                         [--transport direct]

Without `--latency`, the trigger engine takes no time, then always the same, then lognormal ones.

The floor is the greedy schedule, over ten in flight, of the service times in the order the mentors were
called in: with that order and ten in flight, no walk is faster. It is made of the times that the stand-in
measured itself and, as `nominal`, of the latencies that it was asked for.

With `--peers`, ours and the peers take turns over the same database and the same stand-in. A round that is
not counted warms all of them up. Fails if the accounts of a run don't add up, or if anybody was called twice
or not at all.
"""

from __future__ import annotations

import argparse
import heapq
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import structlog
import trio

from bench.peers import MAX_CONCURRENCY, PEERS, SERVICE_ROLE_KEY, Walked, open_peer, versions
from bench.results import write_result
from bench.trigger_engine import latency_function
from engine import (
    RunRequest,
    Settings,
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

OURS = "ours"

# Of the trigger engine, one walk each: nothing but overhead, everybody alike, and as services are.
KINDS = ("none", "fixed:0.005", "lognormal:0.02:1")


def greedy_floor(latencies: Sequence[float], in_flight: int) -> float:
    """Seconds until the last of these ends, each begun in order when one of `in_flight` places is free."""
    free_at = [0.0] * in_flight
    for latency in latencies:
        heapq.heapreplace(free_at, free_at[0] + latency)
    return max(free_at)


@contextmanager
def trigger_engine_process(latency: str) -> Iterator[str]:
    """A stand-in trigger engine in a process of its own. Yields its URL."""
    command = [sys.executable, "-m", "bench.trigger_engine_process", latency]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
        finally:
            process.stdin.close()


@dataclass(frozen=True)
class Measured:
    """One walk; the floors are zero where nothing takes time."""

    seconds: float
    floor: float
    nominal_floor: float


Walk = Callable[[], Walked]


async def seed(database_url: str, mentors: int) -> None:
    async with open_database(database_url) as database:
        await migrate(database, with_example_tables=True)
        await database.fetch(Statement("seed", SEED), mentors, answer_within=60)
        await database.fetch(Statement("analyze", "analyze"), answer_within=60)


async def walk(settings: Settings) -> Walked:
    """One run of ours, from its start to its summary."""
    async with open_scheduler(settings) as scheduler:
        began = time.perf_counter()
        summary = await (await scheduler.start(RunRequest())).summary()
        seconds = time.perf_counter() - began
    assert summary.completed, summary
    accounted_for = summary.total_evaluated + summary.total_errors + summary.total_unprocessed
    assert summary.total_active_mentors == accounted_for == summary.total_evaluated, summary
    return Walked(seconds, summary.total_evaluated)


def our_walk(database_url: str, trigger_engine: str, transport: str) -> Walk:
    settings = load_settings(
        database_url=database_url,
        trigger_engine=trigger_engine,
        transport=transport,
        service_role_key=SERVICE_ROLE_KEY,
        max_concurrency=MAX_CONCURRENCY,
    )
    return partial(trio.run, walk, settings)


def measure_rounds(
    walks: Mapping[str, Walk], trigger_engine: str, *, mentors: int, latency: str, rounds: int
) -> dict[str, list[Measured]]:
    """Have all of them walk in turn, `rounds` times after a round that warms them up."""
    measured: dict[str, list[Measured]] = {name: [] for name in walks}
    nominal = latency_function(latency)
    with httpx.Client(trust_env=False) as client:
        client.get(trigger_engine)  # clears the report
        for number in range(rounds + 1):
            for name, walk_once in walks.items():
                walked = walk_once()
                called = client.get(trigger_engine).raise_for_status().json()
                ids = called["mentor_ids"]
                assert walked.evaluated == mentors, f"{name} evaluated {walked.evaluated} of {mentors}"
                assert len(ids) == len(set(ids)) == mentors, (
                    f"{name} called {len(set(ids))}, {len(ids)} times"
                )
                assert called["peak_in_flight"] <= MAX_CONCURRENCY, (
                    f"{name}: {called['peak_in_flight']} at once"
                )
                one = Measured(
                    walked.seconds,
                    greedy_floor(called["service_times"], MAX_CONCURRENCY),
                    greedy_floor([nominal(UUID(each)) for each in ids], MAX_CONCURRENCY),
                )
                turn = f"round {number}" if number else "warm-up"
                print(f"{turn}, {name}: {one.seconds:.3f} s, floor {one.floor:.3f} s", flush=True)
                if number:
                    measured[name].append(one)
    return measured


def summarize(measured: Mapping[str, Sequence[Measured]], mentors: int) -> dict[str, Any]:
    """Medians for everybody, and the ratios to the floors where there are any."""
    figures = {}
    for name, walks in measured.items():
        seconds = statistics.median(each.seconds for each in walks)
        figures[name] = {
            "seconds": seconds,
            "us_per_mentor": seconds / mentors * 1e6,
            "rounds": [each.seconds for each in walks],
        }
        if all(each.nominal_floor for each in walks):
            figures[name] |= {
                "to_floor": statistics.median(each.seconds / each.floor for each in walks),
                "to_nominal_floor": statistics.median(each.seconds / each.nominal_floor for each in walks),
            }
    return figures


def ratio(figures: Mapping[str, Any], name: str, other: str) -> float:
    """Of two medians of the same rounds."""
    return float(figures[name]["seconds"] / figures[other]["seconds"])


def measure_latency(latency: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of one kind of latency, over a Postgres and a stand-in of its own."""
    print(f"latency {latency}, {arguments.mentors} mentors")
    with ExitStack() as stack:
        postgres = stack.enter_context(open_embedded_postgres(find_binaries(None)))
        trigger_engine = stack.enter_context(trigger_engine_process(latency))
        trio.run(seed, postgres.dsn, arguments.mentors)
        walks = {OURS: our_walk(postgres.dsn, trigger_engine, arguments.transport)}
        for peer in PEERS if arguments.peers else ():
            walks[peer] = stack.enter_context(open_peer(peer, postgres.dsn, trigger_engine))
        measured = measure_rounds(
            walks, trigger_engine, mentors=arguments.mentors, latency=latency, rounds=arguments.rounds
        )
    figures = summarize(measured, arguments.mentors)
    for name, figure in figures.items():
        line = f"{name}: median {figure['seconds']:.3f} s, {figure['us_per_mentor']:.0f} us a mentor"
        if "to_floor" in figure:
            line += f", {figure['to_floor']:.4f} x floor, {figure['to_nominal_floor']:.4f} x nominal floor"
        print(line)
    ratios = {peer: ratio(figures, OURS, peer) for peer in figures if peer != OURS}
    for peer, value in ratios.items():
        print(f"{OURS} / {peer}: {value:.3f}")
    return {"walks": figures, "ours_to": ratios, "postgres": postgres.version}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mentors", type=int, default=5_000)
    parser.add_argument(
        "--latency", action="append", help=f"as often as you like; otherwise {', '.join(KINDS)}"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--transport", default="direct")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    kinds = arguments.latency or KINDS
    figures = {
        "mentors": arguments.mentors,
        "transport": arguments.transport,
        "latencies": {kind: measure_latency(kind, arguments) for kind in kinds},
    }
    if arguments.peers:
        figures["peers"] = versions(PEERS)
    # Of latencies of one's own choice, no table is made.
    write_result("walk_chosen" if arguments.latency else "walk", figures)


if __name__ == "__main__":
    main()
