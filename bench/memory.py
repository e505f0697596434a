"""This file measures the memory of a scheduler process: its peak over one run in the database.

    python -m bench.memory [--sizes 10000,1000000] [--runs 3]

A tenth of the mentors are due. Each run has a process of its own, which reports its peak of resident memory.
The peak at the largest size must be at most 1.1 times the one at the smallest, and below 120 MB.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import structlog
import trio

from bench.results import write_result
from bench.seed import POSTGRES_SETTINGS, seed_active
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

MOST_TO_SMALLEST = 1.1
MOST_MEGABYTES = 120.0

# What the measured process is told.
_ONE_RUN = "--one-run"

_EMPTY = Statement("empty", "truncate scheduler.notifications, scheduler.cooldowns")


def peak_memory() -> int:
    """Bytes that this process had in memory at most.

    Linux begins ru_maxrss with the peak of whoever started the process; VmHWM is of this program alone.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peak = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        assert peak is not None
        return int(peak[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


async def run_once() -> None:
    """One run with default settings, of DATABASE_URL. Prints what it did and took."""
    async with open_scheduler(load_settings("database_url")) as scheduler:
        summary = await (await scheduler.start(RunRequest())).summary()
    print(json.dumps({"summary": summary.as_json(), "peak_memory": peak_memory()}))


async def seed(database_url: str, mentors: int) -> int:
    async with open_database(database_url) as database:
        await migrate(database, with_example_tables=True)
        return await seed_active(database, mentors)


async def empty(database_url: str) -> None:
    async with open_database(database_url) as database:
        await database.fetch(_EMPTY, answer_within=math.inf)


def measure(database_url: str, mentors: int, runs: int) -> list[float]:
    """Megabytes of each run."""
    due = trio.run(seed, database_url, mentors)
    megabytes = []
    for _ in range(runs):
        trio.run(empty, database_url)
        answer = subprocess.run(
            [sys.executable, "-m", "bench.memory", _ONE_RUN],
            env=os.environ | {"DATABASE_URL": database_url},
            stdout=subprocess.PIPE,
            timeout=120,
            check=True,
        )
        reported = json.loads(answer.stdout)
        summary = reported["summary"]
        assert summary["completed"], summary
        assert summary["total_evaluated"] == summary["total_active_mentors"] == mentors, summary
        assert summary["total_errors"] == summary["total_unprocessed"] == 0, summary
        assert summary["total_dispatched"] == due, summary
        megabytes.append(reported["peak_memory"] / 1e6)
    return megabytes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="10000,1000000")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(_ONE_RUN, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if arguments.one_run:
        trio.run(run_once)
        return
    measured: dict[int, list[float]] = {}
    for mentors in sorted(int(size) for size in arguments.sizes.split(",")):
        with open_embedded_postgres(find_binaries(None), POSTGRES_SETTINGS) as postgres:
            measured[mentors] = measure(postgres.dsn, mentors, arguments.runs)
            postgres_version = postgres.version
        shown = ", ".join(f"{megabytes:.1f}" for megabytes in measured[mentors])
        print(f"{mentors:,} mentors: {shown} MB", flush=True)
    ratio = statistics.median(measured[max(measured)]) / statistics.median(measured[min(measured)])
    most = max(map(max, measured.values()))
    print(f"ratio {ratio:.3f}, at most {MOST_TO_SMALLEST:g}; most {most:.1f} MB, below {MOST_MEGABYTES:g}")
    write_result(
        "memory",
        {
            "peak_megabytes": {str(mentors): peaks for mentors, peaks in measured.items()},
            "ratio": ratio,
            "postgres": postgres_version,
        },
    )
    assert ratio <= MOST_TO_SMALLEST
    assert most < MOST_MEGABYTES


if __name__ == "__main__":
    main()
