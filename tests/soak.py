"""This file is a soak: a tick a second over a bad network, for as long as wanted, and nothing may grow.

    python -m tests.soak [--minutes 30] [--mentors 2000] [--seed 1]

A served process walks everybody over two networks that are bad most of the time: one to Postgres, which has
pages, lease and ledger, and one to the trigger engine, the built-in one in a process of its own, because over
HTTP both networks are walked over. Which fault comes when is decided by the seed and the number of the tick.
The last ticks of every minute are calm: then a run must reach everybody, what was sent since the last calm
is counted, and is forgotten, so that everybody is due again. The unique keys of the notifications are taken
away: a duplicate would be recorded, not refused.

Exit code 1 if anything was not as promised. A soak of five minutes or more leaves tests/figures/soak.json.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import trio

from engine import migrate, open_database, open_embedded_postgres
from tests.end_to_end.conftest import SECRET, Service, open_services, query, seed
from tests.end_to_end.kill import TAKE_THE_NET_AWAY
from tests.end_to_end.test_adversity import adds_up
from tests.faults.injected import INJECTED, write_rows
from tests.faults.proxy import Direction, Fault, FaultProxy, Kind, open_fault_proxy

FIGURES = Path(__file__).parent / "figures" / "soak.json"
FIGURES_FROM = 5.0  # minutes

# Seconds between two ticks; ticks for which the weather stays as it is; ticks until the calm ones come again,
# and how many of those there are.
TICK = 1.0
SPELL = 5
ROUND = 60
CALM = 10

ALL = list(product(Kind, Direction))

# Not of Postgres: at a negative length asyncpg (0.32) reads the same bytes for ever, in a loop that no
# cancellation reaches. Over TLS garbage breaks the connection instead (tests/faults/test_network.py).
GARBLED = (Kind.CORRUPTION, Direction.TO_CLIENT)

# How likely each network is bad in a spell, and after how many bytes of a connection.
BAD = 0.6
AFTER = (0, 30_000)

# So short that a tick comes before long. The platform limit bounds the answer: the least for this deadline.
BUDGET = {
    "SCHEDULER_SOFT_THRESHOLD": "3",
    "SCHEDULER_HARD_DEADLINE": "4",
    "SCHEDULER_PLATFORM_LIMIT": "6",
    "SCHEDULER_INVOCATION_TIMEOUT": "1",
    "SCHEDULER_PAGE_SIZE": "500",
    "SCHEDULER_MENTORS_PER_INVOCATION": "50",
}
PLATFORM_LIMIT = 6.0

# Seconds within which a run must have reached everybody, once the networks are mended: the lease of a run
# whose end was never written has to be over.
RECOVERY = 20.0

# Seconds between two samples, and the share of them in which the process is still warming up.
SAMPLE_PERIOD = 2.0
WARM_UP = 0.15

# What the median of the last quarter may be more than that of the first one behind the warm-up: of memory in
# all samples, of files and connections in those at rest, because ten of either are a run under way. The
# weather differs by as much; a descriptor for each hundredth fault, or five kilobytes for each run, are more.
GROWTH_MEGABYTES, GROWTH_FILES, GROWTH_CONNECTIONS = 4.0, 5, 4

SENT = """
select count(*) as notifications,
       count(distinct n.user_id) as notified,
       (select count(*) from scheduler.mentors) as mentors
  from scheduler.notifications n
"""

LEDGER = """
select count(*) as runs,
       count(*) filter (where verdict = 'running') as running,
       count(*) filter (where verdict not in ('running', 'abandoned')
                          and total_active_mentors <> total_evaluated + total_errors + total_unprocessed
                       ) as wrong
  from scheduler.runs
