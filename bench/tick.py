"""This file times a tick as its caller sees it: POST /run to the summary, over HTTP, in the database.

    python -m bench.tick [--ticks 100]

At 0 and at 500 mentors, p50, p95 and p99. The service is a process of its own.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import time

import httpx
import trio

from bench.results import write_result
from bench.walk import SEED
from engine import find_binaries, migrate, open_database, open_embedded_postgres
from engine.statements import Statement
from web.serve import base_url, open_listener

SIZES = (0, 500)


async def seed(database_url: str, mentors: int) -> None:
    async with open_database(database_url) as database:
        await migrate(database, with_example_tables=True)
        await database.fetch(Statement("seed", SEED), mentors, answer_within=60)
        await database.fetch(Statement("analyze", "analyze"), answer_within=60)


def free_address() -> str:
    with open_listener("127.0.0.1:0") as listener:
        return base_url(listener).removeprefix("http://")


def wait_until_served(client: httpx.Client, url: str) -> None:
    give_up_at = time.monotonic() + 20
    while True:
        try:
            client.get(f"{url}/healthz").raise_for_status()
            return
        except httpx.HTTPError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)


def measure(database_url: str, ticks: int) -> dict[str, dict[str, float]]:
    secret, bind = secrets.token_hex(32), free_address()
    own = {"DATABASE_URL": database_url, "SCHEDULER_SECRET": secret, "SCHEDULER_BIND": bind}
    command = [sys.executable, "-m", "web", "serve"]
    figures = {}
    with (
        subprocess.Popen(command, env=os.environ | own, stderr=subprocess.DEVNULL) as service,
        httpx.Client(trust_env=False, timeout=45) as client,
    ):
        try:
            for mentors in SIZES:
                trio.run(seed, database_url, mentors)
                wait_until_served(client, f"http://{bind}")
                seconds = []
                for _ in range(ticks + 5):
                    began = time.perf_counter()
                    answer = client.post(f"http://{bind}/run", headers={"X-Scheduler-Secret": secret})
                    seconds.append(time.perf_counter() - began)
                    summary = answer.json()
                    assert summary["completed"], summary
                    assert summary["total_evaluated"] == summary["total_active_mentors"] == mentors, summary
                cuts = statistics.quantiles(seconds[5:], n=100)  # the first ones warm up
                figures[str(mentors)] = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}
        finally:
            service.terminate()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ticks", type=int, default=100)
    with open_embedded_postgres(find_binaries(None)) as postgres:
        figures = measure(postgres.dsn, parser.parse_args().ticks)
    for mentors, times in figures.items():
        shown = ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in times.items())
        print(f"{mentors} mentors: {shown}")
    write_result("tick", figures)


if __name__ == "__main__":
    main()
