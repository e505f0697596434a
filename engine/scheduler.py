"""This file is the scheduler: its parts, opened in order and closed in reverse, and the runs it carries out.

A run lives in the scheduler's own nursery, not in its caller's task: a caller who hangs up does not end it,
and a bug in it costs that run only. Nothing that a run goes by is kept here from one to the next: where the
last one stopped, and that this one is the only one, is in the ledger.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from uuid import UUID

import structlog
import trio

from engine.budget import Budget, budget_from
from engine.database import Database, open_database
from engine.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    Draining,
    DryRunUnsupported,
    MigrationError,
    NotReady,
    OverridesUnsupported,
    RunInProgress,
    StatementFailed,
    UnknownScenarioType,
)
from engine.explanation import Explanation, explain
from engine.freshness import Freshness, measure_freshness
from engine.lease import NoLease, RecordedLease
from engine.ledger import LEASE, Ledger
from engine.live_run import LiveRun, live_run_here
from engine.measures import Measures
from engine.mentors.choice import open_mentors
from engine.mentors.protocol import IdRange, MentorSource
from engine.migrations import pending_migrations
from engine.overrides import Overrides, read_overrides
from engine.overview import Overview, read_overview
from engine.run import Limits, Progress
from engine.run_id import new_run_id
from engine.run_record import RunRecord, find_run, list_runs
from engine.settings import Settings
from engine.started_run import StartedRun
from engine.statements import load_statement
from engine.tally import StopReason
from engine.trigger.choice import choose_trigger_engine
from engine.trigger.in_database import EVALUATIONS_AT_ONCE, InDatabaseTriggerEngine
from engine.trigger.protocol import SCENARIO_TYPE_PATTERN, RunContext, TriggerEngine
from engine.walk import Walk

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_SCENARIO_TYPES = load_statement("enabled_scenario_types")

# At most: a run's evaluations, a dry run's beside it, those that come over HTTP, and one connection each for
# pages, for the remaining count, for the ledger and for whoever asks whether the database is there, because
# none of these may wait for an evaluation that hangs. Opened when needed: a run in the database takes seven.
MAX_CONNECTIONS = 3 * EVALUATIONS_AT_ONCE + 4

# Seconds after which someone who was refused for the moment may as well ask again: what a restart takes.
RETRY_AFTER = 5.0

# Seconds for which a service that stops waits for verdicts that Postgres did not take yet. A row left running
# is taken over by the next run.
PARTING_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller asks for. `source` and `invoked_at` are the caller's own words, for the log alone.

    `overrides` is another configuration for a dry run to try, as `Scheduler.read_overrides` makes it.
    """

    scenario_types: tuple[str, ...] | None = None
    dry_run: bool = False
    source: str | None = None
    invoked_at: str | None = None
    overrides: Overrides | None = None


