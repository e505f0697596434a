"""Coverage: which part of the circle of ids some runs have covered, against who was really visited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.coverage import Coverage, covered_stretches
from engine.mentors.protocol import IdRange

NIL, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)

# A small id space on the large circle: neighbours at the beginning, in the middle and at the end, both ends
# among them.
IDS = [
    *(UUID(int=number) for number in range(10)),
    *(UUID(int=2**127 + number) for number in range(10)),
    *(UUID(int=2**128 - 10 + number) for number in range(10)),
]
A, B, C = IDS[3], IDS[12], IDS[25]


def covered(*runs: Sequence[IdRange]) -> Coverage:
    """By runs that began one, two, three … seconds ago."""
    coverage = Coverage()
    for age, stretches in enumerate(runs, start=1):
        coverage.add(float(age), stretches)
    return coverage


def partial(started_after: UUID | None, low_water_mark: UUID | None) -> Sequence[IdRange]:
    return covered_stretches(started_after, low_water_mark, is_completed=False)


COMPLETED = covered_stretches(A, None, is_completed=True)


# --- One run ---


def test_nothing_is_covered_before_the_first_run() -> None:
    assert not Coverage().is_whole
    assert Coverage().age is None


def test_a_completed_run_covers_everything_wherever_it_began() -> None:
    for started_after in (None, NIL, B, HIGHEST):
        assert covered(covered_stretches(started_after, None, is_completed=True)).age == 1.0


def test_a_run_without_a_mark_covers_nothing() -> None:
    for started_after in (None, NIL, B, HIGHEST):
        assert not covered(partial(started_after, None)).is_whole
        assert covered(partial(started_after, None), COMPLETED).age == 2.0


def test_a_run_covers_what_lies_behind_its_beginning_up_to_its_mark() -> None:
    assert partial(A, B) == (IdRange(after=A, until=B),)
    assert covered(partial(A, B), partial(B, A)).age == 2.0
    assert not covered(partial(A, B), partial(C, A)).is_whole


def test_a_run_that_has_wrapped_covers_both_ends() -> None:
    assert covered(partial(C, A), partial(A, C)).age == 2.0
    assert not covered(partial(C, A), partial(A, B)).is_whole
    assert covered(partial(C, A), partial(B, C), partial(A, B)).age == 3.0


@pytest.mark.parametrize("id", [NIL, A, HIGHEST])
def test_a_mark_where_the_run_began_means_that_it_went_all_the_way_round(id: UUID) -> None:
    assert covered(partial(id, id)).age == 1.0


def test_a_run_from_the_lowest_id_on_does_not_wrap() -> None:
    assert not covered(partial(None, B)).is_whole
    assert covered(partial(None, B), partial(B, HIGHEST)).age == 2.0
    assert not covered(partial(None, B), partial(B, IDS[-2])).is_whole


# --- The ends ---


def test_a_mark_at_the_highest_id_covers_everything_only_from_the_lowest_on() -> None:
    assert covered(partial(None, HIGHEST)).age == 1.0
    assert not covered(partial(NIL, HIGHEST)).is_whole
    assert covered(partial(NIL, HIGHEST), partial(HIGHEST, NIL)).age == 2.0


def test_behind_the_highest_id_there_is_only_the_other_end() -> None:
    assert covered(partial(HIGHEST, B), partial(B, HIGHEST)).age == 2.0
    assert not covered(partial(HIGHEST, B), partial(B, IDS[-2])).is_whole


def test_a_mark_at_the_lowest_id_covers_that_one() -> None:
    assert covered(partial(None, NIL), partial(NIL, HIGHEST)).age == 2.0
    assert not covered(partial(NIL, HIGHEST)).is_whole


# --- Several ---


def test_the_age_is_that_of_the_oldest_run_that_is_needed_and_of_none_before_it() -> None:
    assert covered(partial(B, C), partial(A, B), partial(C, A), COMPLETED).age == 3.0
    assert covered(partial(B, C), COMPLETED, partial(C, B)).age == 2.0


def test_runs_of_the_same_stretch_add_nothing() -> None:
    assert not covered(*[partial(A, C)] * 9).is_whole


@given(st.lists(st.tuples(st.none() | st.sampled_from(IDS), st.none() | st.sampled_from(IDS), st.booleans())))
def test_coverage_is_whole_when_every_id_is_within_a_stretch(
    runs: list[tuple[UUID | None, UUID | None, bool]],
) -> None:
    # Every stretch begins and ends at one of these ids, so ids between two of them fare as the one behind.
    stretches = [covered_stretches(after, mark, is_completed=completed) for after, mark, completed in runs]
    within = {
        id
        for stretch in chain.from_iterable(stretches)
        for id in (*IDS, HIGHEST)
        if (stretch.after is None or id > stretch.after) and (stretch.until is None or id <= stretch.until)
    }
    assert covered(*stretches).is_whole == (within == {*IDS, HIGHEST})


# --- Against a model that keeps every visit ---


@dataclass
class Run:
    """A row of the ledger, as far as coverage reads it, and the condition of the column `covers`."""

    started_at: float
    started_after: UUID | None
    low_water_mark: UUID | None
    is_completed: bool
    is_evaluated: bool

    @property
    def covers(self) -> bool:
        return (self.is_completed or self.low_water_mark is not None) and self.is_evaluated


@dataclass
class History:
    """Runs as the scheduler walks, and what the ledger does not keep: when each mentor was visited."""

    there_since: dict[UUID, float]
    now: float = 0.0
    runs: list[Run] = field(default_factory=list)
    visited_at: dict[UUID, float] = field(default_factory=dict)
    reached_by: dict[UUID, Run] = field(default_factory=dict)

    def pass_time(self) -> float:
        self.now += 1.0
        return self.now

    def add(self, mentor: UUID) -> None:
        self.there_since.setdefault(mentor, self.pass_time())

    def remove(self, mentor: UUID) -> None:
        self.there_since.pop(mentor, None)
        self.visited_at.pop(mentor, None)

    def walk(self, finished: int, ahead: int, *, knows_the_end: bool, is_evaluated: bool) -> None:
        """One run: so many finished without a gap, one cut, so many finished after that one.

        It may have reached everybody and be cut before it knows, as when the last page was a full one.
        """
        previous = self.runs[-1] if self.runs else None
        started_after = None
        if previous is not None and not previous.is_completed:
            started_after = previous.low_water_mark or previous.started_after
        # Behind started_after first, then up to it.
        order = sorted(
            self.there_since, key=lambda id: (started_after is not None and id <= started_after, id)
        )
        prefix = order[:finished]
        is_completed = len(prefix) == len(order) and knows_the_end
        mark = prefix[-1] if prefix and not is_completed else None
        run = Run(self.pass_time(), started_after, mark, is_completed, is_evaluated)
        self.runs.append(run)
        for mentor in prefix + order[finished + 1 :][:ahead]:
            visited_at = self.pass_time()
            if is_evaluated:
                self.visited_at[mentor] = visited_at
        if is_evaluated:
            self.reached_by.update(dict.fromkeys(prefix, run))

    def claimed_age(self) -> float | None:
        coverage = Coverage()
        for run in reversed(self.runs):
            if run.covers:
                coverage.add(
                    self.now - run.started_at,
                    covered_stretches(run.started_after, run.low_water_mark, is_completed=run.is_completed),
                )
        return coverage.age


WALKS = st.tuples(
    st.just("walk"), st.integers(0, 12), st.integers(0, 3), st.booleans(), st.integers(0, 3).map(bool)
)
ADDITIONS = st.tuples(st.just("add"), st.sampled_from(IDS))
REMOVALS = st.tuples(st.just("remove"), st.sampled_from(IDS))


def live(history: History, event: tuple[object, ...]) -> None:
    match event:
        case "walk", int(finished), int(ahead), bool(knows_the_end), bool(is_evaluated):
            history.walk(finished, ahead, knows_the_end=knows_the_end, is_evaluated=is_evaluated)
        case "add", UUID() as mentor:
            history.add(mentor)
        case "remove", UUID() as mentor:
            history.remove(mentor)


@given(st.sets(st.sampled_from(IDS), max_size=10), st.lists(WALKS | ADDITIONS | REMOVALS, max_size=30))
def test_nobody_has_waited_longer_than_the_age_whoever_comes_and_goes(
    mentors: set[UUID], events: list[tuple[object, ...]]
) -> None:
    history = History({mentor: float("-inf") for mentor in mentors})
    for event in events:
        live(history, event)
        age = history.claimed_age()
        for mentor, since in history.there_since.items():
            waits_since = max(since, history.visited_at.get(mentor, since))
            assert age is None or history.now - waits_since <= age


@given(st.sets(st.sampled_from(IDS), max_size=9), st.lists(WALKS, max_size=30))
def test_the_age_is_exactly_that_of_the_run_that_reached_the_longest_waiting_mentor(
    mentors: set[UUID], walks: list[tuple[object, ...]]
) -> None:
    # With a fixed population, one of whom has the highest id. Without that one, ids behind the last mentor
    # are covered by the next run that wraps, so the age is up to a run too high, as is promised.
    history = History(dict.fromkeys(mentors | {HIGHEST}, float("-inf")))
    for walk in walks:
        live(history, walk)
        expected = None
        if history.reached_by.keys() == history.there_since.keys():
            expected = history.now - min(run.started_at for run in history.reached_by.values())
        assert history.claimed_age() == expected
