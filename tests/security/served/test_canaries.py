"""Secrets and ids planted in a real service, every error path provoked, and every output of it searched.

Two answers name a mentor by intent, to who has named it: those of /trigger-engine and of /explain. And the
ledger keeps the ids by which a run resumes, and between which a shard lies, which no output shows.
"""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import trio

from tests.end_to_end.conftest import (
    PATIENCE,
    Service,
    StartService,
    as_service,
    command,
    query,
    start_service,
)
from tests.transports.scripted_server import Peer, ScriptedServer

__all__ = ["start_service"]

SECRET, NEXT_SECRET, WRONG_SECRET = "cafe5ec1" * 8, "cafe5ec2" * 8, "cafe5ec3" * 8
KEY, TOKEN = "service-role-cafe5ec4-of-the-tests", "operator-cafe5ec5-of-the-tests-and-nobody"
DATABASE_PASSWORD = "cafe5ec6withoutaserver"
MENTORS = [f"cafe000{number}-0000-4000-8000-00000000beef" for number in range(1, 6)]
USERS = [f"beef000{number}-0000-4000-8000-00000000cafe" for number in range(1, 6)]
CANARIES = [SECRET, NEXT_SECRET, WRONG_SECRET, KEY, TOKEN, DATABASE_PASSWORD, *MENTORS, *USERS]

# Raises what it was asked about: in its message, its detail, and as a value that is no number.
TATTLE = """
create function scheduler.scenario_tattle(mentor_ids uuid[], as_of timestamptz, params jsonb)
returns table (mentor_id uuid, user_id uuid, payload jsonb) language plpgsql stable as $$
begin
  if 'cafe0001-0000-4000-8000-00000000beef' = any (mentor_ids) then
    raise exception 'about % of %', mentor_ids[1], (select m.user_id from scheduler.mentors m
      where m.id = mentor_ids[1]) using detail = mentor_ids::text, errcode = '22023';
  end if;
  return query select m.id, m.user_id, jsonb_build_object('n', (m.user_id::text)::int)
                 from scheduler.mentors m where m.id = any (mentor_ids);
end $$
"""


async def plant(database_url: str) -> None:
    for mentor, user in zip(MENTORS, USERS, strict=True):
        await query(
            database_url,
            "with m as (insert into public.peer_mentors (id, user_id, status, created_at) "
            "values ($1, $2, 'active', now() - interval '30 days') returning id) "
            "insert into public.assignments (id, mentor_id, status, expires_at) "
            "select gen_random_uuid(), id, 'active', current_date + 365 from m",
            *(mentor, user),
        )
    await query(database_url, TATTLE)
    await query(
        database_url,
        "insert into scheduler.scenario_evaluation_config (scenario_type, cooldown) "
        "values ('tattle', '1 day')",
    )


async def tell_on_everybody(peer: Peer) -> None:
    """A trigger engine that sends back what it was sent, in every wrong way that it can think of."""
    for number in range(100):
        request = await peer.receive()
        body = json.dumps(
            {"error": str(request.fields), "echo": request.body.decode(), "users": USERS}
        ).encode()
        about = json.loads(request.body).get("mentor_id", "")
        match number % 6:
            case 0:
                head = f"HTTP/1.1 500 {about}\r\nX-Key: {KEY}\r\n"
            case 1:
                head = f"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/?{about}{KEY}\r\n"
            case 2:
                head = f"HTTP/1.1 200 {about}\r\nSet-Cookie: {about}={KEY}\r\n"
            case 3:
                head = f"HTTP/1.1 503 X\r\nRetry-After: {about}\r\n"
            case 4:
                head = f"{about} {KEY}\r\n"
            case _:
                head = f"HTTP/1.1 200 OK\r\n{KEY}\r\n"
        await peer.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


Said = dict[str, str]

FOR_THE_OPERATOR = ("/runs", "/metrics", "/dashboard", "/dashboard/overview")
FOR_ANYONE = ("/freshness", "/readyz", "/openapi.json", "/login", "/dashboard")


