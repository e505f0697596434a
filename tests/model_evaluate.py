"""A model of scheduler.evaluate: sliding windows, unique keys behind them, a retry that is told what it sent.

Held against Postgres by tests/postgres/test_model_differential.py. It knows nothing of why somebody is due,
and every mentor is a user of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Notification:
    """A row of scheduler.notifications. `sent_at` in seconds since 1970, where its window begins."""

    mentor_id: UUID
    scenario_type: str
    sent_at: float
    run_id: UUID | None


class ModelEvaluate:
    """`cooldowns` in seconds by scenario type. `is_due(mentor_id, scenario_type)`."""

    def __init__(
        self, cooldowns: Mapping[str, float], is_due: Callable[[UUID, str], bool] = lambda *who: True
    ) -> None:
        self.cooldowns = dict(cooldowns)
        self.is_due = is_due
        self.windows: dict[tuple[UUID, str], float] = {}
        self.notifications: list[Notification] = []
        self._keys: set[tuple[UUID, str, float | str]] = set()
        self._of_run: dict[tuple[UUID, UUID], list[str]] = {}

    def evaluate(
        self,
        mentor_ids: Iterable[UUID],
        scenario_types: Iterable[str],
        *,
        dry_run: bool,
        run_id: UUID | None,
        now: float,
    ) -> dict[UUID, tuple[list[str], list[str]]]:
        """Dispatched and suppressed by mentor, for those with something due. `scenario_types` are enabled."""
        types = sorted(set(scenario_types))
        answers = {}
        for mentor_id in dict.fromkeys(mentor_ids):
            sent = set(() if dry_run or run_id is None else self._of_run.get((run_id, mentor_id), ()))
            due = [each for each in types if self.is_due(mentor_id, each)]
            told = {each for each in types if each in sent}
            for scenario_type in due:
                if self._send(mentor_id, scenario_type, run_id, now, dry_run=dry_run):
                    told.add(scenario_type)
            suppressed = [each for each in due if each not in told]
            if told or suppressed:
                answers[mentor_id] = (sorted(told), suppressed)
        return answers

    def is_open(self, mentor_id: UUID, scenario_type: str, now: float) -> bool:
        """No window, or it has passed."""
        window = self.windows.get((mentor_id, scenario_type))
        return window is None or window + self.cooldowns[scenario_type] <= now

    def is_new(self, mentor_id: UUID, scenario_type: str, now: float) -> bool:
        """Whether neither of the unique keys of the notifications refuses the row."""
        return self._keys.isdisjoint(_keys(mentor_id, scenario_type, now))

    def move_back(self, seconds: float) -> None:
        """As if all that was sent had been sent earlier."""
        self.windows = {key: window - seconds for key, window in self.windows.items()}
        self.notifications = [replace(each, sent_at=each.sent_at - seconds) for each in self.notifications]
        self._keys = set()
        for each in self.notifications:
            self._keys.update(_keys(each.mentor_id, each.scenario_type, each.sent_at))

    def _send(
        self, mentor_id: UUID, scenario_type: str, run_id: UUID | None, now: float, *, dry_run: bool
    ) -> bool:
        if not self.is_open(mentor_id, scenario_type, now):
            return False
        if not self.is_new(mentor_id, scenario_type, now):
            return False  # the window stays where it was
        if dry_run:
            return True
        self.windows[mentor_id, scenario_type] = now
        self._keys.update(_keys(mentor_id, scenario_type, now))
        self.notifications.append(Notification(mentor_id, scenario_type, now, run_id))
        if run_id is not None:
            self._of_run.setdefault((run_id, mentor_id), []).append(scenario_type)
        return True


def _keys(mentor_id: UUID, scenario_type: str, now: float) -> set[tuple[UUID, str, float | str]]:
    return {(mentor_id, scenario_type, now), (mentor_id, scenario_type, f"day {now // DAY:.0f}")}
