"""This file is which jobs pg_cron is to have: one that ticks for everything, or one for each scenario.

Those of scenarios run a minute apart. A run holds the lease for its whole budget, half a minute, so that two
at the same minute would meet there, and one of them be turned away, every time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import TickError

TICK = "scenario-scheduler"
PURGE = "scenario-scheduler purge"

_FIELDS = 5
_MINUTES = range(60)


@dataclass(frozen=True, slots=True)
class Job:
    """A job that ticks. `schedule` in pg_cron's five fields; `scenario_types` None for every enabled one."""

    name: str
    schedule: str
    scenario_types: tuple[str, ...] | None = None


def plan_jobs(schedule: str, scenario_types: Sequence[str] | None = None) -> list[Job]:
    """One job, or one for each of the scenario types, a minute apart.

    Raises TickError where the schedule has no room for as many.
    """
    if scenario_types is None:
        return [Job(TICK, schedule)]
    fields = schedule.split()
    if len(fields) != _FIELDS:
        raise TickError(
            f"The schedule {schedule!r} can't be spread over the scenarios; give it the five fields of cron, "
            "such as '*/5 * * * *'."
        )
    minutes = _minutes(fields[0])
    if not minutes:
        raise TickError(
            f"The minutes {fields[0]!r} of the schedule can't be read; write them as cron does, such as */5."
        )
    every_hour = fields[1] == "*"
    jobs, taken = [], set[int]()
    for offset, scenario_type in enumerate(scenario_types):
        moved = {minute + offset for minute in minutes}
        if every_hour:
            moved = {minute % len(_MINUTES) for minute in moved}
        if taken & moved or not moved <= set(_MINUTES):
            raise TickError(
                f"The schedule {schedule!r} has no room for {len(scenario_types)} scenarios a minute apart; "
                f"leave at least {len(scenario_types)} minutes between two ticks, before the end of the hour."
            )
        taken |= moved
        name = f"{TICK} {scenario_type}"
        jobs.append(Job(name, " ".join([_written(moved), *fields[1:]]), (scenario_type,)))
    return jobs


def longest_pause(schedule: str) -> float | None:
    """The seconds between two ticks of a schedule at the most; None where that takes a calendar to say."""
    if match := re.fullmatch(r"(\d{1,2}) seconds?", schedule):
        return float(match[1])
    fields = schedule.split()
    if len(fields) != _FIELDS or fields[2:4] != ["*"] * 2 or not (minutes := sorted(_minutes(fields[0]))):
        return None
    if fields[4] != "*":
        return 7 * 86_400.0
    if fields[1] != "*":
        return 86_400.0
    following = [*minutes[1:], minutes[0] + len(_MINUTES)]
    return 60.0 * max(later - earlier for earlier, later in zip(minutes, following, strict=True))


def _minutes(field: str) -> set[int]:
    """The minutes that a field of cron names: `*`, `7`, `1-9`, with `/step`, lists of these; else none."""
    minutes: set[int] = set()
    for part in field.split(","):
        match = re.fullmatch(r"(\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?", part)
        if match is None:
            return set()
        whole, first, last, step = match.groups()
        if whole == "*":
            first, last = "0", "59"
        begin, end = int(first), int(last or first)
        if not begin <= end < len(_MINUTES) or (step is not None and int(step) == 0):
            return set()
        minutes.update(range(begin, end + 1, int(step or 1)))
    return minutes


def _written(minutes: set[int]) -> str:
    """As short as a person would write it: `2-59/5`, else a list."""
    first, *rest = sorted(minutes)
    if rest:
        step = rest[0] - first
        if {first, *rest} == set(range(first, len(_MINUTES), step)):
            span = "*" if first == 0 else f"{first}-59"
            return span if step == 1 else f"{span}/{step}"
    return ",".join(map(str, sorted(minutes)))
