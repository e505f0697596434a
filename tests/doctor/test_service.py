"""What the service talks to, who talks to it, and who could: trigger engine, clock, URL, port."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio

import engine.doctor.service
from engine.database import Database
from engine.doctor.examine import examine
from engine.doctor.exposure import listening_at, reachable_at
from engine.doctor.service import MOST_SKEW
from engine.settings import load_settings
from tests.doctor.conftest import Healthy, broken_of, free_port, run_script
from tests.doctor.test_logins import finding, with_user
from tests.end_to_end.conftest import KEY, SECRET, StartService
from tests.postgrest import open_postgrest
from tests.transports.scripted_server import Peer, ScriptedServer

READY = '{"status": "ready"}'
NOBODY_AT_HOME = '{"mentor_id": "00000000-0000-0000-0000-000000000000", "dispatched": [], "suppressed": []}'


@asynccontextmanager
async def open_answering(status: int, body: str = "{}", **fields: str) -> AsyncIterator[ScriptedServer]:
    """A server on loopback that answers every post alike."""
    lines = [f"HTTP/1.1 {status} Some", f"Content-Length: {len(body)}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]

    async def answer(peer: Peer) -> None:
        while True:
            await peer.receive()
            await peer.send("\r\n".join([*lines, "", body]).encode())

    async with trio.open_nursery() as nursery:
        server = ScriptedServer((answer,), None)
        await nursery.start(server.serve)
        yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_listening(host: str, status: int, body: str) -> AsyncIterator[int]:
    """The port of a server that answers whatever comes alike, and closes."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(
                f"HTTP/1.1 {status} Some\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            )

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host=host))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


# --- The trigger engine at a URL ---


@pytest.mark.parametrize("transport", ["direct", "httpx"])
async def test_the_built_in_trigger_engine_over_http_holds(healthy: Healthy, transport: str) -> None:
    findings = await healthy.examine(
        SCHEDULER_TRIGGER_ENGINE=f"{healthy.service.url}/trigger-engine", SCHEDULER_TRANSPORT=transport
    )
    assert broken_of(findings) == []
    assert finding(findings, "trigger engine").found == "at its URL; it evaluates, in a dry run of nobody"


@pytest.mark.parametrize("transport", ["direct", "httpx"])
async def test_a_trigger_engine_that_refuses_the_key(healthy: Healthy, transport: str) -> None:
    findings = await healthy.examine(
        SCHEDULER_TRIGGER_ENGINE=f"{healthy.service.url}/trigger-engine",
        SCHEDULER_SERVICE_ROLE_KEY="another",
        SCHEDULER_TRANSPORT=transport,
    )
    assert broken_of(findings) == ["trigger engine"]
    assert "http_401" in finding(findings, "trigger engine").found


async def test_a_trigger_engine_where_nobody_listens(healthy: Healthy) -> None:
    findings = await healthy.examine(SCHEDULER_TRIGGER_ENGINE="http://127.0.0.1:1/")
    assert broken_of(findings) == ["trigger engine"]
    assert "connection_refused" in finding(findings, "trigger engine").found


async def test_a_trigger_engine_not_known_to_honour_dry_runs_is_asked_about_nobody(healthy: Healthy) -> None:
    async with open_answering(400) as server:
        findings = await healthy.examine(SCHEDULER_TRIGGER_ENGINE=server.url)
    assert broken_of(findings) == []
    assert [request.body for request in server.requests] == [b"{}"]


async def test_a_trigger_engine_that_honours_dry_runs_is_asked_for_one_of_the_nil_mentor(
    healthy: Healthy,
) -> None:
    async with open_answering(200, NOBODY_AT_HOME) as server:
        findings = await healthy.examine(
            SCHEDULER_TRIGGER_ENGINE=server.url, SCHEDULER_TRIGGER_ENGINE_DRY_RUN="true"
        )
    assert broken_of(findings) == []
    [request] = server.requests
    asked = json.loads(request.body)
    assert (asked["mentor_id"], asked["dry_run"]) == ("00000000-0000-0000-0000-000000000000", True)


@pytest.mark.parametrize("status", [302, 401, 403, 404, 500, 503])
async def test_a_trigger_engine_that_answers_wrongly(healthy: Healthy, status: int) -> None:
    async with open_answering(status) as server:
        findings = await healthy.examine(SCHEDULER_TRIGGER_ENGINE=server.url)
    assert broken_of(findings) == ["trigger engine"]
    assert str(status) in finding(findings, "trigger engine").found
    assert len(server.requests) == 1


