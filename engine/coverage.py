"""This file is which part of the circle of ids some runs have covered together, and how long ago.

Pure: runs come from the ledger, ages from its clock. It promises to err on one side only. No id is claimed to
have been covered more recently than it was, and ids that nobody bears count like all others; so whoever was
there all the time has waited no longer than the age that is told, whoever came and went meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from engine.mentors.protocol import IdRange

_HIGHEST = 2**128 - 1


def covered_stretches(
    started_after: UUID | None, low_water_mark: UUID | None, *, is_completed: bool
) -> Sequence[IdRange]:
    """What a run finished without a gap, as its row in the ledger says: in walk order, none or one or two.

    A run walks the ids behind `started_after`, and when it has wrapped round those up to it. That id itself
    comes last of all, so a mark there means that the run has been all the way round.
    """
    if is_completed:
        return (IdRange(),)
    if low_water_mark is None:
        return ()
    if started_after is None or started_after < low_water_mark:
        return (IdRange(started_after, low_water_mark),)
    return IdRange(after=started_after), IdRange(until=low_water_mark)


def stretches_of(row: Any) -> Sequence[IdRange]:
    """What a run finished, as covering_runs.sql says it: the run itself, or each of its shards."""
    of_run = covered_stretches(row["started_after"], row["low_water_mark"], is_completed=row["is_completed"])
    of_shards = zip(row["after_ids"] or (), row["until_ids"] or (), strict=True)
    return *of_run, *(IdRange(after, until) for after, until in of_shards)


class Coverage:
    """What the runs added so far have covered. They are added newest first.

    `age` is of the run that made it whole, the oldest that is needed: every id was covered since that run
    began. None as long as something is missing.

    Memory: a pair of ids for each gap. A run begins where the one before it ended, so there are few.
    """

    def __init__(self) -> None:
        self.age: float | None = None
        self._gaps = [(0, _HIGHEST)]  # first and last id of each, both inclusive, in ascending order

    @property
    def is_whole(self) -> bool:
        return self.age is not None

    def add(self, age: float, stretches: Iterable[IdRange]) -> None:
        """A run that began `age` seconds ago. Once the coverage is whole, older runs change nothing.

        The beginning, and not the moment in which an id was passed: the ledger does not keep that one.
        """
        if self.is_whole:
            return
        for stretch in stretches:
            self._fill(
                0 if stretch.after is None else stretch.after.int + 1,
                _HIGHEST if stretch.until is None else stretch.until.int,
            )
        if not self._gaps:
            self.age = age

    def _fill(self, first: int, last: int) -> None:
        # Behind the highest id there is nothing: then first is last + 1, and every gap stays as it is.
        self._gaps = [
            (begin, end)
            for gap_first, gap_last in self._gaps
            for begin, end in (
                (gap_first, min(gap_last, first - 1)),
                (max(gap_first, last + 1), gap_last),
            )
            if begin <= end
        ]
