"""This file is a proof by killing: a worker killed in mid-shard costs nobody a notification, and none twice.

    python -m tests.fleet.kill [--times 20] [--mentors 2000] [--seed 1]

At a random moment of a run, one of three workers that has a shard in hand is killed with SIGKILL. Its shard
must be begun again by another within ACK_WAIT + 1 s, and the run must reach everybody once. Exit code 1 if
anything was not as promised. Writes what was measured to tests/figures/fleet.json.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from pathlib import Path

import trio

from engine import open_embedded_postgres
from tests.end_to_end.conftest import Service, open_services, query
from tests.fleet.figures import write_figures
from tests.fleet.losses import (
    CLAIMED_AGAIN,
    RERUN_WITHIN,
    FleetOfProcesses,
    Outcome,
    migrate_for_losses,
    prepare_losses,
    ticking,
)
from tests.fleet.nats_server import NatsServers, open_nats_servers
from tests.fleet.processes import open_workers

WORKERS = 3

# Seconds that a run takes while nobody is killed.
WALK = 4.0


async def kill_once(fleet: FleetOfProcesses, service: Service, chance: random.Random) -> Outcome:
    """A run in which a worker that is in mid-shard is killed at a random moment."""
    await fleet.forget()
    await fleet.staff(WORKERS)
    async with ticking(service) as answers:
        await fleet.wait_until_someone_works()
        await trio.sleep(chance.uniform(0, 0.8 * WALK))
        killed_at, lost = None, []
        while not lost:
            victim = chance.choice([worker for worker in fleet.workers if worker.is_alive])
            if in_hand := await fleet.shards_in_hand(victim):
                victim.kill()
                killed_at, lost = in_hand[0]["at"], [row["shard_index"] for row in in_hand]
            elif answers:
                raise AssertionError("the run had ended before anybody was killed")
    outcome = await fleet.reckon(answers[0])
    # One that it had just ended is not lost.
    finished_by_it = await query(
        fleet.url,
        "select shard_index from scheduler.shards where state = 'finished' and worker = $1 "
        "and shard_index = any($2::int[])",
        *(victim.name, lost),
    )
    outcome.lost = sorted(set(lost) - {row["shard_index"] for row in finished_by_it})
    again = await query(fleet.url, CLAIMED_AGAIN, outcome.lost, killed_at)
    outcome.rerun_after = [row["after"] for row in again]
    outcome.demand(len(again) == len(outcome.lost), "a lost shard was not begun again")
    for after in outcome.rerun_after:
        outcome.demand(after <= RERUN_WITHIN, f"begun again after {after:.2f} s")
    return outcome


# --- The script ---


async def _kill_many(url: str, nats: NatsServers, folder: Path, arguments: argparse.Namespace) -> bool:
    """Whether all was as promised. Prints a line for each kill as it happens."""
    chance = random.Random(arguments.seed)
    await nats.wait_until_up()
    await migrate_for_losses(url)
    await prepare_losses(url, arguments.mentors, WALK)
    rerun_after: list[float] = []
    as_promised, duplicates, missed, lost = True, 0, 0, 0
    print(f"seed {arguments.seed}, {arguments.mentors} mentors, {WORKERS} workers")
    with open_services(folder) as start_service, open_workers(folder) as start_worker:
        fleet = FleetOfProcesses(url, start_service, start_worker, nats.url)
        service = await fleet.start_service()
        for number in range(1, arguments.times + 1):
            outcome = await kill_once(fleet, service, chance)
            rerun_after += outcome.rerun_after
            duplicates += outcome.duplicates
            missed += outcome.missed
            lost += len(outcome.lost)
            print(
                f"{number:>3}  shards lost {outcome.lost}, begun again after "
                f"{', '.join(f'{after:.2f} s' for after in outcome.rerun_after) or '-'}; "
                f"evaluated {outcome.summary.get('total_evaluated')}, duplicates {outcome.duplicates}, "
                f"missed {outcome.missed}, {outcome.summary.get('duration_ms')} ms",
                *(f"\n     VIOLATION: {fault}" for fault in outcome.faults),
                flush=True,
            )
            as_promised = as_promised and not outcome.faults
    command = f"python -m tests.fleet.kill --times {arguments.times} --seed {arguments.seed}"
    figures: dict[str, object] = {
        "worker killed in mid-shard, times": arguments.times,
        "shards lost": lost,
        "mentors missed": missed,
        "duplicate notifications": duplicates,
        "lost shard begun again, median s": round(statistics.median(rerun_after or [0]), 2),
        "lost shard begun again, worst s": round(max(rerun_after, default=0), 2),
    }
    write_figures(command, figures)
    print("\nas promised" if as_promised else "\nNOT as promised")
    return as_promised


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.kill", description="A proof by killing.")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--mentors", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    arguments = parser.parse_args()
    with (
        open_embedded_postgres() as postgres,
        open_nats_servers() as nats,
        tempfile.TemporaryDirectory(prefix="kill-") as folder,
    ):
        return 0 if trio.run(_kill_many, postgres.dsn, nats, Path(folder), arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
