"""Whatever arrives over the fleet, by whoever got as far as NATS: a shard, or the result of one.

tests/engine/fleet/test_shard.py holds both to chosen messages; here are those that nobody chose.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.fleet.shard import MAX_RESULT_BYTES, VERSION, write
from tests.engine.fleet.test_shard import RESULT, SHARD
from tests.hostile.counting import counted, tries
from tests.hostile.messages import CANARY, check_message, with_field

KIND, FIELD = st.integers(0, 1), st.integers(0, 16)

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
leaves |= st.sampled_from(
    [2**53, 2**53 + 1, -1, 10**400, 1e11, 1e12, "expiry", "finished", "soft_threshold", "_other", CANARY]
)
leaves |= st.uuids().map(str)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=16)
        | st.dictionaries(st.sampled_from(["a", "_", "A", ""]), inner, max_size=3)
    ),
    max_leaves=20,
)
odd_values = st.sampled_from(
    [
        *(b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-0.0", b"9" * 5_000, b"[" * 5_000, b'{"a":' * 5_000),
        *(b'"\xff\xfe"', b'"\\ud800"', b'"\\u0000"', b"1, 1", b'1, "version": 1', b'1, "version": 2', b""),
    ]
)


@tries(500)
@given(st.binary(max_size=300) | values.map(lambda value: json.dumps(value).encode()))
@counted("fleet messages")
def test_whatever_arrives_is_a_message_or_one_known_error(data: bytes) -> None:
    check_message(data)


@tries(900)
@given(KIND, FIELD, values.map(lambda value: json.dumps(value).encode()) | odd_values)
@example(1, 4, b'{"a": 9007199254740992, "b": 9007199254740992}')
@example(1, 7, b'{"a": 9007199254740992, "b": 9007199254740992}')
@example(1, 5, b"-1")
@example(1, 10, b"9")
@example(1, 13, b"1e400")
@counted("fleet messages")
def test_a_message_with_one_field_gone_wrong_adds_up_or_is_refused(
    kind: int, field: int, value: bytes
) -> None:
    check_message(with_field(kind, field, value))


@tries(500)
@given(
    st.sampled_from([write(SHARD), write(RESULT)]),
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 6), st.binary(max_size=4)), max_size=3),
)
@counted("fleet messages")
def test_a_message_with_a_few_bytes_changed_adds_up_or_is_refused(
    data: bytes, changes: list[tuple[int, int, bytes]]
) -> None:
    for place, length, splice in changes:
        data = data[:place] + splice + data[place + length :]
    check_message(data)


def test_a_result_that_would_not_fit_the_ledger_is_refused() -> None:
    """One forged result would otherwise keep the verdict of its run from being written."""
    most = 2**53
    for field, value in (
        ("errors", {"a": most, "b": most}),
        ("unprocessed", most),
        ("dispatched", {"a": 1, "b": most}),
    ):
        number = list(type(RESULT).model_fields).index(field)
        assert check_message(with_field(1, number, json.dumps(value).encode())) is None, field


@pytest.mark.parametrize("fill", [b"[", b'{"version":', b" ", b"9", b'"', b'{"a":1,', b"\xff"])
def test_a_message_of_any_length_is_refused(fill: bytes) -> None:
    for size in (60_000, MAX_RESULT_BYTES, 2 * MAX_RESULT_BYTES):
        assert check_message(fill * (size // len(fill))) is None


def test_what_is_right_is_read() -> None:
    assert check_message(write(SHARD)) == SHARD
    assert check_message(write(RESULT)) == RESULT
    assert check_message(with_field(0, 0, b"%d" % VERSION)) == SHARD
