"""This file writes down how many bad inputs were tried, where SCHEDULER_TEST_COUNTS names a file for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.counting import write_counts


@pytest.fixture(scope="session", autouse=True)
def _counts() -> Iterator[None]:
    yield
    if name := os.environ.get("SCHEDULER_TEST_COUNTS"):
        write_counts(Path(name))
