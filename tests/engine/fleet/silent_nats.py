"""This file is a connection to NATS that goes silent, or away, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import trio
from nats.aio.msg import Msg

from engine.errors import FleetUnavailable
from engine.fleet import streams
from engine.fleet.nats_connection import NatsConnection


class SilentNats:
    """In a NatsConnection's place. Until `is_silent` all is done at once, but nobody ever says a word."""

    def __init__(self) -> None:
        self.is_silent = False
        self.is_away = False
        self._went_away = trio.Event()
        self.messages: list[Msg] = []
        self.asked: list[Callable[..., Any]] = []

    async def use(self, work: Callable[..., Any]) -> Msg | None:
        what = cast("partial[Any]", work).func
        self.asked.append(what)
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise FleetUnavailable("The fleet is away.", 5.0)
        if what is streams.pull and self.messages:
            return self.messages.pop()
        if self.is_silent or what is streams.pull:
            await self._went_away.wait()
            raise FleetUnavailable("The fleet went away.", 5.0)
        return None

    def go_away(self) -> None:
        self.is_away = True
        self._went_away.set()

    def come_back(self) -> None:
        self.is_away = False
        self._went_away = trio.Event()

    @property
    def as_connection(self) -> NatsConnection:
        return cast(NatsConnection, self)
