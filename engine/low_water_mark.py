"""This file is how far a run has come without a gap.

Ten dispatchers finish chunks out of order, and pages are fetched ahead of them. The next run may begin only
behind the last mentor before whom everybody was finished; a cursor moved at fetch loses whoever was fetched
and never evaluated.
"""

from __future__ import annotations

from uuid import UUID

from engine.chunk import Chunk


class LowWaterMark:
    """The last id of the contiguous prefix of finished chunks.

    Memory: one id for each chunk finished ahead of the slowest one.
    """

    def __init__(self) -> None:
        self.last_id: UUID | None = None
        self._next_index = 0
        self._finished_ahead: dict[int, UUID] = {}

    def finish(self, chunk: Chunk) -> None:
        """Every mentor of the chunk was evaluated or counted as an error."""
        self._finished_ahead[chunk.index] = chunk.mentor_ids[-1]
        while (last_id := self._finished_ahead.pop(self._next_index, None)) is not None:
            self.last_id = last_id
            self._next_index += 1
