"""This file is how the engine finds its SQL: one statement a file, named for the function that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement and the name it goes by in errors."""

    name: str
    sql: str


@cache
def load_statement(name: str) -> Statement:
    """The statement of `engine/sql/statements/<name>.sql`."""
    return Statement(name, files("engine.sql").joinpath("statements", f"{name}.sql").read_text("utf-8"))
