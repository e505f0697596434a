"""This file is what the proofs by killing share: a fleet of processes, mentors to reach, and the reckoning.

Every mentor is due one notification, so that the notifications tell who was evaluated. Two things are not as
shipped, as in tests/end_to_end/kill.py: the unique keys of the notifications are taken away, so that a
duplicate would be recorded, not refused; and a scenario that sends nothing takes its time. And a trigger
notes each claim of a shard, at Postgres's clock, which the ledger keeps only the last of.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import trio

from engine import migrate, open_database
from engine.fleet.protocol import ACK_WAIT
from engine.statements import Statement
from tests.end_to_end.conftest import PATIENCE, Service, StartService, query
from tests.end_to_end.kill import prepare
from tests.fleet.processes import StartWorker, WorkerProcess

# Seconds after which a lost worker's shard must have been begun again.
RERUN_WITHIN = ACK_WAIT + 1.0

# Mentors per chunk, and shards. One shard is some chunks, one after the other.
CHUNK, SHARDS = 10, 16

NOTE_CLAIMS = """
create table public.claims (run_id uuid, shard_index integer, worker text, claimed_at timestamptz);

create function public.note_claim() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
  insert into public.claims values (new.run_id, new.shard_index, new.worker, clock_timestamp());
  return null;
end $$;

create trigger note_claim after update on scheduler.shards
for each row when (new.claim is distinct from old.claim and new.state = 'running')
execute function public.note_claim();
"""

FORGET = """
truncate scheduler.runs, scheduler.shards, scheduler.notifications, scheduler.cooldowns, public.claims
"""

IN_HAND = """
select shard_index, clock_timestamp() as at from scheduler.shards where state = 'running' and worker = $1
"""

CLAIMED_AGAIN = """
select shard_index, extract(epoch from min(claimed_at) - $2::timestamptz)::double precision as after
  from public.claims
 where shard_index = any($1::int[]) and claimed_at > $2::timestamptz
 group by 1
"""

SENT = """
with sent as (select user_id, scenario_type, count(*) as times from scheduler.notifications group by 1, 2)
select (select count(*) from scheduler.notifications) as notifications,
       (select coalesce(sum(times - 1), 0)::bigint from sent) as duplicates,
       (select count(*)
          from scheduler.mentors m
         where not exists (select from sent s where s.user_id = m.user_id)) as missed,
       (select count(*) from scheduler.mentors) as mentors
