"""This file is a worker's hold on one shard: kept by heartbeats while it lasts, as a run's lease is.

It promises that nobody else is at work on the shard, and no other run has begun. The shard may be taken
when its heartbeat is ACK_WAIT old, and its run may be taken over when that one's is LEASE old. The
worker cuts itself before either, by its own clock, counted from when it *sent* the last heartbeat that
was acknowledged: a worker that lost its database is cut, and so is one that was frozen and woken. And so is
one that has lost the fleet, once another worker was given its shard and asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import structlog
import trio

from engine.errors import SchedulerError
from engine.fleet.protocol import ACK_WAIT
from engine.fleet.shard import Shard
from engine.fleet.shard_ledger import ShardLedger
from engine.lease import FENCE_AFTER
from engine.run import Progress
from engine.tally import StopReason

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds between two heartbeats, to the ledger and to the fleet.
HEARTBEAT_PERIOD = ACK_WAIT / 3

# Seconds from a heartbeat that was not recorded to the next.
RETRY_PERIOD = 0.4

# Seconds; less than ACK_WAIT, for clocks that drift and for calls that take a moment to end.
SHARD_FENCE_AFTER = 0.8 * ACK_WAIT


class ShardLease:
    """Of a shard that was claimed: at `claimed_at` that was sent, and `run_age` answered.

    `is_heard` says whether the fleet still counts the shard as in this worker's hand.
    """

    def __init__(
        self,
        ledger: ShardLedger,
        shard: Shard,
        claim: UUID,
        progress: Progress,
        *,
        is_heard: Callable[[], bool],
        claimed_at: float,
        run_age: float,
    ) -> None:
        self._ledger = ledger
        self._shard = shard
        self._claim = claim
        self._progress = progress
        self._sent_at = claimed_at
        self._is_heard = is_heard
        self._put_fence_off(run_age)

    async def keep(self) -> None:
        """Send heartbeats, and put the shard's fence off with each that is acknowledged.

        Ends when the shard is lost, or its run is, or it is another's to do; which cuts it.

        **Cancellation:** a heartbeat under way may be recorded or not.
        """
        is_away = False
        while True:
            period = RETRY_PERIOD if is_away else HEARTBEAT_PERIOD
            await trio.sleep_until(self._sent_at + period)
            self._sent_at = trio.current_time()
            try:
                kept = await self._ledger.record_shard_heartbeat(
                    self._shard, self._claim, self._progress.tally, self._progress.low_water_mark
                )
            except SchedulerError as error:
                if not is_away:
                    log.warning("heartbeat_not_recorded", reason=str(error))
                is_away = True
                continue
            is_away = False
            if kept is None:
                self._progress.fence.cut(StopReason.LEASE_LOST)
                return
            if kept.is_wanted and not self._is_heard():
                self._progress.fence.cut(StopReason.FLEET_UNAVAILABLE)
                return
            self._put_fence_off(kept.run_age)

    def _put_fence_off(self, run_age: float) -> None:
        """The run was younger when this was sent than when it was answered, so this errs on the safe side."""
        self._progress.fence.put_off_until(self._sent_at + min(SHARD_FENCE_AFTER, FENCE_AFTER - run_age))