async def test_a_trigger_engine_that_never_answers_is_not_waited_for(healthy: Healthy) -> None:
    async def say_nothing(peer: Peer) -> None:
        await peer.wait_closed()

    async with trio.open_nursery() as nursery:
        server = ScriptedServer((say_nothing,), None)
        await nursery.start(server.serve)
        findings = await healthy.examine(
            SCHEDULER_TRIGGER_ENGINE=server.url, SCHEDULER_INVOCATION_TIMEOUT="0.05"
        )
        await server.wait_connections(1)
        nursery.cancel_scope.cancel()
    assert broken_of(findings) == ["trigger engine"]
    assert "does not answer within 0.05 s" in finding(findings, "trigger engine").found


# --- The mentor source ---

BELONG = """
    alter table public.assignments add constraint belongs
      foreign key (mentor_id) references public.peer_mentors (id)
"""


async def test_mentors_from_postgres_are_green_and_said(healthy: Healthy) -> None:
    found = finding(await healthy.examine(), "mentor source")
    assert (found.ok, found.found) == (True, "Postgres; a walk finds mentors there")


async def test_mentors_from_a_rest_api_are_green_and_said(healthy: Healthy, administrator: Database) -> None:
    await run_script(administrator, BELONG)
    try:
        async with open_postgrest(administrator, key=KEY) as postgrest:
            findings = await healthy.examine(SCHEDULER_MENTOR_SOURCE=postgrest.url)
    finally:
        await run_script(administrator, "alter table public.assignments drop constraint belongs")
    assert broken_of(findings) == []
    said = "the REST API at SCHEDULER_MENTOR_SOURCE; a walk finds mentors there"
    assert finding(findings, "mentor source").found == said
    [request] = postgrest.requests
    assert request.target.endswith("&limit=1")


@pytest.mark.parametrize(
    ("key", "found", "mend"),
    [
        ("another", "it refuses the key", "check SCHEDULER_SERVICE_ROLE_KEY"),
        (KEY, "it knows no foreign key from assignments", "let assignments.mentor_id reference peer_mentors"),
    ],
    ids=["key", "foreign key"],
)
async def test_a_rest_api_that_can_not_be_read_is_red_in_its_own_words(
    healthy: Healthy, administrator: Database, key: str, found: str, mend: str
) -> None:
    async with open_postgrest(administrator, key=key) as postgrest:
        findings = await healthy.examine(SCHEDULER_MENTOR_SOURCE=postgrest.url)
    assert broken_of(findings) == ["mentor source"]
    said = finding(findings, "mentor source")
    assert found in said.found
    assert str(said.mend).startswith(mend)


# --- The clock ---


@pytest.mark.parametrize(("moved", "side"), [(60.0, "ahead of"), (-60.0, "behind")])
async def test_a_clock_that_is_off(healthy: Healthy, moved: float, side: str) -> None:
    findings = await healthy.examine(clock=lambda: time.time() + moved)
    assert broken_of(findings) == ["clock"]
    assert f"{side} Postgres's" in finding(findings, "clock").found


async def test_a_slow_way_to_postgres_is_not_taken_for_a_clock_that_is_off(healthy: Healthy) -> None:
    # As if the answer had taken 40 s to come: then the server's time can be anywhere in between.
    looks = iter([0.0, 40.0])
    began = time.time()
    findings = await healthy.examine(clock=lambda: began + next(looks))
    assert broken_of(findings) == []


async def test_a_clock_that_is_off_by_little_is_borne(healthy: Healthy) -> None:
    assert broken_of(await healthy.examine(clock=lambda: time.time() + MOST_SKEW - 2)) == []


# --- The service ---


async def test_a_running_service_that_is_locked_out(healthy: Healthy, start_service: StartService) -> None:
    # As one is that was started before `service-url` made another password.
    settings = {
        "DATABASE_URL": with_user(healthy.postgres.dsn, "scheduler_service:former"),
        "SCHEDULER_SECRET": SECRET,
    }
    locked_out = await start_service(**settings)
    findings = await healthy.examine(SCHEDULER_BIND=locked_out.url.removeprefix("http://"))
    assert broken_of(findings) == ["service"]
    found = finding(findings, "service")
    assert "not ready: Postgres can't be used: the login was refused" in found.found
    assert "restart it with the DATABASE_URL that `scenario-scheduler service-url` has printed" in str(
        found.mend
    )


