"""The README's commands for many workers, run as they stand: only hosts, ports and passwords are others."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from tests.end_to_end.conftest import as_service, notified_once_each, query, seed
from tests.fleet.nats_server import free_ports
from tests.fleet.readme import (
    ON_ONE_MACHINE,
    SERVER,
    SERVICE_AND_WORKER,
    environment,
    on_loopback,
    open_secured_servers,
)
from tests.tick.test_readme import run_commands

pytestmark = pytest.mark.parametrize("postgres_binaries", ["18"], indirect=True, ids=["postgres-18"])

# What pg_cron would do, once all is up.
TICK = """
python3 - <<'end'
import httpx
import os
import time

url = f"http://{os.environ['SCHEDULER_BIND']}/run"
headers = {"X-Scheduler-Secret": os.environ["SCHEDULER_SECRET"]}
for _ in range(200):
    try:
        answer = httpx.post(url, headers=headers, trust_env=False, timeout=40)
        if answer.status_code == 200:
            print("SUMMARY", answer.text)
            break
        print(answer.text)
    except httpx.TransportError:
        pass
    time.sleep(0.1)
end
"""


async def run_and_tick(url: str, folder: Path, script: str, **settings: str) -> dict[str, object]:
    """The commands, and a tick when what they started is up. Returns its summary."""
    await seed(url, 200)
    [port] = free_ports(1)
    said = await run_commands(
        f"cd {folder}\n{script}\n{TICK}",
        DATABASE_URL=await as_service(url),
        SCHEDULER_SECRET=secrets.token_hex(32),
        SCHEDULER_BIND=f"127.0.0.1:{port}",
        PYTHONPATH=str(Path(__file__).parents[2]),  # these sources, wherever the command was installed from
        **settings,
    )
    lines = [line for line in said.splitlines() if line.startswith("SUMMARY ")]
    assert lines, said
    summary: dict[str, object] = json.loads(lines[0].removeprefix("SUMMARY "))
    return summary


async def test_on_one_machine_the_commands_lead_to_a_run_on_two_workers(
    database_url: str, tmp_path: Path
) -> None:
    [port] = free_ports(1)
    script = ON_ONE_MACHINE.replace("-a 127.0.0.1", f"-a 127.0.0.1 -p {port}").replace("4222", str(port))
    assert script.count(str(port)) == 2
    summary = await run_and_tick(database_url, tmp_path, script, PATH=environment()["PATH"])
    assert (summary["completed"], summary["total_evaluated"]) == (True, 200)
    assert await notified_once_each(database_url) == 200
    [sharded] = await query(database_url, "select count(distinct worker) as workers from scheduler.shards")
    assert sharded["workers"] in (1, 2)  # one may be up before the other


async def test_on_three_servers_the_commands_lead_to_a_run_over_tls(
    database_url: str, tmp_path: Path
) -> None:
    assert SERVER == "NAME=nats-1.example nats-server -c nats.conf &\n"  # as open_secured_servers does
    with open_secured_servers() as secured:
        script = on_loopback(SERVICE_AND_WORKER, secured.port, secured.cluster_port)
        summary = await run_and_tick(
            database_url,
            Path(secured.ca).parent,
            script,
            SERVICE_PASSWORD=secured.passwords["scheduler-service"],
            WORKER_PASSWORD=secured.passwords["scheduler-worker"],
        )
    assert (summary["completed"], summary["total_evaluated"]) == (True, 200)
    assert await notified_once_each(database_url) == 200
    [sharded] = await query(database_url, "select count(*) as shards from scheduler.shards")
    assert sharded["shards"] > 1
