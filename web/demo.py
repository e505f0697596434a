"""This file is the demo: the whole service on an embedded Postgres, ticked over HTTP as pg_cron would.

Nothing in it is a stand-in. It migrates, seeds, serves on a port of its own and POSTs to /run with the secret
header; the dispatchers invoke /trigger-engine over HTTP.
"""

from __future__ import annotations

import json
import secrets
import signal
from typing import Any

import httpx
import trio
from rich.console import Console

from engine import (
    Scheduler,
    SchedulerError,
    Settings,
    StopReason,
    find_binaries,
    load_settings,
    migrate,
    open_database,
    open_embedded_postgres,
    seed_mentors,
    service_database_url,
    set_service_password,
)
from web.auth import SECRET_HEADER
from web.serve import base_url, open_listener, serve
from web.signals import watch_signals
from web.terminal import show_progress, summary_table

# Of the environment's settings, those that the demo has of its own.
_OWN: dict[str, Any] = {
    "database_url": None,
    "admin_database_url": None,
    "secret": None,
    "secret_next": None,
    "service_role_key": None,
    "operator_token": None,
    "bind": "127.0.0.1:0",
    "trigger_engine": "in-database",
    "mentor_source": "postgres",
    "proxy": None,
    "fleet": None,
    "fleet_user": None,
    "fleet_password": None,
    "fleet_ca": None,
}


def run_demo(console: Console, mentors: int, *, once: bool, as_json: bool) -> dict[str, Any]:
    """Run it, print the summary that /run answered, and return it. Unless `once`, serve on until Ctrl-C.

    `as_json`: the summary goes to standard output as JSON, and the console is not that. Raises
    EmbeddedPostgresError, and SchedulerError for whatever else can't be had.
    """
    settings = load_settings(**_OWN)
    # Until trio runs, SIGTERM would end this process and leave the server's folder behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console.print("Starting a Postgres of its own …")
    with open_embedded_postgres(find_binaries(settings.pg_bin_dir)) as postgres:
        return trio.run(_demo, console, postgres.dsn, mentors, once, as_json)


async def _demo(
    console: Console, database_url: str, mentors: int, once: bool, as_json: bool
) -> dict[str, Any]:
    with trio.CancelScope() as until_stopped:
        async with trio.open_nursery() as nursery:
            # The server watches them as well, and before this one, as soon as it serves.
            await nursery.start(watch_signals, until_stopped.cancel, until_stopped.cancel)
            async with open_database(database_url) as database:
                await migrate(database, with_example_tables=True)
                await seed_mentors(database, mentors)
                password = secrets.token_hex(16)
                await set_service_password(database, password)

            listener = open_listener("127.0.0.1:0")
            url = base_url(listener)
            own = {
                "database_url": service_database_url(database_url, password),
                "bind": url.removeprefix("http://"),
                "secret": secrets.token_hex(32),
                "service_role_key": secrets.token_urlsafe(32),
                "operator_token": secrets.token_hex(32),
                "trigger_engine": f"{url}/trigger-engine",
            }
            settings = load_settings(**(_OWN | own))
            async with trio.open_nursery() as serving:
                scheduler = await serving.start(serve, settings, listener)
                walked = await scheduler.count_mentors()
                console.print(
                    f"Seeded {mentors:,} mentors; active with an eligible assignment: {walked:,}.\n"
                    f"Ticking {url}"
                )
                summary = await _tick(console, scheduler, settings, url)
                if as_json:
                    print(json.dumps(summary), flush=True)
                else:
                    console.print(summary_table(summary, scheduler.progress.tally.errors))
                if once:
                    serving.cancel_scope.cancel()
                elif summary["stop_reason"] != StopReason.DRAINING:
                    _say_what_next(console, settings, url)
            nursery.cancel_scope.cancel()
        return summary
    raise SchedulerError("The demo was stopped before its summary; nothing is left behind.")


async def _tick(console: Console, scheduler: Scheduler, settings: Settings, url: str) -> dict[str, Any]:
    """POST /run as pg_net does, and wait for the summary longer than the platform limit."""
    async with (
        show_progress(console, scheduler),
        httpx.AsyncClient(trust_env=False, timeout=settings.platform_limit + 15) as client,
    ):
        try:
            answer = await client.post(
                f"{url}/run", headers=_secret_header(settings), json={"source": "demo"}
            )
            answer.raise_for_status()
        except httpx.HTTPError:
            raise SchedulerError("The demo's service was stopped before it answered.") from None
    summary: dict[str, Any] = answer.json()
    return summary


def _secret_header(settings: Settings) -> dict[str, str]:
    return {SECRET_HEADER: settings.secret.get_secret_value() if settings.secret else ""}


def _say_what_next(console: Console, settings: Settings, url: str) -> None:
    [(name, secret)] = _secret_header(settings).items()
    token = settings.operator_token.get_secret_value() if settings.operator_token else ""
    console.print("\nTick it again, and see that nobody is notified twice:")
    console.print(f"  curl -X POST -H '{name}: {secret}' {url}/run", soft_wrap=True, highlight=False)
    console.print("See it run: the dashboard, and the operator token to log in with:")
    console.print(f"  {url}/dashboard", soft_wrap=True, highlight=False)
    console.print(f"  {token}", soft_wrap=True, highlight=False)
    console.print("Every run so far, as JSON:")
    console.print(f"  curl -H 'Authorization: Bearer {token}' {url}/runs", soft_wrap=True, highlight=False)
    console.print("Ctrl-C ends it; nothing is left behind.")
