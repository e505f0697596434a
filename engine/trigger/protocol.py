"""This file is what the dispatchers ask of a trigger engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

# What may name a scenario, in requests and in answers.
SCENARIO_TYPE_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"


@dataclass(frozen=True, slots=True)
class RunContext:
    """What every invocation of one run has in common.

    `scenario_types` None means every enabled one. The trigger engine tells a retry by `run_id`. `overrides`
    is another configuration to try (engine/overrides.py): in a dry run, by the engine in the database alone.
    """

    run_id: UUID
    scenario_types: tuple[str, ...] | None = None
    dry_run: bool = False
    overrides: Mapping[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The trigger engine's answer for one chunk.

    `dispatched` and `suppressed`: notifications per scenario type. `errors`: mentors that it could not
    evaluate, per error class; all the others of the chunk were evaluated.
    """

    dispatched: Mapping[str, int] = field(default_factory=dict)
    suppressed: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)


class TriggerEngineSession(Protocol):
    """One dispatcher's line to the trigger engine, for one run, never used by two tasks at once."""

    async def evaluate(self, mentor_ids: Sequence[UUID]) -> Evaluation:
        """Evaluate one chunk: one invocation, no retry.

        Raises InvocationFailed, after which the session can be used again.

        **Cancellation:** the engine may have acted on the chunk or not. The session can be used again:
        what was left of the cut invocation is never taken for the next one's answer.
        """
        ...


class TriggerEngine(Protocol):
    def open_session(self, context: RunContext) -> AbstractAsyncContextManager[TriggerEngineSession]:
        """Open a line for one dispatcher. Opening connects nothing; closing leaves no connection behind."""
        ...
