"""This file is how numbers are said to people: spans of time, counts, shares."""

from __future__ import annotations

# Between a number and its unit, which belong on one line.
_GLUE = "\u00a0"


def span(seconds: float) -> str:
    """One unit, or two where the second one matters: `40 s`, `17 min`, `1 h 5 min`, `3 days`."""
    return _span(seconds).replace(" ", _GLUE)


def _span(seconds: float) -> str:
    if seconds < 0.95:
        return f"{max(seconds, 0):.1f} s"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    if seconds < 89.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days = round(seconds / 86_400)
    return "1 day" if days == 1 else f"{days} days"


def share(part: float, whole: float) -> str:
    """In percent, such that 0% is none of it and 100% all of it."""
    if not part or not whole:
        return "0%"
    percent = 100 * part / whole
    if part < whole:
        percent = min(percent, 99.9)
    if percent < 0.1:
        return "under 0.1%"
    return f"{percent:.1f}".removesuffix(".0") + "%" if percent < 10 or percent > 99 else f"{percent:.0f}%"


def count_of(number: int, noun: str) -> str:
    """`1 run`, `12,000 runs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
