"""This file is how often somebody may try to log in: at will at first, then less and less often.

A token of 32 characters, the least that the settings take, is not guessed; this is for one that somebody made
up. It counts for the whole process and not by address: behind a proxy all have the same, and so its memory is
two numbers. A stranger can keep the operator from the form with it, for LONGEST_PAUSE at a time, but not from
the token as a bearer.

For that reason the form alone is limited. Wrong bearers are refused as fast as they come, and logged; if they
counted here, a stranger could lock out whoever sends the right one. Against guessing those, the length of the
token is the defence.
"""

from __future__ import annotations

import trio

# Failures without a pause: somebody who pastes the wrong thing.
FREE_FAILURES = 5

# Seconds after the next one, twice as many after each one more, and at most: 2,880 tries a day.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0

# Seconds without a failure after which they are forgotten.
FORGOTTEN_AFTER = 900.0


class LoginAttempts:
    """Awaits nothing, so however many try at once are counted one by one."""

    def __init__(self) -> None:
        self._failures = 0
        self._last_failure_at = float("-inf")

    def pause_left(self) -> float:
        """Seconds until somebody may try again, 0 if at once. Until then the right token is refused too."""
        return max(self._last_failure_at + self._pause() - trio.current_time(), 0.0)

    def count_failure(self) -> None:
        now = trio.current_time()
        if now - self._last_failure_at >= FORGOTTEN_AFTER:
            self._failures = 0
        self._failures += 1
        self._last_failure_at = now

    def forget(self) -> None:
        """Somebody logged in."""
        self._failures = 0

    def _pause(self) -> float:
        if self._failures <= FREE_FAILURES:
            return 0.0
        doublings = min(self._failures - FREE_FAILURES - 1, 16)
        return min(FIRST_PAUSE * 2.0**doublings, LONGEST_PAUSE)