async def ask(service: Service, said: Said) -> None:
    """Everything there is to ask, rightly and wrongly. What is answered goes into `said`."""
    secret, operator = {"X-Scheduler-Secret": SECRET}, {"Authorization": f"Bearer {TOKEN}"}
    key, mentor = {"Authorization": f"Bearer {KEY}"}, {"mentor_id": MENTORS[0]}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/run", {"headers": secret}),
        ("POST", "/run", {"headers": secret, "json": {"scenario_types": ["tattle"]}}),
        ("POST", "/run", {"headers": {"X-Scheduler-Secret": NEXT_SECRET}, "json": {"dry_run": True}}),
        ("POST", "/run", {"headers": {"X-Scheduler-Secret": WRONG_SECRET}}),
        ("POST", "/run", {"headers": secret, "json": {MENTORS[0]: USERS[0]}}),
        ("POST", "/run", {"headers": secret, "json": {"scenario_types": [MENTORS[0]]}}),
        ("POST", "/run", {"headers": secret, "json": {"scenario_types": ["cafe5ec7_unknown"]}}),
        (
            "POST",
            "/run",
            {
                "headers": secret,
                "content": f"{{{MENTORS[0]}",
            },
        ),
        ("POST", "/trigger-engine", {"headers": key, "json": mentor}),
        ("POST", "/trigger-engine", {"headers": key, "json": mentor | {"x": USERS[0]}}),
        ("POST", "/trigger-engine", {"headers": key, "json": {"mentor_ids": [MENTORS[0]] * 2}}),
        ("POST", "/trigger-engine", {"headers": operator, "json": mentor}),
        ("POST", "/explain", {"headers": operator, "json": {"mentor_id": USERS[0]}}),
        ("POST", "/explain", {"headers": key, "json": mentor}),
        ("POST", "/login", {"data": {"token": TOKEN, "form_token": WRONG_SECRET}}),
        ("GET", f"/runs/{MENTORS[0]}", {"headers": operator}),
        ("GET", f"/runs/{MENTORS[0]}", {"headers": key}),
        ("GET", f"/runs?before={MENTORS[0]}", {"headers": operator}),
        ("GET", f"/runs?{MENTORS[0]}", {"headers": operator}),
        ("GET", f"/{MENTORS[0]}?{TOKEN}", {}),
        *[
            ("GET", path, {"headers": operator})
            for path in ("/runs", "/metrics", "/dashboard", "/dashboard/overview")
        ],
        *[("GET", path, {}) for path in ("/freshness", "/readyz", "/openapi.json", "/login", "/dashboard")],
    ]
    async with httpx.AsyncClient(trust_env=False, timeout=45) as client:
        for number, (method, path, how) in enumerate(asked):
            answer = await client.request(method, service.url + path, **how)
            said[f"{number} {method} {path[:12]} -> {answer.status_code}"] = answer.text + str(answer.headers)
        page = await client.get(f"{service.url}/login")
        form_token = page.text.partition('name="form_token" value="')[2][:64]
        answer = await client.post(f"{service.url}/login", data={"token": TOKEN, "form_token": form_token})
        assert answer.status_code == 303
        said["login"] = answer.text + str(answer.headers)
        runs = (await client.get(f"{service.url}/runs", headers=operator)).json()["runs"]
        assert runs
        for run in runs:
            answer = await client.get(f"{service.url}/runs/{run['run_id']}", headers=operator)
            assert answer.status_code == 200
            said[f"run {run['run_id']}"] = answer.text
    said["events"] = await first_event(service)


async def first_event(service: Service) -> str:
    """The event stream, as far as its first event."""
    where = httpx.URL(service.url)
    head = f"GET /dashboard/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    said = ""
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream(where.host, where.port or 80) as stream:
            await stream.send_all(head.encode())
            while "data: " not in said:
                said += (await stream.receive_some()).decode()
    return said


def forms(canary: str) -> Iterator[str]:
    """As it may be written."""
    yield canary
    yield canary.replace("-", "")
    yield quote(canary, safe="")
    yield canary.encode().hex()
    yield repr(canary.encode())[2:-1]
    for offset in range(3):  # as a part of something that was encoded as a whole
        encoded = base64.b64encode(b"x" * offset + canary.encode()).decode()
        yield encoded[4:-4]


def found_in(said: Said) -> list[str]:
    wanted = {form.lower(): canary for canary in CANARIES for form in forms(canary)}
    return [
        f"{canary[:9]} in {where}"
        for where, text in said.items()
        for form, canary in wanted.items()
        if form in text.lower()
    ]


