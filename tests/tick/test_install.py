"""Installing the tick, and removing it: on the real pg_cron."""

from __future__ import annotations

from engine.database import Database
from engine.tick.install import install_tick, remove_tick
from engine.tick.jobs import plan_jobs
from engine.tick.status import read_tick_status

SECRET = "0123456789abcdef" * 4
URL = "http://127.0.0.1:1/run"


async def test_installing_twice_leaves_what_installing_once_does(administrator: Database) -> None:
    for _ in range(2):
        await install_tick(
            administrator,
            url=URL,
            secret=SECRET,
            platform_limit=30.0,
            jobs=plan_jobs("*/5 * * * *"),
            with_plpython3u=True,
        )
    status = await read_tick_status(administrator)
    assert [(job.name, job.schedule, job.command) for job in status.jobs] == [
        ("scenario-scheduler", "*/5 * * * *", "select scheduler.invoke()")
    ]
    assert (status.url, status.timeout_ms, status.has_purge) == (URL, 45_000, True)
    assert len(await remove_tick(administrator)) == 3
    assert await remove_tick(administrator) == []
