"""This file is what a check says: it holds, or what was found instead and what mends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.doctor.installation import Installation


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `found` says in words what is there; `mend` what to do, None where there is nothing to do.

    Neither holds a secret, a password, or the id of a mentor or user.
    """

    check: str
    ok: bool
    found: str
    mend: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {"check": self.check, "ok": self.ok, "found": self.found, "mend": self.mend}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finding of which it is not said yet which check it belongs to."""

    ok: bool
    found: str
    mend: str | None = None


def holds(found: str) -> Outcome:
    return Outcome(True, found)


def broken(found: str, mend: str) -> Outcome:
    return Outcome(False, found, mend)


# Looks at one thing and changes nothing. Raises SchedulerError where it can't look.
# Cancellation: leaves nothing behind.
Check = Callable[["Installation"], Awaitable[Outcome]]
