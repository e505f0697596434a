"""A run over a bad network, to Postgres and to the trigger engine: its summary is true, and it comes in time.

A fault begins in mid-run, at a byte of every connection that is open and of every later one, so that what
is tried again meets it again. It lasts until the run has answered. What is sent is counted in the database,
whose unique keys are taken away: a duplicate would be recorded, not refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from itertools import product
from typing import Any

import pytest
import trio
import trustme

from engine import (
    RunRequest,
    Scheduler,
    StartedRun,
    Summary,
    load_settings,
    migrate,
    open_database,
    open_scheduler,
)
from engine.embedded import EmbeddedPostgres
from engine.embedded.account import give, unprivileged_account
from tests.end_to_end.conftest import KEY, PATIENCE, SECRET, notified_once_each, query, seed
from tests.end_to_end.kill import TAKE_THE_NET_AWAY
from tests.faults.injected import INJECTED
from tests.faults.proxy import Direction, Fault, FaultProxy, Kind, open_fault_proxy
from web.serve import base_url, open_listener, serve

MENTORS = 60

# As short as a run can be and still be hit in its middle.
LIMITS: dict[str, Any] = {
    "soft_threshold": 1.0,
    "hard_deadline": 1.5,
    "platform_limit": 3.5,
    "invocation_timeout": 0.4,
    "page_size": 10,
    "mentors_per_invocation": 2,
}

# Bytes of each connection that pass unharmed. At Postgres more than it takes to log in, so that a connection
# is of some use before it is hit; of either less than a run takes.
AT_POSTGRES = {Direction.TO_SERVER: 8_000, Direction.TO_CLIENT: 1_600}
AT_ENGINE = {Direction.TO_SERVER: 600, Direction.TO_CLIENT: 400}

# What TLS takes of them.
HANDSHAKE = 1_500

NOTIFIED = "select count(*) as n from scheduler.notifications where run_id = $1"
ROW = "select * from scheduler.runs where id = $1"


def faults(after: dict[Direction, int], *but: tuple[Kind, Direction]) -> pytest.MarkDecorator:
    each = [
        pytest.param(Fault(kind, direction, after[direction], seconds=0.15), id=f"{kind} {direction}")
        for kind, direction in product(Kind, Direction)
        if (kind, direction) not in but
    ]
    return pytest.mark.parametrize("fault", each)


@pytest.fixture
async def seeded_url(database_url: str) -> str:
    await seed(database_url, MENTORS)
    await query(database_url, TAKE_THE_NET_AWAY)
    return database_url


async def until_evaluated(started: StartedRun, mentors: int) -> None:
    with trio.fail_after(PATIENCE):
        while started.progress.tally.evaluated < mentors:
            await trio.lowlevel.checkpoint()


async def run_over(network: FaultProxy, fault: Fault, scheduler: Scheduler) -> tuple[StartedRun, Summary]:
    """A run in whose middle the network becomes bad; mended once the run has answered."""
    name = f"connection {fault.kind}"
    before = INJECTED[name]
    started = await scheduler.start(RunRequest())
    await until_evaluated(started, 6)
    network.inject(fault)
    summary = await started.summary()
    assert INJECTED[name] > before, "the fault came too late for the run"
    network.mend()
    with trio.fail_after(PATIENCE):
        await started.accounted_for()
    return started, summary


async def look_at(summary: Summary, started: StartedRun, url: str) -> int:
    """What must be true of every run. Returns how many it notified, whether or not it knows of them."""
    counts = summary.as_json()
    assert summary.total_active_mentors == (
        summary.total_evaluated + summary.total_errors + summary.total_unprocessed
    )
    assert summary.total_errors == started.progress.tally.errors.total()
    assert summary.duration_ms < 3_500
    assert 6 <= summary.total_evaluated == summary.total_dispatched
    assert summary.total_suppressed == 0
    if summary.remaining_known:
        assert summary.total_active_mentors == MENTORS
    [row] = await query(url, ROW, summary.run_id)
    assert row["verdict"] == ("completed" if summary.completed else "partial")
    # Heartbeat and verdict say the same as the answer, but for what was learned after it.
    for name in ("total_evaluated", "total_errors", "total_dispatched", "total_suppressed", "stop_reason"):
        assert row[name] == counts[name], name
    [notified] = await query(url, NOTIFIED, summary.run_id)
    assert notified["n"] >= summary.total_dispatched
    return int(notified["n"])


async def run_again(scheduler: Scheduler, url: str) -> None:
    """Over the mended network: everybody, and nobody a second time.

    More than once only where the machine is so busy that the limits above are too short for a whole run.
    """
    summary = None
    with trio.fail_after(PATIENCE):
        while summary is None or not summary.completed or summary.total_errors:
            started = await scheduler.start(RunRequest())
            summary = await started.summary()
            await started.accounted_for()
    assert summary.total_evaluated == MENTORS
    [notified] = await query(url, NOTIFIED, summary.run_id)
    assert notified["n"] == summary.total_dispatched == MENTORS - summary.total_suppressed
    assert await notified_once_each(url) == MENTORS


# What Postgres says, garbled, sends asyncpg (0.32) into a loop that no cancellation reaches, as soon as a
# length comes out negative. Over TLS it is known for garbage before it is read; that is tested below.
@faults(AT_POSTGRES, (Kind.CORRUPTION, Direction.TO_CLIENT))
async def test_over_a_bad_network_to_postgres_a_run_answers_in_time_with_a_true_summary(
    fault: Fault, seeded_url: str
) -> None:
    async with open_fault_proxy(seeded_url) as network:
        settings = load_settings(database_url=network.through(seeded_url), **LIMITS)
        async with open_scheduler(settings) as scheduler:
            started, summary = await run_over(network, fault, scheduler)
            await look_at(summary, started, seeded_url)
            await run_again(scheduler, seeded_url)


@pytest.mark.parametrize("postgres_binaries", ["15"], indirect=True, ids="postgres-{}".format)
@pytest.mark.parametrize("direction", Direction)
async def test_over_tls_garbage_from_postgres_or_to_it_is_a_connection_that_broke(
    direction: Direction, open_own_postgres: Callable[[], AbstractContextManager[EmbeddedPostgres]]
) -> None:
    """On Debian's Postgres: the one from PyPI is built without TLS."""
    with open_own_postgres() as postgres:
        await speak_tls(postgres)
        url = postgres.dsn.replace("sslmode=disable", "sslmode=require")
        async with open_database(url) as database:
            await migrate(database, with_example_tables=True)
        await seed(postgres.dsn, MENTORS)
        await query(postgres.dsn, TAKE_THE_NET_AWAY)
        async with open_fault_proxy(url) as network:
            fault = Fault(Kind.CORRUPTION, direction, AT_POSTGRES[direction] + HANDSHAKE)
            settings = load_settings(database_url=network.through(url), **LIMITS)
            async with open_scheduler(settings) as scheduler:
                started, summary = await run_over(network, fault, scheduler)
                await look_at(summary, started, postgres.dsn)
                await run_again(scheduler, postgres.dsn)


