"""tests/README.md is true: its table is what was kept, its commands can be run, and no folder is left out."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from bench.marked import replace_between
from tests.report import BEGIN, END, README, rows, table

ROOT = README.parents[1]
TEXT = README.read_text("utf-8")


def missing(command: str) -> Iterator[str]:
    """What a command names that is not there: modules, files, folders."""
    for before, word in pairwise(["", *shlex.split(command)]):
        if before == "-m":
            if (ROOT / word.partition(".")[0]).is_dir():
                path = ROOT / word.replace(".", "/")
                is_there = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
            else:
                is_there = importlib.util.find_spec(word) is not None
            if not is_there:
                yield word
        elif _is_path(word) and not (ROOT / _path_of(word)).exists():
            yield word


def _is_path(word: str) -> bool:
    return "/" in word and not word.startswith(("-", "/", ".venv/"))


def _path_of(word: str) -> str:
    """Without the test in it, and without the variable that is set to it."""
    return word.partition("::")[0].rpartition("=")[2]


def test_the_table_is_what_the_script_makes_of_the_figures() -> None:
    assert replace_between(BEGIN, END, table(), TEXT) == TEXT, "python -m tests.report makes it anew"


def test_every_command_that_made_a_figure_names_what_is_there() -> None:
    assert [name for row in rows() for name in missing(row.command)] == []


def test_every_command_of_the_text_names_what_is_there() -> None:
    prose = replace_between(BEGIN, END, "", TEXT)
    blocks = re.findall(r"```\n(.*?)```", prose, re.DOTALL)
    commands = [line.partition("  #")[0] for block in blocks for line in block.splitlines()]
    commands += [span for span in re.findall(r"`([^`\n]+)`", prose) if re.match(r"(\.venv/bin/)?py", span)]
    assert commands
    assert [name for command in commands for name in missing(command)] == []


def test_what_is_not_there_is_noticed() -> None:
    assert list(missing("python -m tests.nothing --worlds 7")) == ["tests.nothing"]
    assert list(missing("pytest tests/engine tests/nothing/test_it.py::test_it")) == [
        "tests/nothing/test_it.py::test_it"
    ]
    there = ["python -m tests.report", "A=tests/figures python -m pytest tests/engine", "pytest -k 'a or b'"]
    assert [name for command in there for name in missing(command)] == []


def test_every_folder_with_tests_has_its_line() -> None:
    told = set(re.findall(r"^\| `(\w+)/` \|", TEXT, re.MULTILINE))
    folders = {path.name for path in README.parent.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders - told == set()


def test_without_figures_the_table_is_empty(tmp_path: Path) -> None:
    assert len(table(tmp_path).splitlines()) == 2


def test_a_figure_is_a_row_with_its_command_and_its_commit(tmp_path: Path) -> None:
    row = '{"what": "a | b", "figure": 3, "command": "python -m tests.soak"}'
    kept = f'{{"commit": "0123456789abcdef-dirty", "rows": [{row}]}}'
    (tmp_path / "soak.json").write_text(kept)
    assert table(tmp_path).splitlines()[2:] == ["| a &#124; b | 3 | `python -m tests.soak` | 0123456-dirty |"]


def test_a_text_without_its_markers_is_not_written_over() -> None:
    with pytest.raises(ValueError, match="put both back"):
        replace_between(BEGIN, END, "table", "no marker")
