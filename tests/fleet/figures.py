"""This file keeps what the proofs measured, in tests/figures/fleet.json: a row a figure, with its command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parents[1] / "figures" / "fleet.json"


def write_figures(command: str, figures: Mapping[str, object]) -> None:
    """In place of what the same script wrote before; what other scripts did stays."""
    script = " ".join(command.split()[:3])
    kept: list[dict[str, Any]] = []
    if FIGURES.exists():
        kept = [
            row for row in json.loads(FIGURES.read_text())["rows"] if not row["command"].startswith(script)
        ]
    rows = kept + [{"what": what, "figure": figure, "command": command} for what, figure in figures.items()]
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps({"commit": _commit(), "rows": rows}, indent=1) + "\n")


def _commit() -> str:
    said = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=FIGURES.parent, capture_output=True, text=True, check=True
    )
    return said.stdout.strip()
