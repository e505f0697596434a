"""This file chooses the fleet, by the settings, for either end of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.errors import ConfigurationError
from engine.fleet.in_process import InProcessFleet
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
    raise ConfigurationError(["SCHEDULER_FLEET can only be `in-process` yet."])


@asynccontextmanager
async def open_workplace(settings: Settings) -> AsyncIterator[Workplace]:
    """The end of a worker on some machine. Raises ConfigurationError.

    **Cancellation:** no task and no connection is left.
    """
    raise ConfigurationError(["SCHEDULER_FLEET can only be `in-process` yet."])
    yield
