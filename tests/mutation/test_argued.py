"""What is said of mutants is of the code as it stands: files, tests and lines are still there."""

from __future__ import annotations

import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

CONFIGURED = tomllib.loads((HERE / "tests.toml").read_text("utf-8"))
ARGUED = tomllib.loads((HERE / "argued.toml").read_text("utf-8"))["argued"]


def test_every_file_and_every_test_named_is_there() -> None:
    named = [*CONFIGURED, *(path for each in CONFIGURED.values() for path in each["tests"])]
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_every_argued_mutant_breaks_lines_that_are_there() -> None:
    for argued in ARGUED:
        lines = {line.strip() for line in (ROOT / argued["file"]).read_text("utf-8").splitlines()}
        broken = [line for mutant in argued["mutants"] for line in mutant.splitlines()]
        assert broken
        assert [line for line in broken if line[0] == "-" and line[2:] not in lines] == []


def test_every_argument_is_given_once_and_says_why() -> None:
    mutants = [(argued["file"], mutant) for argued in ARGUED for mutant in argued["mutants"]]
    assert len(mutants) == len(set(mutants))
    assert all(argued["why"].endswith(".") for argued in ARGUED)
