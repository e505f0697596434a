"""This file is longer runs than the test suite's: `python -m tests.simulation --worlds 100000`."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.simulation.world import Outcome, simulate

FIGURES = Path(__file__).parents[1] / "figures" / "simulation.json"

# Worlds from which on the figures are kept: fewer are a look at one of them.
WORTH_KEEPING = 1_000

# Of those in which something is wrong, how many are shown whole.
SHOWN = 3

# A world takes about 15 ms: so many at once cost nothing to hand out.
AT_ONCE = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--worlds", type=int, default=2_000, help="of each series")
    parser.add_argument("--seed", type=int, default=[1], nargs="+", help="of a series of worlds")
    parser.add_argument("--first", type=int, default=0, help="world of each series")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no more are begun")
    asked = parser.parse_args()
    numbers = range(asked.first, asked.first + asked.worlds)
    seeds = [f"{series}:{number}" for number in numbers for series in asked.seed]
    began = time.monotonic()
    faults: Counter[str] = Counter()
    wrong: list[str] = []
    worlds = runs = 0
    with ProcessPoolExecutor(min(len(os.sched_getaffinity(0)), max(len(seeds) // AT_ONCE, 1))) as workers:
        for outcome in workers.map(_simulate, seeds, chunksize=AT_ONCE):
            faults.update(outcome.faults)
            worlds += 1
            runs += outcome.runs
            if outcome.violations:
                wrong.append(outcome.seed)
                shown = str(outcome) if len(wrong) <= SHOWN else f"World {outcome.seed}: {outcome.violations}"
                print(shown, flush=True)
            if time.monotonic() - began > 60 * asked.minutes:
                workers.shutdown(wait=False, cancel_futures=True)
                break
    seconds = time.monotonic() - began
    print(f"{worlds} worlds, {runs} runs, {faults.total()} faults in {seconds:.1f} s.")
    for fault, count in sorted(faults.items()):
        print(f"{count:9} {fault}")
    print(f"Something is wrong in {len(wrong)} of them{': ' if wrong else '.'}{', '.join(wrong[:20])}")
    if worlds >= WORTH_KEEPING:
        _keep(worlds, runs, faults, len(wrong))
    return 1 if wrong else 0


def _simulate(seed: str) -> Outcome:
    return simulate(seed)


def _keep(worlds: int, runs: int, faults: Counter[str], wrong: int) -> None:
    figures = [
        ("worlds simulated", worlds),
        ("runs in them", runs),
        *((f"faults injected: {fault}", count) for fault, count in sorted(faults.items())),
        ("violations", wrong),
    ]
    command = "python -m tests.simulation " + " ".join(sys.argv[1:])
    rows = [{"what": what, "figure": f"{figure:,}", "command": command} for what, figure in figures]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps({"commit": commit, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
