"""This file is a fleet within one process: what JetStream is past one machine, in memory and trio's time.

For a service that is to use shards without a server between, and for tests, in which it is exact. What
it holds ends with the process, as the workers do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import trio

from engine.fleet.protocol import ACK_WAIT, MAX_DELIVERIES, Gathering


@dataclass(eq=False, slots=True)
class _Message:
    """One shard that was submitted. In hand until `deadline`, unless its worker keeps it."""

    run_id: UUID
    index: int
    content: bytes
    deliveries: int = 0
    deadline: float = field(default=float("-inf"))
    is_withdrawn: bool = False
    is_handed_back: bool = False  # and goes out again at `deadline`


class InProcessFleet:
    """Implements Fleet and Workplace. At most `shards_at_once` are in hand at once, of all runs together."""

    def __init__(self, shards_at_once: int) -> None:
        self._shards_at_once = shards_at_once
        self._waiting: deque[_Message] = deque()
        self._in_hand: list[_Message] = []
        self._gatherings: dict[UUID, _Gathering] = {}
        self._changed = trio.Event()

    async def check_ready(self) -> None:
        return

    @asynccontextmanager
    async def open_gathering(self, run_id: UUID) -> AsyncIterator[Gathering]:
        gathering = self._gatherings[run_id] = _Gathering(self, run_id)
        try:
            yield gathering
        finally:
            del self._gatherings[run_id]

    async def take(self) -> _Delivery:
        await trio.lowlevel.checkpoint()
        while True:
            self._take_back_what_was_left()
            if self._waiting and len(self._in_hand) < self._shards_at_once:
                message = self._waiting.popleft()
                message.deliveries += 1
                message.is_handed_back = False
                message.deadline = trio.current_time() + ACK_WAIT
                self._in_hand.append(message)
                self._say_changed()  # whoever waits may have to wake earlier
                return _Delivery(self, message)
            next_look = min((message.deadline for message in self._in_hand), default=float("inf"))
            with trio.move_on_at(next_look):
                await self._changed.wait()

    def _take_back_what_was_left(self) -> None:
        for message in tuple(self._in_hand):
            if trio.current_time() >= message.deadline:
                self.take_back(message)

    def take_back(self, message: _Message) -> None:
        """In nobody's hand, it goes out again, unless that was too often or nobody wants it any more."""
        self.drop(message)
        if message.deliveries < MAX_DELIVERIES and not message.is_withdrawn:
            self._waiting.appendleft(message)  # it has waited longest

    def hand_back(self, message: _Message, delay: float) -> None:
        """As JetStream has it: it counts among those that are out until the delay is over."""
        message.is_handed_back = True
        message.deadline = trio.current_time() + delay
        self._take_back_what_was_left()
        self._say_changed()

    def drop(self, message: _Message) -> None:
        """It is in nobody's hand, and nowhere else."""
        self._in_hand.remove(message)
        self._say_changed()

    def is_in_hand(self, message: _Message, delivery: int) -> bool:
        """Whether it is in the hand of this delivery, and of no later one."""
        self._take_back_what_was_left()
        is_last = message.deliveries == delivery and not message.is_handed_back
        return message in self._in_hand and is_last

    def submit(self, message: _Message) -> None:
        self._waiting.append(message)
        self._say_changed()

    def withdraw(self, run_id: UUID) -> None:
        self._waiting = deque(message for message in self._waiting if message.run_id != run_id)
        for message in self._in_hand:
            message.is_withdrawn = message.is_withdrawn or message.run_id == run_id

    def report(self, run_id: UUID, index: int, result: bytes) -> None:
        if gathering := self._gatherings.get(run_id):
            gathering.send_channel.send_nowait((index, result))

    def _say_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class _Gathering:
    """Implements Gathering."""

    is_away = False

    def __init__(self, fleet: InProcessFleet, run_id: UUID) -> None:
        self._fleet = fleet
        self._run_id = run_id
        self._submitted: set[int] = set()
        # Unbounded, but for the shards of a run and the times that each is delivered.
        self.send_channel, self._receive_channel = trio.open_memory_channel[tuple[int, bytes]](float("inf"))

    async def submit(self, index: int, message: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if index not in self._submitted:
            self._submitted.add(index)
            self._fleet.submit(_Message(self._run_id, index, message))

    async def next_result(self) -> tuple[int, bytes]:
        return await self._receive_channel.receive()

    async def withdraw(self) -> None:
        await trio.lowlevel.checkpoint()
        self._fleet.withdraw(self._run_id)


class _Delivery:
    """Implements Delivery."""

    def __init__(self, fleet: InProcessFleet, message: _Message) -> None:
        self._fleet = fleet
        self._message = message
        self._number = message.deliveries
        self.run_id = message.run_id
        self.index = message.index
        self.message = message.content

    async def keep(self) -> bool:
        await trio.lowlevel.checkpoint()
        for message in self._in_hand():
            message.deadline = trio.current_time() + ACK_WAIT
        return True

    async def report(self, result: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._fleet.report(self.run_id, self.index, result)

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint()
        for message in self._in_hand():
            self._fleet.drop(message)

    async def refuse(self) -> None:
        await self.finish()

    async def hand_back(self, *, delay: float = 0.0) -> None:
        await trio.lowlevel.checkpoint()
        for message in self._in_hand():
            self._fleet.hand_back(message, delay)

    def _in_hand(self) -> Iterator[_Message]:
        if self._fleet.is_in_hand(self._message, self._number):
            yield self._message
