"""This file is a traceback that can be logged: where and what kind, and nobody's data.

An exception's message is written by whoever raised it, and quotes what it choked on: the key that is missing,
the argument of a statement, a part of an answer. So messages are told of our own errors only, which are
written to be read. The lines of code that Python shows hold no values.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from textwrap import indent

from engine import SchedulerError

_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def format_traceback(error: BaseException) -> str:
    """As Python's own, what led to it first, with the members of a group behind it; without the messages."""
    return "".join(_lines(error, set())).rstrip("\n")


def _lines(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before, link = error.__cause__, _CAUSE
    if before is None and not error.__suppress_context__:
        before, link = error.__context__, _CONTEXT
    if before is not None and id(before) not in seen:
        yield from _lines(before, seen)
        yield link
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):\n"
        yield from traceback.format_tb(error.__traceback__)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    yield f"{name}: {error}\n" if isinstance(error, SchedulerError) else f"{name}\n"
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            if id(member) not in seen:
                yield indent("".join(_lines(member, seen)), "  | ")
