"""A new secret, on both sides, without one refused tick; and none of it open for longer than it is set."""

from __future__ import annotations

import secrets
import signal

import pytest

from tests.end_to_end.conftest import Service, StartService, seed, start_service

__all__ = ["start_service"]

OLD, NEW = secrets.token_hex(32), secrets.token_hex(32)


@pytest.mark.parametrize("postgres_binaries", ["18"], indirect=True)  # of its versions one is enough
async def test_the_secret_is_rotated_without_a_refused_tick(
    database_url: str, start_service: StartService
) -> None:
    """As the README says: SCHEDULER_SECRET_NEXT at the service, then the tick's, then SCHEDULER_SECRET."""
    await seed(database_url, 3)
    ticks: list[int] = []

    async def restart(old: Service | None, **settings: str) -> Service:
        """Drained before the next one starts, as a restart is: no tick comes in between."""
        if old is not None:
            old.send(signal.SIGTERM)
            assert await old.exit_code() == 0
        return await start_service(DATABASE_URL=database_url, **settings)

    async def tick(service: Service, secret: str) -> None:
        ticks.append((await service.tick(secret=secret)).status_code)

    service = await restart(None, SCHEDULER_SECRET=OLD)
    await tick(service, OLD)
    assert (await service.tick(secret=NEW)).status_code == 401

    service = await restart(service, SCHEDULER_SECRET=OLD, SCHEDULER_SECRET_NEXT=NEW)
    await tick(service, OLD)  # the tick has the old one still
    await tick(service, NEW)  # `cron install` has given it the new one
    await tick(service, OLD)  # and one that was posted before is on its way

    service = await restart(service, SCHEDULER_SECRET=NEW)
    await tick(service, NEW)
    assert (await service.tick(secret=OLD)).status_code == 401
    assert ticks == [200] * 5
