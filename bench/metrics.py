"""This file measures what being watched costs a walk: counted and uncounted ones, in turns.

    python -m bench.metrics [--mentors 5000] [--rounds 20]

The trigger engine answers at once, so that the walk is all overhead: the worst case. In processor time of
this process alone, which others on the machine change less than the clock on the wall. Each round is four
walks, counted, uncounted, uncounted, counted, and gives one ratio; the median of them is held to 1.02. They
scatter by some percent on a busy machine, so the ratio of the fastest walks is told as well, and the cost from
another side: what a mentor costs more when measured, in runs that open no socket, the fastest of many. Then
what a scrape costs: there is one in 15 s by Prometheus's default.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from unittest.mock import patch
from uuid import UUID

import structlog
import trio

from bench.peers import MAX_CONCURRENCY, SERVICE_ROLE_KEY
from bench.results import write_result
from bench.walk import seed, trigger_engine_process
from engine import (
    RunRequest,
    Settings,
    find_binaries,
    load_settings,
    open_embedded_postgres,
    open_scheduler,
)
from engine.budget import Budget
from engine.mentors.protocol import IdRange, Page
from engine.run import Limits, Progress, run
from engine.run_id import new_run_id
from engine.trigger.measured import Invocations, MeasuredTriggerEngine
from engine.trigger.protocol import Evaluation, RunContext, TriggerEngine, TriggerEngineSession
from engine.walk import Walk
from web.app import create_app

# Times the processor time of a walk that nobody counts.
BOUND = 1.02

TRIES = 20
SCRAPES = 200
SCRAPE_INTERVAL = 15.0  # seconds


@contextmanager
def uncounted() -> Iterator[None]:
    """The scheduler as it would be without its measures: its trigger engine bare."""
    with patch("engine.scheduler.MeasuredTriggerEngine", lambda trigger_engine, invocations: trigger_engine):
        yield


async def walk(settings: Settings, mentors: int) -> float:
    """Processor seconds of one walk, from its start to its summary."""
    async with open_scheduler(settings) as scheduler:
        began = time.process_time()
        summary = await (await scheduler.start(RunRequest())).summary()
        seconds = time.process_time() - began
        counted = scheduler.measures.invocations.durations.total
    assert summary.total_active_mentors == summary.total_evaluated == mentors, summary
    assert counted in (0, mentors), counted
    return seconds


class IdleTriggerEngine:
    """A TriggerEngine, and its session, that waits twice for nothing, as for a request and its answer."""

    @asynccontextmanager
    async def open_session(self, context: RunContext) -> AsyncIterator[TriggerEngineSession]:
        yield self

    async def evaluate(self, mentor_ids: Sequence[UUID]) -> Evaluation:
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        return NOTHING_DUE


class MentorsInMemory:
    """A MentorSource of one page."""

    async def fetch_page(self, stretch: IdRange, page_size: int) -> Page:
        await trio.lowlevel.checkpoint()
        return Page([UUID(int=number) for number in range(1, page_size + 1)], is_last=True)

    async def count(self, stretch: IdRange) -> int:
        return 0


NOTHING_DUE = Evaluation()


async def walk_in_memory(trigger_engine: TriggerEngine, mentors: int) -> float:
    """Processor seconds of one run, without a socket, for each mentor."""
    now = trio.current_time()
    progress = Progress(Walk([IdRange()], soft_threshold=now + 500))
    limits = Limits(mentors, 1, MAX_CONCURRENCY, 5.0)
    budget = Budget(now, now + 500, now + 600)
    began = time.process_time()
    summary = await run(RunContext(new_run_id()), budget, limits, MentorsInMemory(), trigger_engine, progress)
    seconds = time.process_time() - began
    assert summary.total_evaluated == mentors, summary
    return seconds / mentors


def measure_measuring(mentors: int) -> float:
    """Processor seconds that one invocation costs more when it is measured: of the fastest of many runs."""
    idle = IdleTriggerEngine()
    measured = MeasuredTriggerEngine(idle, Invocations())
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(TRIES):
        for is_measured in (True, False, False, True):
            trigger_engine = measured if is_measured else idle
            seconds[is_measured].append(trio.run(walk_in_memory, trigger_engine, mentors))
    return min(seconds[True]) - min(seconds[False])


async def scrape(settings: Settings) -> float:
    """Processor seconds of one scrape behind a walk, the question to the database and the HTTP included."""
    async with open_scheduler(settings) as scheduler:
        await (await scheduler.start(RunRequest())).summary()
        with patch("web.metrics.FRESHNESS_LASTS", 0.0):
            client = create_app(scheduler, settings).test_client()
        began = time.process_time()
        for _ in range(SCRAPES):
            answer = await client.get("/metrics")
            assert answer.status_code == 200
        return (time.process_time() - began) / SCRAPES


Round = tuple[list[float], list[float]]


def measure_round(settings: Settings, mentors: int) -> Round:
    """Processor seconds of two counted walks, and of two uncounted ones between them."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for is_counted in (True, False, False, True):
        with ExitStack() as stack:
            if not is_counted:
                stack.enter_context(uncounted())
            seconds[is_counted].append(trio.run(walk, settings, mentors))
    return seconds[True], seconds[False]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mentors", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with ExitStack() as stack:
        postgres = stack.enter_context(open_embedded_postgres(find_binaries(None)))
        trigger_engine = stack.enter_context(trigger_engine_process("none"))
        trio.run(seed, postgres.dsn, arguments.mentors)
        settings = load_settings(
            database_url=postgres.dsn,
            trigger_engine=trigger_engine,
            service_role_key=SERVICE_ROLE_KEY,
            max_concurrency=MAX_CONCURRENCY,
        )
        measure_round(settings, arguments.mentors)  # warms everything up
        rounds = [measure_round(settings, arguments.mentors) for _ in range(arguments.rounds)]
        scrape_seconds = trio.run(scrape, settings)
    measuring_us = measure_measuring(arguments.mentors) * 1e6
    ratios = [sum(counted) / sum(bare) for counted, bare in rounds]
    ratio = statistics.median(ratios)
    fastest = min(min(counted) for counted, _ in rounds) / min(min(bare) for _, bare in rounds)
    us_per_mentor = statistics.median(sum(bare) / 2 for _, bare in rounds) / arguments.mentors * 1e6
    with_scrapes = ratio + scrape_seconds / SCRAPE_INTERVAL
    by_invocation = 1 + measuring_us / us_per_mentor
    print(f"uncounted: median {us_per_mentor:.1f} us a mentor, of this process")
    print(
        f"counted / uncounted: median {ratio:.4f} of {len(rounds)}; a scrape: {scrape_seconds * 1e3:.2f} ms"
    )
    print(f"fastest counted / fastest uncounted: {fastest:.4f}")
    print(f"measuring, in runs without a socket: {measuring_us:.2f} us, which makes {by_invocation:.4f}")
    print(f"with a scrape every {SCRAPE_INTERVAL:g} s: {with_scrapes:.4f}, at most {BOUND}")
    figures = {
        "mentors": arguments.mentors,
        "bound": BOUND,
        "uncounted_us_per_mentor": us_per_mentor,
        "counted_to_uncounted": ratio,
        "fastest_to_fastest": fastest,
        "rounds": ratios,
        "measuring_us": measuring_us,
        "by_invocation": by_invocation,
        "scrape_seconds": scrape_seconds,
        "with_scrapes": with_scrapes,
    }
    write_result("metrics", figures)


if __name__ == "__main__":
    main()
