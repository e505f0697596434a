"""What the tests of faults share: services of their own, a run looked at from all sides, the figures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import StartService, open_services
from tests.faults.injected import INJECTED, write_rows

COMMAND = "SCHEDULER_TEST_FIGURES=tests/figures pytest tests/faults tests/end_to_end/test_adversity.py"


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[StartService]:
    """Start a service with these settings and wait until it serves; killed with the test."""
    with open_services(tmp_path) as start:
        yield start


def pytest_sessionfinish() -> None:
    """Keep what was counted, if a folder for figures was named."""
    if folder := os.environ.get("SCHEDULER_TEST_FIGURES"):
        rows = [(f"faults injected for real: {kind}", str(INJECTED[kind])) for kind in sorted(INJECTED)]
        write_rows(Path(folder) / "faults.json", rows, COMMAND)
