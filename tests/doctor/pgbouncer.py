"""A real PgBouncer on this machine, for as long as a block lasts."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
import trio

from engine.embedded.account import folder_open_to, give, surroundings_of, unprivileged_account
from tests.doctor.conftest import free_port
from tests.end_to_end.conftest import PATIENCE

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
logfile = {folder}/log
pool_mode = {mode}
"""


@asynccontextmanager
async def open_pgbouncer(url: str, mode: Literal["session", "transaction"]) -> AsyncIterator[str]:
    """The URL that leads through it to the same database, as the same user. Skips where it is missing."""
    if PROGRAM is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    account = unprivileged_account()
    server, port = urlsplit(url), free_port()
    with tempfile.TemporaryDirectory(dir=folder_open_to(account)) as name:
        folder = Path(name)
        give(folder, account)
        (folder / "users").write_text(f'"{server.username}" "{server.password}"\n')
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(server_port=server.port, port=port, folder=folder, mode=mode)
        )
        for path in (folder / "users", configuration):
            path.chmod(0o600)
            give(path, account)
        process = subprocess.Popen(  # noqa: ASYNC220 - forking blocks for a moment
            [PROGRAM, str(configuration)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **surroundings_of(folder, account),
        )
        try:
            await _wait_until_it_listens(process, port, folder / "log")
            netloc = f"{server.username}:{server.password}@127.0.0.1:{port}"
            yield server._replace(netloc=netloc).geturl()
        finally:
            process.kill()
            process.wait()


async def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    with trio.fail_after(PATIENCE):
        while True:
            assert process.poll() is None, await trio.Path(log).read_text()
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.01)
                continue
            await stream.aclose()
            return
