"""This file is a proof by killing: a service killed in mid-run leaves nobody out and notifies nobody twice.

    python -m tests.end_to_end.kill [--kills 20] [--mentors 5000] [--engine both] [--seed 1]

For each kill a server is started on an embedded Postgres, a run is asked for, and the process is killed at a
random moment of the walk, from before it begins until after it has ended. A second server waits until the
lease is over, walks, and then it is counted. Exit code 1 if anything was not as promised.

Every mentor is due one notification, so that the notifications tell who was evaluated, and by which run. Two
things are not as shipped. The unique keys of the notifications are taken away: a duplicate would be recorded,
not refused. And a scenario is added which sends nothing and takes its time, more or less of it: walks last
as long on every machine, chunks end out of order, and a kill leaves calls behind that Postgres still ends.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import trio

from engine import LEASE, migrate, open_database, open_embedded_postgres
from tests.end_to_end.conftest import PATIENCE, Service, StartService, open_services, query, seed

ENGINES = ("in-database", "http")

# Mentors per page and per chunk, and what a walk is to take, in seconds: several heartbeats.
CHUNK = 50
WALK = 4.0

# Up to this share of a walk: the last kills come when it has ended.
UNTIL = 1.15

TAKE_THE_NET_AWAY = """
do $$
declare
  of_a_key name;
begin
  for of_a_key in select conname from pg_constraint
                   where conrelid = 'scheduler.notifications'::regclass and contype = 'u' loop
    execute format('alter table scheduler.notifications drop constraint %I', of_a_key);
  end loop;
end $$
"""

SLOW_SCENARIO = """
create function scheduler.scenario_slow(mentor_ids uuid[], as_of timestamptz, params jsonb)
returns table (mentor_id uuid, user_id uuid, payload jsonb)
language plpgsql volatile
as $$
begin
  perform pg_sleep((params ->> 'seconds')::double precision * 2 * random());
end $$
"""

ADD_SLOW_SCENARIO = """
insert into scheduler.scenario_evaluation_config (scenario_type, params, cooldown)
values ('slow', jsonb_build_object('seconds', $1::double precision), '1 day')
"""

FORGET = "truncate scheduler.runs, scheduler.shards, scheduler.notifications, scheduler.cooldowns"

LEFT_OF_THE_LEASE = """
select extract(epoch from heartbeat_at - now())::double precision + $1::double precision as seconds
  from scheduler.runs
 where verdict = 'running'
"""

AGE = """
update scheduler.runs
   set heartbeat_at = heartbeat_at - make_interval(secs => $1::double precision)
 where verdict = 'running'
"""

SENT = """
with sent as (select user_id, scenario_type, count(*) as times from scheduler.notifications group by 1, 2)
select (select count(*) from scheduler.notifications) as notifications,
       (select count(*) from scheduler.notifications where run_id = $1::uuid) as by_fresh,
       (select coalesce(sum(times - 1), 0)::bigint from sent) as duplicates,
       (select count(*)
          from scheduler.mentors m
         where not exists (select from sent s where s.user_id = m.user_id)) as missed
"""

UP_TO_THE_MARK = """
select count(*) as mentors,
       count(*) filter (where not exists (select
                                            from scheduler.notifications n
                                           where n.mentor_id = m.id
                                             and n.run_id = $1::uuid)) as skipped
  from scheduler.mentors m
 where m.id <= $2::uuid
