"""The low-water mark: the last id before whom nobody was missed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.chunk import Chunk
from engine.low_water_mark import LowWaterMark
from tests.fakes import ids


def chunks(count: int) -> list[Chunk]:
    return [Chunk(index, [mentor_id]) for index, mentor_id in enumerate(ids(count))]


def test_low_water_mark_is_unknown_until_the_first_chunk_is_finished() -> None:
    mark = LowWaterMark()
    first, second, _ = chunks(3)
    mark.finish(second, 1)
    assert mark.last_id is None
    mark.finish(first, 1)
    assert mark.last_id == second.mentor_ids[-1]


def test_low_water_mark_is_the_last_id_of_a_chunk_of_many() -> None:
    mark = LowWaterMark()
    mark.finish(Chunk(0, ids(5)), 5)
    assert mark.last_id == ids(5)[-1]


@given(st.permutations(range(12)), st.integers(0, 12))
def test_low_water_mark_never_passes_an_unfinished_chunk(order: list[int], finished: int) -> None:
    all_chunks = chunks(12)
    mark = LowWaterMark()
    for index in order[:finished]:
        mark.finish(all_chunks[index], index % 2)
    done = set(order[:finished])
    prefix = next((index for index in range(12) if index not in done), 12)
    assert mark.last_id == (all_chunks[prefix - 1].mentor_ids[-1] if prefix else None)
    assert (mark.mentors, mark.evaluated) == (prefix, prefix // 2)


def test_stretches_with_a_mark_of_their_own_add_up_beside_the_prefix() -> None:
    mark = LowWaterMark()
    mark.finish(Chunk(0, ids(5)), 4)
    mark.add_stretch(10, 9)
    mark.add_stretch(7, 0)
    assert (mark.last_id, mark.mentors, mark.evaluated) == (ids(5)[-1], 22, 13)