def processes() -> str:
    """What `ps` shows of every process: its arguments, whoever may look."""
    return "\n".join(arguments_in(Path("/proc").glob("[0-9]*/cmdline")))


def arguments_in(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            yield path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")


# Where the next run begins, and between whom a shard lies.
IDS_OF_THE_LEDGER = "{low_water_mark,started_after,after_id,until_id}"


# Of the versions of Postgres one is enough: nothing that is searched is its own.
@pytest.mark.parametrize("postgres_binaries", ["18"], indirect=True)
@pytest.mark.parametrize("engine", ["in-database", "over HTTP", "in shards"])
async def test_nothing_secret_and_nobody_s_id_is_in_any_output(
    engine: str, database_url: str, start_service: StartService, nursery: trio.Nursery
) -> None:
    await plant(database_url)
    server = ScriptedServer((tell_on_everybody,), None)
    await nursery.start(server.serve)
    settings = {
        "SCHEDULER_SECRET": SECRET,
        "SCHEDULER_SECRET_NEXT": NEXT_SECRET,
        "SCHEDULER_SERVICE_ROLE_KEY": KEY,
        "SCHEDULER_OPERATOR_TOKEN": TOKEN,
    }
    if engine == "over HTTP":
        settings["SCHEDULER_TRIGGER_ENGINE"] = server.url
        settings["SCHEDULER_TRIGGER_ENGINE_DRY_RUN"] = "true"
    if engine == "in shards":
        settings["SCHEDULER_FLEET"] = "in-process"
    service = await start_service(DATABASE_URL=await as_service(database_url), **settings)
    nowhere = await start_service(
        DATABASE_URL=f"postgresql://service:{DATABASE_PASSWORD}@127.0.0.1:1/nowhere", **settings
    )
    said: Said = {}
    await ask(service, said)
    async with httpx.AsyncClient(trust_env=False, timeout=45) as client:
        for path in ("/readyz", "/freshness", "/metrics", f"/runs/{MENTORS[0]}", "/dashboard/overview"):
            answer = await client.get(nowhere.url + path, headers={"Authorization": f"Bearer {TOKEN}"})
            said[f"nowhere {path[:10]} -> {answer.status_code}"] = answer.text + str(answer.headers)
    said["processes"] = processes()
    for each in (service, nowhere):
        each.send(signal.SIGTERM)
        assert await each.exit_code() == 0
    said["log"], said["log of nowhere"] = service.log(), nowhere.log()
    refused = command(
        "serve", DATABASE_URL=f"postgresql://u:{DATABASE_PASSWORD}@[", SCHEDULER_SECRET=f"{SECRET}!"
    )
    said["a start that is refused"] = refused.stdout + refused.stderr
    for table in ("runs", "shards", "scenario_evaluation_config", "invocations", "migrations"):
        rows = await query(
            database_url,
            f"select to_jsonb(t) - '{IDS_OF_THE_LEDGER}'::text[] from scheduler.{table} t",
        )
        said[f"scheduler.{table}"] = str([row[0] for row in rows])

    assert ("worker" in said["scheduler.shards"]) is (engine == "in shards")
    assert refused.returncode == 3
    assert {"run_ended", "first_error_of_class"} <= {
        json.loads(line)["event"] for line in service.log().splitlines()
    }
    assert sum(len(text) for text in said.values()) > 20_000
    assert found_in(said) == []


@pytest.mark.parametrize("canary", [SECRET, KEY, MENTORS[0]])
def test_what_is_planted_would_be_found_however_it_is_written(canary: str) -> None:
    for text in (
        f"x{canary.upper()}y",
        quote(f"?{canary}", safe=""),
        base64.b64encode(f'{{"id": "{canary}"}}'.encode()).decode(),
        f"x {canary}".encode().hex(),
        canary.replace("-", ""),
    ):
        assert found_in({"somewhere": text}) != []


def test_a_process_that_ends_while_it_is_looked_at_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "lives").write_bytes(b"lives\0on")
    assert list(arguments_in([tmp_path / "gone", tmp_path / "lives"])) == ["lives on"]


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="there is no /proc to see processes in")
def test_no_password_of_an_embedded_postgres_is_an_argument_of_a_process(
    postgres_cluster: Any,
) -> None:
    password = httpx.URL(postgres_cluster.dsn).password
    assert str(postgres_cluster.folder) in processes()
    assert password not in processes()
