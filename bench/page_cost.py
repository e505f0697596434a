"""This file measures what a page costs along a walk: buffers, and milliseconds in the server.

    python -m bench.page_cost [--mentors 200000] [--runs 5]

The first page, those at a quarter, the middle and three quarters, and the last full one, of the sizes that
pages have over HTTP and in the database. The last one must cost at most 1.2 times the buffers of the first.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from typing import Any
from uuid import UUID

import structlog
import trio

from bench.results import write_result
from bench.seed import POSTGRES_SETTINGS, seed_active
from engine import Database, find_binaries, migrate, open_database, open_embedded_postgres
from engine.settings import PAGE_SIZE_IN_DATABASE, PAGE_SIZE_OVER_HTTP
from engine.statements import Statement, load_statement

MOST_TO_FIRST = 1.2
POSITIONS = ("first", "quarter", "middle", "three quarters", "last full")

_FETCH_PAGE = load_statement("fetch_page")
_EXPLAIN = Statement("explain", f"explain (analyze, buffers, timing off, format json) {_FETCH_PAGE.sql}")
_STATUSES = ["active"]
_HIGHEST_ID = UUID(int=2**128 - 1)


async def walk(database: Database, page_size: int) -> tuple[list[UUID], int]:
    """What each page of a whole walk began at, and how many mentors were on them."""
    first_ids, mentors, first_id = [], 0, UUID(int=0)
    while True:
        rows = await database.fetch(_FETCH_PAGE, first_id, _HIGHEST_ID, _STATUSES, page_size)
        mentors += len(rows)
        if len(rows) == page_size:
            first_ids.append(first_id)
            first_id = UUID(int=rows[-1]["id"].int + 1)
        else:
            return first_ids, mentors


async def cost(database: Database, first_id: UUID, page_size: int) -> tuple[int, float]:
    """Buffers and milliseconds of the page that begins there."""
    [row] = await database.fetch(_EXPLAIN, first_id, _HIGHEST_ID, _STATUSES, page_size)
    [explained] = json.loads(row[0])
    plan = explained["Plan"]
    assert plan["Actual Rows"] == page_size, plan
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], explained["Execution Time"]


async def measure(database_url: str, mentors: int, runs: int) -> dict[str, Any]:
    figures = {}
    async with open_database(database_url) as database:
        await migrate(database, with_example_tables=True)
        await seed_active(database, mentors)
        for page_size in (PAGE_SIZE_OVER_HTTP, PAGE_SIZE_IN_DATABASE):
            first_ids, walked = await walk(database, page_size)
            assert walked == mentors, walked
            pages = len(first_ids)
            numbers = (0, pages // 4, pages // 2, pages * 3 // 4, pages - 1)
            costs: dict[str, list[tuple[int, float]]] = {position: [] for position in POSITIONS}
            for _ in range(runs + 1):
                for position, number in zip(POSITIONS, numbers, strict=True):
                    costs[position].append(await cost(database, first_ids[number], page_size))
            figures[str(page_size)] = [
                {
                    "position": position,
                    "mentors_before": number * page_size,
                    "buffers": statistics.median(buffers for buffers, _ in costs[position][1:]),
                    "milliseconds": statistics.median(taken for _, taken in costs[position][1:]),
                }
                for position, number in zip(POSITIONS, numbers, strict=True)
            ]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mentors", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with open_embedded_postgres(find_binaries(None), POSTGRES_SETTINGS) as postgres:
        figures = trio.run(measure, postgres.dsn, arguments.mentors, arguments.runs)
        postgres_version = postgres.version
    ratios = {}
    for page_size, pages in figures.items():
        print(f"pages of {page_size}:")
        for page in pages:
            print(
                f"  {page['position']:<14} {page['mentors_before']:>9,} before it, "
                f"{page['buffers']:>6g} buffers, {page['milliseconds']:.2f} ms"
            )
        ratios[page_size] = pages[-1]["buffers"] / pages[0]["buffers"]
        print(f"  last to first, in buffers: {ratios[page_size]:.3f}, at most {MOST_TO_FIRST:g}", flush=True)
    write_result(
        "page_cost",
        {
            "postgres": postgres_version,
            "mentors": arguments.mentors,
            "pages": figures,
            "last_to_first": ratios,
        },
    )
    assert max(ratios.values()) <= MOST_TO_FIRST


if __name__ == "__main__":
    main()
