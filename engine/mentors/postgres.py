"""This file is mentors from Postgres, through the views `scheduler.mentors` and `scheduler.assignments`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog

from engine.database import Database
from engine.errors import DatabaseUnavailable, StatementFailed
from engine.mentors.protocol import IdRange, Page
from engine.mentors.span import spread_evenly
from engine.statements import Statement, load_statement

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_LOWEST_ID = UUID(int=0)
_HIGHEST_ID = UUID(int=2**128 - 1)

_FETCH_PAGE = load_statement("fetch_page")
_COUNT_MENTORS = load_statement("count_mentors")
_SAMPLE_MENTORS = load_statement("sample_mentors")
_SPAN_OF_MENTORS = load_statement("span_of_mentors")

# Seconds. A million take 0.2 s; without an index it is a sort of all of them, and shards of equal width
# will do, between the lowest id and the highest: two scans at most.
SAMPLE_TIMEOUT, SPAN_TIMEOUT = 2.0, 1.0


class PostgresMentors:
    """Implements MentorSource. A page shorter than asked for is the last one."""

    def __init__(self, database: Database, eligible_assignment_statuses: Sequence[str]) -> None:
        self._database = database
        self._statuses = list(eligible_assignment_statuses)

    async def fetch_page(self, stretch: IdRange, page_size: int) -> Page:
        bounds = _inclusive(stretch)
        if bounds is None:
            return Page((), is_last=True)
        rows = await self._fetch(_FETCH_PAGE, *bounds, self._statuses, page_size)
        return Page([row[0] for row in rows], is_last=len(rows) < page_size)

    async def count(self, stretch: IdRange) -> int:
        bounds = _inclusive(stretch)
        if bounds is None:
            return 0
        # For the caller to bound, as a run's budget does: counting a million takes longer than any
        # page.
        [row] = await self._fetch(_COUNT_MENTORS, *bounds, self._statuses, answer_within=math.inf)
        return int(row["mentors"])

    async def sample(self, size: int) -> Sequence[UUID]:
        try:
            rows = await self._fetch(_SAMPLE_MENTORS, size, answer_within=SAMPLE_TIMEOUT)
        except DatabaseUnavailable as error:
            log.warning("no_sample", reason=str(error), remedy="Shards are of equal width, not population.")
        else:
            return [row["id"] for row in rows]
        [span] = await self._fetch(_SPAN_OF_MENTORS, answer_within=SPAN_TIMEOUT)
        return () if span["lowest"] is None else spread_evenly(span["lowest"], span["highest"], size)

    async def _fetch(self, statement: Statement, *arguments: Any, **how: Any) -> Sequence[Any]:
        """A refused statement, by a statement_timeout for example, is a source that can't be read now.

        What a run did until then is not undone by it, so the run goes on and says what became of it.
        """
        try:
            return await self._database.fetch(statement, *arguments, **how)
        except StatementFailed as error:
            raise DatabaseUnavailable(str(error)) from None


def _inclusive(stretch: IdRange) -> tuple[UUID, UUID] | None:
    """First and last id of a stretch, or None if it is empty because it lies behind the highest id."""
    if stretch.after == _HIGHEST_ID:
        return None
    first = _LOWEST_ID if stretch.after is None else UUID(int=stretch.after.int + 1)
    return first, _HIGHEST_ID if stretch.until is None else stretch.until
