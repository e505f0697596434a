"""This file is a connection to NATS that goes silent, in virtual time: what it is asked then has no end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import trio

from engine.fleet import streams
from engine.fleet.nats_connection import NatsConnection


class SilentNats:
    """In a NatsConnection's place. Until `is_silent` all is done at once, but nobody ever says a word."""

    def __init__(self) -> None:
        self.is_silent = False
        self.asked: list[Callable[..., Any]] = []

    async def use(self, work: Callable[..., Any]) -> None:
        what = cast("partial[Any]", work).func
        self.asked.append(what)
        await trio.lowlevel.checkpoint()
        if self.is_silent or what is streams.pull:
            await trio.sleep_forever()

    @property
    def as_connection(self) -> NatsConnection:
        return cast(NatsConnection, self)
