"""This file is where a walk is: which stretches of the id space are still unfetched, and whether it goes on.

The producer moves it, the remaining count reads it, and whoever wants a walk to end early says so here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio

from engine.mentors.protocol import IdRange, Page
from engine.tally import StopReason


class Walk:
    """The unfetched stretches, in walk order.

    A whole walk is one stretch, `IdRange()`. One that resumes behind a low-water mark and wraps round is two:
    behind the mark, then up to it.
    """

    def __init__(self, stretches: Sequence[IdRange], *, soft_threshold: float) -> None:
        self._unfetched = deque(stretches)
        self._soft_threshold = soft_threshold
        self._stopped = trio.Event()
        self._landed = trio.Event()
        self._landed.set()
        self.stop_reason: StopReason | None = None
        self.remaining: int | None = None

    @property
    def unfetched(self) -> Sequence[IdRange]:
        """What no page has covered; empty once every mentor was fetched."""
        return tuple(self._unfetched)

    @property
    def draining(self) -> bool:
        """Chunks that were sent but not begun are to be left alone."""
        return self.stop_reason is StopReason.DRAINING

    def stop(self, reason: StopReason) -> None:
        """Begin no further page.

        The last reason given is the nearest cause and stands, but for a drain, which is never called off.
        """
        if not self.draining:
            self.stop_reason = reason
        self._stopped.set()

    def next_stretch(self) -> IdRange | None:
        """Where the next page begins, or None if there is to be none.

        This is the start of a page, the one place where the producer looks at the soft threshold.
        """
        if not self._unfetched:
            return None
        if self.stop_reason is None and trio.current_time() >= self._soft_threshold:
            self.stop(StopReason.SOFT_THRESHOLD)
        return self._unfetched[0] if self.stop_reason is None else None

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the soft threshold, and not once the walk was stopped.

        **Cancellation:** leaves the walk as it was.
        """
        with trio.move_on_at(min(trio.current_time() + seconds, self._soft_threshold)):
            await self._stopped.wait()

    @contextmanager
    def page_in_flight(self) -> Iterator[None]:
        """Until this block ends, where the walk stands is not settled."""
        self._landed = trio.Event()
        try:
            yield
        finally:
            self._landed.set()

    def advance(self, page: Page) -> None:
        """A page of the first unfetched stretch has landed."""
        stretch = self._unfetched.popleft()
        if not page.is_last:
            self._unfetched.appendleft(IdRange(page.mentor_ids[-1], stretch.until))

    async def settled(self) -> None:
        """Wait until the walk was stopped, or has come to its soft threshold, and no page is in flight.

        From then on `unfetched` does not change. A producer that is blocked by hanging dispatchers is
        settled too: what it still sends was fetched before.

        **Cancellation:** leaves the walk as it was.
        """
        with trio.move_on_at(self._soft_threshold):
            await self._stopped.wait()
        if self.stop_reason is None:
            self.stop(StopReason.SOFT_THRESHOLD)
        await self._landed.wait()
