"""This file is a stand-in for a trigger engine, whose latency is a pure function of the mentor's id.

    python -m bench.trigger_engine [none | fixed:SECONDS | lognormal:MEDIAN:SIGMA]

It listens on a free port of 127.0.0.1, which it prints, answers `POST` with nothing due after the mentor's
latency, and `GET` with a report: the calls in the order they came, how many were in flight at most, and the
service times that it measured itself, in the same order. A `GET` also clears the report. It ends when its
standard input does.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from uuid import UUID

import httptools
import trio

Latency = Callable[[UUID], float]


def latency_function(kind: str) -> Latency:
    """Seconds for each mentor, the same on every call and every machine."""
    name, *parameters = kind.split(":")
    numbers = [float(parameter) for parameter in parameters]
    if name == "none":
        return lambda mentor_id: 0.0
    if name == "fixed":
        [seconds] = numbers
        return lambda mentor_id: seconds
    if name == "lognormal":
        median, sigma = numbers
        return lambda mentor_id: median * math.exp(sigma * _normal(mentor_id))
    raise ValueError(f"{kind} is not a latency; say none, fixed:SECONDS or lognormal:MEDIAN:SIGMA")


def _normal(mentor_id: UUID) -> float:
    """A draw from the standard normal distribution that depends on the id alone."""
    uniform = (int.from_bytes(sha256(mentor_id.bytes).digest()[:8]) + 0.5) / 2**64
    return statistics.NormalDist().inv_cdf(uniform)


class Report:
    def __init__(self) -> None:
        self.mentor_ids: list[str] = []
        self.service_times: list[float] = []
        self.in_flight = 0
        self.peak_in_flight = 0

    def take(self) -> bytes:
        taken = {
            "mentor_ids": self.mentor_ids,
            "service_times": self.service_times,
            "peak_in_flight": self.peak_in_flight,
        }
        self.mentor_ids, self.service_times, self.peak_in_flight = [], [], 0
        return json.dumps(taken).encode()


class _Request:
    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete = True


async def answer(latency: Latency, report: Report, stream: trio.SocketStream) -> None:
    """Answer one connection's requests, one after the other, until it ends."""
    async with stream:
        while True:
            request = _Request()
            parser = httptools.HttpRequestParser(request)
            while not request.complete:
                data = await stream.receive_some()
                if not data:
                    return
                parser.feed_data(data)
            body = (
                report.take() if parser.get_method() == b"GET" else await evaluate(latency, report, request)
            )
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )


async def evaluate(latency: Latency, report: Report, request: _Request) -> bytes:
    mentor_id = json.loads(request.body)["mentor_id"]
    position = len(report.mentor_ids)
    report.mentor_ids.append(mentor_id)
    report.service_times.append(0.0)
    report.in_flight += 1
    report.peak_in_flight = max(report.peak_in_flight, report.in_flight)
    began = trio.current_time()
    if seconds := latency(UUID(mentor_id)):
        await trio.sleep(seconds)
    report.service_times[position] = trio.current_time() - began
    report.in_flight -= 1
    return b'{"mentor_id": "%b", "dispatched": [], "suppressed": []}' % mentor_id.encode()


async def serve(kind: str) -> None:
    async with trio.open_nursery() as nursery:
        handler = partial(answer, latency_function(kind), Report())
        serving = partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
        [listener] = await nursery.start(serving)
        print(listener.socket.getsockname()[1], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(serve, sys.argv[1] if len(sys.argv) > 1 else "none")
