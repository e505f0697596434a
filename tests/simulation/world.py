"""This file is a world: processes, Postgres, a trigger engine, callers; all that follows from one seed."""

from __future__ import annotations

import hashlib
import math
import random
import traceback
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import UUID

import outcome
import structlog
import trio
from trio._core import _run as trio_loop

import engine.parts
import engine.scheduler
import engine.trigger.choice
from engine.database import RELEASE_TIMEOUT, STATEMENT_TIMEOUT
from engine.errors import DatabaseUnavailable, NotNow, RequestRefused, RunFailed, StatementFailed
from engine.ledger import LEASE
from engine.opening import open_scheduler
from engine.scheduler import PARTING_PATIENCE, RunRequest, Scheduler
from engine.settings import Settings, load_settings
from engine.trigger.in_database import EVALUATIONS_AT_ONCE
from tests.model_database import ModelDatabase
from tests.simulation import trigger_engine
from tests.simulation.agenda import Agenda
from tests.simulation.database import LATEST, Client, Server
from tests.simulation.plan import BUILT_IN, IN_DATABASE, Interruption, Outage, Plan, Tick, draw_plan
from tests.simulation.process import Process
from tests.simulation.weather import Weather
from tests.simulation.witness import GRACES, Witness

# Where the world's processes think that their trigger engine is.
_URLS = {IN_DATABASE: "in-database", BUILT_IN: "http://127.0.0.1:8000/trigger-engine"}
_FOREIGN_URL = "http://127.0.0.1:1/"

# Seconds after which a run must be able to begin, once all faults have ended: what still takes effect late
# may be one more beginning that nobody carries out.
HEALED_AFTER = LATEST + LEASE + 5.0

# What a killed process may take to give back what it holds: a beginning is shielded for one statement.
UNWOUND_AFTER = STATEMENT_TIMEOUT + 2 * RELEASE_TIMEOUT

# Runs in which everybody is visited once nothing goes wrong any more, ⌈1/f⌉ + 1, unless a budget holds less
# than a fifth of them. Worlds in which it does are not asked: they would take up to fifty.
RUNS_TO_VISIT_ALL = 6

# Passes of loops and entries of the agenda after which a world is taken for one that never ends.
TOO_MANY = 300_000


@dataclass(frozen=True)
class Outcome:
    """What became of a world."""

    seed: str
    plan: Plan
    violations: list[str]
    faults: dict[str, int]
    digest: str
    last_events: str
    runs: int

    def __str__(self) -> str:
        series, _, number = self.seed.partition(":")
        return (
            f"World {self.seed}: {'; '.join(self.violations) or 'nothing is wrong'}\n\n"
            f"Its settings:\n{self.plan}\n\nIts last events:\n{self.last_events}\n\n"
            f"Again: python -m tests.simulation --seed {series} --first {number} --worlds 1"
        )


def simulate(seed: str) -> Outcome:
    """One world from its beginning to its end. The same seed is the same world, to the last event."""
    world = World(seed)
    with _in_place_of_the_real_world(world):
        world.run()
    digest = hashlib.sha256()
    for event in world.witness.trace:
        digest.update(repr(event).encode())
    return Outcome(
        seed,
        world.plan,
        world.witness.violations,
        dict(world.weather.counted),
        digest.hexdigest(),
        world.witness.shown(),
        len(world.witness.begun),
    )


