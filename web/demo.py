"""This file is the demo: the whole service on an embedded Postgres, ticked over HTTP as pg_cron would.

Nothing in it is a stand-in. It migrates, seeds, serves on a port of its own and POSTs to /run with the secret
header; the dispatchers invoke /trigger-engine over HTTP.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

import httpx
import trio
from rich.console import Console

from engine import (
    Scheduler,
    Settings,
    find_binaries,
    load_settings,
    migrate,
    open_database,
    open_embedded_postgres,
    seed_mentors,
)
from web.auth import SECRET_HEADER
from web.serve import base_url, open_listener, serve
from web.terminal import show_progress, summary_table


def run_demo(console: Console, mentors: int, *, once: bool, as_json: bool) -> dict[str, Any]:
    """Run it, print the summary that /run answered, and return it. Unless `once`, serve on until Ctrl-C.

    `as_json`: the summary goes to standard output as JSON, and the console is not that.

    Raises EmbeddedPostgresError, and SchedulerError for whatever else can't be had.
    """
    console.print("Starting a Postgres of its own …")
    with open_embedded_postgres(find_binaries(load_settings().pg_bin_dir)) as postgres:
        return trio.run(_demo, console, postgres.dsn, mentors, once, as_json)


async def _demo(
    console: Console, database_url: str, mentors: int, once: bool, as_json: bool
) -> dict[str, Any]:
    async with open_database(database_url) as database:
        await migrate(database, with_example_tables=True)
        await seed_mentors(database, mentors)

    listener = open_listener("127.0.0.1:0")
    url = base_url(listener)
    settings = load_settings(
        database_url=database_url,
        bind=url.removeprefix("http://"),
        secret=secrets.token_hex(32),
        service_role_key=secrets.token_urlsafe(32),
        trigger_engine=f"{url}/trigger-engine",
    )
    async with trio.open_nursery() as nursery:
        scheduler = await nursery.start(serve, settings, listener)
        walked = await scheduler.count_mentors()
        console.print(
            f"Seeded {mentors:,} mentors; {walked:,} of them are active with an eligible assignment.\n"
            f"Serving on {url}, and ticking it:"
        )
        summary = await _tick(console, scheduler, settings, url, walked)
        if as_json:
            print(json.dumps(summary), flush=True)
        else:
            console.print(summary_table(summary))
        if once:
            nursery.cancel_scope.cancel()
        else:
            _say_what_next(console, settings, url)
    return summary


async def _tick(
    console: Console, scheduler: Scheduler, settings: Settings, url: str, walked: int
) -> dict[str, Any]:
    """POST /run as pg_net does, and wait for the summary longer than the platform limit."""
    async with (
        show_progress(console, scheduler, walked),
        httpx.AsyncClient(trust_env=False, timeout=settings.platform_limit + 15) as client,
    ):
        answer = await client.post(f"{url}/run", headers=_secret_header(settings), json={"source": "demo"})
    answer.raise_for_status()
    summary: dict[str, Any] = answer.json()
    return summary


def _secret_header(settings: Settings) -> dict[str, str]:
    return {SECRET_HEADER: settings.secret.get_secret_value() if settings.secret else ""}


def _say_what_next(console: Console, settings: Settings, url: str) -> None:
    [(name, secret)] = _secret_header(settings).items()
    console.print("\nTick it again, and see that nobody is notified twice:")
    console.print(f"  curl -X POST -H '{name}: {secret}' {url}/run", soft_wrap=True, highlight=False)
    console.print("Ctrl-C ends it; nothing is left behind.")
