"""This file seeds mentors for benchmarks: realistic ones, or everybody active and a tenth due.

    python -m bench.seed [--mentors 500] [--database postgresql://…]

Realistic is what engine/sql/statements/seed_mentors.sql says it is. Without `--database`, a Postgres of its
own is seeded, looked at and thrown away: to see how long it takes, 34 s for a million on two cores.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from typing import Any

import structlog
import trio

from bench.results import write_result
from bench.walk import SEED
from engine import Database, find_binaries, migrate, open_database, open_embedded_postgres, seed_mentors
from engine.statements import Statement

# Of the Postgres that a million mentors are evaluated in: their tables and indexes are about 500 MB, and a
# run is not cut in two by a checkpoint.
POSTGRES_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB"}

# Seconds for a million mentors.
BOUND = 60.0

# To the mentors of SEED: the last activity of the first $2 was 20 days ago, of the others yesterday. Their
# ids are random, so the idle ones are all over the walk.
_ACTIVITIES = Statement(
    "seed_activities",
    """
insert into public.activities (user_id, activity_date, kind)
select md5('user:' || i)::uuid,
       (now() at time zone 'utc')::date - case when i <= $2::int then 20 else 1 end,
       'visit'
  from generate_series(1, $1::int) i
""",
)

# Settled at once, rather than by autovacuum in the middle of what is measured.
_SETTLE = Statement("settle", "vacuum (analyze) public.peer_mentors, public.assignments, public.activities")

_LOOK = Statement(
    "look",
    """
select count(*) as mentors,
       avg((status <> 'active')::int)::float8 as paused_or_deactivated,
       avg((not exists (select
                          from public.assignments a
                         where a.mentor_id = m.id
                           and a.status = 'active'))::int)::float8 as without_assignment,
       percentile_disc(0.5) within group (order by activities) as median_activities,
       percentile_disc(0.99) within group (order by activities) as p99_activities,
       max(activities) as most_activities
  from public.peer_mentors m
 cross join lateral (select count(*) as activities from public.activities a where a.user_id = m.user_id) a
""",
)


async def seed_active(database: Database, mentors: int, due_share: float = 0.1) -> int:
    """Insert that many mentors into empty tables, everybody active and eligible. Returns how many are due.

    Those are idle, and due for nothing else. The same ids every time.
    """
    due = round(mentors * due_share)
    await database.fetch(Statement("seed", SEED), mentors, answer_within=math.inf)
    await database.fetch(_ACTIVITIES, mentors, due, answer_within=math.inf)
    await database.fetch(_SETTLE, answer_within=math.inf)
    return due


async def seed(database_url: str, mentors: int) -> dict[str, Any]:
    async with open_database(database_url) as database:
        await migrate(database, with_example_tables=True)
        began = time.perf_counter()
        inserted = await seed_mentors(database, mentors)
        seconds = time.perf_counter() - began
        print(f"inserted {inserted:,} mentors in {seconds:.1f} s", flush=True)
        [row] = await database.fetch(_LOOK, answer_within=math.inf)
        return {"inserted": inserted, "seconds": seconds, **row}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mentors", type=int, default=500)
    parser.add_argument("--database", metavar="URL", help="never one that people use")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if arguments.database:
        figures = trio.run(seed, arguments.database, arguments.mentors)
    else:
        with open_embedded_postgres(find_binaries(None), POSTGRES_SETTINGS) as postgres:
            figures = trio.run(seed, postgres.dsn, arguments.mentors) | {"postgres": postgres.version}
    print(
        f"of {figures['mentors']:,}: {figures['paused_or_deactivated']:.1%} paused or deactivated, "
        f"{figures['without_assignment']:.1%} without an eligible assignment; activities: "
        f"median {figures['median_activities']}, p99 {figures['p99_activities']}, "
        f"most {figures['most_activities']}"
    )
    if not arguments.database:
        assert figures["inserted"] == figures["mentors"] == arguments.mentors, figures
        assert arguments.mentors != 1_000_000 or figures["seconds"] < BOUND, figures
        write_result("seed", figures)


if __name__ == "__main__":
    main()
