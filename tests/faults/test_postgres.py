"""A Postgres that is failed over, or whose disk is full, in the middle of a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from engine import migrate, open_database
from engine.embedded import EmbeddedPostgres
from engine.embedded.account import run_program, unprivileged_account
from tests.end_to_end.conftest import PATIENCE, StartService, notified_once_each, query, seed
from tests.end_to_end.kill import prepare, walk_settings
from tests.end_to_end.test_adversity import (
    A_MARK_IS_RECORDED,
    IN_DATABASE,
    adds_up,
    rows_of,
    tick,
    until_connected,
    until_there_is,
)
from tests.faults.injected import count
from tests.faults.proxy import open_fault_proxy

OpenPostgres = Callable[..., AbstractContextManager[EmbeddedPostgres]]

OF_SERVICES = "select from pg_stat_activity where application_name = 'scenario-scheduler'"
NOBODY_RUNS = "select having not exists (select from scheduler.runs where verdict = 'running')"
WAITED_FOR = "select from pg_stat_replication where sync_state = 'sync'"

# Of the file system that becomes full. What is not written takes no memory.
ENOUGH = "600m"


async def make_ready(url: str) -> None:
    async with open_database(url) as database:
        await migrate(database, with_example_tables=True)


# --- Failed over ---


@contextmanager
def open_standby(primary: EmbeddedPostgres, open_own_postgres: OpenPostgres) -> Iterator[str]:
    """A second server that replays what the first one writes. Its URL; users and passwords are the same."""
    with open_own_postgres() as standby:
        standby.stop()
        data = standby.folder / "data"
        shutil.rmtree(data)
        copied = run_program(
            [
                primary.binaries.folder / "pg_basebackup",
                f"--dbname={primary.dsn}",
                f"--pgdata={data}",
                "--checkpoint=fast",
                "--write-recovery-conf",
                "--no-sync",
            ],
            standby.folder,
            unprivileged_account(),
        )
        assert copied.returncode == 0, copied.stdout
        standby.start_again()
        yield primary.dsn.replace(f":{primary.port}/", f":{standby.port}/")


async def test_postgres_failed_over_in_mid_run_costs_nobody_anything(
    open_own_postgres: OpenPostgres, start_service: StartService
) -> None:
    """The network leads to the standby before that may write. What was committed is on both servers."""
    answers: list[httpx.Response] = []
    with open_own_postgres() as primary, open_standby(primary, open_own_postgres) as standby_url:
        await query(primary.dsn, "alter system set synchronous_standby_names = '*'")
        await query(primary.dsn, "select pg_reload_conf()")
        await until_there_is(primary.dsn, WAITED_FOR)
        await make_ready(primary.dsn)
        await prepare(primary.dsn, 300, chunk=5, walk=3.0)
        async with open_fault_proxy(primary.dsn) as network:
            url = network.through(primary.dsn)
            service = await start_service(**await walk_settings("in-database", url, start_service, chunk=5))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick, service, answers)
                await until_there_is(url, A_MARK_IS_RECORDED)
                primary.stop_immediately()
                network.server_port = urlsplit(standby_url).port or 0
                await until_there_is(standby_url, OF_SERVICES)
                await query(standby_url, "select pg_promote()")
                count("Postgres failed over")
            summary = answers[0].json()
            assert (summary["total_evaluated"], summary["total_errors"]) == (300, 0)
            assert (summary["total_dispatched"], summary["completed"]) == (300, True)
            assert await notified_once_each(standby_url) == 300
            [row] = await rows_of(standby_url)
            assert (row["verdict"], row["total_dispatched"]) == ("completed", 300)
            await until_connected(standby_url, at_most=IN_DATABASE)
    assert "Traceback" not in service.log()


# --- Out of space ---


class SmallDisk:
    """A file system that can be made full, and given space again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave no space but what is in files already."""
        state = os.statvfs(self.folder)
        self._resize(str((state.f_blocks - state.f_bfree) * state.f_frsize))
        count("disk full")

    def free(self) -> None:
        self._resize(ENOUGH)

    def _resize(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True)


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    # Not pytest's own folder, which is closed to the user that the server runs as.
    with tempfile.TemporaryDirectory(prefix="small-disk-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={ENOUGH},mode=711", "tmpfs", name]
        if os.geteuid() != 0 or subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode != 0:
            pytest.skip(
                "A disk that becomes full is a file system of its own: run this as root, with mount(8)"
            )
        try:
            yield SmallDisk(folder)
        finally:
            subprocess.run(["umount", name], check=True)


async def until_out_of_space(postgres: EmbeddedPostgres) -> None:
    log = postgres.folder / "log"
    with trio.fail_after(PATIENCE):
        while b"No space left on device" not in log.read_bytes():  # noqa: ASYNC110 - nothing but looking tells
            await trio.sleep(0.02)


async def test_a_disk_that_is_full_for_some_of_a_run_costs_nobody_anything(
    small_disk: SmallDisk, open_own_postgres: OpenPostgres, start_service: StartService
) -> None:
    answers: list[httpx.Response] = []
    with open_own_postgres(parent=small_disk.folder) as postgres:
        url = postgres.dsn
        await make_ready(url)
        await seed(url, 20)
        service = await start_service(DATABASE_URL=url, SCHEDULER_PAGE_SIZE="50")
        assert (await service.tick()).json()["completed"]
        await seed(url, 400)
        await query(url, "checkpoint")
        small_disk.fill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick, service, answers)
            await until_out_of_space(postgres)
            small_disk.free()
        summary = answers[0].json()
        assert (summary["total_evaluated"], summary["total_errors"]) == (420, 0)
        assert (summary["total_dispatched"], summary["completed"]) == (400, True)
        assert await notified_once_each(url) == 420
    assert "Traceback" not in service.log()


@pytest.mark.parametrize("postgres_binaries", ["18"], indirect=True, ids="postgres-{}".format)
async def test_a_disk_that_is_full_for_a_whole_run_costs_that_run_and_the_next_one_makes_up_for_it(
    small_disk: SmallDisk, open_own_postgres: OpenPostgres, start_service: StartService
) -> None:
    budget = {
        "SCHEDULER_SOFT_THRESHOLD": "1.5",
        "SCHEDULER_HARD_DEADLINE": "2",
        "SCHEDULER_PLATFORM_LIMIT": "4",
        "SCHEDULER_INVOCATION_TIMEOUT": "0.6",
    }
    with open_own_postgres(parent=small_disk.folder) as postgres:
        url = postgres.dsn
        await make_ready(url)
        await seed(url, 20)
        service = await start_service(DATABASE_URL=url, SCHEDULER_PAGE_SIZE="50", **budget)
        assert (await service.tick()).json()["completed"]
        await seed(url, 400)
        await query(url, "checkpoint")
        small_disk.fill()
        answer = await service.tick()
        summary = answer.json()
        assert answer.status_code == 200
        assert adds_up(summary)
        assert summary["total_errors"] + summary["total_unprocessed"] > 0
        assert summary["duration_ms"] < 4_000
        small_disk.free()
        await until_there_is(url, NOBODY_RUNS)
        sent = await notified_once_each(url) - 20
        assert sent >= summary["total_dispatched"]
        assert service.logged("run_ended")[-1]["errors"]

        again = (await service.tick()).json()
        assert (again["total_evaluated"], again["total_errors"], again["completed"]) == (420, 0, True)
        assert again["total_dispatched"] == 400 - sent
        assert await notified_once_each(url) == 420
    assert "Traceback" not in service.log()
