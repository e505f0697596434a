"""This file draws what was measured last: one SVG per benchmark, the same bytes for the same figures.

Called by bench/report.py. The colours are told apart by people who see few of them, on white and on black.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.results import RESULTS, read_result

OURS, OTHERS, FLOOR = "#0072b2", "#999999", "#d55e00"
_GREY = "#808080"

# Text stays text, which is small and can be searched; ids are a hash of this word instead of a random one.
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bench",
    "font.size": 9,
    "text.color": _GREY,
    "axes.labelcolor": _GREY,
    "axes.edgecolor": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

# What the ways of bench/million.py are called beside their lines.
_WAYS = {
    "whole_run": "the whole run",
    "one_call": "one call over everybody",
    "two_halves": "two half-range calls at once",
    "hand_fused": "one statement by hand",
}


def draw_all() -> Iterator[tuple[str, str]]:
    """Write `results/<script>.svg` for every script with results. Yields their names, and what they show."""
    for script, (title, draw) in _PLOTS.items():
        if measured := read_result(script):
            with mpl.rc_context(_STYLE):
                figure = draw(measured["figures"])
                path = RESULTS / f"{script}.svg"
                figure.savefig(
                    path, transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None}
                )
                _strip(path)
            yield path.name, title


def _strip(path: Path) -> None:
    """Take the spaces off the ends of lines, which git complains of."""
    lines = path.read_text("utf-8").splitlines()
    path.write_text("".join(f"{line.rstrip()}\n" for line in lines), "utf-8")


def _bars(axes: Axes, values: dict[str, float], form: str) -> None:
    """Horizontal bars, the first on top, each with its value at its end."""
    colours = [OURS if name in ("ours", "direct") else OTHERS for name in values]
    bars = axes.barh(list(values), list(values.values()), color=colours)
    axes.bar_label(bars, fmt=form, padding=3, color=_GREY)
    axes.invert_yaxis()
    axes.margins(x=0.15)


def _walk(figures: dict[str, Any]) -> Figure:
    latencies = figures["latencies"]
    figure = Figure(figsize=(8, 1.6 * len(latencies)), layout="constrained")
    panels = figure.subplots(len(latencies), squeeze=False)[:, 0]
    for axes, (kind, measured) in zip(panels, latencies.items(), strict=True):
        walks = measured["walks"]
        _bars(axes, {name: walk["seconds"] for name, walk in walks.items()}, "%.2f")
        ours = walks["ours"]
        if "to_floor" in ours:
            floor = ours["seconds"] / ours["to_floor"]
            axes.axvline(floor, color=FLOOR, linewidth=1)
            axes.annotate(
                "floor", (floor, 1), xycoords=("data", "axes fraction"), color=FLOOR, ha="center", va="bottom"
            )
        axes.set_title(f"latency {kind}", loc="right", fontsize=9)  # clear of the floor's name
    panels[-1].set_xlabel(f"seconds for {figures['mentors']:,} mentors, ten in flight, median")
    return figure


def _overhead(figures: dict[str, Any]) -> Figure:
    walks = sorted(figures["walks"].items(), key=lambda each: float(each[1]["us_per_mentor"]))
    figure = Figure(figsize=(8, 2.2), layout="constrained")
    axes = figure.subplots()
    _bars(axes, {name: walk["us_per_mentor"] for name, walk in walks}, "%.0f")
    axes.set_xlabel("µs a mentor, the trigger engine answers at once")
    return figure


def _million(figures: dict[str, Any]) -> Figure:
    sizes = sorted(figures["sizes"], key=int)
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for way, label in _WAYS.items():
        costs = [figures["sizes"][size]["median"][way] / int(size) * 1e6 for size in sizes]
        colour, width = (OURS, 2.5) if way == "whole_run" else (OTHERS, 1.2)
        axes.plot([int(size) for size in sizes], costs, marker="o", color=colour, linewidth=width)
        axes.annotate(
            label, (int(sizes[-1]), costs[-1]), xytext=(8, 0), textcoords="offset points", va="center"
        )
    axes.set_xscale("log")
    axes.set_xticks([int(size) for size in sizes], [f"{int(size):,}" for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("mentors, a tenth of them due")
    axes.set_ylabel("µs a mentor")
    return figure


def _page_cost(figures: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    axes = figure.subplots()
    for (size, pages), colour, below in zip(figures["pages"].items(), (OTHERS, OURS), (8, -14), strict=True):
        before = [page["mentors_before"] for page in pages]
        costs = [page["buffers"] / int(size) for page in pages]
        axes.plot(before, costs, marker="o", color=colour)
        where = ((before[-1], costs[-1]), (0, below))
        axes.annotate(f"pages of {int(size):,}", *where, textcoords="offset points", ha="right")
    axes.margins(y=0.3)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("mentors before the page")
    axes.set_ylabel("buffers a mentor")
    return figure


_PLOTS: dict[str, tuple[str, Callable[[dict[str, Any]], Figure]]] = {
    "walk": ("Whole walks over HTTP, beside their floor and the peers", _walk),
    "overhead": ("What one invocation costs, per transport and peer", _overhead),
    "million": ("What a mentor costs in the database, by how many there are", _million),
    "page_cost": ("What a page costs, by where in the walk it is", _page_cost),
}
