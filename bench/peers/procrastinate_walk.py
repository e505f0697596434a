"""This file is the walk over Procrastinate: one deferred call per mentor, a worker that makes ten at once.

    python -m bench.peers.procrastinate_walk --database URL --trigger-engine URL [--on-request]

Its tables are in the same database. The seconds are from the first page to the empty queue; the schema and
the clearing away of what a walk left are not in them.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from uuid import UUID, uuid4

import aiohttp
import procrastinate
from psycopg.conninfo import make_conninfo

from bench.peers import (
    INVOCATION_TIMEOUT,
    MAX_CONCURRENCY,
    PAGE,
    PAGE_SIZE,
    SERVICE_ROLE_KEY,
    parse_arguments,
    time_walks,
)
from bench.peers.procrastinate_tasks import evaluate, tasks

_PAGE = PAGE % ("%(cursor)s", "%(page_size)s")


async def defer_all(app: procrastinate.App) -> None:
    """One statement per page, which is the fastest way it has."""
    run_id = str(uuid4())
    cursor = UUID(int=0)
    while True:
        rows = await app.connector.execute_query_all_async(_PAGE, cursor=cursor, page_size=PAGE_SIZE)
        if rows:
            calls = [{"mentor_id": str(row["id"]), "run_id": run_id} for row in rows]
            await evaluate.batch_defer_async(*calls)
        if len(rows) < PAGE_SIZE:
            return
        cursor = rows[-1]["id"]


async def walk(app: procrastinate.App, session: aiohttp.ClientSession, url: str) -> None:
    await defer_all(app)
    await app.run_worker_async(
        concurrency=MAX_CONCURRENCY,
        wait=False,  # end when the queue is empty
        install_signal_handlers=False,
        additional_context={"session": session, "url": url},
    )


async def clear(app: procrastinate.App) -> int:
    """Forget every call there was. Returns how many of them had succeeded."""
    counted = await app.connector.execute_query_one_async(
        "select count(*) as calls from procrastinate_jobs where status = 'succeeded'"
    )
    await app.connector.execute_query_async("truncate procrastinate_jobs cascade")
    return int(counted["calls"])


async def main(arguments: argparse.Namespace) -> None:
    # Its connector speaks of `conninfo`, which a URL is as well.
    connector = procrastinate.PsycopgConnector(conninfo=make_conninfo(arguments.database))
    app = procrastinate.App(connector=connector)
    app.add_tasks_from(tasks, namespace="bench")
    headers = {"Authorization": f"Bearer {SERVICE_ROLE_KEY}"}
    async with (
        app.open_async(),
        aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=MAX_CONCURRENCY),
            timeout=aiohttp.ClientTimeout(total=INVOCATION_TIMEOUT),
        ) as session,
    ):
        if not await app.check_connection_async():  # it looks for the schema
            await app.schema_manager.apply_schema_async()
        await time_walks(
            arguments,
            lambda: walk(app, session, arguments.trigger_engine),
            count=lambda: clear(app),
        )


if __name__ == "__main__":
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    asyncio.run(main(parse_arguments(__doc__)))
