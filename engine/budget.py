"""This file is a run's time budget: moments on trio's clock, fixed when the run is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from engine.settings import Settings

# Seconds for which the count of what was left may outlive the hard deadline.
COUNT_GRACE = 0.5

# Seconds that an answer waits for the verdict to be in the ledger.
LAST_WRITE_GRACE = 0.5


@dataclass(frozen=True, slots=True)
class Budget:
    """Moments on trio's clock, in seconds.

    No page is begun at or after `soft_threshold`. At `hard_deadline` whatever hangs is cut. At `counted_by`
    the last count is given up. A database call that is cut may take RELEASE_TIMEOUT more
    (engine/database.py), for which the settings leave room before the platform limit.
    """

    started: float
    soft_threshold: float
    hard_deadline: float

    @property
    def counted_by(self) -> float:
        return self.hard_deadline + COUNT_GRACE


def budget_from(settings: Settings, started: float) -> Budget:
    """The budget of a run that was asked for at `started`."""
    return Budget(started, started + settings.soft_threshold, started + settings.hard_deadline)
