"""This file is a run's time budget: moments on trio's clock, fixed when the run is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from engine.settings import Settings

# How long the count of what was left may outlive the hard deadline, in seconds, and at most half of what is
# left until the platform limit. The other half is for a database call that was cut (its shield ends after
# 0.5 s, engine/database.py) and for the way back to the caller.
COUNT_GRACE = 0.5


@dataclass(frozen=True, slots=True)
class Budget:
    """Moments on trio's clock, in seconds.

    No page is begun at or after `soft_threshold`. At `hard_deadline` whatever hangs is cut. At `answered_by`
    the last count is given up, so that the answer is on the wire before `platform_limit`.
    """

    started: float
    soft_threshold: float
    hard_deadline: float
    platform_limit: float

    @property
    def answered_by(self) -> float:
        return self.hard_deadline + min(COUNT_GRACE, (self.platform_limit - self.hard_deadline) / 2)


def budget_from(settings: Settings, started: float) -> Budget:
    """The budget of a run that was asked for at `started`."""
    return Budget(
        started,
        started + settings.soft_threshold,
        started + settings.hard_deadline,
        started + settings.platform_limit,
    )
