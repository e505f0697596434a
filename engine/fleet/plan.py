"""This file is the plan of a fleet's run: which ranges of ids its shards are, and in which order they go out.

Pure. The ranges are contiguous, disjoint, and together all ids there can be, whatever the sample says:
it only decides where to cut. They go out in the order in which they have waited: what the run before
left comes first, each shard from its mark on, then what it finished. So a shard is one walk from the
lowest of its ids to the highest, nobody has a second turn before everybody had a first, and no run
repeats what the one before did.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

from engine.mentors.protocol import IdRange

_HIGHEST = 2**128 - 1

# Ranges that wait, of which each is a shard at least, unless more shards than that are asked for. A partial
# run leaves two for each shard that was in hand at its end, so that more come together only where a budget
# reaches less than a tenth of everybody. With fewer, what is joined would no longer be small.
WAITING_AT_MOST = 64


@dataclass(frozen=True, slots=True)
class PastShard:
    """A shard of the run before, as the ledger has it. `low_water_mark` None: nothing of it was finished."""

    id_range: IdRange
    low_water_mark: UUID | None
    is_completed: bool


def plan(sample: Sequence[UUID], shards: int, waiting: Sequence[IdRange] = (IdRange(),)) -> list[IdRange]:
    """The ranges of a run's shards, in the order in which they go out; they are about `shards`.

    `sample`: some mentors' ids, each of which stands for as many; of no sample, all ids there can be are as
    likely as one another. `waiting`: ranges that together are all ids, those that have waited longest first.
    Each of them stays where it is in the order, cut where it holds more than its part of the population; but
    where there are too many of them, the smallest are joined to a neighbour that comes earlier.
    """
    sample = sorted(sample)
    pieces = []
    for id_range in _join_smallest(list(waiting), sample, max(shards, WAITING_AT_MOST)):
        number = max(1, round(shards * _population(sample, id_range)))
        pieces += _cut(sample, id_range, number)
    return pieces


def longest_waiting_first(past: Sequence[PastShard]) -> list[IdRange] | None:
    """All ids in the order in which they have waited, after a run with these shards, in their order.

    What was finished was so at about the same time, so that it is told in the order of ids. None if the
    shards are not what a plan was: then there is nothing to go by.
    """
    left, finished = [], []
    for shard in past:
        after, until = shard.id_range.after, shard.id_range.until
        if shard.is_completed or shard.low_water_mark == until is not None:
            finished.append(shard.id_range)
        elif shard.low_water_mark is None:
            left.append(shard.id_range)
        else:
            finished.append(IdRange(after, shard.low_water_mark))
            left.append(IdRange(shard.low_water_mark, until))
    waiting = _joined(left) + _joined(sorted(finished, key=_first))
    return waiting if _joined(sorted(waiting, key=_first)) == [IdRange()] else None


def _joined(ranges: Iterable[IdRange]) -> list[IdRange]:
    """With those made one that follow one another both in this order and in that of ids."""
    joined: list[IdRange] = []
    for each in ranges:
        if joined and each.after is not None and joined[-1].until == each.after:
            joined[-1] = IdRange(joined[-1].after, each.until)
        else:
            joined.append(each)
    return joined


def _join_smallest(waiting: list[IdRange], sample: Sequence[UUID], at_most: int) -> list[IdRange]:
    """No more ranges than that. What is joined comes earlier than its turn.

    Those that follow their neighbour in the order of ids as well, if there are any: then who has waited
    longer is still walked first.
    """
    while len(waiting) > at_most:
        by_ids = sorted(range(len(waiting)), key=lambda place: _first(waiting[place]))
        _, _, low, high = min(
            (low > high, _population(sample, waiting[max(low, high)]), low, high)
            for low, high in pairwise(by_ids)
        )
        waiting[min(low, high)] = IdRange(waiting[low].after, waiting[high].until)
        del waiting[max(low, high)]
    return waiting


def _cut(sample: Sequence[UUID], id_range: IdRange, number: int) -> list[IdRange]:
    """In so many pieces of the same population; in fewer where the sample holds fewer ids to cut at."""
    if sample:
        begin, end = _places(sample, id_range)
        ends = [sample[begin + (end - begin) * piece // number - 1] for piece in range(1, number)]
    else:
        first = _first(id_range)
        width = _last(id_range) - first + 1
        ends = [UUID(int=first + width * piece // number - 1) for piece in range(1, number)]
    pieces, after = [], id_range.after
    for end_id in ends:
        # Not in order where several pieces would end at the same id.
        if _first(id_range) <= end_id.int < _last(id_range) and (after is None or after < end_id):
            pieces.append(IdRange(after, end_id))
            after = end_id
    return [*pieces, IdRange(after, id_range.until)]


def _population(sample: Sequence[UUID], id_range: IdRange) -> float:
    """The share of everybody that the range holds."""
    if not sample:
        return (_last(id_range) - _first(id_range) + 1) / 2**128
    begin, end = _places(sample, id_range)
    return (end - begin) / len(sample)


def _places(sample: Sequence[UUID], id_range: IdRange) -> tuple[int, int]:
    begin = 0 if id_range.after is None else bisect_right(sample, id_range.after)
    return begin, len(sample) if id_range.until is None else bisect_right(sample, id_range.until)


def _first(id_range: IdRange) -> int:
    return 0 if id_range.after is None else id_range.after.int + 1


def _last(id_range: IdRange) -> int:
    return _HIGHEST if id_range.until is None else id_range.until.int