class Service:
    """What a process does: `scenario-scheduler serve` without the HTTP."""

    def __init__(self, world: World, instance: int) -> None:
        plan = world.plan
        self.instance = instance
        self.is_draining = False
        self.client: Client | None = None
        self._world = world
        self._scheduler: Scheduler | None = None
        self._asked: deque[Any] = deque()
        self._waiting: trio.lowlevel.Task | None = None
        self._frozen = 0
        self.process = Process(
            f"process {instance}",
            self._main,
            rate=plan.rates[instance],
            offset=plan.offsets[instance],
            started_at=world.now,
            on_step=world.on_step,
        )

    def ask(self, what: Any) -> None:
        """A `Tick`, `drain`, or `freshness`."""
        self._asked.append(what)
        if self._waiting is not None:
            task, self._waiting = self._waiting, None
            self.process.resume(task, outcome.Value(None))

    def was_frozen(self) -> None:
        self._frozen += 1

    async def _main(self, process: Process) -> None:
        async with open_scheduler(self._world.settings) as scheduler, trio.open_nursery() as callers:
            self._scheduler = scheduler
            while not self.is_draining:
                what = await self._next()
                if isinstance(what, Tick):
                    callers.start_soon(self._call, scheduler, what)
                elif what == "freshness":
                    callers.start_soon(self._look, scheduler)
                else:
                    self.is_draining = True
            scheduler.drain()
            await scheduler.wait_until_idle()
        # Every caller has been answered.

    async def _next(self) -> Any:
        while not self._asked:

            def give_up(_: object) -> trio.lowlevel.Abort:
                self._waiting = None
                return trio.lowlevel.Abort.SUCCEEDED

            self._waiting = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(give_up)
        return self._asked.popleft()

    async def _call(self, scheduler: Scheduler, tick: Tick) -> None:
        world, witness = self._world, self._world.witness
        asked_at, asked_at_here = world.now, trio.current_time() - tick.read_for
        frozen = self._frozen

        def took() -> dict[str, Any]:
            return {"took": trio.current_time() - asked_at_here, "is_frozen": self._frozen > frozen}

        with trio.move_on_after(tick.patience):
            try:
                request = RunRequest(tick.scenario_types, tick.dry_run)
                started = await scheduler.start(request, asked_at=asked_at_here)
                witness.progresses.setdefault(self.process, []).append(started.progress)
                summary = await started.summary()
            except (NotNow, RequestRefused, DatabaseUnavailable, StatementFailed) as error:
                witness.refused(self.process, error, **took())
            except RunFailed:
                witness.note(self.process.name, "answers that a run has failed")
            else:
                witness.answered(self.process, summary, asked_at=asked_at, is_dry=tick.dry_run, **took())
                witness.channels_are_closed(started.progress)

    async def _look(self, scheduler: Scheduler) -> None:
        asked_at = self._world.now
        try:
            freshness = await scheduler.measure_freshness()
        except (DatabaseUnavailable, StatementFailed):
            return
        self._world.witness.looked(self.process, freshness, asked_at)


