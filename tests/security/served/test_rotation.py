"""A new secret, on both sides, without one refused tick; and none of it open for longer than it is set."""

from __future__ import annotations

import secrets
import signal
from contextlib import suppress

import httpx
import pytest
import trio

from tests.end_to_end.conftest import PATIENCE, Service, StartService, seed, start_service

__all__ = ["start_service"]

OLD, NEW = secrets.token_hex(32), secrets.token_hex(32)


@pytest.mark.parametrize("postgres_binaries", ["18"], indirect=True)  # of its versions one is enough
async def test_the_secret_is_rotated_without_a_refused_tick(
    database_url: str, start_service: StartService
) -> None:
    """As the README says: SCHEDULER_SECRET_NEXT at the service, then the tick's, then SCHEDULER_SECRET.

    Ticks come all the while, also as it drains and starts: then one may find nobody, and none is refused.
    """
    await seed(database_url, 3)
    ticks: list[int] = []
    while_restarting: list[int] = []
    in_use = OLD

    async def keep_ticking(service: Service) -> None:
        while True:
            with suppress(httpx.TransportError):  # it is down, or goes down
                while_restarting.append((await service.tick(secret=in_use)).status_code)
            await trio.sleep(0.01)

    async def restart(old: Service | None, **settings: str) -> Service:
        """Drained, and its successor started, under ticks: the old one hears of some, then the new one."""
        if old is None:
            return await start_service(DATABASE_URL=database_url, **settings)
        heard = len(while_restarting)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_ticking, old)
            await until_longer(while_restarting, heard)
            old.send(signal.SIGTERM)
            assert await old.exit_code() == 0
            new = await start_service(DATABASE_URL=database_url, **settings)
            heard = len(while_restarting)
            nursery.start_soon(keep_ticking, new)
            await until_longer(while_restarting, heard)
            nursery.cancel_scope.cancel()
        return new

    async def tick(service: Service, secret: str) -> None:
        ticks.append((await service.tick(secret=secret)).status_code)

    service = await restart(None, SCHEDULER_SECRET=OLD)
    await tick(service, OLD)
    assert (await service.tick(secret=NEW)).status_code == 401

    service = await restart(service, SCHEDULER_SECRET=OLD, SCHEDULER_SECRET_NEXT=NEW)
    await tick(service, OLD)  # the tick has the old one still
    await tick(service, NEW)  # `cron install` has given it the new one
    await tick(service, OLD)  # and one that was posted before is on its way

    in_use = NEW
    service = await restart(service, SCHEDULER_SECRET=NEW)
    await tick(service, NEW)
    assert (await service.tick(secret=OLD)).status_code == 401
    assert ticks == [200] * 5
    assert 401 not in while_restarting
    assert 200 in while_restarting


async def until_longer(heard: list[int], than: int) -> None:
    with trio.fail_after(PATIENCE):
        while len(heard) <= than:  # noqa: ASYNC110
            await trio.sleep(0.01)
