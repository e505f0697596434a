"""This file keeps what a benchmark measured: one JSON a script, with where and when it was measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, figures: dict[str, Any]) -> None:
    """Write `bench/results/<name>.json`. Times in seconds unless a name says otherwise."""
    measured = {
        "commit": describe_commit(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "figures": figures,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(measured, indent=1) + "\n")


def read_result(name: str) -> dict[str, Any] | None:
    """What was measured last, or None."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def describe_commit() -> str:
    """The commit measured, marked if files differed from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=RESULTS,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"
