"""`scheduler.invoke`, over both ways of posting: what it posts, the answer, and who sees the secret.

pg_net and Vault are stand-ins here: see pg_net_stand_in.sql and vault_stand_in.sql.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
import trio

from engine.database import Database
from engine.embedded import EmbeddedPostgres
from engine.errors import StatementFailed
from engine.statements import Statement, load_statement
from tests.attempts import REFUSED, execute, find_things, logged_in_as, sqlstate_of, uses_not_refused
from tests.tick.conftest import EXTENSIONS, HOW
from tests.tick.pg_net_worker import work_off
from tests.tick.ticking import Ticking, Way, fetch, make_ticking, run_file, run_script
from tests.transports.conftest import Serve
from tests.transports.scripted_server import PATIENCE, Peer, Script

MakeTicking = Callable[..., Awaitable[Ticking]]

CHECK_VIOLATION = "23514"
NOT_IN_PREREQUISITE_STATE = "55000"
RUN = UUID("01920000-0000-7000-8000-000000000001")
SUMMARY = json.dumps({"total_evaluated": 3, "run_id": str(RUN)})

over_both_ways = pytest.mark.parametrize(
    ("postgres_binaries", "way"),
    [("15", "pg_net"), ("18", "pg_net"), ("15", "plpython3u")],
    indirect=["postgres_binaries"],
    ids=["postgres-15-pg_net", "postgres-18-pg_net", "postgres-15-plpython3u"],
)
over_plpython3u = pytest.mark.parametrize(
    ("postgres_binaries", "way"), [("15", "plpython3u")], indirect=["postgres_binaries"], ids=["postgres-15"]
)


@pytest.fixture
def ticking(database: Database, way: Way) -> MakeTicking:
    """Make the database of this test tick, over this way."""
    if way == "plpython3u" and not (EXTENSIONS / "plpython3u.control").exists():
        pytest.skip(f"Postgres 15 with plpython3u is not installed: {HOW}")

    async def make(url: str, **settings: int) -> Ticking:
        return await make_ticking(database, way, url, **settings)

    return make


def answer(status: str, body: str | bytes = "", *fields: str) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", *fields, "", ""])
    return head.encode() + data


def says(*parts: Any) -> Script:
    """Answer like this, and close."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(answer(*parts))

    return script


async def hang(peer: Peer) -> None:
    await peer.receive()
    await peer.wait_closed()


# --- What is posted, and what is recorded ---


@over_both_ways
async def test_a_tick_posts_the_secret_and_records_the_run_of_the_summary(
    ticking: MakeTicking, serve: Serve
) -> None:
    server = await serve(says("200 OK", SUMMARY))
    database = await ticking(server.url)
    invocation = await database.tick()
    [request] = server.requests
    assert request.line == "POST /trigger-engine HTTP/1.1"
    assert request.fields["x-scheduler-secret"] == database.secret
    assert request.fields["content-type"] == "application/json"
    body = json.loads(request.body)
    assert (body.pop("source"), set(body)) == ("pg_cron", {"invoked_at"})
    assert (invocation.status_code, invocation.error, invocation.run_id) == (200, None, RUN)
    assert invocation.answered_at is not None
    [row] = await fetch(
        database.database,
        "select invoked_by, scenario_types, invoked_at = $1::text::timestamptz from scheduler.invocations",
        body["invoked_at"],
    )
    assert row == ("scheduler_cron", None, True)


@over_both_ways
async def test_scenario_types_are_passed_on_and_recorded(ticking: MakeTicking, serve: Serve) -> None:
    server = await serve(says("200 OK", SUMMARY))
    database = await ticking(server.url)
    invocation = await database.tick("expiry", "milestone")
    assert json.loads(server.requests[0].body)["scenario_types"] == ["expiry", "milestone"]
    assert invocation.scenario_types == ["expiry", "milestone"]


