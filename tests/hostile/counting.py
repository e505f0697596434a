"""This file is how many bad inputs the tests here try, and counts them for the table in tests/README.md.

Where SCHEDULER_TEST_COUNTS names a file, each kind's count is added to it when the session ends.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

TRIED: Counter[str] = Counter()


def tries(inputs: int) -> settings:
    """So many inputs, and the same ones each time: what is found by chance is for the fuzzer to find."""
    return settings(
        max_examples=inputs, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )


def counted(kind: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Count each call of a test's body, which is one input. Goes below `@given`."""

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def count_and_test(*arguments: Any, **named: Any) -> Any:
            TRIED[kind] += 1
            return test(*arguments, **named)

        return count_and_test

    return decorate


def write_counts(path: Path) -> None:
    path.write_text(json.dumps(TRIED, indent=1, sort_keys=True) + "\n")
