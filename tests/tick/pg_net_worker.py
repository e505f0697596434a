"""A stand-in for pg_net's worker: one round of it, over what is in the queue of pg_net_stand_in.sql."""

from __future__ import annotations

import json
from typing import Any

import httpx
import trio

from engine.database import Database
from engine.statements import Statement

_TAKE = Statement("take", "delete from net.http_request_queue returning *")
_ANSWERED = Statement(
    "answered",
    "insert into net._http_response (id, status_code, content_type, headers, content, timed_out) "
    "values ($1, $2, $3, $4, $5, false)",
)
_FAILED = Statement("failed", "insert into net._http_response (id, timed_out, error_msg) values ($1, $2, $3)")


async def work_off(database: Database) -> int:
    """Post all that waits, and keep the answers. Returns how many there were.

    As pg_net does, it follows redirects, and sends the headers there too.
    """
    rows = await database.fetch(_TAKE)
    async with (
        httpx.AsyncClient(follow_redirects=True, trust_env=False) as client,
        trio.open_nursery() as nursery,
    ):
        for row in rows:
            nursery.start_soon(_post, database, client, row)
    return len(rows)


async def _post(database: Database, client: httpx.AsyncClient, row: Any) -> None:
    timeout = row["timeout_milliseconds"]
    try:
        with trio.fail_after(timeout / 1000):
            answer = await client.post(
                row["url"], headers=json.loads(row["headers"]), content=row["body"], timeout=None
            )
    except trio.TooSlowError:
        await database.fetch(_FAILED, row["id"], True, f"Timeout of {timeout} ms reached")
    except httpx.HTTPError:
        await database.fetch(_FAILED, row["id"], False, "Couldn't connect to server")
    else:
        # What Postgres can't hold in a text ends pg_net's there.
        content, _, _ = answer.text.partition("\x00")
        await database.fetch(
            _ANSWERED,
            *(row["id"], answer.status_code, answer.headers.get("content-type")),
            *(json.dumps(dict(answer.headers)), content),
        )
