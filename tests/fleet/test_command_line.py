"""`scenario-scheduler worker`: what it says to people, and that it waits for a fleet that is to come."""

from __future__ import annotations

import signal
from pathlib import Path

from engine.fleet.agreement import Agreement
from tests.end_to_end.conftest import command
from tests.fleet.nats_server import free_ports
from tests.fleet.processes import open_workers

DATABASE = "postgresql://nobody@127.0.0.1:1/nothing"


def test_without_a_fleet_there_is_nothing_to_work_for() -> None:
    done = command("worker", DATABASE_URL=DATABASE)
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1].startswith("SCHEDULER_FLEET is no URL")


def test_a_fleet_that_can_not_be_is_said_with_what_it_must_be() -> None:
    done = command("worker", "--fleet", "nats://nats.example:4222", DATABASE_URL=DATABASE)
    assert done.returncode == 3
    assert "SCHEDULER_FLEET must be" in done.stderr


def test_a_file_of_certificates_that_is_not_there_is_said() -> None:
    done = command(
        "worker", "--fleet", "tls://127.0.0.1:1", DATABASE_URL=DATABASE, SCHEDULER_FLEET_CA="/nowhere.pem"
    )
    assert done.returncode == 3
    assert "SCHEDULER_FLEET_CA is no file with certificates" in done.stderr


def test_so_many_shards_at_once_can_not_be() -> None:
    done = command("worker", "--shards-at-once", "0", DATABASE_URL=DATABASE)
    assert done.returncode == 2


def test_the_settings_that_have_to_be_those_of_the_service_are_named() -> None:
    named = command("worker", "--help").stdout
    for field in Agreement.model_fields:
        assert f"SCHEDULER_{field.upper()}" in named


async def test_a_worker_that_comes_before_its_database_says_so_and_waits(tmp_path: Path) -> None:
    with open_workers(tmp_path) as start_worker:
        worker = await start_worker("--fleet", "nats://127.0.0.1:1", DATABASE_URL=DATABASE)
        [line] = await worker.wait_until_logged("not_taking")
        assert "nobody listens there; check DATABASE_URL" in line["reason"]
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0


async def test_a_worker_that_comes_before_nats_says_so_and_waits(tmp_path: Path, database_url: str) -> None:
    [port] = free_ports(1)
    with open_workers(tmp_path) as start_worker:
        # With less than five shards' share, which is the coordinator's to give.
        own = {"DATABASE_URL": database_url, "SCHEDULER_MAX_CONCURRENCY": "3"}
        fleet = f"nats://127.0.0.1:{port}"
        worker = await start_worker("--fleet", fleet, "--shards-at-once", "2", **own)
        [line] = await worker.wait_until_logged("no_shards_yet")
        assert "nobody listens there; check SCHEDULER_FLEET" in line["reason"]
        worker.send(signal.SIGTERM)
        assert await worker.exit_code() == 0
