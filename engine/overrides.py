"""This file is another configuration for a dry run to try, as a person writes it: `TYPE.PARAM=VALUE`.

What is stored says what can be tried: only params that the scenario has, each once, with a value of the kind
it has, and no number below zero where it has one above. So a slip of the pen is refused with a sentence, and
is not tried on everybody.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from engine.database import Database
from engine.errors import InvalidOverride, StatementFailed
from engine.statements import load_statement

# By scenario type, as scheduler.evaluate takes it: {"params": {"days": 10}, "cooldown": "3 days"}.
Overrides = Mapping[str, Mapping[str, Any]]

_LIST_SCENARIOS = load_statement("list_scenarios")
_TRY_OVERRIDES = load_statement("try_overrides")

_INVALID_PARAMETER_VALUE = "22023"

# What Postgres says of a value that is not of its type, or out of its range. Not a division by zero, say,
# which may be one mentor's: a dry run counts it as that mentor's error.
_UNUSABLE_VALUE = ("22003", "22007", "22008", "22P02")

_COOLDOWN = "cooldown"


async def read_overrides(
    database: Database, assignments: Sequence[str], scenario_types: Sequence[str] | None
) -> Overrides:
    """What these assignments, each `TYPE.PARAM=VALUE` or `TYPE.cooldown=INTERVAL`, ask to be tried.

    `scenario_types` are those of the run, None for every enabled one. Raises InvalidOverride, which names
    what can be overridden, and as `Database.fetch`.

    **Cancellation:** leaves nothing behind.
    """
    rows = await database.fetch(_LIST_SCENARIOS)
    scenarios = {
        row["scenario_type"]: json.loads(row["params"])
        for row in rows
        if row["enabled"] and (scenario_types is None or row["scenario_type"] in scenario_types)
    }
    overrides = parse_overrides(assignments, scenarios)
    try:
        await database.fetch(_TRY_OVERRIDES, list(overrides), json.dumps(overrides))
    except StatementFailed as error:
        if error.sqlstate == _INVALID_PARAMETER_VALUE:
            raise InvalidOverride(
                "A cooldown is an interval of a day or more, such as 3d, 36h or '2 weeks'."
            ) from None
        if error.sqlstate in _UNUSABLE_VALUE:
            names = ", ".join(assignments)
            raise InvalidOverride(
                f"A scenario can't be evaluated with {names} (SQLSTATE {error.sqlstate}); try another value."
            ) from None
        # Anything else is not about these values: the dry run will say what it is.
    return overrides


def parse_overrides(assignments: Iterable[str], scenarios: Mapping[str, Mapping[str, Any]]) -> Overrides:
    """The same from what is known: `scenarios` are the params by scenario type. Raises InvalidOverride."""
    overrides: dict[str, dict[str, Any]] = {}
    assigned: set[str] = set()
    for assignment in assignments:
        target, is_assigned, text = assignment.partition("=")
        scenario_type, is_named, name = target.strip().partition(".")
        if not (is_assigned and is_named):
            raise InvalidOverride(
                f"{assignment} is not of the form TYPE.PARAM=VALUE, such as inactivity.days=10 or "
                "inactivity.cooldown=3d."
            )
        if scenario_type not in scenarios:
            known = ", ".join(sorted(scenarios)) or "none"
            raise InvalidOverride(
                f"{scenario_type} is no scenario that this run evaluates; it evaluates: {known}."
            )
        if target.strip() in assigned:
            raise InvalidOverride(f"{target.strip()} is given twice; a dry run tries one value of each.")
        assigned.add(target.strip())
        override = overrides.setdefault(scenario_type, {})
        if name == _COOLDOWN:
            override[_COOLDOWN] = text.strip()
            continue
        params = scenarios[scenario_type]
        if name not in params:
            known = ", ".join([*sorted(params), _COOLDOWN])
            raise InvalidOverride(f"{scenario_type} has no {name}; it has: {known}.")
        override.setdefault("params", {})[name] = _read_value(target.strip(), text, params[name])
    return overrides


def _read_value(target: str, text: str, stored: Any) -> Any:
    """JSON if it is some, else the text itself; of the kind of the stored one."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        value = text
    if isinstance(stored, str) and not isinstance(value, str):
        value = text  # a text that happens to look like a number
    if stored is not None and not _is_alike(value, stored):
        raise InvalidOverride(f"{target} takes {_kind(stored)}, such as {json.dumps(stored)}.")
    if _is_below(value, stored):
        raise InvalidOverride(f"{target} takes no number below zero; it is {json.dumps(stored)} as stored.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_alike(value: Any, stored: Any) -> bool:
    """Whether it is of the same kind: a whole number for a whole number and so on, in a list as well."""
    if isinstance(stored, list) and stored:
        return isinstance(value, list) and all(_is_alike(each, stored[0]) for each in value)
    if isinstance(stored, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(stored)


def _is_below(value: Any, stored: Any) -> bool:
    """Whether it is below zero where what is stored is above, in a list as well."""
    if isinstance(value, list) and isinstance(stored, list):
        return any(_is_below(each, stored[0]) for each in value if stored)
    if isinstance(value, int | float) and isinstance(stored, int | float):
        return value < 0 < stored
    return False


def _kind(stored: Any) -> str:
    if isinstance(stored, list):
        return "a list"
    if isinstance(stored, dict):
        return "an object"
    if isinstance(stored, bool):
        return "true or false"
    if isinstance(stored, int):
        return "a whole number"
    return "a number" if isinstance(stored, float) else "a text"
