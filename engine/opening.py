"""This file is how a process begins: its parts, opened in order and closed in reverse."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import trio

from engine.errors import ConfigurationError
from engine.fleet.agreement import agreement_of
from engine.fleet.attempt import Means
from engine.fleet.choice import open_fleet, open_workplace
from engine.fleet.coordinator import Coordinator
from engine.fleet.in_process import InProcessFleet
from engine.fleet.protocol import Workplace
from engine.fleet.shard_ledger import ShardLedger
from engine.fleet.worker import Worker
from engine.parts import Parts, open_parts
from engine.runner import limits_from
from engine.scheduler import PARTING_PATIENCE, Scheduler
from engine.settings import Settings
from engine.trigger.in_database import EVALUATIONS_AT_ONCE

# At most: a run's evaluations, a dry run's beside it, those that come over HTTP, and one connection each for
# pages, for the remaining count, for the ledger and for whoever asks whether the database is there, because
# none of these may wait for an evaluation that hangs. Opened when needed: a run in the database takes seven.
MAX_CONNECTIONS = 3 * EVALUATIONS_AT_ONCE + 4

# For each shard that a worker has in hand, beside its evaluations: its pages, its heartbeats, its count.
CONNECTIONS_PER_SHARD = 3


@asynccontextmanager
async def open_scheduler(settings: Settings) -> AsyncIterator[Scheduler]:
    """Open the database, the mentors, the trigger engine, the fleet, and the nursery that runs live in.

    Connects to no database yet, so it opens also while Postgres is away. Raises ConfigurationError.

    **Cancellation:** runs under way are cut; no task and no connection is left.
    """
    at_once = settings.fleet_shards_at_once
    workers_own = at_once * (1 + CONNECTIONS_PER_SHARD) if settings.fleet_is_in_process else 0
    async with AsyncExitStack() as stack:
        opening = open_parts(settings, max_connections=MAX_CONNECTIONS + workers_own)
        parts = await stack.enter_async_context(opening)
        coordinator = None
        if settings.fleet is not None:
            fleet = await stack.enter_async_context(open_fleet(settings))
            coordinator = Coordinator(
                fleet=fleet,
                ledger=ShardLedger(parts.database),
                mentors=parts.mentors,
                shards=settings.fleet_shards,
                concurrency_per_shard=settings.concurrency_per_shard,
                agreement=agreement_of(settings),
            )
            if isinstance(fleet, InProcessFleet):
                await stack.enter_async_context(_working(_worker(settings, parts, fleet, at_once)))
        async with trio.open_nursery() as runs:
            yield Scheduler(settings, parts, runs, coordinator)
            runs.cancel_scope.cancel()


@asynccontextmanager
async def _working(worker: Worker) -> AsyncIterator[None]:
    """It works while the block lasts, and then has PARTING_PATIENCE to write down what it has told already.

    **Cancellation:** what it has in hand is cut.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.work)
        yield
        worker.drain()
        nursery.cancel_scope.deadline = trio.current_time() + PARTING_PATIENCE


@asynccontextmanager
async def open_worker(settings: Settings, *, shards_at_once: int | None = None) -> AsyncIterator[Worker]:
    """A worker of the fleet of SCHEDULER_FLEET, which takes nothing until `Worker.work` is called.

    `shards_at_once` is how many it has in hand at most; by default as many as the whole fleet. Raises
    ConfigurationError.

    **Cancellation:** no task and no connection is left.
    """
    at_once = shards_at_once or settings.fleet_shards_at_once
    if not settings.fleet_is_remote:
        raise ConfigurationError(
            ["SCHEDULER_FLEET is no URL, so no worker can take shards from there; set it, or give --fleet."]
        )
    connections = at_once * (1 + CONNECTIONS_PER_SHARD) + EVALUATIONS_AT_ONCE
    async with (
        open_parts(settings, max_connections=connections) as parts,
        open_workplace(settings) as workplace,
    ):
        yield _worker(settings, parts, workplace, at_once)


def _worker(settings: Settings, parts: Parts, workplace: Workplace, shards_at_once: int) -> Worker:
    limits = limits_from(settings)
    # In the database, what one process may have at once is shared by its shards; each has one at least.
    if not settings.over_http:
        limits = replace(limits, max_concurrency=max(1, limits.max_concurrency // shards_at_once))
    means = Means(
        worker=f"{socket.gethostname()}:{os.getpid()}",
        ledger=ShardLedger(parts.database),
        mentors=parts.mentors,
        trigger_engine=parts.trigger_engine,
        limits=limits,
        agreement=agreement_of(settings),
    )
    return Worker(workplace, means, shards_at_once=shards_at_once)
