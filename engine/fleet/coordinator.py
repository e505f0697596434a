"""This file is the coordinator: a run that is carried out by a fleet, whole.

    plan -> ledger -> submit, in order -> [fleet: workers] -> results -> merge -> summary

It promises what engine/run.py does. The soft threshold ends what may be begun: shards that no worker
has taken are withdrawn, in the ledger first, because that is what a worker has to ask. From then on
whoever is in a shard without a result is counted. The hard deadline ends the waiting, and so does the
fence of the lease. However a run ends, its summary is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from uuid import UUID

import structlog
import trio

from engine.budget import COUNT_GRACE, Budget
from engine.errors import DatabaseUnavailable, FleetUnavailable
from engine.fleet.agreement import Agreement
from engine.fleet.merge import Merge
from engine.fleet.plan import longest_waiting_first, plan
from engine.fleet.protocol import Fleet, Gathering
from engine.fleet.shard import InvalidMessage, Shard, read_result, write
from engine.fleet.shard_ledger import ShardLedger
from engine.mentors.protocol import IdRange, MentorSource
from engine.run import Progress
from engine.settings import SHARD_MARGIN
from engine.tally import StopReason, Summary, summarise
from engine.trigger.protocol import RunContext

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds between two tries while Postgres or the fleet is away: as for a page (engine/producer.py).
RECONNECT_PAUSE = 0.5

# Seconds between two tries at a count: as engine/remaining.py.
RECOUNT_PAUSE = 0.25

# Ids in the sample for each shard that is to be planned: shards then differ by a tenth or so.
SAMPLE_PER_SHARD = 32

# The share of all mentors in one shard that is said, where there are so many: the other shards' workers idle.
UNEVEN, UNEVEN_FROM = 0.9, 1_000

# What ends a run for want of time. That the fleet was away is nearer to the cause.
_IF_NOTHING_ELSE = (None, StopReason.SOFT_THRESHOLD, StopReason.HARD_DEADLINE)


@dataclass(frozen=True, slots=True)
class Coordinator:
    """Implements Runner. `shards` are planned for each run; each may have so many invocations in flight."""

    fleet: Fleet
    ledger: ShardLedger
    mentors: MentorSource
    shards: int
    concurrency_per_shard: int
    agreement: Agreement

    async def check_ready(self) -> None:
        await self.fleet.check_ready()

    async def run(self, context: RunContext, budget: Budget, progress: Progress) -> Summary:
        """Have every shard carried out, and answer by `budget.counted_by`, whatever hangs.

        Raises only what is a bug, as an ExceptionGroup.

        **Cancellation:** shards under way end by themselves, within seconds of the run's last
        heartbeat; no task is left here, and `progress` stays readable and true.
        """
        return await _Coordination(self, context, budget, progress).carry_out()


class _Coordination:
    """Of one run."""

    def __init__(self, parts: Coordinator, context: RunContext, budget: Budget, progress: Progress) -> None:
        self._parts = parts
        self._context = context
        self._budget = budget
        self._progress = progress
        self._walk = progress.walk
        self._merge = Merge(self._walk.unfetched, progress)  # until there is a plan
        self._nothing_begins = trio.Event()  # no shard that was not begun will be
        self._receiving = trio.CancelScope()
        self._gathering: Gathering | None = None

    async def carry_out(self) -> Summary:
        budget, walk = self._budget, self._walk
        async with trio.open_nursery() as around:
            # Whatever takes its time to be cut, the count gets no more than there is.
            around.cancel_scope.deadline = budget.counted_by
            around.start_soon(self._count_missing)

            with trio.move_on_at(budget.hard_deadline) as cut, self._progress.fence.scope as fenced:
                try:
                    await self._coordinate()
                finally:
                    self._nothing_begins.set()

            if fenced.cancelled_caught:
                walk.stop(self._progress.fence.reason)
            now = trio.current_time()
            if not self._merge.missing:
                around.cancel_scope.deadline = now
            elif fenced.cancelled_caught:
                around.cancel_scope.deadline = min(now + COUNT_GRACE, budget.counted_by)

        self._say_if_uneven()
        ended_by = StopReason.HARD_DEADLINE if cut.cancelled_caught else walk.stop_reason
        if ended_by in (None, StopReason.SOFT_THRESHOLD):
            ended_by = self._merge.stop_reason or ended_by
        # Who misses results of a fleet that is away, waited for nothing else.
        is_away = self._gathering is not None and self._gathering.is_away
        if self._merge.missing and is_away and ended_by in _IF_NOTHING_ELSE:
            ended_by = StopReason.FLEET_UNAVAILABLE
        return summarise(
            self._progress.tally,
            unfetched=self._merge.close(),
            ended_by=ended_by or StopReason.FINISHED,
            duration=trio.current_time() - budget.started,
            run_id=self._context.run_id,
        )

    def _say_if_uneven(self) -> None:
        """A fleet is of no use to a run that is one shard, but for so few that one is enough."""
        share = self._merge.largest_share
        if len(self._merge.ranges) > 1 and share > UNEVEN and self._progress.tally.fetched >= UNEVEN_FROM:
            log.warning(
                "shards_uneven",
                share=round(share, 2),
                remedy="One shard had nearly everybody, because ids lie close together and no sample of them "
                "was to be had; index the mentors' (status, id), and see `no_sample` in this log.",
            )

    async def _coordinate(self) -> None:
        shards = await self._plan()
        if shards is None:
            return
        fleet_away = False
        async with AsyncExitStack() as stack:
            while self._walk.next_stretch():
                try:
                    opening = self._parts.fleet.open_gathering(self._context.run_id)
                    gathering = await stack.enter_async_context(opening)
                except FleetUnavailable as error:
                    if not fleet_away:
                        log.warning("no_shard_submitted", reason=str(error))
                    fleet_away = True
                    await self._walk.pause(RECONNECT_PAUSE)
                else:
                    self._gathering = gathering
                    await self._hand_out(gathering, shards)
                    return
        if fleet_away:
            self._walk.stop(StopReason.FLEET_UNAVAILABLE)

    async def _hand_out(self, gathering: Gathering, shards: Sequence[Shard]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._submit, gathering, shards)
            nursery.start_soon(self._withdraw, gathering)
            await self._receive(gathering)
            nursery.cancel_scope.cancel()

    async def _plan(self) -> Sequence[Shard] | None:
        """Write down which shards there are. None: there was no time, or the run is another's.

        A plan that may have been written is not made anew, only written again.
        """
        ranges: Sequence[IdRange] = ()
        database_away = False
        while self._walk.next_stretch():
            try:
                ranges = ranges or await self._make_plan()
                planned_at = await self._parts.ledger.plan_shards(self._context.run_id, ranges)
            except DatabaseUnavailable as error:
                if not database_away:
                    log.warning("shards_not_planned", reason=str(error))
                database_away = True
                await self._walk.pause(max(RECONNECT_PAUSE, error.retry_after or 0.0))
                continue
            if planned_at is None:
                self._progress.fence.cut(StopReason.LEASE_LOST)
                await trio.lowlevel.checkpoint()
                return None
            log.info("shards_planned", shards=len(ranges))
            self._merge = Merge(ranges, self._progress)
            # That was before the answer came, so no instant is later than it should be.
            return [self._shard(index, planned_at - trio.current_time()) for index in range(len(ranges))]
        if database_away:
            self._walk.stop(StopReason.DATABASE_UNAVAILABLE)
        return None

    async def _make_plan(self) -> Sequence[IdRange]:
        past = await self._parts.ledger.previous_shards(self._context.run_id)
        sample = await self._sample()
        return plan(sample, self._parts.shards, longest_waiting_first(past) or self._walk.unfetched)

    async def _sample(self) -> Sequence[UUID]:
        try:
            return await self._parts.mentors.sample(SAMPLE_PER_SHARD * self._parts.shards)
        except DatabaseUnavailable as error:
            log.warning("no_sample", reason=str(error), remedy="Shards are of equal width, not population.")
            return ()

    def _shard(self, index: int, since_1970: float) -> Shard:
        """`since_1970`: of trio's zero, on Postgres's clock."""
        id_range = self._merge.ranges[index]
        return Shard(
            run_id=self._context.run_id,
            index=index,
            after=id_range.after,
            until=id_range.until,
            scenario_types=self._context.scenario_types,
            soft_threshold_at=since_1970 + self._budget.soft_threshold,
            hard_deadline_at=since_1970 + self._budget.hard_deadline - SHARD_MARGIN,
            max_concurrency=self._parts.concurrency_per_shard,
            agreement=self._parts.agreement,
        )

    async def _submit(self, gathering: Gathering, shards: Sequence[Shard]) -> None:
        fleet_away = False
        for shard in shards:
            while self._walk.next_stretch():
                try:
                    await gathering.submit(shard.index, write(shard))
                except FleetUnavailable as error:
                    if not fleet_away:
                        log.warning("shard_not_submitted", reason=str(error))
                    fleet_away = True
                    await self._walk.pause(RECONNECT_PAUSE)
                else:
                    fleet_away = False
                    break
        if fleet_away:
            self._walk.stop(StopReason.FLEET_UNAVAILABLE)

    async def _withdraw(self, gathering: Gathering) -> None:
        """Once the walk has stopped or come to its soft threshold, let nothing more begin."""
        await self._walk.settled()
        while True:
            try:
                self._merge.withdrawn = await self._parts.ledger.withdraw_shards(self._context.run_id)
            except DatabaseUnavailable:
                await trio.sleep(RECONNECT_PAUSE)
            else:
                break
        if len(self._merge.withdrawn) == len(self._merge.ranges) and not self._walk.draining:
            log.warning(
                "no_worker", remedy="Start `scenario-scheduler worker`, or see why none takes shards."
            )
            self._walk.stop(StopReason.FLEET_UNAVAILABLE)
        self._nothing_begins.set()
        with suppress(FleetUnavailable):  # then workers learn it from the ledger
            await gathering.withdraw()
        if not self._merge.is_awaited:
            self._receiving.cancel()

    async def _receive(self, gathering: Gathering) -> None:
        with self._receiving:
            while self._merge.is_awaited:
                index, content = await gathering.next_result()
                try:
                    result = read_result(content)
                except InvalidMessage as error:
                    log.warning("result_refused", shard=index, reason=error.reason)
                    continue
                if (result.run_id, result.index) != (self._context.run_id, index):
                    log.warning("result_refused", shard=index, reason="of_another_shard")
                elif not self._merge.add(result):
                    log.info("result_repeated", shard=index)

    async def _count_missing(self) -> None:
        """Count who is in shards that have no result, those first that will have none.

        **Cancellation:** who was not counted by then is not known.
        """
        await self._walk.settled()
        # At the hard deadline nothing begins, although who is cut may take a moment to say so.
        with trio.move_on_at(self._budget.hard_deadline):
            await self._nothing_begins.wait()
        merge = self._merge
        while not merge.remaining.keys() >= set(merge.missing):
            index = next(index for index in merge.missing if index not in merge.remaining)
            try:
                merge.remaining[index] = await self._parts.mentors.count(merge.ranges[index])
            except DatabaseUnavailable as error:
                await trio.sleep(max(RECOUNT_PAUSE, error.retry_after or 0.0))
        remaining = sum(merge.remaining[index] for index in merge.missing)
        log.info("remaining_counted", remaining=remaining, stop_reason=self._walk.stop_reason)
