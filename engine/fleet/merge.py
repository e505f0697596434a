"""This file is what is known of a run's shards, added up: by construction as true as the summary of each.

The first result of a shard counts, and no other: a shard may have been done twice, and told as often.
Of a shard without a result everybody is unprocessed, whatever its workers did; who they are is a count,
or is not known.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.fleet.shard import ShardResult
from engine.histogram import Histogram
from engine.invocations import INVOCATION_BOUNDS
from engine.mentors.protocol import IdRange
from engine.run import Progress
from engine.tally import StopReason

# What ended a run whose shards ended differently: the first of these that did.
_PRECEDENCE = (StopReason.HARD_DEADLINE, StopReason.DATABASE_UNAVAILABLE, StopReason.SOFT_THRESHOLD)


class Merge:
    """The results so far, in the tally and the mark of the run's progress.

    `withdrawn` are the shards that no worker has begun, and none will. `remaining` is how many mentors
    there are in those shards without a result that were counted.
    """

    def __init__(self, ranges: Sequence[IdRange], progress: Progress) -> None:
        self.ranges = ranges
        self._progress = progress
        self._results: dict[int, ShardResult] = {}
        self.withdrawn: set[int] = set()
        self.remaining: dict[int, int] = {}

    @property
    def missing(self) -> Sequence[int]:
        """The shards without a result, those first that will have none."""
        missing = [index for index in range(len(self.ranges)) if index not in self._results]
        return sorted(missing, key=lambda index: index not in self.withdrawn)

    @property
    def is_awaited(self) -> bool:
        """Whether a shard without a result may still have one."""
        return not self.withdrawn.issuperset(self.missing)

    def add(self, result: ShardResult) -> bool:
        """Returns False for one that counts no more, or is of no shard of this run."""
        if result.index in self._results or result.index >= len(self.ranges):
            return False
        self._results[result.index] = result
        tally = self._progress.tally
        tally.count_fetched(_mentors_of(result))
        tally.evaluated += result.evaluated
        for error_class, count in result.errors.items():
            tally.count_failure(count, error_class)
        tally.dispatched.update(result.dispatched)
        tally.suppressed.update(result.suppressed)
        durations = Histogram(INVOCATION_BOUNDS)
        durations.counts = list(result.invocations)
        durations.sum = result.invocations_sum
        tally.invocations.begun += durations.total
        tally.invocations.durations.add(durations)
        self._progress.low_water_mark.add_stretch(result.stretch_mentors, result.stretch_evaluated)
        return True

    @property
    def largest_share(self) -> float:
        """Of the mentors who are known of, that of the shard which has most of them."""
        held = [_mentors_of(result) for result in self._results.values()]
        held += [self.remaining[index] for index in self.missing if index in self.remaining]
        return max(held, default=0) / max(sum(held), 1)

    def close(self) -> int | None:
        """Once nothing more is added. Returns 0, or None if how many were left is not all known."""
        missing = self.missing
        # What is known counts also where it is not all.
        self._progress.tally.count_fetched(sum(self.remaining.get(index, 0) for index in missing))
        is_known = all(index in self.remaining for index in missing) and all(
            result.remaining_known for result in self._results.values()
        )
        return 0 if is_known else None

    @property
    def stop_reason(self) -> StopReason | None:
        """What ended the shards that were not finished, None if all were."""
        reasons = {result.stop_reason for result in self._results.values()} - {StopReason.FINISHED}
        return min(reasons, key=_rank, default=None)


def _mentors_of(result: ShardResult) -> int:
    return result.evaluated + sum(result.errors.values()) + result.unprocessed


def _rank(reason: StopReason) -> int:
    return _PRECEDENCE.index(reason) if reason in _PRECEDENCE else len(_PRECEDENCE)