async def speak_tls(postgres: EmbeddedPostgres) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    data = postgres.folder / "data"
    for name, blob in (
        ("server.crt", certificate.cert_chain_pems[0]),
        ("server.key", certificate.private_key_pem),
    ):
        blob.write_to_path(data / name)
        (data / name).chmod(0o600)
        give(data / name, unprivileged_account())
    await query(postgres.dsn, "alter system set ssl = on")
    await query(postgres.dsn, "select pg_reload_conf()")
    with trio.fail_after(PATIENCE):
        while (await query(postgres.dsn, "show ssl"))[0]["ssl"] != "on":  # noqa: ASYNC110
            await trio.sleep(0.02)


@pytest.fixture
async def engine_url(seeded_url: str) -> AsyncIterator[str]:
    """The built-in trigger engine, served."""
    settings = load_settings(database_url=seeded_url, secret=SECRET, service_role_key=KEY)
    listener = open_listener("127.0.0.1:0")
    url = base_url(listener)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, settings, listener)
        yield f"{url}/trigger-engine"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("postgres_binaries", ["18"], indirect=True, ids="postgres-{}".format)
@faults(AT_ENGINE)
async def test_over_a_bad_network_to_the_trigger_engine_a_run_answers_in_time_with_a_true_summary(
    fault: Fault, seeded_url: str, engine_url: str
) -> None:
    async with open_fault_proxy(engine_url) as network:
        settings = load_settings(
            database_url=seeded_url,
            trigger_engine=network.through(engine_url),
            service_role_key=KEY,
            **LIMITS,
        )
        async with open_scheduler(settings) as scheduler:
            started, summary = await run_over(network, fault, scheduler)
            await look_at(summary, started, seeded_url)
            await run_again(scheduler, seeded_url)
