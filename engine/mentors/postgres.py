"""This file is mentors from Postgres, through the views `scheduler.mentors` and `scheduler.assignments`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from uuid import UUID

from engine.database import Database
from engine.mentors.protocol import IdRange, Page
from engine.statements import load_statement

_LOWEST_ID = UUID(int=0)
_HIGHEST_ID = UUID(int=2**128 - 1)

_FETCH_PAGE = load_statement("fetch_page")
_COUNT_MENTORS = load_statement("count_mentors")


class PostgresMentors:
    """Implements MentorSource. A page shorter than asked for is the last one."""

    def __init__(self, database: Database, eligible_assignment_statuses: Sequence[str]) -> None:
        self._database = database
        self._statuses = list(eligible_assignment_statuses)

    async def fetch_page(self, stretch: IdRange, page_size: int) -> Page:
        bounds = _inclusive(stretch)
        if bounds is None:
            return Page((), is_last=True)
        rows = await self._database.fetch(_FETCH_PAGE, *bounds, self._statuses, page_size)
        return Page([row[0] for row in rows], is_last=len(rows) < page_size)

    async def count(self, stretch: IdRange) -> int:
        bounds = _inclusive(stretch)
        if bounds is None:
            return 0
        # Bounded by the run's budget alone: counting a million takes longer than any page.
        [row] = await self._database.fetch(_COUNT_MENTORS, *bounds, self._statuses, answer_within=math.inf)
        return int(row["mentors"])


def _inclusive(stretch: IdRange) -> tuple[UUID, UUID] | None:
    """First and last id of a stretch, or None if it is empty because it lies behind the highest id."""
    if stretch.after == _HIGHEST_ID:
        return None
    first = _LOWEST_ID if stretch.after is None else UUID(int=stretch.after.int + 1)
    return first, _HIGHEST_ID if stretch.until is None else stretch.until
