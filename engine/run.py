"""This file is one run, whole. START HERE.

    pages -> producer -> [bounded channel] -> ten dispatchers -> trigger engine
                                                   |
                                                 tally -> summary

The soft threshold ends the fetching of pages; what was fetched is finished. The hard deadline cuts whatever
still hangs, and so does the fence, when another run may have begun. Beside them what was left is counted,
which may outlive the cut by its grace. However a run ends, its summary is true.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import trio

from engine.budget import COUNT_GRACE, Budget
from engine.chunk import Chunk
from engine.dispatcher import dispatch
from engine.fence import Fence
from engine.low_water_mark import LowWaterMark
from engine.mentors.protocol import MentorSource
from engine.producer import produce
from engine.remaining import count_remaining
from engine.tally import StopReason, Summary, Tally, summarise
from engine.trigger.protocol import RunContext, TriggerEngine
from engine.walk import Walk


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once: mentors per page, mentors per chunk, chunks in flight, seconds per invocation."""

    page_size: int
    mentors_per_invocation: int
    max_concurrency: int
    invocation_timeout: float


@dataclass(slots=True)
class Progress:
    """What can be seen of a run from outside, at any moment of it.

    Only the run itself writes here; from outside `walk` can be stopped, and the run be cut by its `fence`.
    """

    walk: Walk
    fence: Fence = field(default_factory=Fence)
    tally: Tally = field(default_factory=Tally)
    low_water_mark: LowWaterMark = field(default_factory=LowWaterMark)
    channel: trio.MemoryReceiveChannel[Chunk] | None = None

    @property
    def channel_depth(self) -> int:
        """Chunks that were sent, and wait for a dispatcher; none before the run and after it."""
        return self.channel.statistics().current_buffer_used if self.channel else 0


async def run(
    context: RunContext,
    budget: Budget,
    limits: Limits,
    mentors: MentorSource,
    trigger_engine: TriggerEngine,
    progress: Progress,
) -> Summary:
    """Walk the stretches of `progress.walk` and answer by `budget.counted_by`, whatever hangs.

    Raises only what is a bug, as an ExceptionGroup.

    **Cancellation:** no task, session or connection is left; `progress` stays readable and true.
    """
    walk, tally = progress.walk, progress.tally
    send_channel, receive_channel = trio.open_memory_channel[Chunk](limits.max_concurrency)
    progress.channel = receive_channel

    async with trio.open_nursery() as around:
        around.start_soon(count_remaining, walk, mentors)

        with trio.move_on_at(budget.hard_deadline) as cut, progress.fence.scope as fenced:
            async with trio.open_nursery() as nursery, receive_channel:
                nursery.start_soon(
                    partial(produce, page_size=limits.page_size, chunk_size=limits.mentors_per_invocation),
                    *(walk, mentors, send_channel, tally),
                )
                for _ in range(limits.max_concurrency):
                    nursery.start_soon(
                        partial(
                            dispatch,
                            invocation_timeout=limits.invocation_timeout,
                            hard_deadline=budget.hard_deadline,
                        ),
                        *(receive_channel.clone(), walk, trigger_engine, context, tally),
                        progress.low_water_mark,
                    )

        if fenced.cancelled_caught:
            walk.stop(progress.fence.reason)
        # Everything fetched is finished or cut. Only the count may still be under way, if one is needed.
        now = trio.current_time()
        counted_by = now + COUNT_GRACE if fenced.cancelled_caught else budget.counted_by
        around.cancel_scope.deadline = counted_by if walk.unfetched else now

    ended_by = StopReason.HARD_DEADLINE if cut.cancelled_caught else walk.stop_reason
    return summarise(
        tally,
        unfetched=walk.remaining if walk.unfetched else 0,
        ended_by=ended_by or StopReason.FINISHED,
        duration=trio.current_time() - budget.started,
        run_id=context.run_id,
    )
