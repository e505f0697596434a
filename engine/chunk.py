"""This file is the unit of work: the mentors that one invocation of the trigger engine is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Chunk:
    """Mentors in walk order; `index` counts the chunks of a run from 0, without gaps."""

    index: int
    mentor_ids: Sequence[UUID]