"""

SESSIONS = "select count(*) as n from pg_stat_activity where application_name = 'scenario-scheduler'"

FORGET = "truncate scheduler.notifications, scheduler.cooldowns"


@dataclass
class Sample:
    """Of the service that walks and of the one that evaluates."""

    megabytes: tuple[float, float]
    files: tuple[int, int]
    connections: int


@dataclass
class Found:
    """What a soak has seen."""

    ticks: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    evaluated: int = 0
    dispatched: int = 0
    sent: int = 0
    calms: int = 0
    slowest: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    at_rest: list[Sample] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def demand(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self.violations.append(f"tick {self.ticks}: {otherwise}")
            print(f"VIOLATION: {self.violations[-1]}", flush=True)


def weather(seed: int, tick: int) -> tuple[Fault | None, Fault | None]:
    """The fault of the network to Postgres and of the one to the trigger engine, if any."""
    if tick % ROUND >= ROUND - CALM:
        return None, None
    chance = random.Random(f"{seed}:{tick // SPELL}")

    def one(kinds: Sequence[tuple[Kind, Direction]]) -> Fault | None:
        is_bad, (kind, direction) = chance.random() < BAD, chance.choice(kinds)
        after, seconds, rate = (
            chance.randint(*AFTER),
            chance.uniform(0.01, 0.3),
            chance.randint(2_000, 50_000),
        )
        return Fault(kind, direction, after, seconds, rate) if is_bad else None

    return one([each for each in ALL if each != GARBLED]), one(ALL)


class Soak:
    """The service that walks, the one that evaluates, the networks between, and all that was found."""

    def __init__(
        self,
        url: str,
        mentors: int,
        services: tuple[Service, Service],
        networks: tuple[FaultProxy, FaultProxy],
        client: httpx.AsyncClient,
    ) -> None:
        self.found = Found()
        self._url = url
        self._mentors = mentors
        self._services = services
        self._networks = networks
        self._client = client
        self._under_way = 0

    async def tick_for(self, ticks: int, seed: int) -> None:
        """So many ticks, and a look at everything whenever it is calm."""
        began = trio.current_time()
        now: tuple[Fault | None, Fault | None] = (None, None)
        async with trio.open_nursery() as nursery:
            for number in range(ticks):
                await trio.sleep_until(began + number * TICK)
                if (then := weather(seed, number)) != now:
                    now = then
                    for network, fault in zip(self._networks, now, strict=True):
                        network.inject(*() if fault is None else (fault,))
                self.found.ticks += 1
                if number % ROUND == ROUND - 1 or number == ticks - 1:
                    for network in self._networks:
                        network.mend()
                    now = (None, None)
                    await self._be_calm()
                else:
                    self._under_way += 1
                    nursery.start_soon(self._tick)

    async def _tick(self) -> None:
        try:
            await self._ask()
        finally:
            self._under_way -= 1

    async def _ask(self) -> dict[str, Any] | None:
        """One tick. Returns the summary, None if no run was begun."""
        found, asked_at = self.found, trio.current_time()
        try:
            answer = await self._client.post(
                f"{self._services[0].url}/run", headers={"X-Scheduler-Secret": SECRET}
            )
        except httpx.HTTPError as error:
            found.demand(False, f"no answer: {type(error).__name__}")
            return None
        waited = trio.current_time() - asked_at
        found.slowest = max(found.slowest, waited)
        found.demand(waited < PLATFORM_LIMIT, f"the answer took {waited:.2f} s")
        if answer.status_code != 200:
            found.answers[str(answer.status_code)] += 1
            found.demand(answer.status_code in (409, 503), f"answered {answer.text}")
            return None
        summary: dict[str, Any] = answer.json()
        found.answers["completed" if summary["completed"] else "partial"] += 1
        found.demand(adds_up(summary), f"does not add up: {summary}")
        is_known = summary["remaining_known"]
        found.demand(not is_known or summary["total_active_mentors"] == self._mentors, f"not all: {summary}")
        told = summary["total_dispatched"] + summary["total_suppressed"]
        found.demand(told == summary["total_evaluated"], f"each has one due: {summary}")
        found.evaluated += summary["total_evaluated"]
        found.dispatched += summary["total_dispatched"]
        return summary

    async def _be_calm(self) -> None:
        """Over mended networks: a run reaches everybody. Then count what was sent, and forget it."""
        found = self.found
        summary: dict[str, Any] | None = None
        with trio.move_on_after(RECOVERY):
            while self._under_way:  # noqa: ASYNC110 - no more than once a minute
                await trio.sleep(0.05)
            while summary is None or not summary["completed"] or summary["total_errors"]:
                summary = await self._ask()
                if summary is None:
                    await trio.sleep(0.5)
        found.demand(
            summary is not None and summary["completed"] and summary["total_evaluated"] == self._mentors,
            f"a mended network, and yet the last run said {summary}",
        )
        [sent] = await query(self._url, SENT)
        found.demand(sent["notifications"] == sent["notified"], f"notified twice: {dict(sent)}")
        found.demand(sent["notified"] == sent["mentors"], f"not notified: {dict(sent)}")
        found.sent += sent["notifications"]
        found.demand(found.dispatched <= found.sent, f"{found.dispatched} dispatched, {found.sent} sent")
        [ledger] = await query(self._url, LEDGER)
        found.demand(ledger["running"] == ledger["wrong"] == 0, f"the ledger says {dict(ledger)}")
        await query(self._url, FORGET)
        found.calms += 1
        found.at_rest.append(await self._look())
        print(f"tick {found.ticks}: {dict(found.answers)}, {found.at_rest[-1]}", flush=True)

    async def sample(self) -> None:
        """Once in a while, until cancelled."""
        while True:
            self.found.samples.append(await self._look())
            await trio.sleep(SAMPLE_PERIOD)

    async def _look(self) -> Sample:
        [sessions] = await query(self._url, SESSIONS)
        walks, evaluates = self._services
        return Sample(
            (_megabytes(walks), _megabytes(evaluates)),
            (walks.open_files(), evaluates.open_files()),
            sessions["n"],
        )

    async def end(self) -> None:
        """Both services stop when they are told to, and leave nothing."""
        for service in self._services:
            service.send(signal.SIGTERM)
            code = await service.exit_code()
            self.found.demand(code == 0, f"exit code {code}")
            self.found.demand("Traceback" not in service.log(), "a traceback in the log")
        [sessions] = await query(self._url, SESSIONS)
        self.found.demand(sessions["n"] == 0, f"{sessions['n']} connections left")


def _megabytes(service: Service) -> float:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    [kilobytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(kilobytes) / 1024


async def soak(url: str, folder: Path, *, ticks: int, mentors: int, seed_of_weather: int) -> Found:
    """Soak for so many ticks over an empty database."""
    async with open_database(url) as database:
        await migrate(database, with_example_tables=True)
    await seed(url, mentors)
    await query(url, TAKE_THE_NET_AWAY)
    await query(url, "analyze")
    async with AsyncExitStack() as stack:
        start_service = stack.enter_context(open_services(folder))
        evaluates = await start_service(DATABASE_URL=url)
        to_postgres = await stack.enter_async_context(open_fault_proxy(url))
        to_engine = await stack.enter_async_context(open_fault_proxy(evaluates.url))
        walks = await start_service(
            DATABASE_URL=to_postgres.through(url),
            SCHEDULER_TRIGGER_ENGINE=to_engine.through(f"{evaluates.url}/trigger-engine"),
            **BUDGET,
        )
        client = await stack.enter_async_context(
            httpx.AsyncClient(trust_env=False, timeout=4 * PLATFORM_LIMIT)
        )
        soaking = Soak(url, mentors, (walks, evaluates), (to_postgres, to_engine), client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(soaking.sample)
            await soaking.tick_for(ticks, seed_of_weather)
            nursery.cancel_scope.cancel()
        await soaking.end()
    return soaking.found


def quarters(samples: Sequence[float]) -> tuple[float, float]:
    """Medians of the first quarter behind the warm-up and of the last one."""
    warm = samples[math.ceil(len(samples) * WARM_UP) :]
    quarter = max(1, len(warm) // 4)
    return statistics.median(warm[:quarter]), statistics.median(warm[-quarter:])


def look_for_growth(found: Found) -> list[tuple[str, str]]:
    """Demand that nothing has grown. Returns the figures."""
    rows = []
    measured: list[tuple[str, list[float], float, str]] = []
    for position, who in enumerate(("of the service", "of the built-in trigger engine's service")):
        memory = [sample.megabytes[position] for sample in found.samples]
        measured.append((f"memory {who}", memory, GROWTH_MEGABYTES, " MB"))
        files = [float(sample.files[position]) for sample in found.at_rest]
        measured.append((f"open files {who} at rest", files, GROWTH_FILES, ""))
    connections = [float(sample.connections) for sample in found.at_rest]
    measured.append(("connections of both to Postgres at rest", connections, GROWTH_CONNECTIONS, ""))
    for what, samples, growth, unit in measured:
        first, last = quarters(samples)
        found.demand(last <= first + growth, f"{what} grew from {first:g} to {last:g}")
        rows.append((f"soak: {what}, after warm-up → at the end", f"{first:.4g} → {last:.4g}{unit}"))
    return rows


def figures_of(found: Found) -> list[tuple[str, str]]:
    """The rows to keep, of a soak that was long enough to tell growth from warming up."""
    growth = look_for_growth(found)
    answers = found.answers
    return [
        ("soak: ticks", f"{found.ticks:,}"),
        ("soak: runs completed, partial", f"{answers['completed']:,}, {answers['partial']:,}"),
        (
            "soak: refused, a run is under way (409); Postgres away (503)",
            f"{answers['409']:,}; {answers['503']:,}",
        ),
        (f"soak: slowest answer, of {PLATFORM_LIMIT:g} s at most", f"{found.slowest:.2f} s"),
        ("soak: mentors evaluated", f"{found.evaluated:,}"),
        ("soak: notifications sent, each once", f"{found.sent:,}"),
        *((f"soak: faults injected: {kind}", f"{INJECTED[kind]:,}") for kind in sorted(INJECTED)),
        *growth,
        ("soak: violations", str(len(found.violations))),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="A soak over bad networks.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--mentors", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with open_embedded_postgres() as postgres, tempfile.TemporaryDirectory(prefix="soak-") as folder:

        async def run() -> Found:
            return await soak(
                postgres.dsn,
                Path(folder),
                ticks=round(arguments.minutes * 60 / TICK),
                mentors=arguments.mentors,
                seed_of_weather=arguments.seed,
            )

        found = trio.run(run)
    if arguments.minutes < FIGURES_FROM:
        print(f"{dict(found.answers)}, slowest {found.slowest:.2f} s, {len(found.violations)} violations")
    else:
        rows = figures_of(found)
        for what, figure in rows:
            print(f"{what}: {figure}")
        chosen = "" if arguments.seed == 1 else f" --seed {arguments.seed}"
        write_rows(FIGURES, rows, f"python -m tests.soak --minutes {arguments.minutes:g}{chosen}")
    return 1 if found.violations else 0


if __name__ == "__main__":
    sys.exit(main())
