"""This file seeds the example tables, for `demo`, the tests and the benchmarks."""

from __future__ import annotations

import math

from engine.database import Database
from engine.statements import load_statement

_SEED_MENTORS = load_statement("seed_mentors")
_ANALYZE = load_statement("analyze_example_tables")


async def seed_mentors(database: Database, mentors: int, *, seed: str = "scenario-scheduler") -> int:
    """Insert that many mentors, drawn from the seed, and what belongs to them. Returns how many are new.

    Raises StatementFailed with 42P01 where the example tables are missing.

    **Cancellation:** nothing was inserted.
    """
    [row] = await database.fetch(_SEED_MENTORS, mentors, seed, answer_within=math.inf)
    await database.fetch(_ANALYZE, answer_within=math.inf)
    return int(row["mentors"])
