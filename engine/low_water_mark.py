"""This file is how far a run has come without a gap.

Ten dispatchers finish chunks out of order, and pages are fetched ahead of them. The next run may begin only
behind the last mentor before whom everybody was finished; a cursor moved at fetch loses whoever was fetched
and never evaluated.
"""

from __future__ import annotations

from uuid import UUID

from engine.chunk import Chunk


class LowWaterMark:
    """The last id of the contiguous prefix of finished chunks, and how many mentors that prefix holds.

    `evaluated` of its `mentors` were; the others were counted as errors. Memory: one id and two numbers for
    each chunk finished ahead of the slowest one.
    """

    def __init__(self) -> None:
        self.last_id: UUID | None = None
        self.mentors = 0
        self.evaluated = 0
        self._next_index = 0
        self._finished_ahead: dict[int, tuple[UUID, int, int]] = {}

    def finish(self, chunk: Chunk, evaluated: int) -> None:
        """So many of the chunk's mentors were evaluated, and all others counted as errors."""
        self._finished_ahead[chunk.index] = (chunk.mentor_ids[-1], len(chunk.mentor_ids), evaluated)
        while (finished := self._finished_ahead.pop(self._next_index, None)) is not None:
            self.last_id = finished[0]
            self.mentors += finished[1]
            self.evaluated += finished[2]
            self._next_index += 1

    def add_stretch(self, mentors: int, evaluated: int) -> None:
        """What was finished without a gap in a part of the run that has a mark of its own."""
        self.mentors += mentors
        self.evaluated += evaluated