class World:
    """Everything that is shared. `now` in seconds since it began, on no clock of anybody's."""

    def __init__(self, seed: str) -> None:
        self.rng = Random(seed)
        self.plan = plan = draw_plan(self.rng)
        self.agenda = Agenda()
        self.weather = Weather(self.rng, plan.database_faults, plan.engine_faults)
        # After every answer, so that each invocation has to connect first. Of dice of its own: worlds without
        # a trigger engine over HTTP are the same without it.
        self.engine_closes = Random(f"{seed}, connections").random() < 0.3
        self.settings = _settings_of(plan)
        self.at_once = plan.settings["max_concurrency"]
        if plan.engine == IN_DATABASE:
            self.at_once = min(self.at_once, EVALUATIONS_AT_ONCE)
        model = ModelDatabase(plan.mentors, clock=lambda: plan.database_epoch + self.agenda.now)
        model.evaluations.is_due = self.is_due
        self.database = Server(self, model)
        self.trigger_engine = trigger_engine.Server(self)
        self.clock_steps_so_far = 0.0
        self.running: Process | None = None
        self.witness = Witness(self)
        self._services: dict[int, Service] = {}
        self._interruptions = [each for each in plan.interruptions if each.at is None]
        self._is_ending = False
        self._moves = 0

    @property
    def now(self) -> float:
        return self.agenda.now

    def is_due(self, mentor_id: UUID, scenario_type: str) -> bool:
        share = self.plan.due[scenario_type]
        return share == 1.0 or (mentor_id.int * 2_654_435_761 + len(scenario_type)) % 1000 < share * 1000

    def is_draining(self, process: Process) -> bool:
        return any(each.process is process and each.is_draining for each in self._services.values())

    def outage_for(self, process: Process) -> Outage | None:
        if self.weather.is_calm:
            return None
        for outage in self.plan.outages:
            if outage.begins <= self.now < outage.ends and (
                outage.instance is None or process.name == f"process {outage.instance}"
            ):
                return outage
        return None

    # Its course.

    def run(self) -> None:
        self._prepare()
        try:
            self._run_until(self.plan.ticks[-1].at + self.plan.settings["hard_deadline"] + 5.0)
            self._heal()
            self._end()
            if not self.witness.violations:
                self.witness.look_back()
        except Exception:
            self.witness.violate(f"the simulation is broken: {traceback.format_exc()}")
        finally:
            for service in tuple(self._services.values()):
                self._bury(service)

    def _prepare(self) -> None:
        plan, agenda = self.plan, self.agenda
        for instance in range(plan.instances):
            self._start(instance)
        for tick in plan.ticks:
            agenda.after(tick.at, self._ask, tick.instance, tick)
        for moment in plan.looks:
            agenda.after(moment, self._ask, self.rng.randrange(plan.instances), "freshness")
        for change in plan.changes:
            agenda.after(change.at, self._change, change.mentor_id, change.comes)
        for switch in plan.switches:
            agenda.after(switch.at, self._switch, switch.scenario_type, switch.enabled)
        for step in plan.clock_steps:
            agenda.after(step.at, self._step_clock, step.seconds)
        for outage in plan.outages:
            agenda.after(outage.begins, self._note_outage, outage)
        for each in plan.interruptions:
            if each.at is not None:
                agenda.after(each.at, self._interrupt, each)

    def _heal(self) -> None:
        """Once nothing goes wrong any more, a run begins, and everybody is told how things are."""
        self.weather.is_calm = True
        self._interruptions = []
        is_awake = False
        while not (is_awake or self.witness.violations):
            # Whoever wakes still finds what was asked of it, and may begin a run.
            is_awake = not any(each.process.is_stopped for each in self._services.values())
            self._run_until(self.now + HEALED_AFTER + self.plan.settings["hard_deadline"])
        if self.witness.violations:
            return
        if 0 not in self._services:
            self._start(0)
        if not self._services[0].is_draining:
            begun = len(self.witness.begun)
            self._ask(0, "freshness")
            self._run_until(self.now + 1.0)
            self._ask(0, Tick(self.now, 0))
            self._run_until(self.now + 1.5 * (self.plan.settings["hard_deadline"] + GRACES))
            if len(self.witness.begun) == begun and not self.plan.clock_goes_back:
                self.witness.violate("no run begins although nothing is wrong any more")
            self._visit_everybody(begun)
            self._ask(0, "freshness")
            self._run_until(self.now + 60.0)

    def _visit_everybody(self, first: int) -> None:
        """From that run on, as far as a budget has room for a chunk at all."""
        witness = self.witness
        pause = 1.5 * (self.plan.settings["hard_deadline"] + GRACES)
        for _ in range(RUNS_TO_VISIT_ALL):
            if witness.violations or witness.are_all_visited(first):
                return
            begun = len(witness.begun)
            self._ask(0, Tick(self.now, 0))
            self._run_until(self.now + pause)
            if len(witness.begun) != begun + 1:
                return

    def _end(self) -> None:
        self._is_ending = True
        for service in tuple(self._services.values()):
            service.ask("drain")
        self._run_until(self.now + 1.5 * (self.plan.settings["hard_deadline"] + GRACES + PARTING_PATIENCE))
        if self._services and not self.witness.violations:
            self.witness.violate(f"{len(self._services)} processes do not end when they are told to")

    def _run_until(self, moment: float) -> None:
        """Step whoever is to be stepped and do what is due; at the same moment, in any order."""
        agenda, rng = self.agenda, self.rng
        while not self.witness.violations:
            now = agenda.now
            waking = [each for each in self._services.values() if not each.process.is_stopped]
            due = [each for each in waking if each.process.wakes_at <= now]
            if agenda.next_moment <= now:
                chosen = rng.randrange(len(due) + 1) if due else 0
                if chosen == len(due):
                    agenda.do_next()
                else:
                    self._step(due[chosen])
            elif due:
                self._step(due[0] if len(due) == 1 else rng.choice(due))
            else:
                soonest = min((each.process.wakes_at for each in waking), default=math.inf)
                soonest = min(soonest, agenda.next_moment)
                if soonest > moment:
                    agenda.now = max(now, moment)
                    return
                agenda.now = soonest
                continue
            self._moves += 1
            if self._moves > TOO_MANY:
                self.witness.violate("it goes on and on")

    def _step(self, service: Service) -> None:
        outer, self.running = self.running, service.process
        try:
            service.process.step(self.now)
        finally:
            self.running = outer
        process = service.process
        if process.is_dead:
            self._bury(service)
        elif process.has_ended:
            if process.failure is not None:
                failure = "".join(traceback.format_exception(process.failure))
                self.witness.violate(f"a process has ended by {failure}")
            self._services.pop(service.instance)
            self.witness.note(process.name, "ends")
            self._check_nothing_is_left(service)

    # What happens to it.

    def on_step(self, process: Process) -> None:
        """Before every step of a task: here, in the middle of a pass, a process is frozen or killed."""
        if process.is_dead or not self._interruptions:
            return
        for each in self._interruptions:
            service = self._services.get(each.instance)
            if service is not None and service.process is process and process.steps >= each.step:
                self._interruptions.remove(each)
                try:
                    self._interrupt(each)
                except BaseException:  # trio would only log it
                    self.witness.violate(f"the simulation is broken: {traceback.format_exc()}")
                return

    def _interrupt(self, each: Interruption) -> None:
        service = self._services.get(each.instance)
        if service is None or self.weather.is_calm:
            return
        process = service.process
        if process.is_stopped or process.is_dead:
            return
        self.weather.count(f"process: {_KINDS[each.kind]}")
        self.witness.note(process.name, each.kind, each.seconds)
        if each.kind == "drain":
            service.ask("drain")
            self.agenda.after(each.seconds, self._start_again, each.instance)
        elif each.kind == "kill":
            self.agenda.after(each.seconds, self._start_again, each.instance)
            process.is_dead = True
            if not process.is_stepping:
                self._bury(service)
        else:
            process.is_stopped = True
            service.was_frozen()
            self.witness.frozen(process)
            if process.is_stepping:
                # In the middle of a pass. All others go on from here.
                self._run_until(self.now + each.seconds)
                self._wake(process)
            else:
                self.agenda.after(each.seconds, self._wake, process)

    def _wake(self, process: Process) -> None:
        process.is_stopped = False
        process.thaw(self.now)
        self.witness.note(process.name, "wakes")

    def _bury(self, service: Service) -> None:
        self._services.pop(service.instance)
        took = service.process.unwind()
        if took > UNWOUND_AFTER:
            self.witness.violate(f"{took} s after it was killed, a process still holds on to something")
        self._check_nothing_is_left(service)

    def _check_nothing_is_left(self, service: Service) -> None:
        self.witness.process_ended(service.process)
        if service.client is not None and service.client.open_calls:
            self.witness.violate(f"{service.client.open_calls} calls outlive a process")

    def _start(self, instance: int) -> None:
        self._services[instance] = Service(self, instance)
        self.witness.note(f"process {instance}", "starts")

    def _start_again(self, instance: int) -> None:
        service = self._services.get(instance)
        if service is not None and service.is_draining:
            self.agenda.after(1.0, self._start_again, instance)
        if service is not None or self._is_ending:
            return
        self.weather.count("process: started again")
        self._start(instance)

    def _ask(self, instance: int, what: Any) -> None:
        service = self._services.get(instance)
        if service is not None and not service.is_draining:
            service.ask(what)

    def _change(self, mentor_id: UUID, comes: bool) -> None:
        model, population = self.database.model, self.witness.population
        if comes == (mentor_id in population.since):
            return
        self.weather.count("population: a mentor comes" if comes else "population: a mentor goes")
        self.witness.note("population", "comes" if comes else "goes", mentor_id)
        if comes:
            model.add_mentor(mentor_id)
            population.comes(mentor_id, self.now)
        else:
            model.remove_mentor(mentor_id)
            population.goes(mentor_id, self.now)

    def _switch(self, scenario_type: str, enabled: bool) -> None:
        self.database.model.switch(scenario_type, enabled=enabled)
        self.weather.count(f"operator: a scenario is {'enabled' if enabled else 'disabled'}")
        self.witness.note("operator", "enables" if enabled else "disables", scenario_type)

    def _step_clock(self, seconds: float) -> None:
        self.database.model.clock_offset += seconds
        self.clock_steps_so_far += abs(seconds)
        self.weather.count(f"clock: Postgres's is put {'forward' if seconds > 0 else 'back'}")
        self.witness.note("postgres", "clock steps", seconds)

    def _note_outage(self, outage: Outage) -> None:
        what = "is silent" if outage.is_silent else "is away"
        for_whom = "" if outage.instance is None else " for one process"
        self.weather.count(f"database: {what}{for_whom}")
        self.witness.note("postgres", what, outage.ends - outage.begins, str(outage.instance))

    # What stands in for what is outside.

    @asynccontextmanager
    async def open_database(self, url: str, **how: Any) -> AsyncIterator[Client]:
        assert self.running is not None
        service = next(each for each in self._services.values() if each.process is self.running)
        service.client = Client(self, self.running, how["max_connections"])
        yield service.client

    def open_transport(self, settings: Settings) -> trigger_engine.SimulatedTransport:
        assert self.running is not None
        return trigger_engine.SimulatedTransport(self, self.running, settings.trigger_engine)

    def new_run_id(self) -> UUID:
        """As the product's, of this world's clock and dice."""
        assert self.running is not None
        milliseconds = int((self.plan.database_epoch + self.now) * 1000)
        return UUID(int=milliseconds << 80 | 0x7 << 76 | 0b10 << 62 | self.rng.getrandbits(62))

    def read_log(self, logger: object, method: str, event: dict[str, Any]) -> Any:
        if event.get("exc_info"):
            event["traceback"] = traceback.format_exc()
        self.witness.logged(self.running, event)
        raise structlog.DropEvent


