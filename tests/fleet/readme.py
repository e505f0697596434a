"""This file is the README's three servers on loopback: its commands with other hosts and ports."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.fleet.nats_connection import Address
from tests.conftest import _memory_folder
from tests.fleet.nats_server import PREFIX, NatsServer, NatsServers, find_nats_server

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


def blocks_of_the_fleet() -> list[str]:
    """What stands between fences in its section, in order."""
    [section] = [part for part in re.split(r"^## ", README, flags=re.M) if part.startswith("On many workers")]
    return re.findall(r"```\n(.*?)```", section, re.DOTALL)


ON_ONE_MACHINE, CERTIFICATES, CONFIGURATION, SERVER, SERVICE_AND_WORKER = blocks_of_the_fleet()


def on_loopback(text: str, port: int, cluster_port: int) -> str:
    """The three hosts are three addresses of this machine, with these ports in place of NATS's own."""
    text = re.sub(r"DNS:nats-(\d).example", r"IP:127.0.0.\1", text)
    text = re.sub(r"nats-(\d).example", r"127.0.0.\1", text)
    return text.replace("4222", str(port)).replace("6222", str(cluster_port))


def free_on_all_hosts() -> int:
    """A port that is free on each of the three addresses."""
    while True:
        with ExitStack() as stack:
            port = 0
            try:
                for host in HOSTS:
                    listener = stack.enter_context(socket.create_server((host, port)))
                    port = listener.getsockname()[1]
            except OSError:
                continue
            return port


@dataclass(frozen=True)
class SecuredServers:
    """The README's three, and what its commands made."""

    servers: NatsServers
    port: int
    cluster_port: int
    ca: str
    passwords: dict[str, str]

    def as_user(self, user: str, *, password: str | None = None, ca: str | None = None) -> Address:
        """As `scheduler-service` or `scheduler-worker`."""
        return Address(
            self.servers.urls, user, password or self.passwords[user], self.ca if ca is None else ca
        )


def environment() -> dict[str, str]:
    """With the commands of this project, and the server, on the path."""
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), str(Path(find_nats_server()).parent), os.environ["PATH"]]
    )
    return {"PATH": path, "HOME": os.environ.get("HOME", "/")}


@contextmanager
def open_secured_servers() -> Iterator[SecuredServers]:
    """Starting when this begins, and gone when it ends."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_memory_folder()))
    port, cluster_port = free_on_all_hosts(), free_on_all_hosts()
    servers: list[NatsServer] = []
    try:
        said = subprocess.run(
            ["bash", "-euc", on_loopback(CERTIFICATES, port, cluster_port) + "env | grep _PASSWORD="],
            cwd=folder,
            env=environment(),
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        passwords = dict(line.split("=", 1) for line in said.splitlines())
        for host in HOSTS:
            own_folder = folder / host
            own_folder.mkdir()
            for name in ("ca.pem", "nats.pem", "nats.key"):
                shutil.copy(folder / name, own_folder)
            (own_folder / "nats.conf").write_text(on_loopback(CONFIGURATION, port, cluster_port))
            server = NatsServer(
                host,
                f"tls://{host}:{port}",
                own_folder,
                environment=environment() | passwords | {"NAME": host},
            )
            servers.append(server)
            server.start()
        yield SecuredServers(
            NatsServers(servers),
            port,
            cluster_port,
            str(folder / "ca.pem"),
            {
                "scheduler-service": passwords["SERVICE_PASSWORD"],
                "scheduler-worker": passwords["WORKER_PASSWORD"],
            },
        )
    finally:
        for server in servers:
            server.kill()
        shutil.rmtree(folder)
