"""This file writes the table of tests/README.md from the figures that were kept last.

    python -m tests.report

What runs by hand keeps its figures as tests/figures/<name>.json:

    {"commit": "<what was tested>", "rows": [{"what": "…", "figure": "…", "command": "…"}, …]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.marked import replace_between

README = Path(__file__).parent / "README.md"
FIGURES = Path(__file__).parent / "figures"
BEGIN, END = "<!-- figures: python -m tests.report -->", "<!-- end of figures -->"


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    figure: str
    command: str
    commit: str


def rows(folder: Path = FIGURES) -> Iterator[Row]:
    """Those of every file that is there, in the order of their names."""
    for path in sorted(folder.glob("*.json")):
        kept = json.loads(path.read_text("utf-8"))
        for row in kept["rows"]:
            yield Row(row["what"], str(row["figure"]), row["command"], kept["commit"])


def table(folder: Path = FIGURES) -> str:
    lines = ["| what | figure | made by | at |", "|---|---|---|---|"]
    for row in rows(folder):
        cells = (row.what, row.figure, f"`{row.command}`", _shortened(row.commit))
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines)


def _shortened(commit: str) -> str:
    return re.sub(r"^([0-9a-f]{7})[0-9a-f]*", r"\1", commit)


def main() -> None:
    text = README.read_text("utf-8")
    README.write_text(replace_between(BEGIN, END, table(), text), "utf-8")
    print(table())


if __name__ == "__main__":
    main()
