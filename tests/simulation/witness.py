"""This file is who sees everything in a world, and says what may not be.

It keeps books of its own: of what was asked and answered on the wire, and of what took effect. No number of
the product's is believed; each is compared with what was seen. What it promises to find is in `simulation`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID

from engine.budget import COUNT_GRACE, LAST_WRITE_GRACE
from engine.database import RELEASE_TIMEOUT
from engine.dispatcher import RETRY_PAUSE
from engine.errors import StatementFailed
from engine.freshness import Freshness
from engine.lease import FENCE_AFTER
from engine.run import Progress
from engine.tally import StopReason, Summary
from engine.trigger.protocol import Evaluation
from tests.model_database import Row, RunRow
from tests.simulation.plan import BUILT_IN, FOREIGN, IN_DATABASE
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

# What spec.md, sections 2 and 3, lets an answer take beyond the hard deadline: the count, the end of a call
# that was cut, the last write; and what is lost to rounding.
GRACES = COUNT_GRACE + RELEASE_TIMEOUT + LAST_WRITE_GRACE + 1e-6

# Of how many clocks may differ: the fence is two seconds of ten.
DRIFT = 1.06

# What became of one try at a chunk, or at a half of one, by what spec.md, section 5, says of it. Without any
# of these it was cut, or its time was up. `AWAY` is Postgres: the same try goes on when it is back.
ANSWERED, FINAL, RETRYABLE, BISECTABLE = "answered", "final", "retryable", "bisectable"
POISONED, AWAY = "poisoned", "away"
_OF_STATEMENTS = {"40001": RETRYABLE, "22012": POISONED, "57014": FINAL}
_HALVED = (BISECTABLE, POISONED)

LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)

# Events of the trace that are shown when something is wrong.
SHOWN = 60


@dataclass
class Try:
    """One call of a dispatcher for these mentors. Moments are on its process's clock."""

    began_here: float
    outcome: str | None = None
    told_here: float = 0.0
    retry_after: float = 0.0
    ended_here: float | None = None


Chunk = tuple[UUID, ...]


@dataclass
class RunSeen:
    """What was seen of one run. Moments are the world's, unless they end in `_here`."""

    process: Process
    is_dry: bool = False
    begun_at: float | None = None
    hard_deadline_here: float = math.inf
    fence_here: float = math.inf
    fetched: list[UUID] = field(default_factory=list)
    positions: dict[UUID, int] = field(default_factory=dict)
    touched: set[UUID] = field(default_factory=set)
    attempted: set[UUID] = field(default_factory=set)
    evaluated: set[UUID] = field(default_factory=set)
    acted: set[tuple[UUID, str]] = field(default_factory=set)
    dispatched: Counter[str] = field(default_factory=Counter)
    suppressed: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[UUID] = field(default_factory=Counter)
    invocations: int = 0
    sessions: int = 0
    was_frozen: bool = False
    is_thawing: bool = False
    summary: Summary | None = None
    tries: dict[Chunk, list[Try]] = field(default_factory=dict)
    chunk_of: dict[UUID, Chunk] = field(default_factory=dict)
    key_of: dict[Chunk, str] = field(default_factory=dict)
    chunk_named: dict[str, Chunk] = field(default_factory=dict)
    # Nothing has gone wrong with any of its tries but poison.
    is_clean: bool = True
    # How many were finished without a gap, for sure.
    finished: int = 0
    # What Postgres has of it: where it began, its mark, and `finished` when that was written.
    types: list[str] = field(default_factory=list)
    start: UUID | None = None
    mark: UUID | None = None
    recorded: int = 0
    is_completed: bool = False
    has_fetched: bool = False


class Population:
    """Who was there, and since when."""

    def __init__(self, mentor_ids: Iterable[UUID]) -> None:
        self.since = dict.fromkeys(mentor_ids, 0.0)
        self._left: list[tuple[UUID, float]] = []

    def comes(self, mentor_id: UUID, now: float) -> None:
        self.since[mentor_id] = now

    def goes(self, mentor_id: UUID, now: float) -> None:
        del self.since[mentor_id]
        self._left.append((mentor_id, now))

    def throughout(self, since: float) -> list[UUID]:
        """Those who were there at that moment and ever since."""
        return [each for each, moment in self.since.items() if moment <= since]

    def ever(self, since: float) -> set[UUID]:
        """Those who were there at any moment since then."""
        return {*self.since, *(each for each, moment in self._left if moment >= since)}


