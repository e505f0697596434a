"""The stand-in that benchmarks measure against: it answers, counts, and takes as long as it was told to."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest

from bench.walk import trigger_engine_process

ONE, TWO = UUID(int=1), UUID(int=2)


def call(client: httpx.Client, url: str, mentor_id: UUID) -> Any:
    return client.post(url, json={"mentor_id": str(mentor_id)}).raise_for_status().json()


@contextmanager
def client_of(latency: str) -> Iterator[tuple[httpx.Client, str]]:
    with trigger_engine_process(latency) as url, httpx.Client(trust_env=False, timeout=10) as client:
        yield client, url


def test_it_answers_with_nothing_due_and_reports_the_calls_in_their_order() -> None:
    with client_of("none") as (client, url):
        for mentor_id in (TWO, ONE):
            assert call(client, url, mentor_id) == {
                "mentor_id": str(mentor_id),
                "dispatched": [],
                "suppressed": [],
            }
        report = client.get(url).json()
        assert report["mentor_ids"] == [str(TWO), str(ONE)]
        assert report["peak_in_flight"] == 1
        assert len(report["service_times"]) == 2
        assert client.get(url).json()["mentor_ids"] == []


def test_a_service_time_is_what_was_asked_for_and_those_at_once_overlap() -> None:
    with client_of("fixed:0.05") as (client, url):
        host, port = httpx.URL(url).host, httpx.URL(url).port
        sockets = [socket.create_connection((host, port)) for _ in range(3)]
        for number, each in enumerate(sockets):
            body = json.dumps({"mentor_id": str(UUID(int=number))}).encode()
            each.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        for each in sockets:
            assert b"200 OK" in each.recv(1000)
            each.close()
        report = client.get(url).json()
        assert report["peak_in_flight"] == 3
        assert min(report["service_times"]) >= 0.05


@pytest.mark.parametrize("piece", [1, 20, 1000])
def test_a_request_may_come_in_pieces(piece: int) -> None:
    with client_of("none") as (client, url):
        body = json.dumps({"mentor_id": str(ONE)}).encode()
        request = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        with socket.create_connection((httpx.URL(url).host, httpx.URL(url).port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(request), piece):
                connection.sendall(request[start : start + piece])
            assert str(ONE).encode() in connection.recv(1000)
        assert client.get(url).json()["mentor_ids"] == [str(ONE)]


def test_it_ends_with_its_standard_input() -> None:
    command = [sys.executable, "-m", "bench.trigger_engine_process"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        process.stdin.close()
        assert process.wait(timeout=10) == 0
