"""This file counts the bad inputs that the tests of this folder try, into tests/figures/hostile.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FIGURES = Path(__file__).parents[1] / "figures" / "hostile.json"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts.json"
        tests = [sys.executable, "-m", "pytest", "-q", "tests/hostile"]
        subprocess.run(tests, env=os.environ | {"SCHEDULER_TEST_COUNTS": str(counts)}, check=True)
        tried = json.loads(counts.read_text())
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    rows = [
        {
            "what": f"bad inputs tried: {kind}",
            "figure": f"{tried[kind]:,}, 0 violations",
            "command": "python -m tests.hostile",
        }
        for kind in sorted(tried)
    ]
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps({"commit": commit, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