class Witness:
    def __init__(self, world: World) -> None:
        self._world = world
        self.runs: dict[UUID, RunSeen] = {}
        self.population = Population(world.plan.mentors)
        self.violations: list[str] = []
        self.trace: list[tuple[Any, ...]] = []
        self.begun: list[UUID] = []
        self.progresses: dict[Process, list[Progress]] = {}
        self._finished_when_asked: dict[int, tuple[Any, int, float]] = {}

    def violate(self, what: str) -> None:
        self.note("VIOLATION", what)
        self.violations.append(what)

    def note(self, who: str, what: str, *details: Any) -> None:
        self.trace.append((self._world.now, who, what, *details))

    def shown(self) -> str:
        """The last events, for people."""
        return "\n".join(
            f"  {event[0]:12.6f} {event[1]:<10} {' '.join(_short(each) for each in event[2:])}"
            for event in self.trace[-SHOWN:]
        )

    # What is seen on the wire to Postgres.

    def asked(
        self, process: Process, name: str, arguments: tuple[Any, ...], run_id: UUID | None
    ) -> str | None:
        """Arguments that were made at this moment, and leave in a later pass of the loop.

        Returns what is wrong with it if it does leave. Whoever is frozen in between sends on waking what was
        decided before. No check in the process can help that; scheduler.evaluate sends at most once anyway.
        """
        if process.is_dead:
            return None
        if name == "evaluate_and_count":
            self.tried(process, arguments[3], arguments[0])
            return self.begins(process, arguments[3], dry_run=arguments[2])
        if name == "fetch_page" and run_id is not None:
            self._check_start(self._seen(process, run_id), arguments[0])
        elif name == "record_heartbeat":
            self._check_counts(arguments)
        elif name == "finish_run":
            self._check_counts(arguments, verdict=str(arguments[12]))
        return None

    def gave_up(self, process: Process, name: str, arguments: tuple[Any, ...]) -> None:
        """It has ended, by an answer or without one; it may not even have left before its time was up."""
        if name == "evaluate_and_count":
            self.try_ended(process, arguments[3], arguments[0])

    def sent(self, process: Process, name: str, arguments: tuple[Any, ...], wrong: str | None) -> None:
        if process.is_dead:
            return
        if wrong is not None:
            self.violate(wrong)
        self.note(process.name, name)
        if name == "begin_run":
            seen = self.runs[arguments[0]] = RunSeen(process)
            seen.hard_deadline_here = process.clock.now + arguments[2]
            seen.fence_here = process.clock.now + FENCE_AFTER
        elif name == "evaluate_and_count":
            self.invoked(process, arguments[3], arguments[0], dry_run=arguments[2])

    def received(
        self,
        process: Process,
        run_id: UUID | None,
        name: str,
        arguments: tuple[Any, ...],
        rows: Sequence[Row],
    ) -> None:
        if process.is_dead:
            return
        if name == "fetch_page" and run_id is not None:
            seen = self._seen(process, run_id)
            for row in rows:
                if row["id"] in seen.positions:
                    self.violate(f"a mentor was fetched twice by run {_short(run_id)}")
                seen.positions[row["id"]] = len(seen.fetched)
                seen.fetched.append(row["id"])
        elif name == "evaluate_and_count":
            counts = Evaluation(
                {row["scenario_type"]: row["dispatched"] for row in rows},
                {row["scenario_type"]: row["suppressed"] for row in rows},
            )
            self.told(process, arguments[3], arguments[0], ANSWERED, 0.0)
            self.evaluated(process, arguments[3], arguments[0], counts)
        elif name == "record_heartbeat" and rows:
            seen = self.runs[arguments[0]]
            seen.is_thawing = False
            seen.fence_here = self._finished_when_asked[id(arguments)][2] + FENCE_AFTER

    def ended(
        self, process: Process, name: str, arguments: tuple[Any, ...], error: BaseException | None
    ) -> None:
        if process.is_dead:
            return
        if error is not None:
            self.note(process.name, name, "failed")
        if name == "evaluate_and_count":
            if isinstance(error, StatementFailed):
                self.told(process, arguments[3], arguments[0], _OF_STATEMENTS[error.sqlstate], 0.0)
            elif error is not None:
                self.told(process, arguments[3], arguments[0], AWAY, 0.0)
            self.invocation_ended(process, arguments[3], arguments[0])

    def took_effect(self, name: str, arguments: tuple[Any, ...], rows: Sequence[Row]) -> None:
        self.note("postgres", name, *(rows[0].values() if name == "begin_run" else (len(rows),)))
        if name in ("record_heartbeat", "finish_run") and rows:
            seen = self.runs[arguments[0]]
            seen.mark = arguments[1]
            seen.recorded = self._finished_when_asked[id(arguments)][1]
            seen.is_completed = name == "finish_run" and arguments[12] == "completed"
        if name != "begin_run" or not rows[0]["is_begun"]:
            return
        run_id = arguments[0]
        seen = self.runs[run_id]
        seen.begun_at = self._world.now
        seen.types = list(arguments[1] or [])
        self._follow(run_id, seen, rows[0]["started_after"])
        for other_id, other in self.runs.items():
            if other.in_flight and other_id != run_id and not other.is_dry and self._is_running(other):
                wrong = self._two_live_runs(other_id, seen.begun_at, "still acts when another run begins")
                if wrong is not None:
                    self.violate(wrong)
        self.begun.append(run_id)

    # What is seen on the wire to the trigger engine.

    def session_opened(self, process: Process, run_id: UUID) -> None:
        self._seen(process, run_id).sessions += 1

    def session_closed(self, process: Process, run_id: UUID) -> None:
        self._seen(process, run_id).sessions -= 1

    def invoked(self, process: Process, run_id: UUID, mentor_ids: Sequence[UUID], *, dry_run: bool) -> None:
        if process.is_dead:
            return
        world = self._world
        self.note(process.name, "invokes", run_id, len(mentor_ids), mentor_ids[0])
        seen = self._seen(process, run_id)
        seen.is_dry = dry_run
        seen.invocations += 1
        seen.in_flight.update(mentor_ids)
        if seen.invocations > world.at_once:
            self.violate(f"{seen.invocations} invocations of one run in flight, of {world.at_once}")

    def tried(self, process: Process, run_id: UUID, mentor_ids: Sequence[UUID]) -> None:
        """A dispatcher has decided to ask about these, for the first time or again."""
        if process.is_dead:
            return
        seen, chunk, now = self._seen(process, run_id), tuple(mentor_ids), process.clock.now
        tries = seen.tries.setdefault(chunk, [])
        if not tries and seen.touched.isdisjoint(chunk):
            seen.chunk_of.update(dict.fromkeys(chunk, chunk))
            if self._world.is_draining(process):
                self.violate("a chunk was begun while the process drains")
        elif not tries:
            self._check_half(seen, chunk)
        elif tries[-1].outcome == AWAY:
            return  # Postgres may be back: the same try
        elif len(tries) == 2:
            self.violate("a third try at the same chunk")
        elif tries[-1].outcome != RETRYABLE:
            self.violate(f"a chunk was tried again that was {tries[-1].outcome or 'not answered in time'}")
        elif now < tries[-1].told_here + max(RETRY_PAUSE[0], tries[-1].retry_after) - 1e-6:
            self.violate("a chunk was tried again too early")
        seen.touched.update(chunk)
        tries.append(Try(now))

    def told(
        self,
        process: Process,
        run_id: UUID,
        mentor_ids: Sequence[UUID],
        what: str,
        retry_after: float,
    ) -> None:
        """An answer to a try, or its failure, has been read."""
        if process.is_dead:
            return
        seen = self._seen(process, run_id)
        this = seen.tries[tuple(mentor_ids)][-1]
        this.outcome, this.told_here, this.retry_after = what, process.clock.now, retry_after
        seen.is_clean &= what in (ANSWERED, POISONED)

    def told_of(self, process: Process, run_id: UUID, skipped: int) -> None:
        """So many of whom a good answer says nothing good."""
        if skipped and not process.is_dead:
            self._seen(process, run_id).is_clean = False

    def try_ended(self, process: Process, run_id: UUID, mentor_ids: Sequence[UUID]) -> None:
        if process.is_dead:
            return
        seen = self._seen(process, run_id)
        seen.attempted.update(mentor_ids)
        this = seen.tries[tuple(mentor_ids)][-1]
        this.ended_here = process.clock.now
        seen.is_clean &= this.outcome is not None

    def keyed(
        self, process: Process, run_id: UUID, mentor_ids: Sequence[UUID], fields: Mapping[str, str]
    ) -> None:
        """A foreign trigger engine knows a retry by its key."""
        if process.is_dead:
            return
        seen, chunk, key = self._seen(process, run_id), tuple(mentor_ids), fields["Idempotency-Key"]
        if seen.key_of.setdefault(chunk, key) != key:
            self.violate("a retry has another Idempotency-Key")
        if seen.chunk_named.setdefault(key, chunk) != chunk or not key.startswith(str(run_id)):
            self.violate("an Idempotency-Key is not its chunk's alone")
        if fields["X-Run-Id"] != str(run_id):
            self.violate("a request names two runs")

    def begins(self, process: Process, run_id: UUID, *, dry_run: bool) -> str | None:
        """It is about to leave. Returns what is wrong with that."""
        if process.is_dead:
            return None
        seen = self._seen(process, run_id)
        if dry_run:
            return None
        if seen.begun_at is None:
            return "a run acts that has not begun"
        if process.clock.now >= seen.hard_deadline_here + 1e-6:
            return "an invocation was begun past the hard deadline"
        if self.begun[-1] == run_id:
            return None
        latest = self.runs[self.begun[-1]].begun_at
        assert latest is not None
        return self._two_live_runs(run_id, latest, "acts although another run has begun")

    def evaluated(
        self, process: Process, run_id: UUID, mentor_ids: Sequence[UUID], counts: Evaluation
    ) -> None:
        if process.is_dead:
            return
        seen = self._seen(process, run_id)
        for mentor_id in mentor_ids:
            if mentor_id in seen.evaluated:
                self.violate("a mentor was evaluated twice in one run")
            seen.evaluated.add(mentor_id)
        seen.dispatched.update(counts.dispatched)
        seen.suppressed.update(counts.suppressed)

    def invocation_ended(self, process: Process, run_id: UUID, mentor_ids: Sequence[UUID]) -> None:
        if process.is_dead:
            return
        seen = self._seen(process, run_id)
        seen.invocations -= 1
        seen.in_flight.subtract(mentor_ids)
        seen.in_flight = +seen.in_flight
        seen.attempted.update(mentor_ids)

    def acted(self, run_id: UUID, mentor_ids: Sequence[UUID], scenario_types: Sequence[str]) -> None:
        self.note("engine", "acts", run_id, len(mentor_ids), *scenario_types)
        if seen := self.runs.get(run_id):
            seen.acted.update((each, kind) for each in mentor_ids for kind in scenario_types)

    # What callers are told.

    def refused(self, process: Process, error: Exception, took: float, *, is_frozen: bool) -> None:
        if process.is_dead:
            return
        self.note(process.name, "refuses", type(error).__name__)
        self._check_answered_in_time(took, is_frozen=is_frozen)

    def answered(
        self,
        process: Process,
        summary: Summary,
        *,
        asked_at: float,
        took: float,
        is_dry: bool,
        is_frozen: bool,
    ) -> None:
        if process.is_dead:
            return
        self.note(process.name, "answers", summary.run_id, *list(summary.as_json().values())[:-1])
        self._check_answered_in_time(took, is_frozen=is_frozen)
        seen = self._seen(process, summary.run_id)
        seen.is_dry, seen.summary = is_dry, summary
        parts = summary.total_evaluated + summary.total_errors + summary.total_unprocessed
        if summary.total_active_mentors != parts:
            self.violate(f"the total of a summary is {summary.total_active_mentors}, its parts {parts}")
        self._compare("evaluated", summary.total_evaluated, len(seen.evaluated))
        self._compare("dispatched", summary.total_dispatched, seen.dispatched.total())
        self._compare("suppressed", summary.total_suppressed, seen.suppressed.total())
        is_whole = summary.remaining_known and summary.total_unprocessed == 0
        if not summary.completed == (not summary.partial) == is_whole:
            self.violate("completed and partial contradict what was left unprocessed")
        if summary.completed != (summary.stop_reason is StopReason.FINISHED):
            self.violate(f"completed is {summary.completed} of a run that stopped by {summary.stop_reason}")
        began = asked_at if seen.begun_at is None else seen.begun_at
        throughout = self.population.throughout(began)
        if summary.completed:
            missed = [each for each in throughout if each not in seen.attempted]
            if missed:
                self.violate(f"a completed run has not visited {len(missed)} who were there throughout")
        if summary.remaining_known:
            ever = self.population.ever(began)
            if not len(throughout) <= summary.total_active_mentors <= len(ever):
                self.violate(
                    f"a total of {summary.total_active_mentors}, of {len(throughout)} who were there "
                    f"throughout and {len(ever)} who were there at all"
                )
        if seen.sessions or seen.invocations:
            self.violate(f"{seen.sessions} sessions, {seen.invocations} invocations open after the answer")
        self._check_tries(seen, summary)
        if self._world.plan.engine in (IN_DATABASE, BUILT_IN):
            sent = [each for each in self._notifications() if each.run_id == summary.run_id]
            if is_dry:
                if sent:
                    self.violate("a dry run has sent")
            elif summary.total_dispatched > len(sent):
                self.violate(f"{summary.total_dispatched} dispatched of {len(sent)} that were sent")

    def looked(self, process: Process, freshness: Freshness, asked_at: float) -> None:
        """Whoever was there for as long as an age says was visited since, by a run that counts."""
        if process.is_dead:
            return
        self.note(process.name, "freshness", *(f"{name} {age}" for name, age in freshness.ages.items()))
        world = self._world
        rows = {row.id: row for row in world.database.model.runs}
        for scenario_type, age in freshness.ages.items():
            if age is None:
                continue
            # On Postgres's clock, which was stepped, and as old as the answer is.
            since = asked_at - age - world.clock_steps_so_far - 1e-3
            counting = [
                seen
                for run_id, seen in self.runs.items()
                if run_id in rows
                and scenario_type in rows[run_id].evaluated_types
                and _counts(rows[run_id])
                and seen.begun_at is not None
                and seen.begun_at >= since
            ]
            missed = [
                each
                for each in self.population.throughout(since)
                if not any(_was_visited_for(scenario_type, each, seen) for seen in counting)
            ]
            if missed:
                self.violate(
                    f"freshness says that all were evaluated for {scenario_type} {age:.3f} s ago; "
                    f"{len(missed)} were not"
                )

    def logged(self, process: Process | None, event: dict[str, Any]) -> None:
        if process is None or process.is_dead:
            return
        name = event["event"]
        self.note(process.name, "logs", name)
        if name == "run_failed":
            self.violate(f"a bug ended a run: {event.get('traceback', '')}")
        elif name == "lease_lost":
            run_id = UUID(event["run_id"])
            row = next((row for row in self._world.database.model.runs if row.id == run_id), None)
            if row is not None and row.verdict in ("completed", "partial", "failed"):
                self.violate("a lease is said to be lost that was given back with its verdict")

    def frozen(self, process: Process) -> None:
        for seen in self.runs.values():
            if seen.process is process:
                seen.was_frozen = seen.is_thawing = True

    def process_ended(self, process: Process) -> None:
        """By itself, or killed: nothing is left of it."""
        for seen in self.runs.values():
            if seen.process is process and seen.sessions:
                self.violate(f"{seen.sessions} sessions outlive a process")
            if seen.process is process and seen.invocations and not process.is_dead:
                self.violate(f"{seen.invocations} invocations outlive a process")
        for progress in self.progresses.pop(process, ()):
            self.channels_are_closed(progress)

    def channels_are_closed(self, progress: Progress) -> None:
        if progress.channel is None:
            return
        statistics = progress.channel.statistics()
        if statistics.open_send_channels or statistics.open_receive_channels:
            self.violate(f"a run has left its channel open: {statistics}")

    def are_all_visited(self, first: int) -> bool:
        """Whether by the runs from that one on there is nobody left to be visited, or nobody can be.

        By ⌈1/f⌉ + 1 runs of which every one has finished the share f without a gap, all are. Where one has
        finished nobody, the budget holds no chunk, and nothing can be asked. Nor can it be where Postgres's
        clock goes back.
        """
        runs = [self.runs[each] for each in self.begun[first:]]
        if not runs or runs[0].begun_at is None or self._world.plan.clock_goes_back:
            return True
        everybody = self.population.throughout(runs[0].begun_at)
        missed = set(everybody).difference(*(seen.attempted for seen in runs))
        if not missed:
            return True
        smallest = min(self._finished(seen) for seen in runs)
        if smallest == 0:
            return True
        if len(runs) >= math.ceil(len(everybody) / smallest) + 1:
            self.violate(
                f"{len(missed)} were not visited by {len(runs)} runs that finished {smallest} of "
                f"{len(everybody)} each"
            )
        return False

    # What is looked at when all is over.

    def look_back(self) -> None:
        self._check_notifications()
        self._check_rows()
        self._check_everybody_was_visited()

    def _check_notifications(self) -> None:
        if self._world.plan.engine == FOREIGN:
            return
        cooldowns = self._world.database.model.evaluations.cooldowns
        last: dict[tuple[UUID, str], float] = {}
        for each in sorted(self._notifications(), key=lambda sent: sent.sent_at):
            key = each.mentor_id, each.scenario_type
            if key in last and each.sent_at - last[key] < cooldowns[each.scenario_type]:
                self.violate(
                    f"{each.scenario_type} was sent twice within {each.sent_at - last[key]:.0f} s, "
                    f"of a cooldown of {cooldowns[each.scenario_type]:.0f}"
                )
            last[key] = each.sent_at

    def _check_rows(self) -> None:
        running = 0
        for row in self._world.database.model.runs:
            running += row.verdict == "running"
            if not row.counts:
                continue
            row.refuse_nonsense()
            seen = self.runs[row.id]
            if seen.summary is not None and row.verdict in ("completed", "partial"):
                for name in ("total_evaluated", "total_errors", "total_unprocessed", "total_dispatched"):
                    self._compare(f"{name} in the ledger", row.counts[name], getattr(seen.summary, name))
                self._compare("completed in the ledger", row.verdict == "completed", seen.summary.completed)
        if running > 1:
            self.violate(f"{running} rows are running")

    def _check_everybody_was_visited(self) -> None:
        """Once the runs that followed one another have finished as many without a gap as there are.

        That is what ⌈1/f⌉ + 1 runs do at the latest, f the smallest share that one of them has finished.
        How much it was is what was seen, as of the last heartbeat or verdict that took effect.
        """
        model = self._world.database.model
        by_types: dict[str, list[Any]] = {}
        for row in model.runs:
            by_types.setdefault(json.dumps(row.scenario_types or []), []).append(row)
        for rows in by_types.values():
            in_order = all(a.started_at <= b.started_at for a, b in pairwise(rows))
            if not in_order:
                continue  # Postgres's clock was stepped back: which run was the last one is not told by it
            for first in range(len(rows)):
                began = self.runs[rows[first].id].begun_at
                assert began is not None
                everybody = len(self.population.ever(began))
                visited: set[UUID] = set()
                advanced = 0
                for row in rows[first:]:
                    visited.update(self.runs[row.id].attempted)
                    advanced += self.runs[row.id].recorded
                    if self.runs[row.id].is_completed or (everybody and advanced >= everybody):
                        break
                else:
                    continue
                missed = [each for each in self.population.throughout(began) if each not in visited]
                if missed:
                    self.violate(f"{len(missed)} were not visited while the mark went all the way round")
                    return

    def _notifications(self) -> Sequence[Any]:
        return self._world.database.model.evaluations.notifications

    def _check_counts(self, arguments_asked: Sequence[Any], verdict: str | None = None) -> None:
        """Of a row that is about to be written."""
        run_id, arguments = arguments_asked[0], arguments_asked[1:]
        mark, mentors, evaluated_of_those, evaluated, errors, unprocessed, dispatched, suppressed = arguments[
            :8
        ]
        seen = self.runs[run_id]
        self._compare("evaluated in a row", evaluated, len(seen.evaluated))
        self._compare("dispatched in a row", dispatched, seen.dispatched.total())
        self._compare("suppressed in a row", suppressed, seen.suppressed.total())
        self._compare("dispatched by type", json.loads(arguments[8]), dict(+seen.dispatched))
        finished = self._finished(seen)
        self._finished_when_asked[id(arguments_asked)] = arguments_asked, finished, seen.process.clock.now
        in_hand = len(seen.fetched) - evaluated - errors
        if in_hand < 0 or unprocessed < in_hand or (verdict is None and unprocessed != in_hand):
            self.violate(f"{evaluated} + {errors} + {unprocessed} of {len(seen.fetched)} fetched")
        failed = sum(each not in seen.evaluated and each not in seen.in_flight for each in seen.attempted)
        if errors > failed:
            self.violate(f"{errors} errors of {failed} who were asked about in vain")
        if verdict != "completed" and mark is None:
            self._compare("mentors of no stretch", mentors, 0)
            if finished:
                self.violate(f"no mark behind {finished} who were finished without a gap")
            return
        prefix = len(seen.fetched) if mark is None else seen.positions.get(mark, -1) + 1
        self._compare("mentors up to the mark", mentors, prefix)
        if prefix < finished:
            self.violate(f"the mark is {finished - prefix} short of who was finished without a gap")
        stretch = seen.fetched[:prefix]
        unfinished = [each for each in stretch if each not in seen.attempted or each in seen.in_flight]
        if unfinished:
            self.violate(f"the mark has passed {len(unfinished)} who were not finished")
        self._compare(
            "evaluated up to the mark", evaluated_of_those, sum(each in seen.evaluated for each in stretch)
        )

    def _finished(self, seen: RunSeen) -> int:
        """How many of those fetched were finished without a gap. There may be more: see `_is_finished`."""
        while seen.finished < len(seen.fetched):
            chunk = seen.chunk_of.get(seen.fetched[seen.finished])
            if chunk is None or not self._is_finished(seen, chunk):
                break
            seen.finished += len(chunk)
        return seen.finished

    def _is_finished(self, seen: RunSeen, chunk: Chunk) -> bool:
        """For sure. Not known of what was not retried, nor of what had no answer in a run that was frozen."""
        tries = seen.tries.get(chunk)
        if not tries or tries[-1].ended_here is None:
            return False
        last = tries[-1]
        if last.outcome in _HALVED and len(chunk) > 1:
            middle = len(chunk) // 2
            return self._is_finished(seen, chunk[:middle]) and self._is_finished(seen, chunk[middle:])
        if last.outcome == RETRYABLE:
            return len(tries) == 2
        if last.outcome is None:
            # Cut or too late. In the database it takes a moment to end, in which the run may be cut.
            settings, ended = self._world.plan.settings, tries[-1].ended_here
            assert ended is not None
            return (
                self._world.plan.engine != IN_DATABASE
                and not seen.was_frozen
                and ended < min(seen.hard_deadline_here, seen.fence_here) - 1e-6
                and ended >= last.began_here + settings["invocation_timeout"] - 1e-6
            )
        return last.outcome != AWAY

    def _check_half(self, seen: RunSeen, half: Chunk) -> None:
        """Of a chunk that has failed whole, and for a reason that may lie in one of them."""
        wholes = [each for each in seen.tries if len(each) > len(half) and set(half) <= set(each)]
        whole = min(wholes, key=len, default=())
        middle = len(whole) // 2
        if half not in (whole[:middle], whole[middle:]):
            self.violate("who was asked about before is asked about among others")
        elif seen.tries[whole][-1].outcome not in _HALVED:
            self.violate(f"a chunk was halved that was {seen.tries[whole][-1].outcome}")

    def _check_tries(self, seen: RunSeen, summary: Summary) -> None:
        """What was not done that should have been.

        Not asked of a run that was frozen, nor of a retry or a half for which a lost lease or a lost database
        has left no time, nor of a dry run, whose deadline is not on any wire.
        """
        poisoned = self._world.plan.poison & seen.attempted
        if seen.is_clean and (
            summary.total_errors > len(poisoned)
            or (summary.completed and summary.total_errors != len(poisoned))
        ):
            self.violate(f"{summary.total_errors} errors where nothing is wrong but with {len(poisoned)}")
        if summary.stop_reason in (StopReason.LEASE_LOST, StopReason.DATABASE_UNAVAILABLE):
            return
        if seen.is_dry or seen.was_frozen:
            return
        for chunk, tries in seen.tries.items():
            last = tries[-1]
            if last.outcome == RETRYABLE and len(tries) == 1:
                if last.told_here + max(RETRY_PAUSE[1], last.retry_after) < seen.hard_deadline_here - 1e-6:
                    self.violate("a chunk was not tried again although there was time")
            elif last.outcome in _HALVED and len(chunk) > 1:
                middle = len(chunk) // 2
                wanted = (chunk[:middle], chunk[middle:]) if summary.completed else (chunk[:middle],)
                is_due = last.told_here < seen.hard_deadline_here - 1e-6
                if is_due and not all(each in seen.tries for each in wanted):
                    self.violate("a chunk that failed whole was not halved")

    def _follow(self, run_id: UUID, seen: RunSeen, said: UUID | None) -> None:
        """A run begins behind the mark of the last one of the same types, as that was when it was written.

        Where Postgres's clock goes back, which one was the last is not told by it.
        """
        others = [
            (self.runs[each].begun_at, each) for each in self.begun if self.runs[each].types == seen.types
        ]
        if self._world.plan.clock_goes_back or not others:
            seen.start = said
        else:
            latest = self.runs[max(others)[1]]
            seen.start = None if latest.is_completed else (latest.mark or latest.start)
        self._compare("where a run begins", said, seen.start)

    def _check_start(self, seen: RunSeen, first: UUID) -> None:
        """Of the first page that it asks for."""
        if seen.has_fetched:
            return
        seen.has_fetched = True
        behind = seen.start
        expected = LOWEST if behind in (None, HIGHEST) else UUID(int=behind.int + 1)
        if first != expected:
            self.violate(f"a run starts at {_short(first)} instead of behind {_short(behind)}")

    def _compare(self, what: str, said: Any, seen: Any) -> None:
        if said != seen:
            self.violate(f"{what}: {said} is said, {seen} was seen")

    def _check_answered_in_time(self, took: float, *, is_frozen: bool) -> None:
        limit = self._world.plan.settings["hard_deadline"] + GRACES
        if not is_frozen and took > limit:
            self.violate(f"answered after {took:.6f} s, of {limit:.6f}")

    def _two_live_runs(self, run_id: UUID, other_begun_at: float, what: str) -> str | None:
        late = self._world.now - other_begun_at
        # A clock that was put forward ends a lease early. Then the next heartbeat or the fence ends the run.
        allowed = FENCE_AFTER * DRIFT if self._world.plan.clock_may_take_the_lease else -1.0
        return f"run {_short(run_id)} {what}: two live runs, {late:.6f} s" if late > allowed else None

    def _is_running(self, seen: RunSeen) -> bool:
        """What a process that was frozen had in flight is cut when it wakes, and may take a moment to end."""
        return not (seen.is_thawing or seen.process.is_dead or seen.process.has_ended)

    def _seen(self, process: Process, run_id: UUID) -> RunSeen:
        if run_id not in self.runs:
            self.runs[run_id] = RunSeen(process, is_dry=True)
        return self.runs[run_id]


def _was_visited_for(scenario_type: str, mentor_id: UUID, seen: RunSeen) -> bool:
    """Evaluated for it, or counted as an error."""
    if mentor_id in seen.evaluated:
        return (mentor_id, scenario_type) in seen.acted
    return mentor_id in seen.attempted


def _short(value: Any) -> str:
    if isinstance(value, UUID):
        return f"{value.int % 16**6:06x}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _counts(row: RunRow) -> bool:
    """Whether its stretch may count as covered, asked of nobody: nine in ten of it were evaluated."""
    mentors, evaluated = (row.counts.get(name, 0) for name in ("stretch_mentors", "stretch_evaluated"))
    return (row.verdict == "completed" or row.low_water_mark is not None) and evaluated >= 0.9 * mentors
