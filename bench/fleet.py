"""This file times walks over HTTP by a fleet of one, two and four workers, and by no fleet at all.

    python -m bench.fleet [--mentors 10000] [--latency fixed:0.02] [--rounds 5]

The trigger engine takes its time and no processor, so that what is measured is how many wait for it at once:
each worker has a cap of ten, one shard in hand, and so the same as a process without a fleet. Workers are
processes of their own, over a NATS server on the same machine, and stay up between walks. They and the walk
without a fleet take turns, after a round that warms them up. Fails if the accounts of a run don't add up, if
anybody was called twice or not at all, or if more were called at once than may be.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import httpx
import structlog
import trio

from bench.peers import MAX_CONCURRENCY, SERVICE_ROLE_KEY, Walked
from bench.results import write_result
from bench.walk import Measured, Walk, greedy_floor, ratio, seed, summarize, trigger_engine_process
from engine import (
    RunRequest,
    Settings,
    find_binaries,
    load_settings,
    open_embedded_postgres,
    open_scheduler,
)
from tests.fleet.nats_server import NatsServers, open_nats_servers

NO_FLEET = "no fleet"
WORKERS = (1, 2, 4)

# Shards a run. Each costs a claim and ten connections, and ends with invocations that nobody waits beside: a
# hundredth of a shard of 600. With fewer, four workers would not end at the same time.
SHARDS = 16

# Whoever walks 10,000 mentors at 20 ms, ten at once, needs 20 s.
BUDGET = {"soft_threshold": 100.0, "hard_deadline": 110.0, "platform_limit": 120.0}


def settings_of(database_url: str, trigger_engine: str, workers: int, nats: NatsServers) -> Settings:
    """For a service with a fleet of so many workers, or with none."""
    fleet: dict[str, Any] = {}
    if workers:
        fleet = {
            "fleet": nats.url,
            "fleet_name": name_of(workers).replace(" ", "-"),
            "fleet_shards": SHARDS,
            "fleet_shards_at_once": workers,
        }
    return load_settings(
        database_url=database_url,
        trigger_engine=trigger_engine,
        service_role_key=SERVICE_ROLE_KEY,
        max_concurrency=MAX_CONCURRENCY * max(workers, 1),
        **BUDGET,
        **fleet,
    )


def name_of(workers: int) -> str:
    return {0: NO_FLEET, 1: "1 worker"}.get(workers, f"{workers} workers")


@contextmanager
def open_workers(settings: Settings, workers: int) -> Iterator[None]:
    """So many processes, each with one shard in hand at most."""
    assert settings.database_url is not None
    environment = os.environ | {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "SCHEDULER_FLEET": settings.fleet or "",
        "SCHEDULER_FLEET_NAME": settings.fleet_name,
        "SCHEDULER_FLEET_SHARDS_AT_ONCE": str(settings.fleet_shards_at_once),
        "SCHEDULER_MAX_CONCURRENCY": str(settings.max_concurrency),
        "SCHEDULER_TRIGGER_ENGINE": settings.trigger_engine,
        "SCHEDULER_SERVICE_ROLE_KEY": SERVICE_ROLE_KEY,
    }
    with ExitStack() as stack:
        for _ in range(workers):
            command = [sys.executable, "-m", "web", "worker", "--shards-at-once", "1"]
            process = stack.enter_context(
                subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            )
            stack.callback(process.terminate)
        yield


async def walk(settings: Settings) -> Walked:
    """One run, from its start to its summary."""
    async with open_scheduler(settings) as scheduler:
        await scheduler.check_ready()
        began = time.perf_counter()
        summary = await (await scheduler.start(RunRequest())).summary()
        seconds = time.perf_counter() - began
        await scheduler.wait_until_idle()
    assert summary.completed, summary
    accounted_for = summary.total_evaluated + summary.total_errors + summary.total_unprocessed
    assert summary.total_active_mentors == accounted_for == summary.total_evaluated, summary
    return Walked(seconds, summary.total_evaluated)


def measure(
    walks: dict[str, tuple[int, Walk]], trigger_engine: str, mentors: int, rounds: int
) -> dict[str, list[Measured]]:
    """Have all of them walk in turn, `rounds` times after a round that warms them up."""
    measured: dict[str, list[Measured]] = {name: [] for name in walks}
    with httpx.Client(trust_env=False) as client:
        client.get(trigger_engine)  # clears the report
        for number in range(rounds + 1):
            for name, (at_once, walk_once) in walks.items():
                walked = walk_once()
                called = client.get(trigger_engine).raise_for_status().json()
                ids, peak = called["mentor_ids"], called["peak_in_flight"]
                assert walked.evaluated == mentors, f"{name} evaluated {walked.evaluated} of {mentors}"
                assert len(ids) == len(set(ids)) == mentors, (
                    f"{name} called {len(ids)}, {len(set(ids))} of them"
                )
                assert peak <= at_once, f"{name}: {peak} at once"
                floor = greedy_floor(called["service_times"], at_once)
                turn = f"round {number}" if number else "warm-up"
                print(
                    f"{turn}, {name}: {walked.seconds:.3f} s, floor {floor:.3f} s, {peak} at once", flush=True
                )
                if number:
                    measured[name].append(Measured(walked.seconds, floor, floor))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mentors", type=int, default=10_000)
    parser.add_argument("--latency", default="fixed:0.02")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with ExitStack() as stack:
        postgres = stack.enter_context(open_embedded_postgres(find_binaries(None)))
        trigger_engine = stack.enter_context(trigger_engine_process(arguments.latency))
        nats = stack.enter_context(open_nats_servers())
        trio.run(seed, postgres.dsn, arguments.mentors)
        trio.run(nats.wait_until_up)
        walks: dict[str, tuple[int, Walk]] = {}
        for workers in (0, *WORKERS):
            settings = settings_of(postgres.dsn, trigger_engine, workers, nats)
            stack.enter_context(open_workers(settings, workers))
            walks[name_of(workers)] = MAX_CONCURRENCY * max(workers, 1), partial(trio.run, walk, settings)
        measured = measure(walks, trigger_engine, arguments.mentors, arguments.rounds)
    figures = summarize(measured, arguments.mentors)
    for name, figure in figures.items():
        print(f"{name}: median {figure['seconds']:.3f} s, {figure['to_floor']:.4f} x floor")
    speed_up = {workers: ratio(figures, name_of(1), name_of(workers)) for workers in WORKERS[1:]}
    overhead = ratio(figures, name_of(1), NO_FLEET)
    print(*(f"{workers} workers: {value:.3f} x one" for workers, value in speed_up.items()), sep="\n")
    print(f"one worker / no fleet: {overhead:.4f}")
    write_result(
        "fleet",
        {
            "mentors": arguments.mentors,
            "latency": arguments.latency,
            "shards": SHARDS,
            "walks": figures,
            "speed_up": speed_up,
            "one_worker_to_no_fleet": overhead,
            "postgres": postgres.version,
        },
    )


if __name__ == "__main__":
    main()