async def test_a_service_that_does_not_run(healthy: Healthy) -> None:
    findings = await healthy.examine(SCHEDULER_BIND=f"127.0.0.1:{free_port()}")
    assert broken_of(findings) == ["service"]
    assert "does not answer: connection_refused" in finding(findings, "service").found


async def test_a_service_that_never_answers_is_not_waited_for(
    healthy: Healthy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.doctor.service, "ANSWER_WITHIN", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        findings = await healthy.examine(SCHEDULER_BIND=f"127.0.0.1:{listener.getsockname()[1]}")
    assert broken_of(findings) == ["service"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "{}"),
        (200, "ready"),
        (200, "[]"),
        (200, "[" * 60_000),
        (404, READY),
        (503, "{}"),
        (302, READY),
    ],
)
async def test_something_else_at_the_services_port(healthy: Healthy, status: int, body: str) -> None:
    async with open_listening("127.0.0.1", status, body) as port:
        findings = await healthy.examine(SCHEDULER_BIND=f"127.0.0.1:{port}")
    assert broken_of(findings) == ["service"]
    assert f"answers {status}, as this service does not" in finding(findings, "service").found


# --- The tick's URL ---


@pytest.mark.parametrize(
    ("status", "fields"),
    [(200, {}), (401, {}), (401, {"WWW_Authenticate": "Basic"}), (302, {"Location": "http://127.0.0.1:1/"})],
)
async def test_a_url_of_another_service(
    healthy: Healthy, administrator: Database, status: int, fields: dict[str, str]
) -> None:
    async with open_answering(status, **fields) as server:
        url = f"{server.url}?key=hidden"
        await run_script(administrator, f"update scheduler.settings set url = '{url}'")
        try:
            findings = await healthy.examine()
        finally:
            await run_script(
                administrator, f"update scheduler.settings set url = '{healthy.service.url}/run'"
            )
    assert broken_of(findings) == ["tick's URL"]
    said = finding(findings, "tick's URL").found
    assert f"{server.url} answers {status}" in said
    assert "hidden" not in said
    [request] = server.requests
    assert "x-scheduler-secret" not in request.fields


# --- Exposure ---


async def test_a_port_open_to_other_machines(healthy: Healthy) -> None:
    # For this it is not connected to: the kernel is asked who listens.
    async with open_listening("0.0.0.0", 200, READY) as port:
        findings = await healthy.examine(SCHEDULER_BIND=f"127.0.0.1:{port}")
    assert broken_of(findings) == ["exposure"]
    assert "is open at 0.0.0.0" in finding(findings, "exposure").found


async def test_a_port_open_to_other_machines_over_ipv6(healthy: Healthy) -> None:
    async with open_listening("::", 200, READY) as port:
        findings = await healthy.examine(SCHEDULER_BIND=f"[::1]:{port}")
    assert broken_of(findings) == ["exposure"]
    assert "is open at ::" in finding(findings, "exposure").found


async def test_an_exposure_that_was_asked_for_is_green_and_said(healthy: Healthy) -> None:
    findings = await healthy.examine(SCHEDULER_BIND="0.0.0.0:8000")
    assert broken_of(findings) == []
    assert "publish /run alone" in finding(findings, "exposure").found


async def test_a_port_left_open_in_the_settings_can_not_be_found(healthy: Healthy) -> None:
    assert broken_of(await healthy.examine(SCHEDULER_BIND="127.0.0.1:0")) == ["service", "exposure"]


@pytest.mark.parametrize(("host", "family"), [("127.0.0.2", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_listeners_are_found_at_their_addresses(host: str, family: socket.AddressFamily) -> None:
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((host, port)):
            assert list(listening_at(port)) == [ip_address(host)]
    assert list(listening_at(port)) == []


def test_a_kernel_without_ipv6_has_no_listeners_there(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text("  sl  local_address\n")
    assert list(listening_at(80, tmp_path)) == []


async def test_where_the_kernel_is_not_asked_addresses_are_connected_to() -> None:
    with socket.create_server(("127.0.0.2", 0)) as listener:
        port = listener.getsockname()[1]
        assert await reachable_at(["127.0.0.2", "127.0.0.3"], port) == ["127.0.0.2"]


async def test_only_the_service_and_the_administrator_are_needed_to_examine(
    healthy: Healthy, bare_environment: None
) -> None:
    findings = await examine(
        load_settings(database_url=healthy.postgres.dsn, bind=f"127.0.0.1:{free_port()}")
    )
    assert broken_of(findings) == ["login", "secret", "service"]
