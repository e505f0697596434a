"""This file is the fuzzer: coverage-guided, outside CI, over the oracles of tests/hostile.

    pip install atheris==3.0.0          # CPython 3.11 to 3.13 on Linux; not an extra of pyproject: see below
    nice -n 19 python -m tests.hostile.fuzz direct --seconds 300
    python -m tests.hostile.fuzz all --seconds 300 --json tests/figures/fuzz.json

Atheris has wheels for a few versions of CPython on Linux alone, so it is not among the test extras, which
have to install wherever the service does. What crashes is kept in tests/hostile/fuzz/crashes and is from then
on an input of tests/hostile/test_crashes.py; the corpus it grows goes to a temporary folder.

Each target is one process: libFuzzer ends the one that it runs in.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Of tests/hostile/fuzz/targets.py, which is imported only once its imports are instrumented.
TARGETS = {
    "direct": "direct answers",
    "results": "results",
    "requests": "requests",
    "environments": "environments",
    "messages": "fleet messages",
}

CRASHES = Path(__file__).parent / "crashes"


def fuzz(name: str, seconds: int, corpus: Path) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    # The parser that ours is compared with as well: it leads to what an answer can be.
    with atheris.instrument_imports(include=["engine", "web", "tests", "h11", "urllib", "json", "werkzeug"]):
        from tests.hostile.fuzz.targets import make_target
    target = make_target(name)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        f"-artifact_prefix={CRASHES}/{name}-",
        "-print_final_stats=1",
        "-max_len=2048",
        "-timeout=20",
        "-rss_limit_mb=1024",
    ]
    atheris.Setup(arguments, target.check)
    atheris.Fuzz()


def run_apart(name: str, seconds: int) -> dict[str, str]:
    """A row of tests/figures/fuzz.json. Raises CalledProcessError if something was found."""
    command = f"python -m tests.hostile.fuzz {name} --seconds {seconds}"
    process = subprocess.run(
        [sys.executable, "-m", "tests.hostile.fuzz", name, "--seconds", str(seconds)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    print(process.stderr[-3_000:], file=sys.stderr)
    process.check_returncode()
    match = re.search(r"stat::number_of_executed_units:\s*(\d+)", process.stderr)
    assert match is not None, process.stderr[-3_000:]
    what = f"inputs tried by the fuzzer: {TARGETS[name]}"
    return {"what": what, "figure": f"{int(match[1]):,} in {seconds} s, 0 crashes", "command": command}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz")
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--json", type=Path, help="with `all`: where the figures go")
    given = parser.parse_args()
    CRASHES.mkdir(exist_ok=True)
    if given.target != "all":
        with tempfile.TemporaryDirectory() as folder:
            fuzz(given.target, given.seconds, Path(folder))
    rows = [run_apart(name, given.seconds) for name in TARGETS]
    if given.json is not None:
        head = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
        given.json.write_text(json.dumps({"commit": commit, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
