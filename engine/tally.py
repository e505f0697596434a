"""This file is what a run has counted, and the summary that answers for it.

The accounting identity, `total = evaluated + errors + unprocessed`, holds by construction: the only
numbers kept are what was fetched and what became of it. What was fetched and has neither been evaluated nor
failed is unprocessed, whoever cut it; the total is the sum of the parts and never a number of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

import structlog

from engine.invocations import Invocations
from engine.remedies import remedy_of
from engine.trigger.protocol import Evaluation

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Error classes of one run that are logged when they first occur. A bad day brings three; but a scenario
# function may raise any SQLSTATE it likes.
CLASSES_LOGGED = 20


class StopReason(StrEnum):
    """Why a run ended."""

    FINISHED = "finished"
    SOFT_THRESHOLD = "soft_threshold"
    HARD_DEADLINE = "hard_deadline"
    DRAINING = "draining"
    DATABASE_UNAVAILABLE = "database_unavailable"
    LEASE_LOST = "lease_lost"
    FLEET_UNAVAILABLE = "fleet_unavailable"


class Tally:
    """The counts of a run while it runs; read it at any time, it is never inconsistent between two awaits."""

    def __init__(self) -> None:
        self.fetched = 0
        self.evaluated = 0
        self.errors: Counter[str] = Counter()
        self.dispatched: Counter[str] = Counter()
        self.suppressed: Counter[str] = Counter()
        self.invocations = Invocations()

    @property
    def in_hand(self) -> int:
        """Mentors fetched of whom nothing is known yet."""
        return self.fetched - self.evaluated - self.errors.total()

    def count_fetched(self, mentors: int) -> None:
        self.fetched += mentors

    def count_evaluation(self, mentors: int, evaluation: Evaluation) -> int:
        """An answer for that many mentors; those it names as errors were not evaluated.

        Returns how many were.
        """
        failed = 0
        for error_class, count in evaluation.errors.items():
            self.count_failure(count, error_class)
            failed += count
        for scenario_type, count in evaluation.dispatched.items():
            self.dispatched[scenario_type] += count
        for scenario_type, count in evaluation.suppressed.items():
            self.suppressed[scenario_type] += count
        self.evaluated += mentors - failed
        return mentors - failed

    def count_failure(self, mentors: int, error_class: str) -> None:
        """So many mentors could not be evaluated, and will not be asked about again in this run.

        The first of a class is logged at once; how many there were is said when the run has ended.
        """
        if error_class not in self.errors and len(self.errors) < CLASSES_LOGGED:
            log.warning(
                "first_error_of_class",
                error_class=error_class,
                mentors=mentors,
                remedy=remedy_of(error_class),
            )
        self.errors[error_class] += mentors


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run answers with. Counts of mentors and notifications; nothing that names one of them."""

    total_active_mentors: int
    total_evaluated: int
    total_dispatched: int
    total_suppressed: int
    total_errors: int
    duration_ms: int
    completed: bool
    partial: bool
    total_unprocessed: int
    remaining_known: bool
    stop_reason: StopReason
    run_id: UUID

    def as_json(self) -> dict[str, Any]:
        """The fields in their documented order, ready for `json.dumps`."""
        return asdict(self) | {"run_id": str(self.run_id)}


def summarise(
    tally: Tally, *, unfetched: int | None, ended_by: StopReason, duration: float, run_id: UUID
) -> Summary:
    """Close the accounts of a run.

    `unfetched`: mentors on pages that were never fetched, None where that could not be counted. `ended_by`
    is what cut the walk short; a run that left nothing is finished, whatever happened to it. `duration` in
    seconds.
    """
    unprocessed = tally.in_hand + (unfetched or 0)
    errors = tally.errors.total()
    completed = unprocessed == 0 and unfetched is not None
    return Summary(
        total_active_mentors=tally.evaluated + errors + unprocessed,
        total_evaluated=tally.evaluated,
        total_dispatched=tally.dispatched.total(),
        total_suppressed=tally.suppressed.total(),
        total_errors=errors,
        duration_ms=round(duration * 1000),
        completed=completed,
        partial=not completed,
        total_unprocessed=unprocessed,
        remaining_known=unfetched is not None,
        stop_reason=StopReason.FINISHED if completed else ended_by,
        run_id=run_id,
    )
