"""This file is the count of faults that were injected for real, and the table's rows that are made of it."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

# By kind; of the connections, servers and services of this process to which it was done.
INJECTED: Counter[str] = Counter()


def count(kind: str, times: int = 1) -> None:
    INJECTED[kind] += times


def write_rows(path: Path, rows: Sequence[tuple[str, str]], command: str) -> None:
    """Figures for tests/README.md: what, how much, and the command that found it out."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "commit": described.stdout.strip() or "unknown",
        "rows": [{"what": what, "figure": figure, "command": command} for what, figure in rows],
    }
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
