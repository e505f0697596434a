"""This file is what a run asks of a fleet, and what a worker asks of it.

A fleet carries bytes and promises three things. What was submitted is delivered to some worker until one
of them finishes or refuses it, at most MAX_DELIVERIES times: again ACK_WAIT after a worker was last heard
of, and then before any that waits for its first. Of the shards of all runs no more are out at once than it
was opened for. A result that was handed over reaches who gathers, once or more often.

It knows neither shards nor summaries: engine/fleet/shard.py writes and reads them, because what arrives
may come from anybody who got as far as the fleet.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

# Seconds after a worker was last heard of until its shard goes to another. Workers say three times in
# it that they are alive. Shorter turns a slow network into shards done twice; longer is how long a
# killed worker's shard lies still, of a budget of 25 s.
ACK_WAIT = 3.0

# Times that one shard is delivered at most. One whose workers die of it must not take the fleet with it.
MAX_DELIVERIES = 5


class Gathering(Protocol):
    """One run's end of the fleet, never used by two tasks at once but for `withdraw`."""

    @property
    def is_away(self) -> bool:
        """Whether the fleet could not be reached when it was last asked for a result."""
        ...

    async def submit(self, index: int, message: bytes) -> None:
        """Hand a shard over. Returns when the fleet has it for good; again with the same index is no second.

        Raises FleetUnavailable.

        **Cancellation:** whether the fleet has it is not known.
        """
        ...

    async def next_result(self) -> tuple[int, bytes]:
        """Wait for a result: of which shard, and what its worker says. One may come more than once.

        While the fleet is away it waits for its return.

        **Cancellation:** a result that has arrived comes again in the next call or in none; the
        coordinator cancels when it has all, or when its time is up.
        """
        ...

    async def withdraw(self) -> None:
        """What no worker has in hand is taken by none. Raises FleetUnavailable.

        What one has in hand is still finished and its result still arrives, but should that worker be
        lost, nobody need get it again. Who decides what may still begin is the ledger; this spares the
        deliveries.

        **Cancellation:** may be withdrawn or not.
        """
        ...


class Fleet(Protocol):
    """The coordinator's side."""

    async def check_ready(self) -> None:
        """Raises FleetUnavailable, which says what to do, unless shards could be submitted.

        **Cancellation:** leaves nothing behind.
        """
        ...

    def open_gathering(self, run_id: UUID) -> AbstractAsyncContextManager[Gathering]:
        """Open before anything is submitted. Raises FleetUnavailable.

        Leaving it waits for nobody: a run's answer comes after it.

        **Cancellation:** shards under way go on, and what they say goes to nobody.
        """
        ...


class Delivery(Protocol):
    """A shard in the hands of one worker. Ends with one of the last three.

    Or with nothing, if the worker dies, or has found out that the shard is no longer its own: then it
    comes again when ACK_WAIT is over, at most MAX_DELIVERIES times. Whoever has lost it says nothing
    more.
    """

    run_id: UUID
    index: int
    message: bytes

    async def keep(self) -> bool:
        """Say that the worker lives: it goes to nobody else within ACK_WAIT from this moment.

        Returns whether the fleet has heard it. One that is away for the moment is no error: it may be back
        before the time is up.

        **Cancellation:** may have been said or not.
        """
        ...

    async def report(self, result: bytes) -> None:
        """Hand the result over: when this returns, whoever gathers gets it. Raises FleetUnavailable.

        Again with the same result does no harm. The ledger is written between this and `finish`: a
        worker that dies there has its shard done again, and its first result counts.

        **Cancellation:** the result may have been handed over or not.
        """
        ...

    async def finish(self) -> None:
        """It is done: it is not delivered again. Raises FleetUnavailable.

        **Cancellation:** it may come again.
        """
        ...

    async def refuse(self) -> None:
        """It is not to be delivered again, to anybody, and has no result. Raises FleetUnavailable.

        **Cancellation:** it may come again.
        """
        ...

    async def hand_back(self, *, delay: float = 0.0) -> None:
        """Somebody else may have it, `delay` seconds from this moment. Raises FleetUnavailable.

        Until then it is among the shards that are out.

        **Cancellation:** it comes again, by itself, when ACK_WAIT is over.
        """
        ...


class Workplace(Protocol):
    """The worker's side."""

    async def take(self) -> Delivery:
        """Wait for the next shard, as long as it takes; while the fleet is away, for its return.

        **Cancellation:** a shard that was on its way here comes again when ACK_WAIT is over.
        """
        ...
