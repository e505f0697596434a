"""This file is a fleet over NATS JetStream: the protocol's promises, kept by streams that survive a server.

The coordinator's side makes the streams, so it needs rights that workers do not: a worker pulls from one
consumer, acknowledges, and publishes results, and its credentials are good for nothing else.

What waits, waits for the fleet's return; anything else is tried once, and bounded by the time-outs of
engine/fleet/nats_connection.py. Who calls it knows until when another try makes sense.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from uuid import UUID

import structlog
import trio
from nats.aio.msg import Msg

from engine.errors import FleetUnavailable
from engine.fleet import streams
from engine.fleet.nats_connection import Address, NatsConnection, open_nats
from engine.fleet.protocol import ACK_WAIT
from engine.fleet.streams import Names, read_subject

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds between two tries: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0

# Seconds for a sign of life; the next one is due soon, and more use than this one then.
KEEP_TIMEOUT = ACK_WAIT / 2

# Seconds to tidy up after a run. What stays is gone by itself, later.
FAREWELL_TIMEOUT = 1.0


class JetStream:
    """Implements Fleet and Workplace."""

    def __init__(
        self,
        connection: NatsConnection,
        names: Names,
        beside: trio.Nursery,
        *,
        shards_at_once: int,
        replicas: int,
    ) -> None:
        self._connection = connection
        self.names = names
        self._beside = beside  # for what nobody waits for
        self._make_streams = partial(
            streams.make_streams, names=names, shards_at_once=shards_at_once, replicas=replicas
        )

    async def check_ready(self) -> None:
        """Make the streams, or make sure of them. Raises FleetUnavailable.

        **Cancellation:** some of them may be there.
        """
        await self._connection.use(self._make_streams)

    @asynccontextmanager
    async def open_gathering(self, run_id: UUID) -> AsyncIterator[_Gathering]:
        gathering = _Gathering(self._connection, self.names, self._beside, run_id)
        await gathering.make()
        try:
            yield gathering
        finally:
            # Beside the answer of the run, which a server that went silent must not hold up.
            self._beside.start_soon(gathering.bid_farewell)

    async def take(self) -> _Delivery:
        pauses = _Pauses()
        pull = partial(streams.pull, stream=self.names.shards, consumer=self.names.workers)
        while True:
            try:
                message = await self._connection.use(pull)
            except FleetUnavailable as error:
                if pauses.is_first:
                    log.warning("no_shards_yet", reason=str(error))
                await pauses.pause()
                continue
            pauses = _Pauses()
            if message is None:
                continue
            try:
                return _Delivery(self._connection, self.names, message)
            except ValueError:
                log.warning("shard_refused", reason="subject")
                with suppress(FleetUnavailable):
                    await _say(self._connection, message.reply, Msg.Ack.Term)


class _Gathering:
    """Implements Gathering."""

    def __init__(self, connection: NatsConnection, names: Names, beside: trio.Nursery, run_id: UUID) -> None:
        self._connection = connection
        self._names = names
        self._beside = beside
        self._run_id = run_id
        self.is_away = False

    async def make(self) -> None:
        make = partial(streams.make_gathering, names=self._names, run_id=self._run_id)
        await self._connection.use(make)

    async def bid_farewell(self) -> None:
        delete = partial(streams.delete_gathering, names=self._names, run_id=self._run_id)
        with trio.move_on_after(FAREWELL_TIMEOUT), suppress(FleetUnavailable):
            await self._connection.use(delete)

    async def submit(self, index: int, message: bytes) -> None:
        subject = self._names.shard(self._run_id, index)
        await _publish(self._connection, self._names.shards, subject, message)

    async def next_result(self) -> tuple[int, bytes]:
        pauses = _Pauses()
        pull = partial(streams.pull, stream=self._names.results, consumer=self._names.gathering(self._run_id))
        while True:
            try:
                message = await self._connection.use(pull)
            except FleetUnavailable as error:
                if pauses.is_first:
                    log.warning("no_results_yet", reason=str(error))
                self.is_away = True
                await pauses.pause()
                with suppress(FleetUnavailable):
                    await self.make()  # a server that came back without its store has forgotten it
                    self.is_away = False
                continue
            pauses = _Pauses()
            self.is_away = False
            if message is not None:
                self._beside.start_soon(self._acknowledge, message)
                with suppress(ValueError):
                    run_id, index = read_subject(message.subject)
                    if run_id == self._run_id:
                        return index, message.data

    async def _acknowledge(self, message: Msg) -> None:
        """It has arrived whether or not the server hears of it; else it only comes again."""
        with suppress(FleetUnavailable):
            await _say(self._connection, message.reply, Msg.Ack.Ack)

    async def withdraw(self) -> None:
        await self._connection.use(partial(streams.withdraw, names=self._names, run_id=self._run_id))


class _Delivery:
    """Implements Delivery. Knows the message's subject to answer to, and no connection: there may be another
    one by the time it has something to say.
    """

    def __init__(self, connection: NatsConnection, names: Names, message: Msg) -> None:
        self.run_id, self.index = read_subject(message.subject)
        self.message = message.data
        self._connection = connection
        self._names = names
        self._reply = message.reply

    async def keep(self) -> bool:
        with trio.move_on_after(KEEP_TIMEOUT), suppress(FleetUnavailable):
            await _say(self._connection, self._reply, Msg.Ack.Progress)
            return True
        return False

    async def report(self, result: bytes) -> None:
        subject = self._names.result(self.run_id, self.index)
        await _publish(self._connection, self._names.results, subject, result)

    async def finish(self) -> None:
        await _say(self._connection, self._reply, Msg.Ack.Ack)

    async def refuse(self) -> None:
        await _say(self._connection, self._reply, Msg.Ack.Term)

    async def hand_back(self, *, delay: float = 0.0) -> None:
        await _say(self._connection, self._reply, Msg.Ack.Nak + b' {"delay": %d}' % int(delay * 1e9))


async def _publish(connection: NatsConnection, stream: str, subject: str, message: bytes) -> None:
    """Until the stream says that it has it, under the subject as its id: again is no second."""
    await connection.use(
        partial(streams.publish, stream=stream, subject=subject, message_id=subject, message=message)
    )


async def _say(connection: NatsConnection, reply: str, word: bytes) -> None:
    await connection.use(partial(streams.acknowledge, reply=reply, word=word))


class _Pauses:
    """Between tries: longer each time, up to a bound."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    @property
    def is_first(self) -> bool:
        return self._next == FIRST_PAUSE

    async def pause(self) -> None:
        await trio.sleep(self._next)
        self._next = min(2 * self._next, LONGEST_PAUSE)


@asynccontextmanager
async def open_jetstream(
    address: Address, *, name: str, shards_at_once: int, replicas: int
) -> AsyncIterator[JetStream]:
    """Connects to nothing until it is used. Raises ConfigurationError.

    `shards_at_once` over all runs and workers, `replicas` of each stream; both are the coordinators' to say.

    **Cancellation:** no task, no socket is left, within a second.
    """
    async with open_nats(address) as connection, trio.open_nursery() as beside:
        yield JetStream(connection, Names(name), beside, shards_at_once=shards_at_once, replicas=replicas)
