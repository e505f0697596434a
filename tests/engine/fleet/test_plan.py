"""The plan: total, disjoint, contiguous, even, and fair from one run to the next, whatever the ids."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine.fleet.plan
from engine.fleet.plan import PastShard, longest_waiting_first, plan
from engine.mentors.protocol import IdRange

HIGHEST = 2**128 - 1

# Random ones, clusters, neighbours, both ends, duplicates.
uuids = st.builds(
    lambda number: UUID(int=number),
    st.one_of(
        st.integers(0, HIGHEST),
        st.integers(0, 40),
        st.integers(2**127, 2**127 + 40),
        st.integers(HIGHEST - 40, HIGHEST),
    ),
)
samples = st.lists(uuids, max_size=80)


def first(id_range: IdRange) -> int:
    return 0 if id_range.after is None else id_range.after.int + 1


def is_partition(ranges: Sequence[IdRange]) -> bool:
    """Together all ids there can be, each once: in the order of ids each begins where the one before ends."""
    ordered = sorted(ranges, key=first)
    return (
        ordered[0].after is None
        and ordered[-1].until is None
        and all(one.until is not None and one.until == next_one.after for one, next_one in pairwise(ordered))
    )


def holds(id_range: IdRange, id: UUID) -> bool:
    return first(id_range) <= id.int <= (HIGHEST if id_range.until is None else id_range.until.int)


def population(ids: Sequence[UUID], id_range: IdRange) -> int:
    return sum(holds(id_range, id) for id in ids)


@st.composite
def partitions(draw: st.DrawFn) -> list[IdRange]:
    """All ids, cut somewhere, in any order."""
    ends = sorted(draw(st.sets(uuids, max_size=12)))
    if ends and ends[-1].int == HIGHEST:
        ends.pop()
    ranges = [IdRange(a, b) for a, b in zip([None, *ends], [*ends, None], strict=True)]
    return draw(st.permutations(ranges))


@given(sample=samples, shards=st.integers(1, 40), waiting=partitions())
def test_whatever_the_sample_every_id_is_in_one_shard(
    sample: list[UUID], shards: int, waiting: list[IdRange]
) -> None:
    ranges = plan(sample, shards, waiting)
    assert is_partition(ranges)
    assert len(ranges) <= shards + len(waiting)


@given(sample=samples, shards=st.integers(1, 40))
def test_without_a_run_before_there_are_at_most_as_many_shards_as_asked_for_in_the_order_of_ids(
    sample: list[UUID], shards: int
) -> None:
    ranges = plan(sample, shards)
    assert len(ranges) <= shards
    assert ranges == sorted(ranges, key=first)
    if len(set(sample)) == len(sample) >= shards:
        assert len(ranges) == shards


@given(sample=st.lists(uuids, max_size=80, unique=True), shards=st.integers(1, 40))
def test_shards_hold_equally_many_of_the_sample(sample: list[UUID], shards: int) -> None:
    held = [population(sample, each) for each in plan(sample, shards)]
    assert max(held) - min(held) <= 1 or len(sample) < shards


@pytest.mark.parametrize("kind", ["random", "clustered", "counted", "by time"])
def test_shards_hold_about_equally_many_mentors(kind: str) -> None:
    source = random.Random(7)
    ids = {
        "random": lambda: [UUID(int=source.getrandbits(128)) for _ in range(20_000)],
        "clustered": lambda: [
            UUID(int=(cluster << 120) + source.getrandbits(60 if cluster % 3 else 20))
            for cluster in (1, 2, 3, 250)
            for _ in range(5_000)
        ],
        "counted": lambda: [UUID(int=number) for number in range(20_000)],
        "by time": lambda: [UUID(int=(0x0193 << 112) + (number * 7 << 10)) for number in range(20_000)],
    }[kind]()
    ids.sort()
    every = len(ids) // 1_024
    held = [population(ids, each) for each in plan(ids[every - 1 :: every], 32)]
    assert len(held) == 32
    assert max(held) <= 1.1 * 20_000 / 32
    assert min(held) >= 0.9 * 20_000 / 32


def test_without_a_sample_shards_are_of_equal_width() -> None:
    ranges = plan((), 4)
    assert [each.until and each.until.int + 1 for each in ranges] == [1 << 126, 2 << 126, 3 << 126, None]


def test_one_shard_is_everything() -> None:
    assert plan([UUID(int=5)], 1) == plan((), 1) == [IdRange()]


def test_what_waits_keeps_its_place_and_is_cut_where_it_holds_many() -> None:
    ids = [UUID(int=number) for number in range(1, 101)]
    waiting = [IdRange(UUID(int=50), None), IdRange(UUID(int=40), UUID(int=50)), IdRange(None, UUID(int=40))]
    ranges = plan(ids, 10, waiting)
    assert [population(ids, each) for each in ranges] == [10] * 10
    assert [each.until and each.until.int for each in ranges] == [60, 70, 80, 90, None, 50, 10, 20, 30, 40]


def test_of_too_many_that_wait_the_smallest_join_a_neighbour_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine.fleet.plan, "WAITING_AT_MOST", 3)
    ids = [UUID(int=number) for number in range(1, 101)]
    cuts = [UUID(int=number) for number in (30, 31, 60, 62)]
    a, tiny, b, small, c = (IdRange(*ends) for ends in pairwise([None, *cuts, None]))
    # `small` follows `b` by its ids and in the order, and so does `tiny` `a`.
    assert plan(ids, 3, [b, a, tiny, c, small])[:2] == [IdRange(b.after, small.until), IdRange(None, b.after)]


@given(sample=samples, waiting=partitions(), at_most=st.integers(1, 6))
def test_no_more_ranges_wait_than_that_and_they_are_still_all_ids(
    sample: list[UUID], waiting: list[IdRange], at_most: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine.fleet.plan, "WAITING_AT_MOST", at_most)
        ranges = plan(sample, 1, waiting)
    assert is_partition(ranges)
    assert len(ranges) <= at_most + 1


# --- From one run to the next ---


def past(id_range: IdRange, mark: int | None = None, *, completed: bool = False) -> PastShard:
    return PastShard(id_range, None if mark is None else UUID(int=mark), completed)


A, B, C = UUID(int=100), UUID(int=200), UUID(int=300)
FOUR = [IdRange(None, A), IdRange(A, B), IdRange(B, C), IdRange(C, None)]


def test_what_was_left_comes_first_each_from_its_mark_on_and_then_what_was_finished() -> None:
    assert longest_waiting_first(
        [past(FOUR[0], completed=True), past(FOUR[1], 150), past(FOUR[2]), past(FOUR[3], 350)]
    ) == [
        IdRange(UUID(int=150), C),  # what follows one another is one
        IdRange(UUID(int=350), None),
        IdRange(None, UUID(int=150)),
        IdRange(C, UUID(int=350)),
    ]


def test_what_was_left_stays_in_its_order() -> None:
    assert longest_waiting_first(
        [past(FOUR[2]), past(FOUR[0]), past(FOUR[3], completed=True), past(FOUR[1], 150)]
    ) == [FOUR[2], FOUR[0], IdRange(UUID(int=150), B), IdRange(A, UUID(int=150)), FOUR[3]]


def test_after_a_run_that_did_all_or_nothing_there_is_one_range() -> None:
    assert longest_waiting_first([past(each) for each in FOUR]) == [IdRange()]
    assert longest_waiting_first([past(each, completed=True) for each in reversed(FOUR)]) == [IdRange()]


def test_a_mark_at_the_end_of_a_shard_leaves_nothing_of_it() -> None:
    assert longest_waiting_first([past(FOUR[0], 100), *map(past, FOUR[1:])]) == [
        IdRange(A, None),
        FOUR[0],
    ]


def test_shards_that_are_not_all_ids_are_no_plan_to_go_by() -> None:
    assert longest_waiting_first([]) is None
    assert longest_waiting_first([past(each) for each in FOUR[1:]]) is None
    assert longest_waiting_first([past(FOUR[0]), *map(past, FOUR)]) is None


@st.composite
def past_shards(draw: st.DrawFn) -> list[PastShard]:
    shards = []
    for id_range in draw(partitions()):
        last = HIGHEST if id_range.until is None else id_range.until.int
        inside = st.integers(first(id_range), last) if first(id_range) <= last else st.just(last)
        mark = draw(st.none() | inside.map(lambda number: UUID(int=number)))
        shards.append(PastShard(id_range, mark, draw(st.booleans())))
    return shards


@given(shards=past_shards())
def test_what_waits_is_all_ids_and_nobody_who_was_reached_comes_before_who_was_not(
    shards: list[PastShard],
) -> None:
    waiting = longest_waiting_first(shards)
    assert waiting is not None
    assert is_partition(waiting)

    def was_reached(id: UUID) -> bool:
        [shard] = [each for each in shards if holds(each.id_range, id)]
        return shard.is_completed or (shard.low_water_mark is not None and id <= shard.low_water_mark)

    last_ids = [each.until or UUID(int=HIGHEST) for each in waiting if each.after != UUID(int=HIGHEST)]
    assert sorted(map(was_reached, last_ids)) == list(map(was_reached, last_ids))


@settings(max_examples=200, deadline=None)
@given(
    mentors=st.integers(1, 60),
    shards=st.integers(1, 12),
    shards_at_once=st.integers(1, 4),
    reach=st.integers(1, 30),
)
def test_everybody_has_a_turn_within_the_promised_number_of_runs(
    mentors: int, shards: int, shards_at_once: int, reach: int
) -> None:
    """Runs that each reach so many mentors, some shards at once."""
    ids = [UUID(int=number) for number in range(1, mentors + 1)]
    waiting: Sequence[IdRange] = [IdRange()]
    last_turn = dict.fromkeys(ids, 0)
    # f is the share that a run reaches. At the end of a round some of those in hand belong to the next one:
    # what they get is missing in this one, if a shard takes longer than a run.
    rounds = -(-mentors // reach) + 1
    longest = -(-max(len(ids) // shards, 1) * shards_at_once // reach)
    for run in range(1, 60):
        ranges = plan(ids, shards, waiting)
        left = [[id for id in ids if holds(each, id)] for each in ranges]
        marks: list[UUID | None] = [None] * len(ranges)
        begun = 0
        in_hand: list[int] = []
        for _ in range(reach):
            while len(in_hand) < shards_at_once and begun < len(ranges):
                if left[begun]:
                    in_hand.append(begun)
                begun += 1
            if not in_hand:
                break
            place = in_hand.pop(0)
            marks[place] = mentor = left[place].pop(0)
            last_turn[mentor] = run
            if left[place]:
                in_hand.append(place)
        waiting = longest_waiting_first(
            [
                PastShard(each, mark, is_completed=not left[place] and place < begun)
                for place, (each, mark) in enumerate(zip(ranges, marks, strict=True))
            ]
        ) or [IdRange()]
        assert run - min(last_turn.values()) <= rounds + longest
