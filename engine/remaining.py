"""This file is the count of what a walk that was stopped leaves unfetched."""

from __future__ import annotations

import structlog
import trio

from engine.errors import DatabaseUnavailable
from engine.mentors.protocol import MentorSource
from engine.walk import Walk

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds between two tries while the source is away, unless it asks for more. Not the walk's own pause: that
# one ends where this count begins. Whoever cuts the count bounds it.
RECOUNT_PAUSE = 0.25


async def count_remaining(walk: Walk, mentors: MentorSource) -> None:
    """Once the walk has stopped, count the mentors it never fetched into `walk.remaining`, and log them.

    Begins as soon as no page is in flight, so beside the dispatchers that still finish what was fetched, and
    also when the producer is blocked by a trigger engine that hangs.

    **Cancellation:** the remaining count stays unknown, None.
    """
    await walk.settled()
    while True:
        try:
            remaining = sum([await mentors.count(stretch) for stretch in walk.unfetched])
        except DatabaseUnavailable as error:
            await trio.sleep(max(RECOUNT_PAUSE, error.retry_after or 0.0))
        else:
            break
    walk.remaining = remaining
    log.info("remaining_counted", remaining=remaining, stop_reason=walk.stop_reason)
