"""This file is the errors by class: how many mentors, in how many runs, and what to do about each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from engine import RunRecord, remedy_of
from web.charts.scale import percent

# Of a class that nothing is known about.
_ELSE = "The trigger engine's answer is not what the README asks for: see its log."


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
    """What the log says of it as well."""
    return remedy_of(error_class) or _ELSE
