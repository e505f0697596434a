"""This file chooses the fleet, by the settings, for either end of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from engine.fleet.in_process import InProcessFleet
from engine.fleet.jetstream import JetStream, open_jetstream
from engine.fleet.nats_connection import Address
from engine.fleet.protocol import Fleet, Workplace
from engine.settings import Settings


@asynccontextmanager
async def open_fleet(settings: Settings) -> AsyncIterator[Fleet]:
    """The coordinator's end. Raises ConfigurationError.

    **Cancellation:** no task and no connection is left.
    """
    if settings.fleet_is_in_process:
        yield InProcessFleet(settings.fleet_shards_at_once)
        return
    async with _open_jetstream(settings) as fleet:
        yield fleet


@asynccontextmanager
async def open_workplace(settings: Settings) -> AsyncIterator[Workplace]:
    """The end of a worker on some machine. Raises ConfigurationError.

    **Cancellation:** no task and no connection is left.
    """
    async with _open_jetstream(settings) as workplace:
        yield workplace


def _open_jetstream(settings: Settings) -> AbstractAsyncContextManager[JetStream]:
    password = settings.fleet_password
    address = Address(
        servers=tuple((settings.fleet or "").split(",")),
        user=settings.fleet_user,
        password=None if password is None else password.get_secret_value(),
        ca=settings.fleet_ca,
    )
    return open_jetstream(
        address,
        name=settings.fleet_name,
        shards_at_once=settings.fleet_shards_at_once,
        replicas=settings.fleet_replicas,
    )