@over_both_ways
async def test_a_query_of_the_url_is_sent_and_port_and_host_are_right(
    ticking: MakeTicking, serve: Serve
) -> None:
    server = await serve(says("200 OK", SUMMARY))
    origin = server.url.removesuffix("/trigger-engine")
    database = await ticking(f"{origin}?at=once")
    await database.tick()
    [request] = server.requests
    assert request.line == "POST /?at=once HTTP/1.1"
    assert f"http://{request.fields['host']}" == origin


@over_both_ways
@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("401 Unauthorized", "unauthorized"),
        ("409 Conflict", "run_in_progress"),
        ("503 Service Unavailable", "database_unavailable"),
    ],
)
async def test_an_answer_that_is_an_error_is_recorded_with_its_code(
    ticking: MakeTicking, serve: Serve, status: str, code: str
) -> None:
    server = await serve(says(status, json.dumps({"error": code, "detail": "A sentence."})))
    invocation = await (await ticking(server.url)).tick()
    assert (invocation.status_code, invocation.error, invocation.run_id) == (int(status[:3]), code, None)


@over_both_ways
async def test_a_refused_connection_is_recorded_without_a_status(ticking: MakeTicking) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        invocation = await (await ticking(f"http://127.0.0.1:{taken.getsockname()[1]}/run")).tick()
    assert (invocation.status_code, invocation.run_id) == (None, None)
    assert invocation.error in ("Couldn't connect to server", "ConnectionRefusedError")
    assert invocation.answered_at is not None


@over_both_ways
async def test_a_service_that_does_not_answer_in_time_is_recorded_as_such(
    ticking: MakeTicking, serve: Serve
) -> None:
    server = await serve(hang)
    invocation = await (await ticking(server.url, timeout_ms=100)).tick()
    assert (invocation.status_code, invocation.run_id) == (None, None)
    assert invocation.error in ("Timeout of 100 ms reached", "timeout")


STRANGE = {
    "empty": "",
    "text": "<html>It works!</html>",
    "scalar": "3",
    "string": '"run_id"',
    "null": "null",
    "array": f"[{SUMMARY}]",
    "run_id is none": '{"run_id": "nobody", "error": null}',
    "run_id is an object": '{"run_id": {"run_id": 1}}',
    "error is an object": '{"error": {"error": "internal"}}',
    "error is a sentence": '{"error": "Something went wrong."}',
    "nested": "[" * 60_000,
    "nested and long": '{"run_id":' * 40_000,
    "long": json.dumps({"run_id": str(RUN), "text": "x" * 100_000}),
    "lone surrogate": r'{"error": "\ud800"}',
    "zero": r'{"error": "\u0000"}',
    "zero byte": b'{"error": "\x00"}',
    "no UTF-8": b'{"error": "\xff\xfe"}',
}


@over_both_ways
@pytest.mark.parametrize("body", STRANGE.values(), ids=STRANGE.keys())
async def test_what_some_other_server_says_is_no_run_and_does_not_end_the_next_tick(
    ticking: MakeTicking, serve: Serve, body: str | bytes
) -> None:
    server = await serve(says("200 OK", body), says("200 OK", SUMMARY))
    database = await ticking(server.url)
    first = await database.tick()
    assert (first.status_code, first.error, first.run_id) == (200, None, None)
    assert (await database.tick()).run_id == RUN


@over_both_ways
async def test_a_secret_that_is_sent_back_is_not_kept(ticking: MakeTicking, serve: Serve) -> None:
    async def echo(peer: Peer) -> None:
        request = await peer.receive()
        await peer.send(
            answer("400 Bad Request", json.dumps({"error": request.fields["x-scheduler-secret"]}))
        )

    database = await ticking((await serve(echo)).url)
    invocation = await database.tick()
    assert (invocation.status_code, invocation.error) == (400, None)
    rows = await fetch(database.database, "select i::text from scheduler.invocations i")
    assert database.secret not in str(rows)


# --- What only the one or the other way can get wrong ---


