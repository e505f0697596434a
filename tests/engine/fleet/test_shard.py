"""What travels between coordinator and worker: what is written is read, and nothing else is."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import load_settings
from engine.fleet.agreement import Agreement, agreement_of
from engine.fleet.shard import (
    MAX_MESSAGE_BYTES,
    MAX_RESULT_BYTES,
    NAMES_AT_MOST,
    OTHER,
    InvalidMessage,
    Shard,
    ShardResult,
    read_result,
    read_shard,
    result_of,
    write,
)
from engine.invocations import INVOCATION_BOUNDS
from engine.run import Progress
from engine.tally import StopReason, summarise
from engine.walk import Walk

RUN_ID = UUID("01930000-0000-7000-8000-000000000000")
BUCKETS = len(INVOCATION_BOUNDS) + 1

SHARD = Shard(
    run_id=RUN_ID,
    index=3,
    after=UUID(int=1),
    until=UUID(int=9),
    scenario_types=("expiry",),
    soft_threshold_at=1_764_150_000.25,
    hard_deadline_at=1_764_150_003.125,
    max_concurrency=2,
    agreement=agreement_of(load_settings()),
)
RESULT = ShardResult(
    run_id=RUN_ID,
    index=3,
    evaluated=7,
    errors={"timeout": 1},
    unprocessed=2,
    remaining_known=True,
    dispatched={"expiry": 3},
    suppressed={},
    stop_reason=StopReason.SOFT_THRESHOLD,
    stretch_mentors=5,
    stretch_evaluated=4,
    invocations=(1,) * BUCKETS,
    invocations_sum=0.5,
)

names = st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True)
counts = st.integers(0, 2**40)
uuids = st.integers(0, 2**128 - 1).map(lambda number: UUID(int=number))
digests = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
instants = st.floats(0, 1e11, allow_nan=False)


@st.composite
def shards(draw: st.DrawFn) -> Shard:
    after, until = sorted(draw(st.lists(uuids, min_size=2, max_size=2, unique=True)))
    soft, hard = sorted(draw(st.lists(instants, min_size=2, max_size=2)))
    return Shard(
        run_id=draw(uuids),
        index=draw(st.integers(0, 1_000_000)),
        after=draw(st.sampled_from([after, None])),
        until=draw(st.sampled_from([until, None])),
        scenario_types=draw(st.none() | st.lists(names, min_size=1, max_size=100).map(tuple)),
        soft_threshold_at=soft,
        hard_deadline_at=hard,
        max_concurrency=draw(st.integers(1, 1_000)),
        agreement=Agreement(**{name: draw(digests) for name in Agreement.model_fields}),
    )


@st.composite
def results(draw: st.DrawFn) -> ShardResult:
    errors = draw(st.dictionaries(names, counts, max_size=5))
    evaluated, unprocessed, known = draw(counts), draw(st.just(0) | counts), draw(st.booleans())
    finished = evaluated + sum(errors.values())
    stretch = draw(st.integers(0, finished))
    is_completed = unprocessed == 0 and known
    reasons = [reason for reason in StopReason if (reason is StopReason.FINISHED) == is_completed]
    return ShardResult(
        run_id=draw(uuids),
        index=draw(st.integers(0, 1_000_000)),
        evaluated=evaluated,
        errors=errors,
        unprocessed=unprocessed,
        remaining_known=known,
        dispatched=draw(st.dictionaries(names, counts, max_size=5)),
        suppressed=draw(st.dictionaries(names, counts, max_size=5)),
        stop_reason=draw(st.sampled_from(reasons)),
        stretch_mentors=stretch,
        stretch_evaluated=draw(st.integers(0, min(stretch, evaluated))),
        invocations=tuple(draw(st.lists(counts, min_size=BUCKETS, max_size=BUCKETS))),
        invocations_sum=draw(st.floats(0, 1e12)),
    )


@given(shard=shards())
def test_a_shard_that_was_written_is_read(shard: Shard) -> None:
    assert read_shard(write(shard)) == shard


@given(result=results())
def test_a_result_that_was_written_is_read(result: ShardResult) -> None:
    assert read_result(write(result)) == result


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@given(message=st.binary(max_size=300) | anything.map(lambda value: json.dumps(value).encode()))
def test_whatever_arrives_is_read_or_refused_by_one_error(message: bytes) -> None:
    for read in (read_shard, read_result):
        with pytest.raises(InvalidMessage) as refused:
            read(message)
        assert refused.value.reason in ("malformed", "other_version")


@given(name=st.sampled_from(sorted(Shard.model_fields)), value=anything)
def test_a_shard_with_one_field_changed_is_read_as_such_or_refused(name: str, value: Any) -> None:
    fields = json.loads(write(SHARD)) | {name: value}
    try:
        shard = read_shard(json.dumps(fields).encode())
    except InvalidMessage:
        return
    assert json.loads(write(shard))[name] == value


@given(name=st.sampled_from(sorted(ShardResult.model_fields)), value=anything)
def test_a_result_with_one_field_changed_is_read_as_such_or_refused(name: str, value: Any) -> None:
    fields = json.loads(write(RESULT)) | {name: value}
    try:
        result = read_result(json.dumps(fields).encode())
    except InvalidMessage:
        return
    assert json.loads(write(result))[name] == value


@pytest.mark.parametrize(
    "changed",
    [
        {"run_id": "7"},
        {"index": -1},
        {"index": True},
        {"index": "3"},
        {"after": str(UUID(int=9))},
        {"scenario_types": []},
        {"scenario_types": ["drop table"]},
        {"scenario_types": ["a"] * 101},
        {"soft_threshold_at": float("nan")},
        {"hard_deadline_at": float("inf")},
        {"hard_deadline_at": 1_764_150_000.0},
        {"hard_deadline_at": "1764150003"},
        {"max_concurrency": 0},
        {"max_concurrency": 1_001},
        {"mentor_ids": []},
    ],
    ids=str,
)
def test_a_shard_that_can_not_be_is_malformed(changed: dict[str, Any]) -> None:
    fields = json.loads(write(SHARD)) | changed
    with pytest.raises(InvalidMessage, match="malformed"):
        read_shard(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "changed",
    [
        {"evaluated": -1},
        {"evaluated": 2**60},
        {"errors": {"Robert'); drop table": 1}},
        {"errors": {"timeout": -1}},
        {"stop_reason": "bored"},
        {"stop_reason": "finished"},
        {"unprocessed": 0},
        {"stretch_mentors": 9},
        {"stretch_evaluated": 6},
        {"invocations": [0]},
        {"invocations_sum": float("nan")},
        {"dispatched": {f"t{number}": 1 for number in range(NAMES_AT_MOST + 2)}},
        {"mentor_ids": []},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_a_result_that_can_not_be_is_malformed(changed: dict[str, Any]) -> None:
    fields = json.loads(write(RESULT)) | changed
    with pytest.raises(InvalidMessage, match="malformed"):
        read_result(json.dumps(fields).encode())


@pytest.mark.parametrize("read", [read_shard, read_result])
def test_another_version_is_told_from_garbage(read: Any) -> None:
    with pytest.raises(InvalidMessage, match="other_version"):
        read(b'{"version": 2, "what": "it says is not known here"}')


def test_a_message_too_long_is_not_looked_at() -> None:
    with pytest.raises(InvalidMessage, match="too_long"):
        read_shard(b"[" * (MAX_MESSAGE_BYTES + 1))
    with pytest.raises(InvalidMessage, match="too_long"):
        read_result(b"[" * (MAX_RESULT_BYTES + 1))
    with pytest.raises(InvalidMessage, match="malformed"):
        read_shard(b"[" * MAX_MESSAGE_BYTES)  # nor does its depth do any harm


def test_the_longest_shard_and_the_longest_result_fit() -> None:
    longest = SHARD.model_copy(update={"scenario_types": ("a" * 63,) * 100})
    assert read_shard(write(longest)) == longest
    progress = Progress(Walk([], soft_threshold=0.0))
    for number in range(3 * NAMES_AT_MOST):
        name = f"{number:063}"
        progress.tally.errors[name] = progress.tally.dispatched[name] = progress.tally.suppressed[name] = (
            2**40
        )
    progress.tally.fetched = progress.tally.errors.total()
    summary = summarise(
        progress.tally, unfetched=0, ended_by=StopReason.FINISHED, duration=0.0, run_id=RUN_ID
    )
    result = read_result(write(result_of(SHARD, summary, progress)))
    # What is too much to be told by name is told in one sum.
    assert len(result.errors) == NAMES_AT_MOST + 1
    assert sum(result.errors.values()) == summary.total_errors
    assert result.dispatched[OTHER] == 2 * NAMES_AT_MOST * 2**40
