"""This file is what the walk asks of whatever knows the mentors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class IdRange:
    """Ids behind `after` up to and including `until`; None is an end of the id space, which it includes.

    Ids are ordered as Postgres orders uuid: by their 128 bits.
    """

    after: UUID | None = None
    until: UUID | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Ids in ascending order. `is_last`: nothing is left in the range that was asked for.

    An empty page is always the last one. One that is not the last may be followed by an empty one.
    """

    mentor_ids: Sequence[UUID]
    is_last: bool


class MentorSource(Protocol):
    """Active mentors with an eligible assignment, and nobody else."""

    async def fetch_page(self, stretch: IdRange, page_size: int) -> Page:
        """The first mentors of the stretch, at a cost that does not depend on where it begins.

        They are `page_size` or, where the source caps its answers, fewer. Raises DatabaseUnavailable when the
        source can't be read, and after whatever was wrong is mended it can be asked again.

        **Cancellation:** nothing was read that matters; the same page can be asked for again.
        """
        ...

    async def count(self, stretch: IdRange) -> int:
        """How many mentors the stretch holds at this moment. Raises and cancels as `fetch_page`."""
        ...

    async def sample(self, size: int) -> Sequence[UUID]:
        """About so many ids in order, evenly spread over all mentors, or else over the span of their ids.

        Raises and cancels as `fetch_page`.
        """
        ...
