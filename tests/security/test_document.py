"""SECURITY.md names the test of each claim, and each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text("utf-8"))


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 60
    missing = [f"{file}::{name}" for file, name in NAMED if name not in names_in(file)]
    assert missing == []


def test_no_row_of_the_claims_is_without_a_test() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    rows = text.partition("| claim | held by |")[2].partition("\n## ")[0].splitlines()[2:]
    assert [row for row in rows if row.startswith("|") and "::test_" not in row] == []


def names_in(file: str) -> set[str]:
    path = ROOT / file
    if not path.exists():
        return set()
    body = ast.parse(path.read_text("utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
