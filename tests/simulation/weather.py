"""This file is how long things take, and what goes wrong with them, drawn from a world's seed and counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

# What may become of a statement.
DATABASE_FAULTS = (
    "database: connection lost before it took effect",
    "database: answer lost after it took effect",
    "database: hangs before it takes effect",
    "database: hangs after it took effect",
    "database: takes effect long after it was given up",
    "database: statement cancelled (57014)",
    "database: serialization failure (40001)",
)
LOST, ANSWER_LOST, HANGS, HANGS_AFTER, LATE, CANCELED, CONFLICT = DATABASE_FAULTS

# What may become of an invocation.
ENGINE_FAULTS = (
    "engine: connection refused",
    "engine: connection reset before it acted",
    "engine: connection reset after it acted",
    "engine: connection cut in mid-answer",
    "engine: hangs",
    "engine: acts long after it was given up",
    "engine: status 400",
    "engine: status 401",
    "engine: status 429",
    "engine: status 429 with Retry-After",
    "engine: status 500",
    "engine: status 503",
    "engine: status 503 with Retry-After",
    "engine: redirect",
    "engine: answer too long",
    "engine: answer of a wrong shape",
    "engine: answer about somebody else",
    "engine: answer with an error for one mentor",
    "engine: answer that leaves a mentor out",
    "engine: answer that has a mentor twice",
)
REFUSED, RESET, RESET_AFTER, CUT, ENGINE_HANGS, ENGINE_LATE = ENGINE_FAULTS[:6]
BAD_REQUEST, UNAUTHORIZED, TOO_MANY, TOO_MANY_AFTER, BROKEN, UNAVAILABLE = ENGINE_FAULTS[6:12]
UNAVAILABLE_AFTER, REDIRECT, OVERSIZE, WRONG_SHAPE, FOREIGN_ID = ENGINE_FAULTS[12:17]
MENTOR_ERROR, MISSING, TWICE = ENGINE_FAULTS[17:]

STATUSES = {
    BAD_REQUEST: 400,
    UNAUTHORIZED: 401,
    TOO_MANY: 429,
    TOO_MANY_AFTER: 429,
    BROKEN: 500,
    UNAVAILABLE: 503,
    UNAVAILABLE_AFTER: 503,
    REDIRECT: 307,
}


@dataclass(frozen=True)
class Latency:
    """Seconds, around `scale`. `lognormal` as a busy engine's are, of a deviation of 1."""

    kind: str
    scale: float

    def draw(self, rng: Random) -> float:
        match self.kind:
            case "none":
                return 0.0
            case "fixed":
                return self.scale
            case "even":
                return rng.uniform(0.0, 2 * self.scale)
        return self.scale * math.exp(rng.gauss(0.0, 1.0))


def draw_latency(rng: Random, scale: float) -> Latency:
    return Latency(rng.choice(("none", "fixed", "even", "lognormal")), scale)


@dataclass
class Weather:
    """`database` and `engine` say of each fault in how many calls of one it happens."""

    rng: Random
    database: Mapping[str, float]
    engine: Mapping[str, float]
    counted: Counter[str] = field(default_factory=Counter)
    is_calm: bool = False

    def of_statement(self) -> str | None:
        return self._draw(self.database)

    def of_invocation(self) -> str | None:
        return self._draw({fault: chance for fault, chance in self.engine.items() if fault != REFUSED})

    def of_connecting(self) -> str | None:
        """Connections are kept: there are fewer of them than invocations."""
        return self._draw({REFUSED: 3 * self.engine[REFUSED]} if REFUSED in self.engine else {})

    def count(self, fault: str) -> None:
        self.counted[fault] += 1

    def _draw(self, chances: Mapping[str, float]) -> str | None:
        if not chances or self.is_calm:
            return None
        drawn = self.rng.random()
        for fault, chance in chances.items():
            drawn -= chance
            if drawn < 0:
                self.count(fault)
                return fault
        return None


def draw_chances(rng: Random, faults: Sequence[str]) -> dict[str, float]:
    """A few of the faults, seldom or often; together in less than half of all calls."""
    if rng.random() < 0.3:
        return {}
    some = rng.sample(faults, rng.randint(1, 4))
    return {fault: rng.choice((0.01, 0.03, 0.1)) for fault in some}
