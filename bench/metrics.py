"""This file measures what being watched costs a walk: counted and uncounted ones, in turns.

    python -m bench.metrics [--mentors 1500] [--rounds 60]

The trigger engine answers at once, so that the walk is all overhead: the worst case. In processor time of
this process alone, which others on the machine change less than the clock on the wall. Each round is four
walks, counted, uncounted, uncounted, counted, and gives one ratio; the median of them is held to 1.02. Short
walks and many of them, because a busy machine changes its pace within seconds. Then what a scrape costs:
there is one in 15 s by Prometheus's default.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
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
from engine.errors import InvocationFailed
from engine.trigger.protocol import Evaluation, TriggerEngineSession
from web.app import create_app

# Times the processor time of a walk that nobody counts.
BOUND = 1.02

SCRAPES = 200
SCRAPE_INTERVAL = 15.0  # seconds


async def invoke_uncounted(
    mentor_ids: Sequence[UUID], session: TriggerEngineSession, invocations: object, invocation_timeout: float
) -> Evaluation:
    """The dispatcher's `_invoke` as it would be if nobody wanted to know."""
    if trio.current_time() >= trio.current_effective_deadline():
        await trio.sleep_forever()
    with trio.move_on_after(invocation_timeout):
        return await session.evaluate(mentor_ids)
    raise InvocationFailed("timeout")


async def walk(settings: Settings, mentors: int) -> float:
    """Processor seconds of one walk, from its start to its summary."""
    async with open_scheduler(settings) as scheduler:
        began = time.process_time()
        summary = await (await scheduler.start(RunRequest())).summary()
        seconds = time.process_time() - began
        counted = scheduler.measures.totals().invocations.total
    assert summary.total_active_mentors == summary.total_evaluated == mentors, summary
    assert counted in (0, mentors), counted
    return seconds


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
                stack.enter_context(patch("engine.dispatcher._invoke", invoke_uncounted))
            seconds[is_counted].append(trio.run(walk, settings, mentors))
    return seconds[True], seconds[False]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mentors", type=int, default=1_500)
    parser.add_argument("--rounds", type=int, default=60)
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
    ratios = [sum(counted) / sum(bare) for counted, bare in rounds]
    ratio = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4)
    us_per_mentor = statistics.median(sum(bare) / 2 for _, bare in rounds) / arguments.mentors * 1e6
    with_scrapes = ratio + scrape_seconds / SCRAPE_INTERVAL
    print(f"uncounted: median {us_per_mentor:.1f} us a mentor, of this process")
    print(
        f"counted / uncounted: median {ratio:.4f} of {len(rounds)}; a scrape: {scrape_seconds * 1e3:.2f} ms"
    )
    print(f"half of the rounds between {low:.4f} and {high:.4f}")
    print(f"with a scrape every {SCRAPE_INTERVAL:g} s: {with_scrapes:.4f}, at most {BOUND}")
    figures = {
        "mentors": arguments.mentors,
        "bound": BOUND,
        "uncounted_us_per_mentor": us_per_mentor,
        "counted_to_uncounted": ratio,
        "half_of_the_rounds_between": [low, high],
        "rounds": ratios,
        "scrape_seconds": scrape_seconds,
        "with_scrapes": with_scrapes,
    }
    write_result("metrics", figures)


if __name__ == "__main__":
    main()
