"""This file is the lease of one run: kept by heartbeats while it lasts, given back with its verdict.

It promises that of two runs the second begins only when the first has ended or was cut. The row may be taken
over when its heartbeat is older than LEASE, on the database's clock. The run cuts itself FENCE_AFTER the
moment at which it *sent* the last heartbeat that was acknowledged, on its own clock: two seconds earlier, for
clocks that drift and for calls that take a moment to end. So a run that has lost its database is cut, and so
is one whose process was frozen and woken.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

import structlog
import trio

from engine.errors import SchedulerError
from engine.ledger import Ledger, Verdict
from engine.run import Progress
from engine.tally import StopReason, Summary

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds between two heartbeats: how old the progress that others see can be, and what a killed run at most
# has walked in vain. One is a statement of 0.3 ms.
HEARTBEAT_PERIOD = 1.0

# Seconds; less than LEASE (engine/ledger.py).
FENCE_AFTER = 8.0

# Seconds between two tries at the last write while Postgres is away: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


class Lease(Protocol):
    """What a run holds on to, and what remains of it afterwards."""

    is_lost: bool
    given_back: trio.Event

    async def keep(self, *, until: float) -> None:
        """Beside the run. `until` on trio's clock."""
        ...

    async def give_back(self, verdict: Verdict, summary: Summary) -> None:
        """When the run has ended, however it did."""
        ...


class RecordedLease:
    """A Lease that is a row of the ledger; `begun_at` is the moment at which begin_run was sent."""

    def __init__(self, ledger: Ledger, run_id: UUID, progress: Progress, begun_at: float) -> None:
        self._ledger = ledger
        self._run_id = run_id
        self._progress = progress
        self._begun_at = begun_at
        self.is_lost = False
        self.given_back = trio.Event()
        progress.fence.put_off_until(begun_at + FENCE_AFTER)

    async def keep(self, *, until: float) -> None:
        """Send heartbeats, and put the run's fence off with each that is acknowledged.

        Ends when the lease is lost, which cuts the run. Not needed past the hard deadline: what is left of a
        run then takes less than the lease lasts.

        **Cancellation:** a heartbeat under way may be recorded or not.
        """
        sent_at = self._begun_at
        is_away = False
        with trio.move_on_at(until):
            while not self.is_lost:
                await trio.sleep_until(sent_at + HEARTBEAT_PERIOD)
                sent_at = trio.current_time()
                try:
                    self.is_lost = not await self._ledger.record_heartbeat(
                        self._run_id, self._progress.tally, self._progress.low_water_mark
                    )
                except SchedulerError as error:
                    if not is_away:
                        log.warning("heartbeat_not_recorded", run_id=str(self._run_id), reason=str(error))
                    is_away = True
                else:
                    is_away = False
                    self._progress.fence.put_off_until(sent_at + FENCE_AFTER)
            self._progress.fence.cut(StopReason.LEASE_LOST)

    async def give_back(self, verdict: Verdict, summary: Summary) -> None:
        """Write the verdict, as often as it takes; ends when it is written or the lease is lost.

        **Cancellation:** the row may be left running; the next run takes it over.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                self.is_lost = not await self._ledger.finish_run(
                    self._run_id, verdict, summary, self._progress.tally, self._progress.low_water_mark
                )
            except SchedulerError as error:
                log.warning("verdict_not_recorded", run_id=str(self._run_id), reason=str(error))
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                break
        if self.is_lost:
            log.warning("lease_lost", run_id=str(self._run_id))
        self.given_back.set()


class NoLease:
    """The Lease of a dry run: it writes nothing, so it may run beside any other."""

    def __init__(self) -> None:
        self.is_lost = False
        self.given_back = trio.Event()

    async def keep(self, *, until: float) -> None:
        return

    async def give_back(self, verdict: Verdict, summary: Summary) -> None:
        self.given_back.set()
