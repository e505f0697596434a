"""This file is a dispatcher: one chunk at a time, it invokes the trigger engine, retries, bisects and counts.

A failure never leaves it: it becomes an error in the tally, and the next chunk is begun. Only a bug does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from uuid import UUID

import trio

from engine.chunk import Chunk
from engine.errors import InvocationFailed
from engine.invocations import Invocations
from engine.last_look import look_at_deadline
from engine.low_water_mark import LowWaterMark
from engine.tally import Tally
from engine.trigger.protocol import Evaluation, RunContext, TriggerEngine, TriggerEngineSession
from engine.walk import Walk

# Seconds before the one retry, drawn evenly from this span: long enough for a restarted process behind a
# proxy to be listening again, spread so that ten dispatchers don't come back in the same instant.
RETRY_PAUSE = (0.05, 0.25)


async def dispatch(
    receive_channel: trio.MemoryReceiveChannel[Chunk],
    walk: Walk,
    trigger_engine: TriggerEngine,
    context: RunContext,
    tally: Tally,
    low_water_mark: LowWaterMark,
    *,
    invocation_timeout: float,
    hard_deadline: float,
) -> None:
    """Evaluate chunks until the channel is closed and empty. `invocation_timeout` in seconds.

    `hard_deadline` on trio's clock: a retry that would not come before it is not waited for.

    While the walk drains, chunks are received and left alone: they stay unprocessed.

    **Cancellation:** mentors of the chunk under way that were not counted yet stay unprocessed, although
    the trigger engine may have acted on them.
    """
    async with receive_channel, trigger_engine.open_session(context) as session:
        async for chunk in receive_channel:
            if walk.draining:
                continue
            evaluated = await _evaluate(chunk.mentor_ids, session, tally, invocation_timeout, hard_deadline)
            low_water_mark.finish(chunk, evaluated)


async def _evaluate(
    mentor_ids: Sequence[UUID],
    session: TriggerEngineSession,
    tally: Tally,
    invocation_timeout: float,
    hard_deadline: float,
) -> int:
    """Count every one of these mentors once, and return how many were evaluated.

    A chunk that fails whole is halved down to who breaks it.
    """
    try:
        evaluation = await _invoke_with_retry(
            mentor_ids, session, tally.invocations, invocation_timeout, hard_deadline
        )
    except InvocationFailed as failure:
        if failure.bisectable and len(mentor_ids) > 1:
            middle = len(mentor_ids) // 2
            how = (session, tally, invocation_timeout, hard_deadline)
            return await _evaluate(mentor_ids[:middle], *how) + await _evaluate(mentor_ids[middle:], *how)
        tally.count_failure(len(mentor_ids), failure.error_class)
        return 0
    return tally.count_evaluation(len(mentor_ids), evaluation)


async def _invoke_with_retry(
    mentor_ids: Sequence[UUID],
    session: TriggerEngineSession,
    invocations: Invocations,
    invocation_timeout: float,
    hard_deadline: float,
) -> Evaluation:
    try:
        return await _invoke(mentor_ids, session, invocations, invocation_timeout)
    except InvocationFailed as failure:
        pause = max(random.uniform(*RETRY_PAUSE), failure.retry_after or 0.0)  # noqa: S311 - spreads load
        # The fence is nearer than that at any time, and put off by every heartbeat: it says nothing here.
        if not failure.retryable or trio.current_time() + pause >= hard_deadline:
            raise
    await trio.sleep(pause)
    return await _invoke(mentor_ids, session, invocations, invocation_timeout)


async def _invoke(
    mentor_ids: Sequence[UUID],
    session: TriggerEngineSession,
    invocations: Invocations,
    invocation_timeout: float,
) -> Evaluation:
    await look_at_deadline()
    began = trio.current_time()
    invocations.begun += 1
    try:
        with trio.move_on_after(invocation_timeout):
            return await session.evaluate(mentor_ids)
        raise InvocationFailed("timeout")
    finally:
        invocations.durations.observe(trio.current_time() - began)
