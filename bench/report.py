"""This file writes the table and the plots of bench/README.md from what was measured last.

    python -m bench.report

A figure beside its aim, also where the aim is missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.marked import replace_between
from bench.plots import draw_all
from bench.results import read_result

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- figures: python -m bench.report -->", "<!-- end of figures -->"

# Of walks whose latencies are as those of services are; the others are there to be seen.
AIMS_OF_WALK = {"floor": 1.03, "nominal floor": 1.05, "deno": 0.75, "aiohttp": 1.0, "procrastinate": 1.0}
NO_AIM = float("inf")

Row = tuple[str, str, float, float]  # script, what, figure, at most


def rows() -> Iterator[Row]:
    for script in (
        "walk",
        "overhead",
        "million",
        "memory",
        "page_cost",
        "deadline",
        "tick",
        "metrics",
        "refused",
        "fleet",
    ):
        if measured := read_result(script):
            yield from globals()[f"_of_{script}"](measured["figures"])


def _of_walk(figures: dict[str, Any]) -> Iterator[Row]:
    for kind, measured in figures["latencies"].items():
        aims = AIMS_OF_WALK if kind.startswith("lognormal") else {}
        ours = measured["walks"]["ours"]
        if "to_floor" in ours:
            what = f"{kind}: × the floor, service times as measured"
            yield "walk", what, ours["to_floor"], aims.get("floor", NO_AIM)
            what = f"{kind}: × the floor, nominal"
            yield "walk", what, ours["to_nominal_floor"], aims.get("nominal floor", NO_AIM)
        for peer, ratio in measured["ours_to"].items():
            yield "walk", f"{kind}: × {peer}", ratio, aims.get(peer, NO_AIM)


def _of_overhead(figures: dict[str, Any]) -> Iterator[Row]:
    walks = {name: measured["us_per_mentor"] for name, measured in figures["walks"].items()}
    yield "overhead", "direct, µs a mentor", walks["direct"], 130
    for peer, bound in (("deno", 0.75), ("aiohttp", 0.6)):
        yield "overhead", f"direct × {peer}", walks["direct"] / walks[peer], bound


def _of_million(figures: dict[str, Any]) -> Iterator[Row]:
    medians = {size: measured["median"] for size, measured in figures["sizes"].items()}
    million, hundred_thousand = medians["1000000"], medians["100000"]
    yield "million", "a million mentors in the database, s", million["whole_run"], 15
    yield "million", "× one call over everybody", million["whole_run"] / million["one_call"], 0.75
    yield "million", "× two half-range calls at once", million["whole_run"] / million["two_halves"], 1.1
    yield (
        "million",
        "a mentor at 1M × at 100k",
        million["whole_run"] / 10 / hundred_thousand["whole_run"],
        1.15,
    )


def _of_memory(figures: dict[str, Any]) -> Iterator[Row]:
    yield "memory", "peak at 1M × at 10k", figures["ratio"], 1.1
    yield "memory", "peak at 1M, MB", max(figures["peak_megabytes"]["1000000"]), 120


def _of_page_cost(figures: dict[str, Any]) -> Iterator[Row]:
    for page_size, pages in figures["pages"].items():
        ratio = pages[-1]["buffers"] / pages[0]["buffers"]
        yield "page_cost", f"last page of {page_size} × the first, in buffers", ratio, 1.2


def _of_deadline(figures: dict[str, Any]) -> Iterator[Row]:
    what = f"answer after the hard deadline, ms, worst of {figures['runs']}"
    yield "deadline", what, figures["max"] * 1e3, 250


def _of_tick(figures: dict[str, Any]) -> Iterator[Row]:
    for mentors, times in figures.items():
        for name, seconds in times.items():
            yield "tick", f"{mentors} mentors, {name}, ms", seconds * 1e3, NO_AIM


def _of_metrics(figures: dict[str, Any]) -> Iterator[Row]:
    bound = figures["bound"]
    yield "metrics", "a walk that is counted × one that is not, processor", figures["with_scrapes"], bound
    yield "metrics", "a scrape, processor, ms", figures["scrape_seconds"] * 1e3, float("inf")


def _of_refused(figures: dict[str, Any]) -> Iterator[Row]:
    what = "a run beside 50 refused calls a second × one alone"
    yield "refused", what, figures["beside_to_alone"], figures["bound"]


def _of_fleet(figures: dict[str, Any]) -> Iterator[Row]:
    # Turned round, so that as everywhere less is better: a half and a quarter would be perfect.
    for workers, aim in (("2", 1 / 1.9), ("4", 1 / 3.6)):
        yield "fleet", f"{workers} workers × one", 1 / figures["speed_up"][workers], aim
    yield "fleet", "one worker × no fleet", figures["one_worker_to_no_fleet"], 1.05


def _table() -> str:
    lines = ["| script | figure | measured | aim: at most | |", "|---|---|---|---|---|"]
    for script, what, figure, bound in rows():
        aim = "" if bound == NO_AIM else f"{bound:g}"
        verdict = "" if figure <= bound else "missed"
        lines.append(f"| {script} | {what} | {figure:.4g} | {aim} | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    text = README.read_text("utf-8")
    plots = "\n\n".join(f"![{title}](results/{name})" for name, title in draw_all())
    README.write_text(replace_between(BEGIN, END, f"{_table()}\n\n{plots}", text), "utf-8")
    print(_table())


if __name__ == "__main__":
    main()
