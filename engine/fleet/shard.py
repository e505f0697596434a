"""This file is what travels between coordinator and worker: a shard out, its result back, as bounded JSON.

Whoever got as far as the fleet may have written what arrives. So it is read strictly: a length, a
version, and every field checked before anything is done with it. What is not right raises
InvalidMessage and nothing else, whose reason is a word of our own; what arrived is quoted nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.fleet.agreement import Agreement
from engine.invocations import INVOCATION_BOUNDS
from engine.mentors.protocol import IdRange
from engine.run import Progress
from engine.tally import StopReason, Summary
from engine.trigger.protocol import SCENARIO_TYPE_PATTERN

# Counted up when a field changes its meaning. A message of another version is refused for good by whoever
# gets it first, so that none goes round for ever: who upgrades has to stop the workers before the service.
VERSION: Literal[1] = 1

# Bytes. A shard with a hundred scenario types takes 7 kB, a result with NAMES_AT_MOST of each kind 250 kB. A
# NATS server takes 1 MiB at most unless it is told otherwise.
MAX_MESSAGE_BYTES = 64 * 1024
MAX_RESULT_BYTES = 512 * 1024

# Scenario types, and error classes, of one result; what is more than that is added up under OTHER.
NAMES_AT_MOST = 1_000
OTHER = "_other"

# Mentors, or notifications, of one result, all together: Postgres's bigint holds those of a thousand.
COUNTED_AT_MOST = 2**53

_Count = Annotated[int, Field(ge=0, le=COUNTED_AT_MOST)]
_Index = Annotated[int, Field(ge=0, le=1_000_000)]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
_ScenarioType = Annotated[str, Field(pattern=SCENARIO_TYPE_PATTERN)]
_Counts = Annotated[dict[_Name, _Count], Field(max_length=NAMES_AT_MOST + 1)]
_Instant = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class InvalidMessage(Exception):
    """What arrived is not what it should be. `reason`: `too_long`, `malformed` or `other_version`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The message is {reason}.")
        self.reason = reason


class Shard(BaseModel):
    """A part of a run for some worker: the ids behind `after` up to and including `until`.

    Instants are seconds since 1970 on Postgres's clock, which everybody can ask. `max_concurrency` is
    this shard's share of the invocations that may be in flight. `agreement` is what its coordinator goes by.
    """

    model_config = _STRICT

    version: Literal[1] = VERSION
    run_id: UUID
    index: _Index
    after: UUID | None
    until: UUID | None
    scenario_types: Annotated[tuple[_ScenarioType, ...], Field(min_length=1, max_length=100)] | None
    soft_threshold_at: _Instant
    hard_deadline_at: _Instant
    max_concurrency: Annotated[int, Field(ge=1, le=1_000)]
    agreement: Agreement

    @property
    def id_range(self) -> IdRange:
        return IdRange(self.after, self.until)

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.after is not None and self.until is not None and not self.after < self.until:
            raise ValueError("ids run backwards")
        if self.soft_threshold_at > self.hard_deadline_at:
            raise ValueError("the budget runs backwards")
        return self


class ShardResult(BaseModel):
    """What became of a shard: its summary, and what the run it belongs to wants to know besides.

    Mentors: `evaluated`, `errors` by class, `unprocessed`, of which `remaining_known` says whether that
    is all; `stretch_…` is what was finished without a gap. Notifications by scenario type.
    `invocations` in the buckets of INVOCATION_BOUNDS, and their sum in seconds.
    """

    model_config = _STRICT

    version: Literal[1] = VERSION
    run_id: UUID
    index: _Index
    evaluated: _Count
    errors: _Counts
    unprocessed: _Count
    remaining_known: bool
    dispatched: _Counts
    suppressed: _Counts
    # Strictly a string in JSON; the enum's own name for it is not told apart by pydantic's strict mode.
    stop_reason: Annotated[StopReason, Field(strict=False)]
    stretch_mentors: _Count
    stretch_evaluated: _Count
    invocations: Annotated[
        tuple[_Count, ...],
        Field(min_length=len(INVOCATION_BOUNDS) + 1, max_length=len(INVOCATION_BOUNDS) + 1),
    ]
    invocations_sum: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]

    @property
    def completed(self) -> bool:
        return self.unprocessed == 0 and self.remaining_known

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        finished = self.evaluated + sum(self.errors.values())
        told = (finished + self.unprocessed, sum(self.dispatched.values()), sum(self.suppressed.values()))
        if max(told) > COUNTED_AT_MOST:
            raise ValueError("more than the ledger holds")
        if not self.stretch_evaluated <= self.stretch_mentors <= finished:
            raise ValueError("more was finished without a gap than was finished")
        if self.stretch_evaluated > self.evaluated:
            raise ValueError("more was evaluated without a gap than was evaluated")
        if self.completed != (self.stop_reason is StopReason.FINISHED):
            raise ValueError("only what was left nothing of is finished")
        return self


def result_of(shard: Shard, summary: Summary, progress: Progress) -> ShardResult:
    """What a shard that was run has to say."""
    tally, mark = progress.tally, progress.low_water_mark
    return ShardResult(
        run_id=shard.run_id,
        index=shard.index,
        evaluated=tally.evaluated,
        errors=_bounded(tally.errors),
        unprocessed=summary.total_unprocessed,
        remaining_known=summary.remaining_known,
        dispatched=_bounded(tally.dispatched),
        suppressed=_bounded(tally.suppressed),
        stop_reason=summary.stop_reason,
        stretch_mentors=mark.mentors,
        stretch_evaluated=mark.evaluated,
        invocations=tuple(tally.invocations.durations.counts),
        invocations_sum=tally.invocations.durations.sum,
    )


def write(message: Shard | ShardResult) -> bytes:
    """As it travels."""
    return message.model_dump_json().encode()


def read_shard(message: bytes) -> Shard:
    """The shard that a worker was handed. Raises InvalidMessage."""
    return _read(Shard, message, MAX_MESSAGE_BYTES)


def read_result(message: bytes) -> ShardResult:
    """The result that a coordinator was handed. Raises InvalidMessage."""
    return _read(ShardResult, message, MAX_RESULT_BYTES)


class _AnyVersion(BaseModel):
    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    version: int


Message = TypeVar("Message", Shard, ShardResult)


def _read(kind: type[Message], message: bytes, max_bytes: int) -> Message:
    if len(message) > max_bytes:
        raise InvalidMessage("too_long")
    try:
        # The version first: what another one means by the other fields is not known.
        if _AnyVersion.model_validate_json(message).version != VERSION:
            raise InvalidMessage("other_version")
        return kind.model_validate_json(message)
    except ValidationError:
        raise InvalidMessage("malformed") from None


def _bounded(counts: Mapping[str, int]) -> dict[str, Any]:
    """The first NAMES_AT_MOST, and the sum of all others as OTHER."""
    names = list(counts)
    bounded = {name: counts[name] for name in names[:NAMES_AT_MOST]}
    if len(names) > NAMES_AT_MOST:
        bounded[OTHER] = bounded.get(OTHER, 0) + sum(counts[name] for name in names[NAMES_AT_MOST:])
    return bounded
