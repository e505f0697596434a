"""This file is what must hold of whatever arrives at a worker or a coordinator: a message, or one error."""

from __future__ import annotations

import json
import math
import re

from engine.fleet.merge import Merge
from engine.fleet.shard import (
    MAX_MESSAGE_BYTES,
    MAX_RESULT_BYTES,
    InvalidMessage,
    Shard,
    ShardResult,
    read_result,
    read_shard,
    write,
)
from engine.mentors.protocol import IdRange
from engine.run import Progress
from engine.tally import StopReason, summarise
from engine.walk import Walk
from tests.engine.fleet.test_shard import RESULT, SHARD

# Part of what is sent: to be seen in no error.
CANARY = "cafe0123456789ab"


def check_message(data: bytes) -> Shard | ShardResult | None:
    """Read as either kind: a message that can be used as it is, of one kind at most, or one known error."""
    shard, result = check_shard(data), check_result(data)
    assert shard is None or result is None
    return shard or result


def check_shard(data: bytes) -> Shard | None:
    try:
        shard = read_shard(data)
    except InvalidMessage as error:
        check_error(error)
        return None
    assert len(data) <= MAX_MESSAGE_BYTES
    assert read_shard(write(shard)) == shard
    assert 0 <= shard.soft_threshold_at <= shard.hard_deadline_at <= 1e11
    assert 1 <= shard.max_concurrency <= 1_000
    ids = shard.id_range
    assert ids.after is None or ids.until is None or ids.after < ids.until
    # They go into SQL as values, and into the log and the metrics as they are.
    for scenario_type in shard.scenario_types or ():
        assert re.fullmatch(r"[a-z0-9_]{1,63}", scenario_type), scenario_type
    return shard


def check_result(data: bytes) -> ShardResult | None:
    """It is added up as a coordinator would, and the run it is all of tells of everybody once."""
    try:
        result = read_result(data)
    except InvalidMessage as error:
        check_error(error)
        return None
    assert len(data) <= MAX_RESULT_BYTES
    assert read_result(write(result)) == result
    for name in (*result.errors, *result.dispatched, *result.suppressed):
        assert re.fullmatch(r"[a-z0-9_]{1,64}", name), name
    finished = result.evaluated + sum(result.errors.values())
    counts = (finished + result.unprocessed, *map(_sum, (result.dispatched, result.suppressed)))
    every = (result.evaluated, result.unprocessed, *result.errors.values(), *result.invocations)
    every += (*result.dispatched.values(), *result.suppressed.values())
    assert min(every) >= 0
    assert 0 <= result.stretch_evaluated <= result.stretch_mentors <= finished
    assert result.stretch_evaluated <= result.evaluated
    assert 0 <= result.invocations_sum < math.inf
    # As many shards as there can be, all of which say this: the ledger's bigint holds what they add up to.
    assert 1_000 * max(counts) < 2**63
    progress = Progress(Walk([], soft_threshold=0.0))
    merge = Merge([IdRange(None, None)] * (min(result.index, 100) + 1), progress)
    assert merge.add(result) is (result.index <= 100)
    assert merge.add(result) is False
    summary = summarise(
        progress.tally,
        unfetched=merge.close(),
        ended_by=merge.stop_reason or StopReason.FINISHED,
        duration=0.0,
        run_id=result.run_id,
    )
    assert summary.total_active_mentors == (
        summary.total_evaluated + summary.total_errors + summary.total_unprocessed
    )
    assert not (summary.completed and result.index <= 100 and not result.completed)
    json.dumps(summary.as_json(), allow_nan=False)
    return result


def _sum(counts: dict[str, int]) -> int:
    return sum(counts.values())


def check_error(error: InvalidMessage) -> None:
    """In words of ours, also where it is logged with what it comes from."""
    assert error.reason in ("too_long", "malformed", "other_version")
    assert str(error) == f"The message is {error.reason}."
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def with_field(kind: int, field: int, value: bytes) -> bytes:
    """A right message, one of whose fields is written as `value`: an even `kind` is a shard."""
    message = RESULT if kind % 2 else SHARD
    names = [*type(message).model_fields, "stranger"]
    fields = {name: json.dumps(each) for name, each in json.loads(write(message)).items()}
    fields[names[field % len(names)]] = "\0"
    written = ", ".join(f'"{name}": {each}' for name, each in fields.items()).encode()
    return b"{" + written.replace(b"\0", value) + b"}"
