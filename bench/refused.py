"""This file measures how much slower a run is beside calls that are refused: alone and beside, in turns.

    python -m bench.refused [--mentors 1000] [--rounds 10]

Fifty calls a second, each over a connection of its own, half of them with a wrong secret (401) and half with
the right one (409). The trigger engine takes 20 ms. Service, trigger engine, Postgres and the callers share
the machine, so that what the callers cost is in the figure as well. Each round is four runs, alone, beside,
beside, alone, and gives one ratio; the median of them is held to 1.10.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import httpx
import trio

from bench.results import write_result
from bench.tick import free_address, wait_until_served
from bench.walk import seed, trigger_engine_process
from engine import find_binaries, open_embedded_postgres

# Times a run alone.
BOUND = 1.1

RATE = 50  # calls a second

REQUEST = "POST /run HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\nX-Scheduler-Secret: "


class Callers:
    """Those who are refused, and with which status."""

    def __init__(self, bind: str, secret: str) -> None:
        self._host, _, port = bind.partition(":")
        self._port = int(port)
        self._requests = [f"{REQUEST}{each}\r\n\r\n".encode() for each in (secrets.token_hex(32), secret)]
        self.refused: Counter[int] = Counter()
        self.seconds = 0.0

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Beside the block, until its end; leaves when all were answered."""
        async with trio.open_nursery() as calls:
            began = trio.current_time()
            async with trio.open_nursery() as ringing:
                ringing.start_soon(self._ring, calls)
                yield
                ringing.cancel_scope.cancel()
            self.seconds += trio.current_time() - began

    async def _ring(self, calls: trio.Nursery) -> None:
        began = trio.current_time()
        number = 0
        while True:
            await trio.sleep_until(began + number / RATE)
            calls.start_soon(self._call, self._requests[number % 2])
            number += 1

    async def _call(self, request: bytes) -> None:
        async with await trio.open_tcp_stream(self._host, self._port) as stream:
            await stream.send_all(request)
            answer = b"".join([data async for data in stream])
        # One that comes just before or behind the run begins one of its own, and is answered 200.
        self.refused[int(answer.split()[1])] += 1


async def run_once(client: httpx.AsyncClient, url: str, secret: str, mentors: int) -> float:
    """Seconds of one run, on the clock of the service."""
    while True:
        answer = await client.post(f"{url}/run", headers={"X-Scheduler-Secret": secret})
        if answer.status_code != 409:
            break
        await trio.sleep(0.1)
    summary = answer.json()
    assert summary["completed"], summary
    assert summary["total_evaluated"] == summary["total_active_mentors"] == mentors, summary
    return float(summary["duration_ms"]) / 1e3


async def measure(
    bind: str, secret: str, mentors: int, rounds: int
) -> tuple[list[float], list[float], Callers]:
    """Seconds of the runs alone and of those beside the callers, a round's two added up."""
    callers = Callers(bind, secret)
    alone, beside = [], []
    async with httpx.AsyncClient(trust_env=False, timeout=45) as client:
        await run_once(client, f"http://{bind}", secret, mentors)  # warms up
        for number in range(1, rounds + 1):
            seconds = {True: 0.0, False: 0.0}
            for is_beside in (False, True, True, False):
                if is_beside:
                    async with callers.calling():
                        seconds[True] += await run_once(client, f"http://{bind}", secret, mentors)
                else:
                    seconds[False] += await run_once(client, f"http://{bind}", secret, mentors)
            alone.append(seconds[False])
            beside.append(seconds[True])
            print(f"round {number}: {seconds[True] / seconds[False]:.4f}", flush=True)
    return alone, beside, callers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mentors", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    secret, bind = secrets.token_hex(32), free_address()
    with ExitStack() as stack:
        postgres = stack.enter_context(open_embedded_postgres(find_binaries(None)))
        trigger_engine = stack.enter_context(trigger_engine_process("fixed:0.02"))
        trio.run(seed, postgres.dsn, arguments.mentors)
        own = {
            "DATABASE_URL": postgres.dsn,
            "SCHEDULER_SECRET": secret,
            "SCHEDULER_BIND": bind,
            "SCHEDULER_TRIGGER_ENGINE": trigger_engine,
        }
        command = [sys.executable, "-m", "web", "serve"]
        service = stack.enter_context(
            subprocess.Popen(command, env=os.environ | own, stderr=subprocess.DEVNULL)
        )
        stack.callback(service.terminate)
        with httpx.Client(trust_env=False, timeout=45) as client:
            wait_until_served(client, f"http://{bind}")
        alone, beside, callers = trio.run(measure, bind, secret, arguments.mentors, arguments.rounds)
    ratios = [one / other for one, other in zip(beside, alone, strict=True)]
    ratio = statistics.median(ratios)
    rate = (callers.refused[401] + callers.refused[409]) / callers.seconds
    print(f"a run alone: median {statistics.median(alone) / 2:.3f} s, over a floor of", end=" ")
    print(f"{arguments.mentors * 0.02 / 10:.3f} s")
    print(f"refused: {dict(callers.refused)}, {rate:.1f} a second")
    print(f"beside / alone: median {ratio:.4f} of {len(ratios)}, at most {BOUND}")
    figures = {
        "mentors": arguments.mentors,
        "bound": BOUND,
        "alone_seconds": statistics.median(alone) / 2,
        "beside_to_alone": ratio,
        "rounds": ratios,
        "refused": {str(status): number for status, number in sorted(callers.refused.items())},
        "refused_a_second": rate,
    }
    write_result("refused", figures)


if __name__ == "__main__":
    main()
