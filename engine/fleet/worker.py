"""This file is the worker: it takes shards, some at once, until it is told to take no more."""

from __future__ import annotations

import structlog
import trio

from engine.errors import FleetUnavailable
from engine.fleet.attempt import Attempt, Means
from engine.fleet.fitness import Fitness
from engine.fleet.protocol import Delivery, Workplace

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds by which this machine's clock may differ from Postgres's before it is said. It does no harm: a
# budget is counted on this machine from an answer of Postgres's on. But its log will not fit those of others.
SKEW_TOLERATED = 1.0

# Seconds before the next try where taking a shard failed as it never should.
PAUSE_AFTER_BUG = 1.0


class Worker:
    """Takes shards, at most `shards_at_once`, and has each carried out by these `means`."""

    def __init__(self, workplace: Workplace, means: Means, *, shards_at_once: int) -> None:
        self._workplace = workplace
        self._means = means
        self._fitness = Fitness(means.ledger)
        self._slots = trio.Semaphore(shards_at_once)
        self._until_drained = trio.CancelScope()
        self._draining = trio.Event()
        self._has_said_skew = False
        self.in_hand = 0

    @property
    def name(self) -> str:
        """What the ledger knows it by."""
        return self._means.worker

    def drain(self) -> None:
        """Take nothing more. What is in hand is finished within its budget."""
        self._draining.set()
        self._until_drained.cancel()

    async def work(self) -> None:
        """Take shards until `drain`, then finish what is in hand.

        Raises nothing: a bug costs its shard, which goes to somebody else, a few times.

        **Cancellation:** what is in hand is cut, and goes to another worker when ACK_WAIT is over.
        """
        async with trio.open_nursery() as nursery:
            with self._until_drained:
                while True:
                    await self._slots.acquire()
                    nursery.start_soon(self._carry_out, await self._take())

    async def _take(self) -> Delivery:
        while True:
            try:
                await self._fitness.wait()
                with self._fitness.taking():
                    return await self._workplace.take()
            except Exception:
                log.exception("take_failed")
                await trio.sleep(PAUSE_AFTER_BUG)

    async def _carry_out(self, delivery: Delivery) -> None:
        # In this task and those that it starts: every line says which shard of which run it is about.
        structlog.contextvars.bind_contextvars(run_id=str(delivery.run_id), shard=delivery.index)
        self.in_hand += 1
        attempt = Attempt(self._means, delivery, self._fitness, self._draining, self._compare_clocks)
        try:
            await attempt.carry_out()
        except Exception:
            log.exception("shard_failed")
            try:
                await (delivery.finish() if attempt.has_reported else delivery.hand_back())
            except FleetUnavailable as error:  # then it comes again when ACK_WAIT is over
                log.warning("delivery_not_ended", reason=str(error))
        finally:
            self.in_hand -= 1
            self._slots.release()

    def _compare_clocks(self, postgres_says: float) -> None:
        skew = self._means.wall_clock() - postgres_says
        if abs(skew) > SKEW_TOLERATED and not self._has_said_skew:
            self._has_said_skew = True
            log.warning(
                "clock_skew",
                seconds=round(skew, 1),
                remedy="Let NTP set this machine's clock, and Postgres's: their logs don't fit together.",
            )