_KINDS = {"kill": "killed", "freeze": "frozen", "drain": "told to stop"}

_BASE = {
    IN_DATABASE: load_settings(database_url="postgresql://model@model/model"),
}


def _settings_of(plan: Plan) -> Settings:
    if plan.engine not in _BASE:
        _BASE[plan.engine] = load_settings(
            database_url="postgresql://model@model/model",
            trigger_engine=_URLS.get(plan.engine, _FOREIGN_URL),
            service_role_key="key",
        )
    # Checking them anew for every world would cost as much as simulating it.
    return _BASE[plan.engine].model_copy(update=plan.settings)


@contextmanager
def _in_place_of_the_real_world(world: World) -> Iterator[None]:
    """Dice, clocks, network and log are the world's; everything is put back."""
    seams = [
        (engine.parts, "open_database", world.open_database),
        (engine.scheduler, "new_run_id", world.new_run_id),
        (engine.trigger.choice, "choose_transport", world.open_transport),
        (trio_loop, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
    ]
    before = [(where, name, getattr(where, name)) for where, name, _ in seams]
    log_settings = structlog.get_config()
    dice = random.getstate(), trio_loop._r.getstate()
    try:
        for where, name, instead in seams:
            setattr(where, name, instead)
        structlog.configure(
            processors=[world.read_log],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            logger_factory=structlog.ReturnLoggerFactory(),
            cache_logger_on_first_use=False,
        )
        random.seed(world.rng.getrandbits(64))
        trio_loop._r.seed(world.rng.getrandbits(64))
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)
        structlog.configure(**log_settings)
        random.setstate(dice[0])
        trio_loop._r.setstate(dice[1])
