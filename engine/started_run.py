"""This file is what a caller holds of a run that was begun: its progress now, its summary later."""

from __future__ import annotations

import trio

from engine.budget import Budget
from engine.errors import RunFailed
from engine.run import Progress
from engine.tally import Summary
from engine.trigger.protocol import RunContext


class StartedRun:
    """A run under way, or ended."""

    def __init__(self, context: RunContext, budget: Budget, progress: Progress) -> None:
        self.context = context
        self.budget = budget
        self.progress = progress
        self._ended = trio.Event()
        self._outcome: Summary | RunFailed | None = None

    def end(self, outcome: Summary | RunFailed) -> None:
        """Tell whoever waits."""
        self._outcome = outcome
        self._ended.set()

    async def ended(self) -> None:
        """Wait until the run has ended, however it did.

        **Cancellation:** the run goes on.
        """
        await self._ended.wait()

    async def summary(self) -> Summary:
        """Wait for the run's end. Raises RunFailed if a bug ended it, or the end of the service.

        **Cancellation:** the run goes on.
        """
        await self._ended.wait()
        if isinstance(self._outcome, Summary):
            return self._outcome
        raise self._outcome or RunFailed("The run has no outcome.")
