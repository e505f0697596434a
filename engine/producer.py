"""This file is the producer: it sends every chunk of every page, then closes the channel.

Closing is the only end signal. Dispatchers stop when they have received what was sent, so nothing here
counts, joins or sets a flag for them.
"""

from __future__ import annotations

from itertools import count

import structlog
import trio

from engine.chunk import Chunk
from engine.errors import DatabaseUnavailable
from engine.mentors.protocol import MentorSource
from engine.tally import StopReason, Tally
from engine.walk import Walk

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds between two tries at the same page while its source is away, unless the source asks for more. A
# restart takes one to three seconds: shorter pauses only fill the log, longer ones waste the budget.
RECONNECT_PAUSE = 0.5


async def produce(
    walk: Walk,
    mentors: MentorSource,
    send_channel: trio.MemorySendChannel[Chunk],
    tally: Tally,
    *,
    page_size: int,
    chunk_size: int,
) -> None:
    """Walk page by page until every stretch was fetched or the walk was stopped.

    A page that can't be fetched because its source is away is asked for again until the soft threshold; then
    the walk stops with `database_unavailable`.

    **Cancellation:** a page in flight counts as never fetched; a page that has landed counts as fetched,
    whether or not its chunks were sent.
    """
    chunk_index = count()
    database_away = False
    async with send_channel:
        while stretch := walk.next_stretch():
            try:
                with walk.page_in_flight():
                    page = await mentors.fetch_page(stretch, page_size)
                    walk.advance(page)
                    tally.count_fetched(len(page.mentor_ids))
            except DatabaseUnavailable as error:
                if not database_away:
                    log.warning("page_not_fetched", reason=str(error))
                database_away = True
                await walk.pause(max(RECONNECT_PAUSE, error.retry_after or 0.0))
                continue
            database_away = False
            for start in range(0, len(page.mentor_ids), chunk_size):
                chunk = Chunk(next(chunk_index), page.mentor_ids[start : start + chunk_size])
                await send_channel.send(chunk)
        if database_away:
            walk.stop(StopReason.DATABASE_UNAVAILABLE)