@over_plpython3u
async def test_over_plpython3u_a_redirect_is_not_followed(ticking: MakeTicking, serve: Serve) -> None:
    elsewhere = await serve(says("200 OK", SUMMARY))
    server = await serve(says("307 Temporary Redirect", "", f"Location: {elsewhere.url}"))
    invocation = await (await ticking(server.url)).tick()
    assert (invocation.status_code, invocation.run_id) == (307, None)
    assert elsewhere.connections == 0


def drips(head: bytes, drop: bytes) -> Script:
    """Never silent for long, and never done."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(head)
        while True:
            await peer.send(drop)
            await trio.sleep(0.01)  # else it is not the time that is up first, but what it may send

    return script


@over_plpython3u
@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    ],
    ids=["status", "header", "body", "chunks", "length of a chunk"],
)
async def test_over_plpython3u_an_answer_that_drips_is_given_up_when_the_time_is_up(
    ticking: MakeTicking, serve: Serve, head: bytes, drop: bytes
) -> None:
    server = await serve(drips(head, drop))
    with trio.fail_after(PATIENCE):
        invocation = await (await ticking(server.url, timeout_ms=200)).tick()
    assert (invocation.status_code, invocation.error) == (None, "timeout")
    await server.wait_connections(1)  # closed


@over_plpython3u
async def test_over_plpython3u_an_answer_without_end_is_not_read_to_its_end(
    ticking: MakeTicking, serve: Serve
) -> None:
    async def flood(peer: Peer) -> None:
        await peer.receive()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(b" " * 65_536)

    server = await serve(flood)
    invocation = await (await ticking(server.url)).tick()
    assert (invocation.status_code, invocation.error, invocation.run_id) == (200, None, None)


@over_plpython3u
async def test_over_plpython3u_an_answer_in_chunks_is_read(ticking: MakeTicking, serve: Serve) -> None:
    first, second = SUMMARY[:10], SUMMARY[10:]
    chunks = f"{len(first):x}\r\n{first}\r\n{len(second):x}\r\n{second}\r\n0\r\n\r\n"

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks.encode())
        await peer.wait_closed()

    assert (await (await ticking((await serve(script)).url)).tick()).run_id == RUN


@over_plpython3u
async def test_over_plpython3u_a_certificate_nobody_vouches_for_gets_no_secret(
    ticking: MakeTicking, serve: Serve, certify: Callable[..., object]
) -> None:
    server = await serve(says("200 OK", SUMMARY), ssl_context=certify("127.0.0.1"))
    invocation = await (await ticking(server.url)).tick()
    assert (invocation.status_code, invocation.error) == (None, "SSLCertVerificationError")
    assert server.requests == []


@pytest.mark.parametrize("way", ["pg_net"])
async def test_over_pg_net_a_tick_that_is_undone_posts_nothing_and_leaves_no_row(
    ticking: MakeTicking, serve: Serve
) -> None:
    server = await serve(says("200 OK", SUMMARY))
    database = await ticking(server.url)
    async with logged_in_as(database.database, "scheduler_cron") as cron:
        await execute(cron, "select scheduler.invoke()")
    assert await fetch(database.database, "select from net.http_request_queue") == []
    assert await fetch(database.database, "select from scheduler.invocations") == []


@pytest.mark.parametrize("way", ["pg_net"])
async def test_over_pg_net_the_next_tick_brings_the_answer_to_the_last_one(
    ticking: MakeTicking, serve: Serve
) -> None:
    database = await ticking((await serve(says("200 OK", SUMMARY))).url)
    await database.invoke()
    await work_off(database.database)
    await database.invoke()
    recorded = await fetch(
        database.database, "select status_code, run_id from scheduler.invocations order by id"
    )
    assert recorded == [(200, RUN), (None, None)]


@pytest.mark.parametrize("way", ["pg_net"])
@pytest.mark.parametrize(
    ("created", "is_its"),
    [
        ("invoked_at", True),
        ("invoked_at + interval '9 minutes'", True),
        ("invoked_at - interval '0.9 seconds'", True),
        ("invoked_at - interval '1.1 seconds'", False),
        ("invoked_at + interval '10 minutes'", False),
    ],
)
async def test_over_pg_net_an_answer_of_another_time_is_anothers_as_after_a_crash_its_numbers_begin_again(
    ticking: MakeTicking, created: str, is_its: bool
) -> None:
    database = (await ticking("http://127.0.0.1:1/run")).database
    await run_script(
        database,
        f"""
        insert into scheduler.invocations (request_id, invoked_at) values (7, now() - interval '1 hour');
        insert into net._http_response (id, status_code, content, timed_out, created)
        select 7, 200, '{SUMMARY}', false, {created} from scheduler.invocations
        """,
    )
    for _ in range(2):
        await database.fetch(load_statement("record_answers"))
    assert await fetch(database, "select run_id from scheduler.invocations") == [(RUN if is_its else None,)]


@pytest.mark.parametrize("way", ["pg_net"])
@pytest.mark.parametrize(
    "closed",
    [
        "revoke all on net._http_response from public, scheduler_owner",
        "alter table net._http_response rename column content to body",
    ],
    ids=["closed", "of another version"],
)
async def test_over_pg_net_answers_that_cant_be_read_do_not_keep_a_tick_from_posting(
    ticking: MakeTicking, closed: str
) -> None:
    database = await ticking("http://127.0.0.1:1/run")
    await run_script(database.database, closed)
    await database.invoke()
    assert len(await fetch(database.database, "select from net.http_request_queue")) == 1


@pytest.mark.parametrize("way", ["pg_net"])
async def test_invocations_are_kept_for_thirty_days(ticking: MakeTicking) -> None:
    database = await ticking("http://127.0.0.1:1/run")
    await run_script(
        database.database,
        "insert into scheduler.invocations (invoked_at) values (now() - interval '30 days 1 minute'), "
        "(now() - interval '29 days 23 hours')",
    )
    await database.invoke()
    assert await fetch(database.database, "select id from scheduler.invocations order by id") == [(2,), (3,)]


# --- Who gets to see the secret ---


@pytest.mark.parametrize("way", ["pg_net"])
async def test_an_ordinary_role_reads_and_changes_nothing_that_waits_in_pg_nets_queue_and_goes_on_posting(
    ticking: MakeTicking, database: Database
) -> None:
    look = "select headers from net.http_request_queue"
    await run_file(database, "pg_net_stand_in")
    before = ["create role stranger login"]
    async with logged_in_as(database, "stranger", before=before) as stranger:
        assert await sqlstate_of(stranger, look) is None  # the control: with pg_net's own rights
    await run_script(database, "drop schema net cascade")

    ticks = await ticking("http://127.0.0.1:1/run")
    await ticks.invoke()
    things = await find_things(database, "net")
    async with logged_in_as(database, "stranger", before=before) as stranger:
        assert await uses_not_refused(stranger, things) == {
            "http_request_queue": {"insert", "select id"},
            "http_request_queue_id_seq": {"next", "read"},
            "_http_response": {f"select {name}" for name in RESPONSE},
            "http_post": {"call", "plan"},
        }
        assert await sqlstate_of(stranger, look) == REFUSED
        assert await sqlstate_of(stranger, "select net.http_post('http://127.0.0.1:1/')") is None
    # Again is as once.
    assert await fetch(database, "select * from scheduler.grant_tick_rights()") == []


RESPONSE = ("id", "status_code", "content_type", "headers", "content", "timed_out", "error_msg", "created")


@pytest.mark.parametrize("way", ["pg_net"])
async def test_a_trigger_that_somebody_left_on_pg_nets_queue_is_named(
    ticking: MakeTicking, database: Database
) -> None:
    await ticking("http://127.0.0.1:1/run")
    await run_script(
        database,
        """
        create role stranger;
        create function public.look() returns trigger language plpgsql as 'begin return new; end';
        alter function public.look owner to stranger;
        create trigger look after insert on net.http_request_queue for each row execute function public.look()
        """,
    )
    [(line,)] = await fetch(database, "select * from scheduler.grant_tick_rights()")
    assert line.startswith("pg_net: the trigger look on net.http_request_queue is not pg_net's")
    await run_script(database, "drop function public.look cascade; drop role stranger")


PLANS_SHOWN = [
    f"alter function scheduler.invoke reset debug_print_{what}" for what in ("parse", "rewritten", "plan")
]

STOLEN = Statement("stolen", "select array_agg(secret) from pg_temp.stolen")

# Whoever may create a schema makes one that bears the name, and takes what comes.
POSING = """
    create role mallory login;
    grant create on database {database} to mallory;
    set local role mallory;
    create schema net;
    create table net.seen (by name, what text);
    grant usage on schema net to public;
    grant insert on net.seen to public;
    create function net.http_post(
      url text, body jsonb default '{{}}', params jsonb default '{{}}', headers jsonb default '{{}}',
      timeout_milliseconds integer default 5000)
    returns bigint language sql as
      'insert into net.seen values (current_user, headers::text); select 1::bigint';
    create schema vault;
    grant usage on schema vault to public;
    create function vault.see() returns text language plpgsql as
      'begin insert into net.seen select current_user, secret from scheduler.fallback_secret; return 0; end';
    create view vault.decrypted_secrets as
      select 'scheduler_secret'::text as name, vault.see() as decrypted_secret;
    grant select on vault.decrypted_secrets to public;
    reset role
