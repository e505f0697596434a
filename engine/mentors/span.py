"""This file is what stands for a sample of mentors where only the ends of their ids are known."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID


def spread_evenly(lowest: UUID, highest: UUID, size: int) -> Sequence[UUID]:
    """So many ids in order, at equal distances between these two, which are among them.

    Shards that are cut by them are of equal width, and none lies where nobody is: ids that were counted are a
    speck in the space of all there can be.
    """
    steps = max(size - 1, 1)
    width = highest.int - lowest.int
    return [UUID(int=lowest.int + width * step // steps) for step in range(steps + 1)]
