"""This file is the command `worker`: it takes shards of runs, until it is told to stop."""

from __future__ import annotations

import sys

import click
import structlog
import trio

from engine import Settings, load_settings, open_worker
from web.logs import configure_logging
from web.signals import end_for_certain, watch_signals

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@click.command()
@click.option("--fleet", metavar="URL", help="Whose shards to take, instead of SCHEDULER_FLEET's.")
@click.option(
    "--shards-at-once",
    metavar="N",
    type=click.IntRange(1, 1_000),
    help="How many this one has in hand at most; by default as many as the whole fleet.",
)
def worker(fleet: str | None, shards_at_once: int | None) -> None:
    """Take shards of runs until SIGTERM, then drain.

    Needs DATABASE_URL and SCHEDULER_FLEET, and no SCHEDULER_SECRET: it listens to nobody. The settings
    SCHEDULER_TRIGGER_ENGINE, SCHEDULER_MENTOR_SOURCE, SCHEDULER_ELIGIBLE_ASSIGNMENT_STATUSES and
    SCHEDULER_MENTORS_PER_INVOCATION have to be those of the service that hands the shards out; where they are
    not, it says so, and takes nothing until it is restarted. Start as many as you like, anywhere. Draining,
    it finishes the shards that it has. Its log is on standard error, a JSON object a line. A second SIGTERM
    ends it at once; others do its shards again.

    \b
    Examples:
      scenario-scheduler worker --fleet nats://127.0.0.1:4222
      scenario-scheduler worker --shards-at-once 2
    """
    configure_logging()
    given: dict[str, str] = {} if fleet is None else {"fleet": fleet}
    settings = load_settings("database_url", coordinates=False, **given)
    sys.exit(0 if trio.run(work, settings, shards_at_once) else 1)


async def work(settings: Settings, shards_at_once: int | None) -> bool:
    """Work until SIGTERM or SIGINT, then drain; a second signal cuts the drain.

    Returns whether the drain was left to come to its end.

    **Cancellation:** as a second signal: shards are cut, and no task or connection is left.
    """
    async with open_worker(settings, shards_at_once=shards_at_once) as worker:

        def drain() -> None:
            log.info("draining", shards_in_hand=worker.in_hand)
            worker.drain()

        def cut() -> None:
            until_cut.cancel()
            end_for_certain()

        with trio.CancelScope() as until_cut:
            async with trio.open_nursery() as nursery:
                await nursery.start(watch_signals, drain, cut)
                log.info("working", worker=worker.name)
                await worker.work()
                nursery.cancel_scope.cancel()
        log.info("stopped", cut=until_cut.cancelled_caught)
        return not until_cut.cancelled_caught
