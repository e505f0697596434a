"""This file is the walk in plain asyncio: aiohttp, asyncpg, a page at a time, gather with a semaphore.

python -m bench.peers.aiohttp_walk --database URL --trigger-engine URL [--on-request]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from uuid import UUID, uuid4

import aiohttp
import asyncpg

from bench.peers import (
    INVOCATION_TIMEOUT,
    MAX_CONCURRENCY,
    PAGE,
    PAGE_SIZE,
    SERVICE_ROLE_KEY,
    parse_arguments,
    time_walks,
)

log = logging.getLogger(__name__)

_PAGE = PAGE % ("$1", "$2")


async def evaluate(session: aiohttp.ClientSession, url: str, mentor_id: UUID, run_id: str) -> None:
    body = {"mentor_id": str(mentor_id), "scenario_types": None, "dry_run": False, "run_id": run_id}
    async with session.post(url, json=body) as response:
        response.raise_for_status()
        await response.json()


async def walk(pool: asyncpg.Pool, session: aiohttp.ClientSession, url: str) -> int:
    run_id = str(uuid4())
    semaphore = asyncio.Semaphore(MAX_CONCURRENCY)
    evaluated = 0

    async def evaluate_one(mentor_id: UUID) -> None:
        nonlocal evaluated
        async with semaphore:
            try:
                await evaluate(session, url, mentor_id, run_id)
            except (aiohttp.ClientError, TimeoutError):
                log.exception("a mentor could not be evaluated")
            else:
                evaluated += 1

    cursor = UUID(int=0)
    while True:
        rows = await pool.fetch(_PAGE, cursor, PAGE_SIZE)
        await asyncio.gather(*(evaluate_one(row["id"]) for row in rows))
        if len(rows) < PAGE_SIZE:
            return evaluated
        cursor = rows[-1]["id"]


async def main(arguments: argparse.Namespace) -> None:
    headers = {"Authorization": f"Bearer {SERVICE_ROLE_KEY}"}
    async with (
        asyncpg.create_pool(arguments.database, min_size=1, max_size=2) as pool,
        aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=MAX_CONCURRENCY),
            timeout=aiohttp.ClientTimeout(total=INVOCATION_TIMEOUT),
        ) as session,
    ):
        await time_walks(arguments, lambda: walk(pool, session, arguments.trigger_engine))


if __name__ == "__main__":
    asyncio.run(main(parse_arguments(__doc__)))