"""


@dataclass
class Outcome:
    """What was found after one loss. `rerun_after` in seconds, of each shard that was lost."""

    summary: dict[str, Any] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)
    rerun_after: list[float] = field(default_factory=list)
    duplicates: int = 0
    missed: int = 0
    faults: list[str] = field(default_factory=list)

    def demand(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self.faults.append(otherwise)


async def prepare_losses(url: str, mentors: int, walk: float) -> None:
    """A migrated database, with mentors whose run takes five shards at once about so many seconds."""
    await prepare(url, mentors, chunk=CHUNK, walk=walk * 5 / 4)
    async with open_database(url) as database, database.open_transaction() as transaction:
        await transaction.execute(Statement("note_claims", NOTE_CLAIMS))
    await query(url, "analyze")


async def migrate_for_losses(url: str) -> None:
    async with open_database(url) as database:
        await migrate(database, with_example_tables=True)


class FleetOfProcesses:
    """A service, and workers that can be lost and replaced."""

    def __init__(self, url: str, start_service: StartService, start_worker: StartWorker, fleet: str) -> None:
        self.url = url
        self.settings = {
            "DATABASE_URL": url,
            "SCHEDULER_FLEET": fleet,
            "SCHEDULER_FLEET_SHARDS": str(SHARDS),
            "SCHEDULER_PAGE_SIZE": str(CHUNK),
            "SCHEDULER_MENTORS_PER_INVOCATION": str(CHUNK),
        }
        self._start_service = start_service
        self._start_worker = start_worker
        self.workers: list[WorkerProcess] = []

    async def start_service(self, **settings: str) -> Service:
        return await self._start_service(**self.settings | settings)

    async def staff(self, workers: int) -> None:
        """Have so many who live."""
        self.workers = [worker for worker in self.workers if worker.is_alive]
        while len(self.workers) < workers:
            self.workers.append(await self._start_worker(**self.settings))

    async def forget(self) -> None:
        await query(self.url, FORGET)

    async def forget_runs(self) -> None:
        await query(self.url, "truncate scheduler.runs, scheduler.shards")

    async def shards_in_hand(self, worker: WorkerProcess) -> list[asyncpg.Record]:
        return await query(self.url, IN_HAND, worker.name)

    async def wait_for(self, sql: str, *arguments: object, is_so: Callable[[Any], bool] = bool) -> Any:
        """Until the first column of the first row is so."""
        with trio.fail_after(PATIENCE):
            while not is_so(value := (await query(self.url, sql, *arguments))[0][0]):  # noqa: ASYNC110
                await trio.sleep(0.02)  # nothing but asking tells
        return value

    async def wait_until_someone_works(self, finished: int = 0) -> None:
        """Until shards are under way, and so many have been finished."""
        await self.wait_for(
            "select count(*) filter (where state = 'finished') >= $1 "
            "and count(*) filter (where state = 'running') > 0 from scheduler.shards",
            finished,
        )

    async def wait_until_nobody_works(self) -> None:
        """Until the workers have told, or let go of, each shard that one of them claimed."""
        with trio.fail_after(PATIENCE):
            while True:
                [claims] = await query(self.url, "select count(*) as number from public.claims")
                ends = [len(each.logged("shard_ended") + each.logged("shard_lost")) for each in self.workers]
                if sum(ends) >= claims["number"]:
                    return
                await trio.sleep(0.05)

    async def somebody_with_shards(self) -> tuple[WorkerProcess, list[int]]:
        """A worker who lives and has shards in hand, and which."""
        with trio.fail_after(PATIENCE):
            while True:
                for worker in self.workers:
                    if worker.is_alive and (in_hand := await self.shards_in_hand(worker)):
                        return worker, [row["shard_index"] for row in in_hand]
                await trio.sleep(0.01)

    async def freeze_one(self) -> tuple[WorkerProcess, list[int]]:
        """A worker that was stopped with shards in hand, and which."""
        worker, _ = await self.somebody_with_shards()
        worker.freeze()
        if in_hand := await self.shards_in_hand(worker):
            return worker, [row["shard_index"] for row in in_hand]
        worker.send(signal.SIGCONT)
        return await self.freeze_one()

    async def reckon(self, answer: httpx.Response, *, all_by_this_one: bool = True) -> Outcome:
        """Of a run that is to have reached everybody, once each, whatever was lost.

        `all_by_this_one`: what was sent was sent by this run, and no other before.
        """
        outcome = Outcome()
        outcome.demand(answer.status_code == 200, f"answered {answer.status_code} {answer.text}")
        if outcome.faults:
            return outcome
        outcome.summary = summary = answer.json()
        [sent] = await query(self.url, SENT)
        outcome.duplicates, outcome.missed = sent["duplicates"], sent["missed"]
        outcome.demand(sent["duplicates"] == 0, f"{sent['duplicates']} duplicates")
        outcome.demand(sent["missed"] == 0, f"{sent['missed']} missed")
        outcome.demand(summary["completed"], f"not completed: {summary}")
        outcome.demand(summary["total_evaluated"] == sent["mentors"], f"not everybody: {summary}")
        if all_by_this_one:
            told = summary["total_dispatched"]
            outcome.demand(told == sent["notifications"], f"not the {sent['notifications']} sent: {summary}")
        parts = summary["total_evaluated"] + summary["total_errors"] + summary["total_unprocessed"]
        outcome.demand(parts == summary["total_active_mentors"], "the accounts do not add up")
        return outcome


@asynccontextmanager
async def ticking(service: Service) -> AsyncIterator[list[httpx.Response]]:
    """A tick beside the block; its answer is there when the block has ended."""
    answers: list[httpx.Response] = []

    async def tick() -> None:
        answers.append(await service.tick())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        yield answers
