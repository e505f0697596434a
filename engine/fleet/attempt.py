"""This file is one attempt at one shard: the unchanged `run()` over its range of ids.

It promises:

- It acts only while the ledger says that the shard is its own and its run lives.
- Whatever the message holds, the worker lives on: what can't be right is refused, logged and gone.
- The result is handed over before the ledger says that the shard is finished, and the delivery is ended
  last: whenever a worker dies, its shard is done again, or was told.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from uuid import uuid4

import structlog
import trio

from engine.budget import Budget
from engine.errors import DatabaseUnavailable, FleetUnavailable, StatementFailed
from engine.fleet.agreement import Agreement
from engine.fleet.fitness import Fitness
from engine.fleet.protocol import ACK_WAIT, Delivery
from engine.fleet.shard import InvalidMessage, Shard, read_shard, result_of, write
from engine.fleet.shard_lease import HEARTBEAT_PERIOD, ShardLease
from engine.fleet.shard_ledger import Answer, Outcome, ShardLedger
from engine.mentors.protocol import MentorSource
from engine.run import Limits, Progress, run
from engine.settings import SHARD_MARGIN
from engine.trigger.protocol import RunContext, TriggerEngine
from engine.walk import Walk

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds between two tries at handing something over while the fleet or Postgres is away.
RETRY_PAUSE = 0.25

# Seconds. Less than that, and clocks that are not quite even would have a claim repeated in vain.
SHORTEST_WAIT = 0.01

# Seconds until what this worker is not to do goes to another: time to take back its own asking for more.
DISAGREEMENT_DELAY = 0.5

# Why a shard is refused that somebody must have made up, or that is another deployment's: what to do.
_FOREIGN = (
    "Shards of another deployment come here: give each its own SCHEDULER_FLEET_NAME, and let DATABASE_URL "
    "name the database of the service whose shards these are to be."
)
_REMEDIES = {
    "other_version": (
        "Service and workers are of different versions: stop the workers, upgrade the service, then start "
        "workers of the same version."
    ),
    str(Outcome.UNKNOWN): _FOREIGN,
    str(Outcome.CONTRADICTED): _FOREIGN,
}


@dataclass(frozen=True, slots=True)
class Means:
    """What all attempts of one worker have in common. `worker` is its name in the ledger.

    `limits.max_concurrency` is what one shard may have here at most, however large its share is. Shards of a
    coordinator with another `agreement` are left to other workers.
    """

    worker: str
    ledger: ShardLedger
    mentors: MentorSource
    trigger_engine: TriggerEngine
    limits: Limits
    agreement: Agreement
    wall_clock: Callable[[], float] = time.time


class Attempt:
    """At what was delivered. Once `draining` is set, it does not wait for others any more.

    What it learns of the worker itself it tells `fitness`, and `compare_clocks` what Postgres's says.
    """

    def __init__(
        self,
        means: Means,
        delivery: Delivery,
        fitness: Fitness,
        draining: trio.Event,
        compare_clocks: Callable[[float], None],
    ) -> None:
        self._means = means
        self._delivery = delivery
        self._fitness = fitness
        self._draining = draining
        self._compare_clocks = compare_clocks
        self._claim = uuid4()
        self.has_reported = False  # then it is not to be done again, whatever comes
        self._heard_at = trio.current_time()  # when what the fleet heard last was said

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
        if differing := list(self._means.agreement.differing(shard.agreement)):
            self._fitness.disagree(differing)
            await self._end(partial(self._delivery.hand_back, delay=DISAGREEMENT_DELAY))
            return
        claimed = await self._claim_shard(shard)
        if claimed is None:
            await self._end(partial(self._delivery.hand_back, delay=self._fitness.delay))
            return
        claimed_at, answer = claimed
        if answer.outcome is not Outcome.CLAIMED:
            _say_refused(str(answer.outcome), log.warning if answer.outcome in _REMEDIES else log.info)
            await self._end(self._delivery.refuse)
            return
        self._compare_clocks(answer.at)
        # The claim was sent before the moment that it was answered with, so no deadline here is a late one.
        here = claimed_at - answer.at
        budget = Budget(claimed_at, shard.soft_threshold_at + here, shard.hard_deadline_at + here)
        progress = Progress(Walk([shard.id_range], soft_threshold=budget.soft_threshold))
        lease = ShardLease(
            *(self._means.ledger, shard, self._claim, progress),
            claimed_at=claimed_at,
            run_age=answer.run_age,
            is_heard=self._is_heard,
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
        self.has_reported = True
        # Were it not written down, the next run would begin at the last heartbeat's mark: nobody is missed.
        await _insist(
            lambda: means.ledger.finish_shard(result, self._claim, progress.low_water_mark),
            until=min(until, trio.current_time() + ACK_WAIT),
        )
        await _insist(self._delivery.finish, until=until)
        say = log.warning if result.errors else log.info
        say(
            "shard_ended",
            worker=means.worker,
            errors=result.errors,
            **result.model_dump(include={"evaluated", "unprocessed", "stop_reason"}),
        )

    def _read(self) -> Shard | None:
        """What the message says, if it can be right."""
        try:
            shard = read_shard(self._delivery.message)
        except InvalidMessage as error:
            _say_refused(error.reason, log.warning)
            return None
        if (shard.run_id, shard.index) != (self._delivery.run_id, self._delivery.index):
            _say_refused("of_another_shard", log.warning)
            return None
        return shard

    async def _claim_shard(self, shard: Shard) -> tuple[float, Answer] | None:
        """The answer, and when it was asked for; None if there was none within ACK_WAIT, or before the drain.

        While another worker that seems to live has the shard, it is asked again, and the delivery is kept
        for so long: until it would be too late to begin.
        """
        while True:
            if (claimed := await self._ask(shard)) is None:
                return None
            answer = claimed[1]
            if answer.outcome is not Outcome.HELD or answer.at >= shard.hard_deadline_at:
                return claimed
            pause = min(max(answer.held_for, SHORTEST_WAIT), HEARTBEAT_PERIOD)
            if await self._is_drained_within(pause):
                return None

    async def _ask(self, shard: Shard) -> tuple[float, Answer] | None:
        """Asked for the shard, the ledger answers within ACK_WAIT, or this is None."""
        with trio.move_on_after(ACK_WAIT):
            while True:
                asked_at = trio.current_time()
                try:
                    answer = await self._means.ledger.claim_shard(shard, self._means.worker, self._claim)
                except (DatabaseUnavailable, StatementFailed) as error:
                    self._fitness.claim_failed(str(error))
                    if await self._is_drained_within(HEARTBEAT_PERIOD):
                        return None
                else:
                    self._fitness.claim_answered()
                    return asked_at, answer
        return None

    async def _is_drained_within(self, seconds: float) -> bool:
        with trio.move_on_after(seconds):
            await self._draining.wait()
        return self._draining.is_set()

    async def _keep_delivery(self) -> None:
        sent_at = self._heard_at
        while True:
            await trio.sleep_until(sent_at + HEARTBEAT_PERIOD)
            sent_at = trio.current_time()
            if await self._delivery.keep():
                self._heard_at = sent_at

    def _is_heard(self) -> bool:
        return trio.current_time() < self._heard_at + ACK_WAIT

    async def _end(self, end: Callable[[], Awaitable[object]]) -> None:
        """Of something that comes again by itself if the fleet is away."""
        await _insist(end, until=trio.current_time())


def _say_refused(reason: str, say: Callable[..., object]) -> None:
    remedy = {"remedy": _REMEDIES[reason]} if reason in _REMEDIES else {}
    say("shard_refused", reason=reason, **remedy)


async def _insist(attempt: Callable[[], Awaitable[object]], *, until: float) -> bool:
    """Try at least once, and again until it works or that moment on trio's clock. Returns whether it did."""
    while True:
        try:
            await attempt()
        except (FleetUnavailable, DatabaseUnavailable, StatementFailed) as error:
            if trio.current_time() + RETRY_PAUSE > until:
                log.warning("given_up", reason=str(error))
                return False
            await trio.sleep(RETRY_PAUSE)
        else:
            return True
