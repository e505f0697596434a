"""This file is the stand-in of bench/trigger_engine.py in a process of its own, as cheap as Python can be.

    python -m bench.trigger_engine_process [none | fixed:SECONDS | lognormal:MEDIAN:SIGMA]

It shares the processors with whoever is measured, so what it takes is in every figure. One call of `select`
for all connections, one read, one write and no coroutine: 20 to 36 µs a request, the kernel's part included,
where the trio server took 42 to 56. It knows no more of HTTP than the clients here need: a head that names
its length, and its body; whatever else ends the process, so that no figure is made of it. `select` sleeps to
the microsecond, where `epoll` in Python rounds up to the next millisecond.

Prints its port. `GET` answers with the report, and clears it. It ends when its standard input does.
"""

from __future__ import annotations

import heapq
import json
import select
import socket
import sys
import time
from itertools import count
from uuid import UUID

from bench.trigger_engine import Latency, Report, latency_function

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_ANSWER = b'{"mentor_id": "%b", "dispatched": [], "suppressed": []}'
_LENGTH = b"\r\ncontent-length:"


class Connection:
    """One client's connection, and what has come of its next request."""

    __slots__ = ("received", "socket")

    def __init__(self, accepted: socket.socket) -> None:
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = accepted
        self.received = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def take_request(self) -> tuple[bool, bytes] | None:
        """Whether it is a GET, and its body; None while it is not whole. Nobody sends two at once."""
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return None
        is_get = head.startswith(b"GET ")
        if not is_get:
            # Header names are written in either case; values before it, such as a target, in neither.
            begins = head.lower().index(_LENGTH) + len(_LENGTH)
            if len(body) < int(head[begins:].split(b"\r\n", 1)[0]):
                return None
        self.received = b""
        return is_get, body

    def send(self, body: bytes) -> None:
        self.socket.sendall(_HEAD % (len(body), body))


def serve(latency: Latency) -> None:
    report = Report()
    # When due, in this order among equals, where in the report, since when, what to send and to whom.
    pending: list[tuple[float, int, int, float, bytes, Connection]] = []
    number = count()

    def begin(connection: Connection, body: bytes) -> None:
        mentor_id = json.loads(body)["mentor_id"]
        position = len(report.mentor_ids)
        report.mentor_ids.append(mentor_id)
        report.service_times.append(0.0)
        report.in_flight += 1
        report.peak_in_flight = max(report.peak_in_flight, report.in_flight)
        began = time.perf_counter()
        answer = _ANSWER % mentor_id.encode()
        if seconds := latency(UUID(mentor_id)):
            heapq.heappush(pending, (began + seconds, next(number), position, began, answer, connection))
        else:
            end(position, began, answer, connection)

    def end(position: int, began: float, answer: bytes, connection: Connection) -> None:
        report.service_times[position] = time.perf_counter() - began
        report.in_flight -= 1
        connection.send(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        waiting: list[Connection | socket.socket] = [listener]
        while True:
            timeout = max(0.0, pending[0][0] - time.perf_counter()) if pending else None
            ready, _, _ = select.select([sys.stdin, *waiting], [], [], timeout)
            for each in ready:
                if each is sys.stdin:
                    return
                if each is listener:
                    waiting.append(Connection(listener.accept()[0]))
                    continue
                data = each.socket.recv(65536)
                if not data:
                    waiting.remove(each)
                    each.socket.close()
                    continue
                each.received += data
                if request := each.take_request():
                    is_get, body = request
                    if is_get:
                        each.send(report.take())
                    else:
                        begin(each, body)
            now = time.perf_counter()
            while pending and pending[0][0] <= now:
                end(*heapq.heappop(pending)[2:])


if __name__ == "__main__":
    serve(latency_function(sys.argv[1] if len(sys.argv) > 1 else "none"))
