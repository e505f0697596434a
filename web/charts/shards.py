"""This file is the shards of one run: a cell for each, in the order in which they go out, and its workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from engine import RunRecord, ShardRecord
from web.charts.scale import percent
from web.wording import count_of, share, span

# In the order of the legend, with what they are called there.
SHARD_KINDS = {
    "completed": "done",
    "errors": "done with errors",
    "partial": "done in part",
    "running": "under way",
    "lost": "lost",
    "waiting": "waiting",
    "withdrawn": "not begun",
}

_DONE = ("completed", "errors")

# What a cell bears beside its kind, and what that is called in the legend.
AGAIN = "again"
AGAIN_NAME = "delivered again"

# Cells of full size: eight rows of them on a phone, two on a desk.
LONG_AFTER = 100


@dataclass(frozen=True, slots=True)
class Cell:
    """One shard. `text` in short lines: a tooltip, and a name for who can't see the cell.

    `again`: more than one worker took it.
    """

    kind: str
    again: bool
    text: str


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """`width` is its part of the mentors. `is_silent`: it is lost, with what it had in hand."""

    name: str
    did: str
    heard: str
    width: str
    is_silent: bool


@dataclass(frozen=True, slots=True)
class Strip:
    """`kinds` are those to be explained, in their order. `is_long`: it has room for small cells only."""

    summary: str
    kinds: Sequence[str]
    cells: Sequence[Cell]
    is_long: bool
    workers: Sequence[WorkerRow]


def draw_shards(shards: Sequence[ShardRecord], *, has_ended: bool) -> Strip | None:
    """None of a run without shards. `has_ended`: the run has, so that what isn't done will not be."""
    if not shards:
        return None
    cells = [_cell(shard, _kind_of(shard, has_ended), has_ended) for shard in shards]
    present = {cell.kind for cell in cells}
    kinds = [kind for kind in SHARD_KINDS if kind in present] + [AGAIN] * any(cell.again for cell in cells)
    return Strip(
        summary=_summary(shards, cells, has_ended),
        kinds=kinds,
        cells=cells,
        is_long=len(cells) > LONG_AFTER,
        workers=_workers(shards, has_ended),
    )


def describe_shards(record: RunRecord) -> str | None:
    """The shards of a run in one line, None if it had none."""
    if not record.total_shards:
        return None
    line = f"{count_of(record.total_shards, 'shard')}, {count_of(record.total_workers, 'worker')}"
    return f"{line}, {_again(record.total_redelivered)}" if record.total_redelivered else line


def _again(count: int) -> str:
    return f"{count:,} {AGAIN_NAME}"


def _kind_of(shard: ShardRecord, has_ended: bool) -> str:
    if shard.state == "finished":
        if not shard.is_completed:
            return "partial"
        return "errors" if shard.total_errors else "completed"
    if has_ended:
        return "withdrawn" if shard.state in ("waiting", "withdrawn") else "lost"
    return shard.state


def _cell(shard: ShardRecord, kind: str, has_ended: bool) -> Cell:
    took = span((shard.duration_ms or 0) / 1000)
    state = {
        "running": f"under way for {took}",
        "lost": f"lost {took} after it was taken",
        "waiting": "waiting for a worker",
        "withdrawn": "no worker began it in time",
    }.get(kind, f"{SHARD_KINDS[kind]}, {took}")
    lines = [f"Shard {shard.shard_index}: {state}"]
    if shard.deliveries:
        times = f", taken {shard.deliveries} times" if shard.deliveries > 1 else ""
        lines.append(f"By {shard.worker}{times}")
        # While the run goes on, it is a share of what was found so far, and says nothing.
        of_run = f"; {share(shard.share, 1)} of the run" if has_ended else ""
        lines.append(f"{', '.join(_counts(shard))}{of_run}")
    return Cell(kind, shard.deliveries > 1, "\n".join(lines))


def _counts(shard: ShardRecord) -> list[str]:
    counts = [f"{shard.total_evaluated:,} evaluated"]
    if shard.total_errors:
        counts.append(count_of(shard.total_errors, "error"))
    if shard.total_unprocessed:
        left = "left" if shard.state == "finished" else "in hand"
        counts.append(f"{shard.total_unprocessed:,} {left}")
    return counts


def _summary(shards: Sequence[ShardRecord], cells: Sequence[Cell], has_ended: bool) -> str:
    kinds = [cell.kind for cell in cells]
    by = f" by {count_of(len({s.worker for s in shards if s.worker}), 'worker')}" if has_ended else ""
    parts = [f"{_done(kinds):,} of {count_of(len(shards), 'shard')} done{by}", *_others(kinds)]
    again = sum(cell.again for cell in cells)
    return ", ".join(parts) + (f"; {_again(again)}" if again else "") + "."


def _done(kinds: Sequence[str]) -> int:
    return sum(kind in _DONE for kind in kinds)


def _others(kinds: Sequence[str]) -> list[str]:
    """Those that are not done, by kind."""
    return [
        f"{kinds.count(kind):,} {name}"
        for kind, name in SHARD_KINDS.items()
        if kind in kinds and kind not in _DONE
    ]


def _workers(shards: Sequence[ShardRecord], has_ended: bool) -> list[WorkerRow]:
    """By name, so that nobody moves while the run goes on."""
    by_worker: dict[str, list[ShardRecord]] = defaultdict(list)
    for shard in shards:
        if shard.worker is not None and shard.state not in ("waiting", "withdrawn"):
            by_worker[shard.worker].append(shard)
    walked = {name: sum(map(_walked, own)) for name, own in by_worker.items()}
    everybody = sum(walked.values())
    rows = []
    for name, own in sorted(by_worker.items()):
        kinds = [_kind_of(shard, has_ended) for shard in own]
        did = [f"{_done(kinds):,} done", *_others(kinds), count_of(walked[name], "mentor")]
        if errors := sum(shard.total_errors for shard in own):
            did.append(count_of(errors, "error"))
        latest = min(own, key=lambda shard: shard.heartbeat_age or 0.0)
        rows.append(
            WorkerRow(
                name=name,
                did=", ".join(did),
                heard="" if has_ended else _heard(latest, is_at_work="running" in kinds),
                width=percent(walked[name] / everybody if everybody else 0.0),
                is_silent=latest.state == "lost" and not has_ended,
            )
        )
    return rows


def _walked(shard: ShardRecord) -> int:
    return shard.total_evaluated + shard.total_errors


def _heard(latest: ShardRecord, *, is_at_work: bool) -> str:
    """By the shard of which it spoke last. It says nothing while it has none, and that is nothing amiss."""
    ago = span(latest.heartbeat_age or 0.0)
    if latest.state == "lost":
        return f"silent for {ago}"
    return f"heard of {ago} ago" if is_at_work else f"nothing in hand for {ago}"
