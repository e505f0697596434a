"""This file is what a fleet keeps in JetStream: two streams, and the consumer that all workers share.

Every coroutine here runs in asyncio, on a client that is connected, and raises as nats-py does.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, BadRequestError, NotFoundError

from engine.fleet.nats_connection import REQUEST_TIMEOUT
from engine.fleet.nats_faults import PullRefused
from engine.fleet.protocol import ACK_WAIT, MAX_DELIVERIES
from engine.fleet.shard import MAX_MESSAGE_BYTES, MAX_RESULT_BYTES

# Bytes that a stream adds to a message, at most: its subject and its id.
OVERHEAD_BYTES = 4096

# Seconds after which a shard that nobody took is gone: more than the longest budget there can be, an hour.
SHARDS_MAX_AGE = 2 * 3600.0

# Seconds that results are kept, in which nobody needs them but the coordinator of a run under way, and bytes.
RESULTS_MAX_AGE, RESULTS_MAX_BYTES = 3600.0, 64 * 1024 * 1024

# Seconds without a pull after which the consumer of a run whose coordinator died is gone.
GATHERING_MAX_IDLE = 300.0

# Seconds that one pull waits at the server, and between its signs of life. Two that are missed mean that its
# stream has another leader, who knows nothing of the pull.
PULL_EXPIRES, PULL_HEARTBEAT = 30.0, 1.0

# Seconds before the next pull where the server ended one at once, as while a leader is elected, or whatever
# else it has against it.
PULL_PAUSE = 0.25

# Seconds between two tries at storing what three servers are storing at that moment: a few round trips.
PUBLISH_PAUSE = 0.02

_NAME_IN_USE = 10_058  # by a stream with another configuration
_IS_BEING_STORED = 10_158


@dataclass(frozen=True, slots=True)
class Names:
    """Two deployments on the same servers have different `fleet` names, and nothing else in common."""

    fleet: str

    @property
    def shards(self) -> str:
        return f"{self.fleet}-shards"

    @property
    def results(self) -> str:
        return f"{self.fleet}-results"

    @property
    def workers(self) -> str:
        """The consumer."""
        return "workers"

    def shard(self, run_id: UUID, index: int | str) -> str:
        return f"{self.fleet}.shard.{run_id}.{index}"

    def result(self, run_id: UUID, index: int | str) -> str:
        return f"{self.fleet}.result.{run_id}.{index}"

    def gathering(self, run_id: UUID) -> str:
        return f"run-{run_id}"


def read_subject(subject: str) -> tuple[UUID, int]:
    """Of which run and which shard. Raises ValueError: anybody with the rights may publish anything."""
    run_id, index = subject.split(".")[-2:]
    if not (index.isascii() and index.isdigit() and len(index) <= 6):
        raise ValueError("no index of a shard")
    return UUID(run_id), int(index)


async def make_streams(client: Client, names: Names, *, shards_at_once: int, replicas: int) -> None:
    """Make what is missing, and change what is otherwise. Safe to repeat, and to do twice at once."""
    jetstream = _jetstream(client)
    await _make_stream(
        jetstream,
        api.StreamConfig(
            name=names.shards,
            subjects=[f"{names.fleet}.shard.*.*"],
            retention=api.RetentionPolicy.WORK_QUEUE,
            storage=api.StorageType.FILE,
            max_age=SHARDS_MAX_AGE,
            max_msg_size=MAX_MESSAGE_BYTES + OVERHEAD_BYTES,
            num_replicas=replicas,
        ),
    )
    await _make_stream(
        jetstream,
        api.StreamConfig(
            name=names.results,
            subjects=[f"{names.fleet}.result.*.*"],
            retention=api.RetentionPolicy.LIMITS,
            storage=api.StorageType.FILE,
            max_age=RESULTS_MAX_AGE,
            max_bytes=RESULTS_MAX_BYTES,
            max_msg_size=MAX_RESULT_BYTES + OVERHEAD_BYTES,
            num_replicas=replicas,
        ),
    )
    await jetstream.add_consumer(
        names.shards,
        api.ConsumerConfig(
            name=names.workers,
            durable_name=names.workers,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT,
            max_deliver=MAX_DELIVERIES,
            max_ack_pending=shards_at_once,
        ),
    )


async def _make_stream(jetstream: JetStreamContext, config: api.StreamConfig) -> None:
    try:
        await jetstream.add_stream(config)
    except BadRequestError as error:
        if error.err_code != _NAME_IN_USE:
            raise
        await jetstream.update_stream(config)


async def publish(client: Client, stream: str, subject: str, message_id: str, message: bytes) -> None:
    """Returns when the stream has it, now or before, under this id."""
    jetstream = _jetstream(client)
    headers = {api.Header.MSG_ID.value: message_id}
    while True:
        try:
            await jetstream.publish(subject, message, stream=stream, headers=headers)
        except APIError as error:
            # The same one is being stored, for somebody else or an earlier try. Whether it will be is not
            # known yet.
            if error.err_code != _IS_BEING_STORED:
                raise
            await asyncio.sleep(PUBLISH_PAUSE)
        else:
            return


async def withdraw(client: Client, names: Names, run_id: UUID) -> None:
    """Take every shard of the run out of the stream."""
    await _jetstream(client).purge_stream(names.shards, subject=names.shard(run_id, "*"))


async def make_gathering(client: Client, names: Names, run_id: UUID) -> None:
    """The consumer of one run's results, from the first one on.

    A durable one, pulled: nats-py's ordered consumer stood still for 20 s when its leader died.
    """
    await _jetstream(client).add_consumer(
        names.results,
        api.ConsumerConfig(
            name=names.gathering(run_id),
            durable_name=names.gathering(run_id),
            filter_subject=names.result(run_id, "*"),
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT,  # one that was lost on its way comes again while somebody waits for it
            inactive_threshold=GATHERING_MAX_IDLE,
        ),
    )


async def delete_gathering(client: Client, names: Names, run_id: UUID) -> None:
    with suppress(NotFoundError):
        await _jetstream(client).delete_consumer(names.results, names.gathering(run_id))


async def pull(client: Client, stream: str, consumer: str) -> Msg | None:
    """The consumer's next message; None if there was none for a while. Raises PullRefused.

    Has an inbox of its own, which is gone when this ends: a message for a pull that was cancelled would be
    delivered to nobody, and count.
    """
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    try:
        asked = {
            "batch": 1,
            "expires": int(PULL_EXPIRES * 1e9),
            "idle_heartbeat": int(PULL_HEARTBEAT * 1e9),
        }
        await client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", json.dumps(asked).encode(), reply=inbox
        )
        while True:
            message = await subscription.next_msg(timeout=2 * PULL_HEARTBEAT + 0.5)
            if message.reply:
                return message  # only these can be acknowledged; what has no such subject is the server's own
            status = (message.headers or {}).get(api.Header.STATUS.value)
            if status == api.StatusCode.CONTROL_MESSAGE.value:
                continue
            if status == api.StatusCode.SERVICE_UNAVAILABLE.value:
                raise nats.errors.NoRespondersError
            if status in (api.StatusCode.NO_MESSAGES.value, api.StatusCode.REQUEST_TIMEOUT.value):
                return None
            await asyncio.sleep(PULL_PAUSE)
            if status == api.StatusCode.CONFLICT.value:
                return None
            raise PullRefused(status)
    finally:
        with suppress(nats.errors.Error, OSError):
            await subscription.unsubscribe()


async def acknowledge(client: Client, reply: str, word: bytes) -> None:
    """Say what became of a message, and wait until the server has heard it."""
    await client.request(reply, word, timeout=REQUEST_TIMEOUT)


def _jetstream(client: Client) -> JetStreamContext:
    return client.jetstream(timeout=REQUEST_TIMEOUT)
