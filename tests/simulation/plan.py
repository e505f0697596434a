"""This file is what a world is like and what is to happen in it, drawn from its seed before it begins."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any
from uuid import UUID

from engine.settings import ANSWER_MARGIN
from tests.simulation.weather import (
    DATABASE_FAULTS,
    ENGINE_FAULTS,
    Latency,
    draw_chances,
    draw_latency,
)

IN_DATABASE, BUILT_IN, FOREIGN = "in the database", "built in, over HTTP", "foreign, over HTTP"

SCENARIO_TYPES = ("expiry", "inactivity", "milestone")

HOUR, DAY = 3_600.0, 86_400.0


@dataclass(frozen=True)
class Tick:
    """`at` seconds since the world began. The caller hangs up after `patience`.

    `read_for` seconds went by before, in which the body was read: they are the budget's.
    """

    at: float
    instance: int
    scenario_types: tuple[str, ...] | None = None
    dry_run: bool = False
    patience: float = math.inf
    read_for: float = 0.0


@dataclass(frozen=True)
class Interruption:
    """Of one instance: before the given step of a task of its, or at a moment if that is named.

    `kind`: `kill`, `freeze` or `drain`. `seconds` for which it is frozen, or until it is started again.
    """

    instance: int
    kind: str
    seconds: float
    step: int = 0
    at: float | None = None


@dataclass(frozen=True)
class Outage:
    """`instance` None: nobody reaches the database. `is_silent`: it hangs instead of refusing."""

    begins: float
    ends: float
    instance: int | None
    is_silent: bool


@dataclass(frozen=True)
class Change:
    """Of the population: `mentor_id` comes, or goes."""

    at: float
    mentor_id: UUID
    comes: bool


@dataclass(frozen=True)
class Switch:
    """The operator enables a scenario, or disables it."""

    at: float
    scenario_type: str
    enabled: bool


@dataclass(frozen=True)
class ClockStep:
    """Of the database's clock, in seconds, forward or back."""

    at: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """Everything about a world but the dice that are thrown in it."""

    engine: str
    settings: dict[str, Any]
    mentors: tuple[UUID, ...]
    due: dict[str, float]
    poison: frozenset[UUID]
    rates: tuple[float, ...]
    offsets: tuple[float, ...]
    database_epoch: float
    database_latency: Latency
    engine_latency: Latency
    database_faults: dict[str, float]
    engine_faults: dict[str, float]
    ticks: tuple[Tick, ...]
    looks: tuple[float, ...]
    changes: tuple[Change, ...]
    switches: tuple[Switch, ...]
    interruptions: tuple[Interruption, ...]
    outages: tuple[Outage, ...]
    clock_steps: tuple[ClockStep, ...]

    @property
    def instances(self) -> int:
        return len(self.rates)

    @property
    def clock_may_take_the_lease(self) -> bool:
        """Whether Postgres's clock is put forward by more than the fence allows for."""
        return sum(abs(step.seconds) for step in self.clock_steps) > 1.0

    @property
    def clock_goes_back(self) -> bool:
        return any(step.seconds < 0 for step in self.clock_steps)

    def __str__(self) -> str:
        lines = [f"  {field.name}: {_short(getattr(self, field.name))}" for field in fields(self)]
        return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, UUID):
        return f"{value.int:x}"
    if isinstance(value, (tuple, frozenset)):
        return "(" + ", ".join(_short(each) for each in value) + ")"
    return str(value)


def draw_plan(rng: Random) -> Plan:
    plan = _draw_any(rng)
    return _make_contest(rng, plan) if rng.random() < 0.12 else plan


def _draw_any(rng: Random) -> Plan:
    engine = rng.choice((IN_DATABASE, BUILT_IN, BUILT_IN, FOREIGN))
    mentors = _draw_ids(rng, rng.choice((0, 1, 2, rng.randint(3, 12), rng.randint(10, 40))))
    settings = _draw_settings(rng, engine)
    budget = settings["hard_deadline"]
    instances = rng.choice((1, 1, 2, 2, 3))
    ticks = _draw_ticks(rng, instances, budget, engine)
    ends = ticks[-1].at + budget
    at_once = settings["max_concurrency"]
    # How much of a walk fits into its budget: a tenth of it to ten times as much.
    fits = 10 ** rng.uniform(-1, 1)
    chunks = max(len(mentors) / settings["mentors_per_invocation"], 1)
    seconds_per_chunk = settings["soft_threshold"] * min(at_once, chunks) / chunks / fits
    return Plan(
        engine=engine,
        settings=settings,
        mentors=mentors,
        due={each: rng.choice((0.0, 0.3, 1.0)) for each in SCENARIO_TYPES},
        poison=frozenset(each for each in mentors if rng.random() < rng.choice((0.0, 0.0, 0.1))),
        rates=tuple(rng.choice((1.0, 1.0, rng.uniform(0.95, 1.05))) for _ in range(instances)),
        offsets=tuple(rng.choice((0.0, rng.uniform(0.0, 1e6))) for _ in range(instances)),
        database_epoch=1.7e9 + rng.uniform(0.0, 10 * DAY),
        database_latency=draw_latency(rng, 10 ** rng.uniform(-4, -0.7)),
        engine_latency=draw_latency(rng, min(seconds_per_chunk, 20.0)),
        database_faults=draw_chances(rng, DATABASE_FAULTS),
        engine_faults=draw_chances(rng, ENGINE_FAULTS),
        ticks=ticks,
        looks=tuple(rng.uniform(0.0, ends) for _ in range(rng.randint(0, 3))),
        changes=_draw_changes(rng, mentors, ticks, budget),
        switches=_draw_switches(rng, ticks, budget),
        interruptions=_draw_interruptions(rng, instances, ticks, budget),
        outages=_draw_outages(rng, instances, ticks, budget),
        clock_steps=_draw_clock_steps(rng, ticks, budget),
    )