class Scheduler:
    """Carries out runs, one at a time, and a dry run beside. Made by `open_scheduler`.

    `built_in` is the trigger engine in the database, for who invokes it over HTTP, whichever the runs use.
    `measures` is what its runs have done so far.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        mentors: MentorSource,
        trigger_engine: TriggerEngine,
        built_in: InDatabaseTriggerEngine,
        runs: trio.Nursery,
    ) -> None:
        self._settings = settings
        self._database = database
        self._mentors = mentors
        self.measures = Measures()
        self._trigger_engine = trigger_engine
        self.built_in = built_in
        self._runs = runs
        self._ledger = Ledger(database, self.measures.count_abandoned)
        self._under_way: list[StartedRun] = []
        self._beginning: list[trio.Event] = []
        self._latest: StartedRun | None = None
        self._draining = trio.Event()

    async def start(self, request: RunRequest, *, asked_at: float | None = None) -> StartedRun:
        """Begin a run. Its budget counts from `asked_at` on trio's clock, by default from this call.

        Raises DryRunUnsupported, OverridesUnsupported, UnknownScenarioType, DatabaseUnavailable, NotReady,
        Draining, RunInProgress.

        **Cancellation:** no run was begun, or it was and goes on.
        """
        budget = budget_from(self._settings, trio.current_time() if asked_at is None else asked_at)
        if request.dry_run and not self._settings.dry_run_supported:
            raise DryRunUnsupported(
                "This trigger engine is not known to honour dry_run, so it might send; if it does honour it, "
                "set SCHEDULER_TRIGGER_ENGINE_DRY_RUN=true."
            )
        if request.overrides is not None:
            self._check_overrides_supported(dry_run=request.dry_run)
        self._refuse_while_draining()
        with trio.move_on_at(budget.hard_deadline) as cut:
            await self.check_ready()
            await self._check_scenario_types(request.scenario_types)
        if cut.cancelled_caught:
            raise _no_answer_in_time()
        self._refuse_while_draining()
        context = RunContext(new_run_id(), request.scenario_types, request.dry_run, request.overrides)
        started = (
            self._begin_dry_run(context, budget)
            if request.dry_run
            else await self._begin_run(context, budget)
        )
        # Nothing below awaits: what was begun is carried out.
        if self.is_draining:
            started.progress.walk.stop(StopReason.DRAINING)
        self._latest = started
        self._runs.start_soon(self._carry_out, started, request)
        return started

    @property
    def progress(self) -> Progress | None:
        """Of the run that was begun last, under way or ended; None before the first."""
        return self._latest.progress if self._latest else None

    @property
    def live_run(self) -> LiveRun | None:
        """The run that this process carries out at this moment; a dry run is none."""
        for started in self._under_way:
            if not (started.context.dry_run or started.has_ended):
                return live_run_here(started)
        return None

    @property
    def is_draining(self) -> bool:
        return self._draining.is_set()

    async def wait_until_draining(self) -> None:
        """For whatever has no end of its own.

        **Cancellation:** leaves nothing behind.
        """
        await self._draining.wait()

    def drain(self) -> None:
        """Begin no further run, and no further page or chunk of the one under way."""
        self._draining.set()
        for started in self._under_way:
            started.progress.walk.stop(StopReason.DRAINING)

    async def wait_until_idle(self) -> None:
        """Wait for the end of every run under way, and a little for its verdict to be in the ledger.

        **Cancellation:** the runs go on.
        """
        for begun in tuple(self._beginning):
            await begun.wait()
        for started in tuple(self._under_way):
            await started.ended()
        with trio.move_on_after(PARTING_PATIENCE):
            for started in tuple(self._under_way):
                await started.accounted_for()

    async def check_ready(self) -> None:
        """Raises DatabaseUnavailable or NotReady, which say what to do, unless a run could begin.

        **Cancellation:** leaves nothing behind.
        """
        try:
            pending = await pending_migrations(self._database)
        except (StatementFailed, MigrationError) as error:
            raise NotReady(str(error), RETRY_AFTER) from error
        if pending:
            raise NotReady(
                "The database is not migrated to this version; run `scenario-scheduler migrate`.", RETRY_AFTER
            )

    async def count_mentors(self) -> int:
        """How many mentors a walk would find at this moment. Raises and cancels as MentorSource.count."""
        return await self._mentors.count(IdRange())

    async def measure_freshness(self) -> Freshness:
        """Is everybody being reached? Raises and cancels as `engine.freshness.measure_freshness`."""
        return await measure_freshness(self._database, self._settings.freshness_limit)

    async def read_overview(self, *, limit: int) -> Overview:
        """The latest runs, at most `limit`, and freshness. Raises as `check_ready`, and StatementFailed.

        **Cancellation:** leaves nothing behind.
        """
        await self.check_ready()
        return await read_overview(
            self._database, limit=limit, lease=LEASE, freshness_limit=self._settings.freshness_limit
        )

    async def list_runs(self, *, before: UUID | None, limit: int) -> list[RunRecord]:
        """Newest first, at most `limit`; the rest as `engine.run_record.list_runs`."""
        return await list_runs(self._database, before=before, limit=limit, lease=LEASE)

    async def find_run(self, run_id: UUID) -> RunRecord | None:
        """As `engine.run_record.find_run`."""
        return await find_run(self._database, run_id, lease=LEASE)

    async def explain(self, mentor_id: UUID) -> Explanation:
        """Why each scenario would or would not fire for one mentor, as `engine.explanation.explain`."""
        return await explain(self._database, self._mentors, self._settings, mentor_id)

    async def read_overrides(
        self, assignments: Sequence[str], scenario_types: Sequence[str] | None
    ) -> Overrides:
        """For a dry run to try, as `engine.overrides.read_overrides`. Raises as that, and as `start`."""
        self._check_overrides_supported(dry_run=True)
        await self.check_ready()
        await self._check_scenario_types(scenario_types)
        return await read_overrides(self._database, assignments, scenario_types)

    async def list_scenario_types(self) -> list[str]:
        """Those that a run evaluates unless it asks for others, in order. Raises as `Database.fetch`."""
        rows = await self._database.fetch(_SCENARIO_TYPES)
        return sorted(row["scenario_type"] for row in rows if row["enabled"])

    def _refuse_while_draining(self) -> None:
        if self.is_draining:
            raise Draining("The service is shutting down and begins no run; ask again later.", RETRY_AFTER)

    def _check_overrides_supported(self, *, dry_run: bool) -> None:
        if not dry_run:
            raise OverridesUnsupported("Another configuration is only tried in a dry run; add --dry-run.")
        if self._settings.over_http:
            raise OverridesUnsupported(
                "Another configuration can't be told to a trigger engine over HTTP; try it without "
                "SCHEDULER_TRIGGER_ENGINE, by the engine in the database."
            )

    async def _check_scenario_types(self, asked_for: Sequence[str] | None) -> None:
        if asked_for is None:
            return
        if not all(re.fullmatch(SCENARIO_TYPE_PATTERN, each) for each in asked_for):
            raise UnknownScenarioType("scenario_types names one that can't be: say a-z, 0-9 and _ only.")
        if self._settings.over_http and not self._settings.trigger_engine_is_built_in:
            return  # a trigger engine of the user's own has scenario types of its own
        enabled = await self.list_scenario_types()
        if any(scenario_type not in enabled for scenario_type in asked_for):
            raise UnknownScenarioType(
                "scenario_types names one that is unknown or disabled; "
                f"enabled are: {', '.join(enabled) or 'none'}."
            )

    def _begin_dry_run(self, context: RunContext, budget: Budget) -> StartedRun:
        """A dry run writes nothing, so one is enough per process, beside whatever else runs."""
        for other in self._under_way:
            if other.context.dry_run and not other.has_ended:
                left = max(other.budget.hard_deadline - trio.current_time(), 1.0)
                raise RunInProgress("Another dry run is under way; ask again when its budget is over.", left)
        progress = Progress(Walk([IdRange()], soft_threshold=budget.soft_threshold))
        started = StartedRun(context, budget, progress, NoLease())
        self._under_way.append(started)
        return started

    async def _begin_run(self, context: RunContext, budget: Budget) -> StartedRun:
        """Take the lease, and start where the last run of these scenario types has left off.

        Shielded, because the row of a run that was begun and is not carried out locks everybody out until its
        lease is over. Bounded by the time-out of a statement, and by the budget.
        """
        begun = trio.Event()
        self._beginning.append(begun)
        begun_at = trio.current_time()
        try:
            with trio.CancelScope(shield=True, deadline=budget.hard_deadline):
                mark = await self._ledger.begin_run(
                    context.run_id, context.scenario_types, budget.hard_deadline - begun_at
                )
                stretches = [IdRange()] if mark is None else [IdRange(after=mark), IdRange(until=mark)]
                progress = Progress(Walk(stretches, soft_threshold=budget.soft_threshold))
                lease = RecordedLease(self._ledger, context.run_id, progress, begun_at)
                started = StartedRun(context, budget, progress, lease)
                self._under_way.append(started)
                return started
        finally:
            self._beginning.remove(begun)
            begun.set()
        raise _no_answer_in_time()

    async def _carry_out(self, started: StartedRun, request: RunRequest) -> None:
        settings = self._settings
        # Of ten dispatchers on four connections, six would wait on the time-outs of their invocations.
        at_once = settings.max_concurrency if settings.over_http else EVALUATIONS_AT_ONCE
        limits = Limits(
            page_size=settings.mentors_per_page,
            mentors_per_invocation=settings.mentors_per_chunk,
            max_concurrency=min(settings.max_concurrency, at_once),
            invocation_timeout=settings.invocation_timeout,
        )
        # In this task and those that it starts: from here on, every line about the run says which one it is.
        structlog.contextvars.bind_contextvars(run_id=str(started.context.run_id))
        asked = {name: value for name, value in asdict(request).items() if value is not None}
        log.info("run_started", run_id=str(started.context.run_id), **asked)
        try:
            with self.measures.watching(started):
                await started.carry_out(limits, self._mentors, self._trigger_engine)
        finally:
            self._under_way.remove(started)


def _no_answer_in_time() -> DatabaseUnavailable:
    return DatabaseUnavailable("Postgres did not answer within the budget; check the network and its load.")


@asynccontextmanager
async def open_scheduler(settings: Settings) -> AsyncIterator[Scheduler]:
    """Open the database, the mentors, the trigger engine, and the nursery that runs live in.

    Connects to nothing yet, so it opens also while Postgres is away. Raises ConfigurationError.

    **Cancellation:** runs under way are cut; no task and no connection is left.
    """
    if settings.database_url is None:
        raise ConfigurationError(["DATABASE_URL is not set; give it the URL of your Postgres."])
    async with (
        open_database(
            settings.database_url.get_secret_value(),
            max_connections=MAX_CONNECTIONS,
            pooler=settings.database_pooler,
        ) as database,
        open_mentors(settings, database) as mentors,
        trio.open_nursery() as runs,
    ):
        built_in = InDatabaseTriggerEngine(database)
        trigger_engine = choose_trigger_engine(settings, built_in)
        yield Scheduler(settings, database, mentors, trigger_engine, built_in, runs)
        runs.cancel_scope.cancel()