"""


@over_plpython3u
async def test_a_pg_net_and_a_vault_of_somebodys_own_are_not_taken_for_the_real_ones(
    ticking: MakeTicking, database: Database, serve: Serve
) -> None:
    server = await serve(says("200 OK", SUMMARY))
    ticks = await ticking(server.url)
    [(name,)] = await fetch(database, "select current_database()")
    await run_script(database, POSING.format(database=name))
    try:
        assert (await ticks.tick()).run_id == RUN
        assert server.requests[0].fields["x-scheduler-secret"] == ticks.secret
        [found] = await database.fetch(load_statement("inspect_tick"))
        assert (found["pg_net"], found["vault"]) == (None, False)
        await database.fetch(load_statement("grant_tick_rights"))
        assert await fetch(database, "table net.seen") == []
    finally:
        await run_script(database, "drop owned by mallory cascade; drop role mallory")


@pytest.mark.parametrize("way", ["pg_net"])
@pytest.mark.parametrize(
    ("search_path", "is_stolen"), [(None, False), ("''", True)], ids=["as it is", "control"]
)
async def test_a_domain_of_the_callers_own_named_text_does_not_see_the_secret(
    ticking: MakeTicking, database: Database, search_path: str | None, is_stolen: bool
) -> None:
    ticks = await ticking("http://127.0.0.1:1/run")
    before = (
        [] if search_path is None else [f"alter function scheduler.invoke set search_path to {search_path}"]
    )
    async with logged_in_as(database, "scheduler_cron", before=before) as cron:
        await execute(
            cron,
            """
            create temporary table stolen (secret pg_catalog.text);
            grant insert on stolen to public;
            create function pg_temp.steal(value pg_catalog.text) returns boolean language plpgsql as
              'begin insert into pg_temp.stolen values (value); return true; end';
            create domain pg_temp.text as pg_catalog.text check (pg_temp.steal(value));
            """,
        )
        await execute(cron, "select scheduler.invoke()")
        [(stolen,)] = [tuple(row) for row in await cron.fetch(STOLEN)]
    assert (ticks.secret in (stolen or [])) is is_stolen


@pytest.mark.parametrize("way", ["pg_net"])
@pytest.mark.parametrize(
    ("before", "is_shown"), [([], False), (PLANS_SHOWN, True)], ids=["as it is", "control"]
)
async def test_a_caller_who_has_the_plans_shown_does_not_find_the_secret_in_one(
    ticking: MakeTicking, postgres_cluster: EmbeddedPostgres, before: list[str], is_shown: bool
) -> None:
    ticks = await ticking("http://127.0.0.1:1/run")
    async with logged_in_as(ticks.database, "scheduler_cron", before=before) as cron:
        for what in ("parse", "rewritten", "plan"):
            await execute(cron, f"set local debug_print_{what} = on")
        await execute(cron, "select scheduler.invoke()")
    # With `client_min_messages = log`, the caller is sent what the log has.
    log = " ".join((postgres_cluster.folder / "log").read_text().split())
    assert "DETAIL: {PLANNEDSTMT" in log
    # A plan shows bytes as numbers, and those of a compressed constant in pieces.
    pieces = [ticks.secret[at : at + 6].encode() for at in range(len(ticks.secret) - 5)]
    assert any(" ".join(map(str, piece)) in log for piece in pieces) is is_shown


@over_plpython3u
async def test_while_it_posts_and_afterwards_the_secret_is_nowhere_to_be_seen(
    ticking: MakeTicking, database: Database, serve: Serve, postgres_cluster: EmbeddedPostgres
) -> None:
    seen: list[tuple[object, ...]] = []

    async def look(peer: Peer) -> None:
        await peer.receive()
        seen.extend(await fetch(database, "select a::text from pg_stat_activity a"))
        await peer.send(answer("500 Internal Server Error", '{"error": "internal"}'))

    ticks = await ticking((await serve(look)).url)
    await ticks.tick()
    await run_script(database, "alter table scheduler.invocations add check (invoked_at is null) not valid")
    with pytest.raises(StatementFailed) as caught:
        await ticks.invoke()
    assert caught.value.sqlstate == CHECK_VIOLATION
    assert any("scheduler.invoke" in str(row) for row in seen)
    seen += await fetch(database, "select p::text from pg_proc p")
    seen += await fetch(database, "select i::text from scheduler.invocations i")
    assert ticks.secret not in str(seen)
    assert ticks.secret not in (postgres_cluster.folder / "log").read_text()


# --- Where the secret comes from ---


async def with_vault(ticks: Ticking, secret: str) -> None:
    await run_file(ticks.database, "vault_stand_in")
    await ticks.database.fetch(load_statement("keep_secret_in_vault"), secret, "scheduler_secret")


async def posted_secret(ticks: Ticking) -> str:
    await ticks.invoke()
    [(headers,)] = await fetch(ticks.database, "delete from net.http_request_queue returning headers")
    return str(json.loads(headers)["X-Scheduler-Secret"])


@pytest.mark.parametrize("way", ["pg_net"])
async def test_a_vault_that_the_owner_may_read_goes_before_the_table_and_a_closed_one_does_not(
    ticking: MakeTicking,
) -> None:
    ticks = await ticking("http://127.0.0.1:1/run")
    of_vault = secrets.token_hex(32)
    await with_vault(ticks, of_vault)
    assert await posted_secret(ticks) == ticks.secret
    assert await fetch(ticks.database, "select * from scheduler.grant_tick_rights()") == []
    assert await posted_secret(ticks) == of_vault
    for closed in (
        "revoke all on function vault._crypto_aead_det_decrypt from scheduler_owner",
        "revoke all on vault.decrypted_secrets from scheduler_owner",
        "revoke all on schema vault from scheduler_owner",
    ):
        await run_script(ticks.database, closed)
        assert await posted_secret(ticks) == ticks.secret


@pytest.mark.parametrize("way", ["pg_net"])
@pytest.mark.parametrize(
    "add", ["", "\r\nX-Other: 1", "\n", " ", "é"], ids=["short", "header", "line", "space", "é"]
)
async def test_what_is_no_secret_of_ours_is_not_sent(ticking: MakeTicking, add: str) -> None:
    ticks = await ticking("http://127.0.0.1:1/run")
    await with_vault(ticks, "0123456789abcdef" * (2 if add else 1) + add)
    await fetch(ticks.database, "select * from scheduler.grant_tick_rights()")
    with pytest.raises(StatementFailed) as caught:
        await ticks.invoke()
    assert caught.value.sqlstate == NOT_IN_PREREQUISITE_STATE
    assert await fetch(ticks.database, "select from net.http_request_queue") == []


@pytest.mark.parametrize("way", ["pg_net"])
@pytest.mark.parametrize(
    "missing",
    ["delete from scheduler.settings", "delete from scheduler.fallback_secret", "drop schema net cascade"],
    ids=["no URL", "no secret", "nothing to post with"],
)
async def test_a_tick_that_lacks_something_fails_and_leaves_no_row(
    ticking: MakeTicking, missing: str
) -> None:
    ticks = await ticking("http://127.0.0.1:1/run")
    await run_script(ticks.database, missing)
    with pytest.raises(StatementFailed) as caught:
        await ticks.invoke()
    assert caught.value.sqlstate == NOT_IN_PREREQUISITE_STATE
    assert await fetch(ticks.database, "select from scheduler.invocations") == []


# --- Where it may be sent ---

HOSTS = {
    **dict.fromkeys(
        (
            "https://example.org",
            "https://example.org/run",
            "https://example.org:8443/functions/v1/run?a=b",
            "https://xn--bcher-kva.example/run",
            "https://[2001:db8::1]:8443/run",
            "http://localhost/run",
            "http://localhost:65535",
            "http://localhost?a",
            "http://127.0.0.1:8000/run",
            "http://127.255.255.254/run",
            "http://[::1]:8000/run",
            "http://[::1]",
        ),
        True,
    ),
    **dict.fromkeys(
        (
            "",
            "example.org",
            "ftp://localhost/",
            "http://example.org/run",
            "http://10.0.0.1/run",
            "http://0.0.0.0/run",
            "http://128.0.0.1/run",
            "HTTP://example.org/run",
            "http://localhost:x@evil.example/",
            "http://localhost@evil.example/",
            "http://localhost%40evil.example/",
            "http://127.0.0.1.evil.example/",
            "http://localhost.evil.example",
            "http://localhost.",
            "http://127.0.0.1%2eevil.example/",
            "http://127.999.1.1/",
            "http://127.1/",
            "http://[::1].evil.example/",
            "http://[::1%25eth0]/",
            "http://[::ffff:8.8.8.8]/",
            "http://localhost\\@evil.example/",
            "http://localhost#@evil.example/",
            "http://localhost\n.evil.example/",
            "http://localhost/\n",
            "http://localhost /",
            "http://localhost\t/",
            "http:///run",
            "http:localhost/run",
            "http://localhost:/run",
            "http://localhost:0/run",
            "http://localhost:65536/run",
            "http://localhost:99999999999999999999/run",
            "http://localhost:80:80/run",
            "http://ⓛocalhost/run",
            "https:///run",
            "https://a\\@b",
            "https://a@b/",
            "https://a;b/",
            "https://a,b/",
            "https://a%2fb/",
            "https://-a/",
            "https://bücher.example/run",
            "https://example.org:0/",
            "https://example.org:70000/",
            "https://example.org\n/",
            "https://example.org/#part",
            "https://[::1/",
            "https://[::1]evil/",
        ),
        False,
    ),
}


async def test_the_url_is_https_or_this_machine_and_the_same_to_every_parser(database: Database) -> None:
    states: dict[str, str | None] = {}
    for url in HOSTS:
        async with database.open_transaction() as transaction:
            try:
                await transaction.fetch(load_statement("configure_tick"), url, 45_000)
                states[url] = None
            except StatementFailed as error:
                states[url] = error.sqlstate
            await execute(transaction, "rollback")
    assert states == {url: None if is_right else CHECK_VIOLATION for url, is_right in HOSTS.items()}