def _make_contest(rng: Random, plan: Plan) -> Plan:
    """A long run loses sight of its lease, and others ask for it all the time: else this is rare."""
    one_by_one = {"mentors_per_invocation": 1, "page_size": 5, "invocation_timeout": 5.0}
    settings = plan.settings | _draw_budget(rng, 25.0) | one_by_one
    mentors = _draw_ids(rng, rng.randint(20, 60))
    begins = rng.uniform(0.0, 1.0)
    loses_it = begins + rng.uniform(0.5, 12.0)
    lasts = rng.uniform(8.0, 25.0)
    ticks = [Tick(begins, 0), *(Tick(loses_it + 2.0 * number, 1) for number in range(14))]
    interruptions: tuple[Interruption, ...] = ()
    outages: tuple[Outage, ...] = ()
    clock_steps: tuple[ClockStep, ...] = ()
    match rng.choice(("frozen", "cut off", "clock", "overtaken in mid-pass")):
        case "frozen":
            interruptions = (Interruption(0, "freeze", lasts, at=loses_it),)
        case "cut off":
            outages = (Outage(loses_it, loses_it + lasts, 0, is_silent=rng.random() < 0.5),)
        case "clock":
            clock_steps = (ClockStep(loses_it, rng.uniform(9.0, 30.0)),)
        case _:
            interruptions = (Interruption(0, "freeze", lasts, step=rng.randint(100, 600)),)
    seconds_per_mentor = 25.0 * settings["max_concurrency"] / len(mentors)
    return replace(
        plan,
        settings=settings,
        mentors=mentors,
        poison=frozenset(),
        rates=(*plan.rates, 1.0, 1.0)[:2],
        offsets=(*plan.offsets, 0.0, 0.0)[:2],
        engine_latency=Latency(
            rng.choice(("fixed", "even")), min(seconds_per_mentor * rng.uniform(0.6, 2.0), 4.0)
        ),
        database_latency=draw_latency(rng, 10 ** rng.uniform(-4, -2)),
        ticks=tuple(ticks),
        looks=(),
        changes=_draw_changes(rng, mentors, tuple(ticks[:1]), 25.0),
        interruptions=interruptions,
        outages=outages,
        clock_steps=clock_steps,
    )


def _draw_ids(rng: Random, count: int) -> tuple[UUID, ...]:
    match rng.choice(("random", "clustered", "at the ends")):
        case "random":
            numbers = {rng.getrandbits(128) for _ in range(count)}
        case "clustered":
            first = rng.getrandbits(128) % (2**128 - 1000)
            numbers = {first + rng.randrange(3 * count) for _ in range(count)}
        case _:
            low = rng.randint(0, count)
            numbers = {*range(low), *(2**128 - 1 - each for each in range(count - low))}
    return tuple(UUID(int=number) for number in sorted(numbers))


def _draw_settings(rng: Random, engine: str) -> dict[str, Any]:
    page_size = rng.randint(1, 12)
    soft = rng.choice((rng.uniform(0.5, 3.0), rng.uniform(3.0, 12.0), 25.0))
    return _draw_budget(rng, soft) | {
        "page_size": page_size,
        "mentors_per_invocation": rng.choice((1, rng.randint(1, page_size), page_size)),
        "max_concurrency": rng.choice((1, 2, rng.randint(1, 10), 10)),
        "invocation_timeout": rng.choice((rng.uniform(0.2, 2.0), 5.0, 30.0)),
        "freshness_limit": 900.0,
    }


def _draw_budget(rng: Random, soft: float) -> dict[str, float]:
    hard = soft + rng.uniform(0.1, 4.0)
    return {
        "soft_threshold": soft,
        "hard_deadline": hard,
        "platform_limit": hard + ANSWER_MARGIN + 0.01,
    }