"""


@dataclass
class Outcome:
    """What was found after one kill. `mark` is how many mentors the killed run had finished without a gap."""

    verdict: str = "not begun"
    killed_evaluated: int = 0
    mark: int = 0
    refused: int = 0
    fresh_evaluated: int = 0
    notifications: int = 0
    duplicates: int = 0
    missed: int = 0
    faults: list[str] = field(default_factory=list)

    def demand(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self.faults.append(otherwise)


async def prepare(url: str, mentors: int, *, chunk: int = CHUNK, walk: float = WALK) -> None:
    """Mentors, each due one notification, whose walk in chunks, four at once, takes about so many seconds."""
    await seed(url, mentors)
    await query(url, TAKE_THE_NET_AWAY)
    await query(url, SLOW_SCENARIO)
    await query(url, ADD_SLOW_SCENARIO, walk * 4 * chunk / mentors)


async def walk_settings(
    engine: str, url: str, start_service: StartService, *, chunk: int = CHUNK
) -> dict[str, str]:
    """Of a service that walks. Over HTTP the trigger engine is a service of its own, which is not killed."""
    settings = {
        "DATABASE_URL": url,
        "SCHEDULER_PAGE_SIZE": str(chunk),
        "SCHEDULER_MENTORS_PER_INVOCATION": str(chunk),
    }
    if engine == "http":
        invoked = await start_service(DATABASE_URL=url)
        settings["SCHEDULER_TRIGGER_ENGINE"] = f"{invoked.url}/trigger-engine"
    return settings


async def kill_and_run_again(
    start_service: StartService,
    settings: Mapping[str, str],
    moment: Callable[[], Awaitable[object]],
    *,
    wait: bool,
) -> Outcome:
    """Kill a service when `moment`, begun with the POST, has passed; then run again, and count.

    `wait` for the end of the lease; else its heartbeat is made older by as much, which saves ten seconds.
    """
    url, outcome = settings["DATABASE_URL"], Outcome()
    await query(url, FORGET)
    killed = await start_service(**settings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick_in_vain, killed)
        await moment()
        killed.send(signal.SIGKILL)
        assert await killed.exit_code() == -signal.SIGKILL
    fresh = await start_service(**settings)
    answer = await _take_over(fresh, url, outcome, wait=wait)
    fresh.send(signal.SIGKILL)
    await fresh.exit_code()
    await _count(url, answer, outcome)
    return outcome


async def tick_in_vain(service: Service) -> None:
    """Tick a service that is killed, most likely before it has answered."""
    with suppress(httpx.TransportError):
        await service.tick()


async def _take_over(fresh: Service, url: str, outcome: Outcome, *, wait: bool) -> httpx.Response:
    with trio.fail_after(2 * PATIENCE):
        while (answer := await fresh.tick()).status_code == 409:
            outcome.refused += 1
            outcome.demand("Retry-After" in answer.headers, "a refusal without Retry-After")
            if wait:
                left = await query(url, LEFT_OF_THE_LEASE, LEASE)
                await trio.sleep(max([0.0, *(row["seconds"] for row in left)]) + 0.1)
            else:
                await query(url, AGE, LEASE)
    return answer


async def _count(url: str, answer: httpx.Response, outcome: Outcome) -> None:
    outcome.demand(answer.status_code == 200, f"the fresh run was answered {answer.text}")
    if outcome.faults:
        return
    *killed_rows, fresh = await query(url, "select * from scheduler.runs order by started_at, id")
    [active] = await query(url, "select count(*) as mentors from scheduler.mentors")
    mark = None
    for killed in killed_rows:
        mark = killed["low_water_mark"]
        outcome.verdict = killed["verdict"]
        outcome.killed_evaluated, outcome.mark = killed["total_evaluated"], killed["stretch_mentors"]
        if killed["verdict"] == "abandoned":
            since = fresh["started_at"] - killed["heartbeat_at"]
            outcome.demand(since > timedelta(seconds=LEASE), f"the lease was taken after {since}")
            outcome.demand(killed["finished_at"] is None, "abandoned, and yet it has a finished_at")
            [behind] = await query(url, UP_TO_THE_MARK, killed["id"], mark)
            outcome.demand(behind["mentors"] == outcome.mark, f"{behind['mentors']} mentors up to the mark")
            outcome.demand(behind["skipped"] == 0, f"{behind['skipped']} up to the mark not evaluated")
        else:
            outcome.demand(killed["verdict"] == "completed", "neither abandoned nor completed")
    outcome.demand(len(killed_rows) <= 1 and str(fresh["id"]) == answer.json()["run_id"], "other runs")
    outcome.demand(fresh["started_after"] == mark, "the fresh run did not begin at the mark")

    [sent] = await query(url, SENT, fresh["id"])
    outcome.notifications = sent["notifications"]
    outcome.duplicates, outcome.missed = sent["duplicates"], sent["missed"]
    by_killed = sent["notifications"] - sent["by_fresh"]
    outcome.demand(sent["duplicates"] == 0, "duplicates")
    outcome.demand(sent["missed"] == 0, "missed")
    outcome.demand(outcome.killed_evaluated <= by_killed, "the killed run claims more than it did")

    summary = answer.json()
    outcome.fresh_evaluated = summary["total_evaluated"]
    outcome.demand(summary["completed"], "the fresh run was not completed")
    outcome.demand(fresh["verdict"] == "completed", f"the fresh run's row says {fresh['verdict']}")
    outcome.demand(outcome.fresh_evaluated == active["mentors"], "the fresh run did not evaluate everybody")
    outcome.demand(summary["total_dispatched"] == sent["by_fresh"], "dispatched is not what was sent")


# --- The script ---

HEAD = (
    f"{'kill':>4}  {'engine':<11}  {'moment':>6}  {'verdict':<9}  {'evaluated':>9}  {'mark':>5}  "
    f"{'refused':>7}  {'fresh':>5}  {'notifications':>13}  {'duplicates':>10}  {'missed':>6}"
)


async def _kill_many(url: str, folder: Path, arguments: argparse.Namespace) -> bool:
    """Whether all was as promised. Prints a line for each kill as it happens."""
    chance = random.Random(arguments.seed)
    engines = ENGINES if arguments.engine == "both" else (arguments.engine,)
    async with open_database(url) as database:
        await migrate(database, with_example_tables=True)
    await prepare(url, arguments.mentors)
    await query(url, "analyze")
    as_promised = True
    print(f"seed {arguments.seed}, {arguments.mentors} mentors")
    for engine in engines:
        with open_services(folder) as start_service:
            settings = await walk_settings(engine, url, start_service)
            unkilled = await (await start_service(**settings)).tick()
            walk = unkilled.json()["duration_ms"] / 1000
            print(f"\n{engine}: a walk that nobody kills takes {walk:.2f} s\n{HEAD}", flush=True)
            # One moment in each part of the walk, in any order: uniform, and also at both of its ends.
            part = UNTIL * walk / arguments.kills
            moments = [part * (number + chance.random()) for number in range(arguments.kills)]
            moments[0] = 0.0
            chance.shuffle(moments)
            for number, moment in enumerate(moments, 1):
                outcome = await kill_and_run_again(
                    start_service, settings, partial(trio.sleep, moment), wait=not arguments.age
                )
                print(
                    f"{number:>4}  {engine:<11}  {moment:>6.2f}  {outcome.verdict:<9}  "
                    f"{outcome.killed_evaluated:>9}  {outcome.mark:>5}  {outcome.refused:>7}  "
                    f"{outcome.fresh_evaluated:>5}  {outcome.notifications:>13}  {outcome.duplicates:>10}  "
                    f"{outcome.missed:>6}",
                    *(f"\n      VIOLATION: {fault}" for fault in outcome.faults),
                    flush=True,
                )
                as_promised = as_promised and not outcome.faults
    print("\nas promised" if as_promised else "\nNOT as promised")
    return as_promised


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.end_to_end.kill", description="A proof by killing."
    )
    parser.add_argument("--kills", type=int, default=20, help="of each engine")
    parser.add_argument("--mentors", type=int, default=5_000)
    parser.add_argument("--engine", choices=[*ENGINES, "both"], default="both")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--age", action="store_true", help="age the heartbeat, instead of waiting for 10 s")
    arguments = parser.parse_args()
    with open_embedded_postgres() as postgres, tempfile.TemporaryDirectory(prefix="kill-") as folder:
        return 0 if trio.run(_kill_many, postgres.dsn, Path(folder), arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
