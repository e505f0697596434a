"""This file is GET /dashboard/events: what is under way, as server-sent events, for a page that is open.

A stream is a request like any other, in no nursery but its own: a browser that hangs up ends it, one that
reads nothing is cut by web/connection.py, and draining ends all of them at once. It also ends by itself, and
the browser comes back for another: so a session that is over is noticed, and Hypercorn, which reads from a
connection with a time-out, does not have to cut it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial

import trio
from quart import Blueprint, Response

from engine import Scheduler, Settings
from web.answers import refusal
from web.auth import Operator
from web.connection import at_end_of_request
from web.openapi import for_browsers
from web.watch import Sight, Watch

# Seconds between two looks: about twice a second.
PERIOD = 0.5

# Seconds without anything new after which a comment is sent, so that proxies keep the connection.
KEEP_ALIVE = 10.0

# Milliseconds after which a browser comes back when a stream has ended.
COME_BACK_AFTER = 1_000

# Streams at once. An event costs 0.17 ms, so that fifty of them take 2% of a core while a run is under way.
STREAMS_AT_ONCE = 50

# Seconds after which who finds no place may ask again; the page does without, by asking for itself.
RETRY_AFTER = 30


def events_blueprint(scheduler: Scheduler, settings: Settings, operator: Operator, watch: Watch) -> Blueprint:
    blueprint = Blueprint("events", __name__)
    blueprint.before_request(operator.refuse_others)
    places = trio.CapacityLimiter(STREAMS_AT_ONCE)
    writer = EventWriter()

    @blueprint.get("/dashboard/events")
    @for_browsers
    async def get_events() -> Response:
        place = object()
        try:
            places.acquire_on_behalf_of_nowait(place)
        except trio.WouldBlock:
            return refusal(
                503,
                "too_many_streams",
                f"{STREAMS_AT_ONCE} pages are open already; close one.",
                {"Retry-After": str(RETRY_AFTER)},
            )
        at_end_of_request(partial(places.release_on_behalf_of, place))
        response = Response(
            _stream(scheduler, watch, writer, settings.platform_limit), content_type="text/event-stream"
        )
        response.timeout = None
        return response

    return blueprint


class EventWriter:
    """Writes each sight once, however many streams say it: of 1,000 shards it is 100 kB, and takes 7 ms."""

    def __init__(self) -> None:
        self._sight: Sight | None = None
        self._event = b""

    def write(self, sight: Sight) -> bytes:
        if sight is not self._sight:
            self._sight, self._event = sight, f"data: {json.dumps(sight.as_json())}\n\n".encode()
        return self._event


async def _stream(
    scheduler: Scheduler, watch: Watch, writer: EventWriter, lasts: float
) -> AsyncIterator[bytes]:
    """Sights as they change. `lasts` in seconds."""
    yield f"retry: {COME_BACK_AFTER}\n\n".encode()
    ends_at = trio.current_time() + lasts
    said: Sight | None = None
    said_at = trio.current_time()
    while trio.current_time() < ends_at and not scheduler.is_draining:
        sight = await watch.look()
        if sight != said:
            said, said_at = sight, trio.current_time()
            yield writer.write(sight)
        elif trio.current_time() >= said_at + KEEP_ALIVE:
            said_at = trio.current_time()
            yield b": nothing new\n\n"
        with trio.move_on_after(PERIOD):
            await scheduler.wait_until_draining()
    if scheduler.is_draining:
        yield writer.write(Sight("draining"))
