"""This file looks at who can reach the service's port: this machine alone, unless more was asked for.

On Linux the kernel is asked who listens, and nothing is sent. It answers for the network namespace of this
process: what a container's host publishes is not seen from inside. Elsewhere this machine's own addresses
are connected to.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import trio

from engine.doctor.finding import Outcome, broken, holds
from engine.doctor.installation import Installation
from engine.settings import is_loopback

# Seconds for one of this machine's own addresses to answer; a firewall may drop what is sent there.
CONNECT_WITHIN = 1.0

# What the kernel calls a listening socket (net/tcp_states.h).
_LISTEN = "0A"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


async def check_exposure(installation: Installation) -> Outcome:
    bind = installation.settings.bind
    host, _, port = bind.rpartition(":")
    if not is_loopback(host.strip("[]")):
        return holds(f"asked for, with SCHEDULER_BIND={bind}; behind a proxy, let it publish /run alone")
    if port == "0":
        return broken("SCHEDULER_BIND leaves the port open, so that it can't be found", "name a port there")
    if sys.platform == "linux":
        found = sorted({str(each) for each in listening_at(int(port)) if not _is_loopback(each)})
    else:
        found = await reachable_at(await _own_addresses(), int(port))
    if found:
        return broken(
            f"port {port} is open at {', '.join(found)}, which is not this machine alone",
            f"end what listens there, or restart the service with SCHEDULER_BIND={bind}",
        )
    return holds(f"port {port} can be reached from this machine alone")


def listening_at(port: int, folder: Path = Path("/proc/net")) -> Iterator[Address]:
    """The addresses at which somebody on this machine listens on that port, over TCP. For Linux."""
    for name in ("tcp", "tcp6"):
        try:
            _, *lines = (folder / name).read_text().splitlines()
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            _, local, _, state, *_ = line.split()
            address, _, hex_port = local.partition(":")
            if state == _LISTEN and int(hex_port, 16) == port:
                yield _address(address)


def _address(written: str) -> Address:
    """As proc(5) writes it: words of 32 bits, each in the byte order of the machine."""
    raw = bytes.fromhex(written)
    words = (int.from_bytes(raw[start : start + 4], sys.byteorder) for start in range(0, len(raw), 4))
    packed = b"".join(word.to_bytes(4, "big") for word in words)
    return ipaddress.ip_address(packed)


def _is_loopback(address: Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


async def reachable_at(addresses: Iterable[str], port: int) -> list[str]:
    """Those of these addresses of this machine at which a connection to the port is taken.

    **Cancellation:** no connection is left.
    """
    found = []
    for address in addresses:
        with trio.move_on_after(CONNECT_WITHIN):
            try:
                stream = await trio.open_tcp_stream(address, port)
            except OSError:
                continue
            await stream.aclose()
            found.append(address)
    return found


async def _own_addresses() -> list[str]:
    """Of this machine by its own name, but for loopback."""
    try:
        known = await trio.socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(entry[4][0]) for entry in known if not is_loopback(str(entry[4][0]))})
