"""This file is the fence of a run: past it the run may not act, because another one may have begun.

A lease in a database tells others when it is over. Whoever holds it has to know as well, from its own clock
alone: it may be cut off, or have been frozen.
"""

from __future__ import annotations

import trio

from engine.tally import StopReason


class Fence:
    """A scope that cuts a run at a moment which is put off as long as all is well; by default never."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.reason = StopReason.DATABASE_UNAVAILABLE

    def put_off_until(self, moment: float) -> None:
        """Cut the run at this moment on trio's clock, unless it is put off again."""
        self.scope.deadline = moment

    def cut(self, reason: StopReason) -> None:
        """Cut the run now."""
        self.reason = reason
        self.scope.cancel()
