"""This file is what a coordinator and its workers have to agree on: who is walked, and who evaluates them.

Each has settings of its own. Where these differ, mentors would be passed over, or evaluated by another
trigger engine, in a run that counts as completed. So every shard says what its coordinator goes by, and a
worker that goes by something else does not touch it. What travels is a digest of each setting.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from engine.settings import Settings

# Of 64 bits: it finds out a slip, and need not withstand anybody.
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class Agreement(BaseModel):
    """A digest of each setting that has to be the same."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    trigger_engine: _Digest
    mentor_source: _Digest
    eligible_assignment_statuses: _Digest
    mentors_per_invocation: _Digest

    def differing(self, other: Agreement) -> Iterator[str]:
        """The names of the settings that are not the same."""
        for field in type(self).model_fields:
            if getattr(self, field) != getattr(other, field):
                yield f"SCHEDULER_{field.upper()}"


def agreement_of(settings: Settings) -> Agreement:
    """What whoever has these settings goes by."""
    # Chunks are part of the idempotency keys that a trigger engine knows a repeated invocation by; in the
    # database there are none.
    chunk = str(settings.mentors_per_chunk) if settings.over_http else ""
    return Agreement(
        trigger_engine=_digest(settings.trigger_engine),
        mentor_source=_digest(settings.mentor_source),
        eligible_assignment_statuses=_digest(*sorted(set(settings.eligible_assignment_statuses))),
        mentors_per_invocation=_digest(chunk),
    )


def _digest(*values: str) -> str:
    return sha256("\0".join(values).encode()).hexdigest()[:16]
