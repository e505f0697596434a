"""This file starts what a user would pick instead: each peer a process, a walk for every line it is sent.

    python -m bench.peers.aiohttp_walk --database URL --trigger-engine URL [--on-request]

A peer prints one line of JSON for each walk, `{"seconds": …, "evaluated": …}`. Without `--on-request` it
walks once, with it once for every line on its standard input, so that it is as warm as what it is compared
with. What a service does once, pools and sessions and schemas, is not in the seconds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import select
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PEERS = {
    "deno": "bench.peers.deno_walk",
    "aiohttp": "bench.peers.aiohttp_walk",
    "procrastinate": "bench.peers.procrastinate_walk",
}

# What a peer is made of, by the names of its packages.
PACKAGES = {
    "deno": ("deno",),
    "aiohttp": ("aiohttp", "asyncpg"),
    "procrastinate": ("procrastinate", "psycopg", "psycopg-binary", "aiohttp"),
}

# What everybody sends as a bearer token, so that all the requests weigh the same.
SERVICE_ROLE_KEY = "bench-service-role-key"

PAGE_SIZE = 100
MAX_CONCURRENCY = 10
INVOCATION_TIMEOUT = 5.0  # seconds

# Seconds for one walk of a peer, its start included: five thousand mentors take some 25.
WALK_TIMEOUT = 600

# The statement of the task, with the eligible assignment that its acceptance criteria ask for.
PAGE = """
select id
  from public.peer_mentors
 where status = 'active'
   and id > %s
   and exists (select 1 from public.assignments a where a.mentor_id = peer_mentors.id and a.status = 'active')
 order by id
 limit %s
"""


@dataclass(frozen=True)
class Walked:
    seconds: float
    evaluated: int


def versions(peers: Iterable[str]) -> dict[str, dict[str, str | None]]:
    """Of each peer's packages; None for what is not there. Without psycopg-binary, psycopg is in Python."""
    installed = {each.name: each.version for each in importlib.metadata.distributions()}
    return {peer: {name: installed.get(name) for name in PACKAGES[peer]} for peer in peers}


@contextmanager
def open_peer(name: str, database_url: str, trigger_engine: str) -> Iterator[Callable[[], Walked]]:
    """Yields what has the peer walk once. Its process ends with the context."""
    command = [
        *(sys.executable, "-m", PEERS[name], "--on-request"),
        *("--database", database_url, "--trigger-engine", trigger_engine),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def walk() -> Walked:
            requests.write("walk\n")
            requests.flush()
            ready, _, _ = select.select([answers], [], [], WALK_TIMEOUT)
            line = answers.readline() if ready else ""
            if not line:
                raise RuntimeError(f"the peer {name} did not answer")
            return Walked(**json.loads(line))

        try:
            yield walk
            requests.close()
            process.wait(timeout=20)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()


def parse_arguments(description: str | None) -> argparse.Namespace:
    """The command line that all peers have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", required=True)
    parser.add_argument("--trigger-engine", required=True)
    parser.add_argument("--on-request", action="store_true")
    return parser.parse_args()


def requests(arguments: argparse.Namespace) -> Iterator[None]:
    """One for every walk that is asked for."""
    if arguments.on_request:
        for _ in iter(sys.stdin.readline, ""):
            yield
    else:
        yield


async def time_walks(
    arguments: argparse.Namespace,
    walk: Callable[[], Awaitable[int | None]],
    count: Callable[[], Awaitable[int]] | None = None,
) -> None:
    """Walk whenever asked to, and say how long it took and how many were evaluated.

    `count` says how many, outside the seconds, where the walk itself does not. Reading a request blocks the
    event loop, in which nothing is to be done between two walks.
    """
    for _ in requests(arguments):
        began = time.perf_counter()
        evaluated = await walk()
        seconds = time.perf_counter() - began
        report(seconds, await count() if count else evaluated or 0)


def report(seconds: float, evaluated: int) -> None:
    print(json.dumps({"seconds": seconds, "evaluated": evaluated}), flush=True)
