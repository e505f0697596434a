"""This file is one attempt at one shard: the unchanged `run()` over its range of ids.

It promises:

- It acts only while the ledger says that the shard is its own and its run lives.
- Whatever the message holds, the worker lives on: what can't be right is refused, logged and gone.
- The result is handed over before the ledger says that the shard is finished, and the delivery is ended
last:
  whenever a worker dies, its shard is done again, or was told.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from uuid import uuid4

import structlog
import trio

from engine.budget import Budget
from engine.errors import DatabaseUnavailable, FleetUnavailable
from engine.fleet.protocol import Delivery
from engine.fleet.shard import InvalidMessage, Shard, read_shard, result_of, write
from engine.fleet.shard_lease import HEARTBEAT_PERIOD, ShardLease
from engine.fleet.shard_ledger import Answer, Outcome, ShardLedger
from engine.mentors.protocol import MentorSource
from engine.run import Limits, Progress, run
from engine.settings import SHARD_MARGIN
from engine.trigger.protocol import RunContext, TriggerEngine
from engine.walk import Walk

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds by which this machine's clock may differ from Postgres's before it is said. It does no harm: a
# budget is counted on this machine from an answer of Postgres's on. But its log will not fit those of
# others.
SKEW_TOLERATED = 1.0

# Seconds between two tries at handing something over while the fleet or Postgres is away.
RETRY_PAUSE = 0.25

# Seconds. Less than that, and clocks that are not quite even would have a claim repeated in vain.
SHORTEST_WAIT = 0.01

# Why a shard is refused that somebody must have made up, or that is another deployment's.
_SUSPICIOUS = (Outcome.UNKNOWN, Outcome.CONTRADICTED)


@dataclass(slots=True)
class Means:
    """What all attempts of one worker have in common. `worker` is its name in the ledger.

    `limits.max_concurrency` is what one shard may have here at most, however large its share is.
    """

    worker: str
    ledger: ShardLedger
    mentors: MentorSource
    trigger_engine: TriggerEngine
    limits: Limits
    wall_clock: Callable[[], float] = time.time
    has_said_skew: bool = False


class Attempt:
    """At what was delivered. Once `draining` is set, it does not wait for others any more."""

    def __init__(self, means: Means, delivery: Delivery, draining: trio.Event) -> None:
        self._means = means
        self._delivery = delivery
        self._draining = draining
        self._claim = uuid4()

    async def carry_out(self) -> None:
        """To its end, whichever: told, refused, handed back, or lost.

        Raises only what is a bug. **Cancellation:** what was begun is cut, and the shard comes again.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_delivery)
            await self._carry_out()
            nursery.cancel_scope.cancel()

    async def _carry_out(self) -> None:
        if (shard := self._read()) is None:
            await self._end(self._delivery.refuse)
            return
        claimed = await self._claim_shard(shard)
        if claimed is None:
            await self._end(self._delivery.hand_back)
            return
        claimed_at, answer = claimed
        if answer.outcome is not Outcome.CLAIMED:
            say = log.warning if answer.outcome in _SUSPICIOUS else log.info
            say("shard_refused", reason=str(answer.outcome))
            await self._end(self._delivery.refuse)
            return
        self._compare_clocks(answer.at)
        # The claim was sent before the moment that it was answered with, so no deadline here is a late
        # one.
        here = claimed_at - answer.at
        budget = Budget(claimed_at, shard.soft_threshold_at + here, shard.hard_deadline_at + here)
        progress = Progress(Walk([shard.id_range], soft_threshold=budget.soft_threshold))
        lease = ShardLease(
            *(self._means.ledger, shard, self._claim, progress),
            claimed_at=claimed_at,
            run_age=answer.run_age,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lease.keep)
            await self._run(shard, budget, progress)
            nursery.cancel_scope.cancel()

    async def _run(self, shard: Shard, budget: Budget, progress: Progress) -> None:
        means = self._means
        at_once = min(shard.max_concurrency, means.limits.max_concurrency)
        summary = await run(
            RunContext(shard.run_id, shard.scenario_types),
            budget,
            replace(means.limits, max_concurrency=at_once),
            means.mentors,
            means.trigger_engine,
            progress,
        )
        # Not whether it caught: the hard deadline may have been past as well, and have done the cutting.
        if progress.fence.scope.cancel_called:
            # Somebody else may have it, so nothing more is said. It comes again, or its run is over.
            log.warning("shard_lost", reason=str(progress.fence.reason))
            return
        result = result_of(shard, summary, progress)
        until = budget.hard_deadline + SHARD_MARGIN  # then nobody waits for it any more
        if not await _insist(lambda: self._delivery.report(write(result)), until=until):
            log.warning("result_not_reported")
            return
        await _insist(
            lambda: means.ledger.finish_shard(result, self._claim, progress.low_water_mark), until=until
        )
        await _insist(self._delivery.finish, until=until)
        log.info("shard_ended", **result.model_dump(include={"evaluated", "unprocessed", "stop_reason"}))

    def _read(self) -> Shard | None:
        """What the message says, if it can be right."""
        try:
            shard = read_shard(self._delivery.message)
        except InvalidMessage as error:
            log.warning("shard_refused", reason=error.reason)
            return None
        if (shard.run_id, shard.index) != (self._delivery.run_id, self._delivery.index):
            log.warning("shard_refused", reason="of_another_shard")
            return None
        return shard

    async def _claim_shard(self, shard: Shard) -> tuple[float, Answer] | None:
        """The answer, and when it was asked for; None if there was none before the drain.

        While Postgres is away, or another worker that seems to live has the shard, it is asked again:
        the delivery is kept for so long, and goes to nobody.
        """
        database_away = False
        while True:
            claimed_at = trio.current_time()
            pause = HEARTBEAT_PERIOD
            try:
                answer = await self._means.ledger.claim_shard(shard, self._means.worker, self._claim)
            except DatabaseUnavailable as error:
                if not database_away:
                    log.warning("shard_not_claimed", reason=str(error))
                database_away = True
            else:
                if answer.outcome is not Outcome.HELD:
                    return claimed_at, answer
                pause = min(max(answer.held_for, SHORTEST_WAIT), HEARTBEAT_PERIOD)
            with trio.move_on_after(pause):
                await self._draining.wait()
                return None

    async def _keep_delivery(self) -> None:
        while True:
            await trio.sleep(HEARTBEAT_PERIOD)
            await self._delivery.keep()

    async def _end(self, end: Callable[[], Awaitable[object]]) -> None:
        """Of something that comes again by itself if the fleet is away."""
        await _insist(end, until=trio.current_time())

    def _compare_clocks(self, postgres_says: float) -> None:
        skew = self._means.wall_clock() - postgres_says
        if abs(skew) > SKEW_TOLERATED and not self._means.has_said_skew:
            self._means.has_said_skew = True
            log.warning(
                "clock_skew",
                seconds=round(skew, 1),
                remedy="Let NTP set this machine's clock, and Postgres's: their logs don't fit together.",
            )


async def _insist(attempt: Callable[[], Awaitable[object]], *, until: float) -> bool:
    """Try at least once, and again until it works or that moment on trio's clock. Returns whether it did."""
    while True:
        try:
            await attempt()
        except (FleetUnavailable, DatabaseUnavailable) as error:
            if trio.current_time() + RETRY_PAUSE > until:
                log.warning("given_up", reason=str(error))
                return False
            await trio.sleep(RETRY_PAUSE)
        else:
            return True
