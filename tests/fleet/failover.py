"""This file is a proof by killing NATS: of three servers, the one that leads a stream is lost in mid-run.

    python -m tests.fleet.failover [--times 10] [--mentors 2000] [--seed 1]

At a random moment of a run, the server that leads the shards' stream, or every other time the results', is
killed with SIGKILL. The run must reach everybody once all the same, and its summary be right. The server is
then started again. Exit code 1 if anything was not as promised. Writes what was measured to
tests/figures/fleet.json.
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
from tests.end_to_end.conftest import Service, open_services
from tests.fleet.figures import write_figures
from tests.fleet.losses import FleetOfProcesses, Outcome, migrate_for_losses, prepare_losses, ticking
from tests.fleet.nats_server import NatsServers, open_nats_servers
from tests.fleet.processes import open_workers

WORKERS = 3

# Seconds that a run takes while nobody is killed.
WALK = 4.0

STREAMS = ("scheduler-shards", "scheduler-results")


async def fail_over_once(
    fleet: FleetOfProcesses, service: Service, nats: NatsServers, stream: str, chance: random.Random
) -> Outcome:
    """A run in which the leader of the stream is killed at a random moment; then it is started again."""
    await fleet.forget()
    await fleet.staff(WORKERS)
    async with ticking(service) as answers:
        await fleet.wait_until_someone_works()
        await trio.sleep(chance.uniform(0, 0.8 * WALK))
        leader = nats.leader(stream)
        assert leader is not None, "nobody leads the stream"
        assert not answers, "the run had ended before anybody was killed"
        leader.kill()
    outcome = await fleet.reckon(answers[0])
    leader.start()
    await nats.wait_until_up()
    return outcome


# --- The script ---


async def _fail_over_many(url: str, nats: NatsServers, folder: Path, arguments: argparse.Namespace) -> bool:
    """Whether all was as promised. Prints a line for each kill as it happens."""
    chance = random.Random(arguments.seed)
    await nats.wait_until_up()
    await migrate_for_losses(url)
    await prepare_losses(url, arguments.mentors, WALK)
    as_promised, duplicates, missed = True, 0, 0
    durations: list[float] = []
    print(f"seed {arguments.seed}, {arguments.mentors} mentors, {WORKERS} workers, 3 servers")
    with open_services(folder) as start_service, open_workers(folder) as start_worker:
        fleet = FleetOfProcesses(url, start_service, start_worker, nats.url)
        fleet.settings["SCHEDULER_FLEET_REPLICAS"] = "3"
        service = await fleet.start_service()
        await fleet.staff(WORKERS)
        unkilled = await fleet.reckon(await service.tick())
        print(
            f"while nobody is killed, {unkilled.summary.get('duration_ms')} ms", *unkilled.faults, flush=True
        )
        for number in range(1, arguments.times + 1):
            stream = STREAMS[number % 2 - 1]
            outcome = await fail_over_once(fleet, service, nats, stream, chance)
            duplicates += outcome.duplicates
            missed += outcome.missed
            durations.append(outcome.summary.get("duration_ms", 0) / 1000)
            print(
                f"{number:>3}  leader of {stream} killed; evaluated "
                f"{outcome.summary.get('total_evaluated')}, duplicates {outcome.duplicates}, "
                f"missed {outcome.missed}, {durations[-1]:.1f} s",
                *(f"\n     VIOLATION: {fault}" for fault in outcome.faults),
                flush=True,
            )
            as_promised = as_promised and not outcome.faults
    write_figures(
        f"python -m tests.fleet.failover --times {arguments.times} --seed {arguments.seed}",
        {
            "leader of a stream killed in mid-run, times": arguments.times,
            "merges that were right": arguments.times if as_promised else "not all",
            "mentors missed when a leader was killed": missed,
            "duplicate notifications when a leader was killed": duplicates,
            "run while nobody is killed, s": unkilled.summary.get("duration_ms", 0) / 1000,
            "run whose leader was killed, median s": statistics.median(durations),
            "run whose leader was killed, worst s": max(durations),
        },
    )
    print("\nas promised" if as_promised else "\nNOT as promised")
    return as_promised


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fleet.failover", description="A proof by killing NATS."
    )
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--mentors", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    arguments = parser.parse_args()
    with (
        open_embedded_postgres() as postgres,
        open_nats_servers(3) as nats,
        tempfile.TemporaryDirectory(prefix="failover-") as folder,
    ):
        return 0 if trio.run(_fail_over_many, postgres.dsn, nats, Path(folder), arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
