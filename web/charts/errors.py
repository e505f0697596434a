"""This file is the errors by class: how many mentors, in how many runs, and what to do about each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from engine import RunRecord
from web.charts.scale import percent

_ADVICE = {
    "timeout": "The trigger engine takes too long (`SCHEDULER_INVOCATION_TIMEOUT`): see its log.",
    "connection_refused": "Nobody answers at `SCHEDULER_TRIGGER_ENGINE`: is it up?",
    "connection_reset": "The trigger engine ends connections: see its log.",
    "connection_cut": "The trigger engine ends connections in mid-answer: see its log.",
    "http_401": "The trigger engine refuses the key: check `SCHEDULER_SERVICE_ROLE_KEY`.",
    "http_403": "The trigger engine refuses the key: check `SCHEDULER_SERVICE_ROLE_KEY`.",
    "http_404": "There is nothing at `SCHEDULER_TRIGGER_ENGINE`: check its path.",
    "http_429": "The trigger engine is asked too often: lower `SCHEDULER_MAX_CONCURRENCY`.",
    "redirect": "The trigger engine redirects: give `SCHEDULER_TRIGGER_ENGINE` its final URL.",
    "mentor_error": "The trigger engine answered that it could not evaluate these mentors: see its log.",
}

# By the beginning of the class, for all others.
_ADVICE_BY_PREFIX = {
    "http_5": "The trigger engine has an error of its own: see its log.",
    "http_4": "The trigger engine refuses what it is asked: see its log.",
    "sql_": "Postgres refuses the evaluation, with this SQLSTATE: see its log, and the scenario's function.",
    "": "The trigger engine's answer is not what the README asks for: see its log.",
}


@dataclass(frozen=True, slots=True)
class ErrorClass:
    name: str
    mentors: int
    runs: int
    in_latest: int
    width: str
    advice: str


def draw_errors(runs: Sequence[RunRecord]) -> list[ErrorClass]:
    """Most mentors first. `runs` newest first."""
    mentors: Counter[str] = Counter()
    affected: Counter[str] = Counter()
    for record in runs:
        mentors.update(record.errors)
        affected.update(record.errors.keys())
    most = max(mentors.values(), default=0)
    return [
        ErrorClass(
            name=name,
            mentors=count,
            runs=affected[name],
            in_latest=runs[0].errors.get(name, 0),
            width=percent(count / most),
            advice=advise_on(name),
        )
        for name, count in sorted(mentors.items(), key=lambda item: (-item[1], item[0]))
        if count
    ]


def advise_on(error_class: str) -> str:
    if error_class in _ADVICE:
        return _ADVICE[error_class]
    return next(advice for prefix, advice in _ADVICE_BY_PREFIX.items() if error_class.startswith(prefix))