def _draw_ticks(rng: Random, instances: int, budget: float, engine: str) -> tuple[Tick, ...]:
    at = rng.uniform(0.0, 1.0)
    pause = rng.choice(("none", "short", "budget", "minutes", "days"))
    types = rng.choice((None, None, None, ("expiry",), "mixed"))
    ticks = []
    for _ in range(rng.randint(2, 6)):
        asked = rng.choice((None, ("expiry",), ("inactivity", "milestone"))) if types == "mixed" else types
        ticks.append(
            Tick(
                at,
                rng.randrange(instances),
                asked,  # type: ignore[arg-type]
                dry_run=rng.random() < 0.08,
                patience=rng.uniform(0.0, budget) if rng.random() < 0.1 else math.inf,
                read_for=rng.uniform(0.0, 1.0) if rng.random() < 0.1 else 0.0,
            )
        )
        match pause:
            case "none":
                at += rng.uniform(0.0, 0.5)
            case "short":
                at += rng.uniform(0.5, 5.0)
            case "budget":
                at += rng.uniform(0.5, 1.5) * budget
            case "minutes":
                at += rng.uniform(60.0, 600.0)
            case _:
                at += rng.choice((budget + 15.0, HOUR, DAY, 3 * DAY, 7.5 * DAY))
    return tuple(ticks)


def _draw_moment(rng: Random, ticks: tuple[Tick, ...], budget: float) -> float:
    """Mostly while a run is under way."""
    if rng.random() < 0.2:
        return rng.uniform(0.0, ticks[-1].at + budget)
    return rng.choice(ticks).at + rng.uniform(0.0, budget)


def _draw_changes(
    rng: Random, mentors: tuple[UUID, ...], ticks: tuple[Tick, ...], budget: float
) -> tuple[Change, ...]:
    if rng.random() < 0.4:
        return ()
    changes = []
    known = list(mentors)
    for _ in range(rng.randint(1, 12)):
        at = _draw_moment(rng, ticks, budget)
        if known and rng.random() < 0.5:
            changes.append(Change(at, rng.choice(known), comes=False))
        else:
            near = rng.choice(known).int + rng.randint(1, 3) if known else 0
            number = rng.choice((rng.getrandbits(128), min(near, 2**128 - 1)))
            known.append(UUID(int=number))
            changes.append(Change(at, known[-1], comes=True))
    return tuple(changes)


def _draw_switches(rng: Random, ticks: tuple[Tick, ...], budget: float) -> tuple[Switch, ...]:
    """Off and on again, within a run or across some."""
    if rng.random() < 0.8:
        return ()
    scenario_type = rng.choice(SCENARIO_TYPES)
    at = _draw_moment(rng, ticks, budget)
    until = at + rng.choice((rng.uniform(0.1, 2.0), rng.uniform(1.0, 2 * budget)))
    return Switch(at, scenario_type, False), Switch(until, scenario_type, True)


def _draw_interruptions(
    rng: Random, instances: int, ticks: tuple[Tick, ...], budget: float
) -> tuple[Interruption, ...]:
    if rng.random() < 0.3:
        return ()
    drawn = []
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(("kill", "freeze", "freeze", "drain"))
        if kind == "freeze":
            seconds = rng.choice((rng.uniform(0.1, 3.0), rng.uniform(5.0, 14.0), rng.uniform(10.0, 60.0)))
        else:
            seconds = rng.uniform(0.1, 15.0)
        at = None if rng.random() < 0.7 else _draw_moment(rng, ticks, budget)
        step = int(10 ** rng.uniform(1.3, 3.5))
        drawn.append(Interruption(rng.randrange(instances), kind, seconds, step, at))
    return tuple(drawn)


def _draw_outages(rng: Random, instances: int, ticks: tuple[Tick, ...], budget: float) -> tuple[Outage, ...]:
    if rng.random() < 0.5:
        return ()
    drawn = []
    for _ in range(rng.randint(1, 2)):
        begins = rng.choice(ticks).at + rng.uniform(0.0, budget)
        drawn.append(
            Outage(
                begins,
                begins + rng.choice((rng.uniform(0.1, 3.0), rng.uniform(5.0, 25.0))),
                instance=rng.choice((None, rng.randrange(instances))),
                is_silent=rng.random() < 0.5,
            )
        )
    return tuple(drawn)


def _draw_clock_steps(rng: Random, ticks: tuple[Tick, ...], budget: float) -> tuple[ClockStep, ...]:
    kind = rng.choice(("none",) * 6 + ("small", "small", "forward", "back"))
    match kind:
        case "none":
            return ()
        case "small":
            moments = [_draw_moment(rng, ticks, budget) for _ in range(2)]
            return tuple(ClockStep(moment, rng.uniform(0.0, 0.5)) for moment in moments)
        case "forward":
            return (ClockStep(_draw_moment(rng, ticks, budget), 10 ** rng.uniform(0, 5.5)),)
        case _:
            return (ClockStep(_draw_moment(rng, ticks, budget), -(10 ** rng.uniform(-1, 4))),)
