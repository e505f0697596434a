"""This file breaks the core in every way that mutmut knows, and tells what no test noticed.

    pip install mutmut==3.8.1           # beside the extra `dev`; no extra of the project has it
    python -m tests.mutation            # all files of tests.toml; writes tests/figures/mutation.json
    python -m tests.mutation FILE …     # some of them

tests.toml names the tests that ought to notice; argued.toml says of a mutant that survives why there is
nothing to notice. Whatever else survives is printed, and the exit code is 1. It all happens in a copy.

What mutmut leaves alone: whatever is decorated (properties, context managers, dataclasses), and whatever
stands outside of functions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.results import describe_commit

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FIGURES = ROOT / "tests" / "figures" / "mutation.json"

PACKAGES = ("engine", "web")

# What an exit code says of a mutant: no test failed, or none was run; one failed. With any other it was ended
# because its tests did not come to an end.
UNNOTICED, NOTICED = (0, 5, 33), (1, 3)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the mutants of one file; a mutant is its changed lines, as in a diff."""

    file: str
    mutants: int
    endless: Sequence[str]
    argued: Sequence[str]
    unanswered: Sequence[str]


def row(what: str, command: str, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """A row of the figures."""
    mutants = sum(each.mutants for each in outcomes)
    argued = sum(len(each.argued) for each in outcomes)
    unanswered = sum(len(each.unanswered) for each in outcomes)
    figure = f"{mutants - argued - unanswered} of {mutants}, {argued} argued, {unanswered} unanswered"
    return {"what": f"mutants of {what} that a test noticed", "figure": figure, "command": command}


def break_in_every_way(file: str, tests: Sequence[str], only: str | None = None) -> Outcome:
    """Run these tests on every mutant of the file. `only` as pytest's -k."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as temporary:
        folder = Path(temporary)
        _copy_to(folder)
        (folder / "setup.cfg").write_text(_configuration(folder, file, tests, only))
        _mutmut(folder, "run")
        kept = json.loads((folder / "mutants" / f"{file}.meta").read_text("utf-8"))["exit_code_by_key"]
        survivors = [_changed_lines(folder, name) for name, code in kept.items() if code in UNNOTICED]
        ended = (*UNNOTICED, *NOTICED)
        endless = [_changed_lines(folder, name) for name, code in kept.items() if code not in ended]
    argued = _argued_of(file)
    return Outcome(
        file,
        mutants=len(kept),
        endless=endless,
        argued=[lines for lines in survivors if lines in argued],
        unanswered=[lines for lines in survivors if lines not in argued],
    )


def _copy_to(folder: Path) -> None:
    """All that git knows of, as it stands here."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True
    )
    for name in listed.stdout.decode().split("\0"):
        if (path := ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, folder / name)


def _configuration(folder: Path, file: str, tests: Sequence[str], only: str | None) -> str:
    settings: dict[str, Iterable[object]] = {
        "source_paths": PACKAGES,
        "only_mutate": [file],
        "also_copy": [path.name for path in folder.iterdir() if path.name not in PACKAGES],
        "pytest_add_cli_args_test_selection": [*tests, *(["-k", only] if only else [])],
        # A slow machine is no reason for a property test to fail.
        "pytest_add_cli_args": ["--hypothesis-profile=ci"],
        # A walk that does not end costs no time but the processor's: (the tests' time + 10 s) × 6 at most.
        "timeout_constant": [10.0],
        "timeout_multiplier": [6.0],
    }
    lines = [f"{name}=" + "\n    ".join(map(str, values)) for name, values in settings.items()]
    return "\n".join(["[mutmut]", *lines, ""])


def _mutmut(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "mutmut", *arguments]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"mutmut did not come to its end:\n{done.stdout[-5000:]}{done.stderr[-5000:]}")
    return done.stdout


def _changed_lines(folder: Path, mutant: str) -> str:
    command = [sys.executable, "-m", "mutmut", "show", mutant]
    shown = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    changed = [
        line for line in shown.splitlines() if line[:1] in ("-", "+") and line[:3] not in ("---", "+++")
    ]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in changed)


def _argued_of(file: str) -> set[str]:
    return {mutant.strip() for each in _arguments() if each["file"] == file for mutant in each["mutants"]}


def _arguments() -> list[dict[str, Any]]:
    return list(tomllib.loads((HERE / "argued.toml").read_text("utf-8")).get("argued", []))


def main() -> None:
    os.nice(19)  # it takes a while, and nobody waits for it
    configured = tomllib.loads((HERE / "tests.toml").read_text("utf-8"))
    outcomes, rows = [], []
    for file in sys.argv[1:] or configured:
        outcome = break_in_every_way(file, **configured[file])
        outcomes.append(outcome)
        rows.append(row(file, f"python -m tests.mutation {file}", [outcome]))
        print(f"\n{rows[-1]['what']}: {rows[-1]['figure']}", flush=True)
        for title in ("endless", "unanswered"):
            for lines in getattr(outcome, title):
                print(f"\n{title}:\n{lines}", flush=True)
    if not sys.argv[1:]:
        rows.append(row("all of these", "python -m tests.mutation", outcomes))
        figures = {"commit": describe_commit(), "rows": rows}
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    sys.exit(any(outcome.unanswered for outcome in outcomes))


if __name__ == "__main__":
    main()
