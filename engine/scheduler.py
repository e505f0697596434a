"""This file is the scheduler: its parts, opened in order and closed in reverse, and the runs it carries out.

A run lives in the scheduler's own nursery, not in its caller's task: a caller who hangs up does not end it,
and a bug in it costs that run only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
import trio

from engine.budget import budget_from
from engine.database import Database, open_database
from engine.errors import (
    ConfigurationError,
    Draining,
    DryRunUnsupported,
    MigrationError,
    NotReady,
    RunInProgress,
    StatementFailed,
    UnknownScenarioType,
)
from engine.mentors.postgres import PostgresMentors
from engine.mentors.protocol import IdRange, MentorSource
from engine.migrations import pending_migrations
from engine.run import Limits, Progress, run
from engine.run_id import new_run_id
from engine.settings import Settings
from engine.started_run import StartedRun
from engine.statements import load_statement
from engine.tally import StopReason, Summary
from engine.trigger.choice import choose_trigger_engine
from engine.trigger.in_database import EVALUATIONS_AT_ONCE, InDatabaseTriggerEngine
from engine.trigger.protocol import RunContext, TriggerEngine
from engine.walk import Walk

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_SCENARIO_TYPES = load_statement("enabled_scenario_types")

# Connections beside those that evaluate: for pages, for the remaining count, and for whoever asks whether the
# database is there. None of the three may wait for an evaluation that hangs.
OTHER_CONNECTIONS = 3

# Seconds after which someone who was refused for the moment may as well ask again: what a restart takes.
RETRY_AFTER = 5.0


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller asks for. `source` and `invoked_at` are the caller's own words, for the log alone."""

    scenario_types: tuple[str, ...] | None = None
    dry_run: bool = False
    source: str | None = None
    invoked_at: str | None = None


class Scheduler:
    """Carries out runs, one at a time, and a dry run beside. Made by `open_scheduler`.

    `built_in` is the trigger engine in the database, for who invokes it over HTTP, whichever the runs use.
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
        self._trigger_engine = trigger_engine
        self.built_in = built_in
        self._runs = runs
        self._under_way: list[StartedRun] = []
        self._latest: StartedRun | None = None
        self._draining = False

    async def start(self, request: RunRequest, *, asked_at: float | None = None) -> StartedRun:
        """Begin a run. Its budget counts from `asked_at` on trio's clock, by default from this call.

        Raises DryRunUnsupported, UnknownScenarioType, DatabaseUnavailable, NotReady, Draining, RunInProgress.

        **Cancellation:** no run was begun.
        """
        budget = budget_from(self._settings, trio.current_time() if asked_at is None else asked_at)
        if request.dry_run and not self._settings.dry_run_supported:
            raise DryRunUnsupported(
                "This trigger engine is not known to honour dry_run, so it might send; if it does honour it, "
                "set SCHEDULER_TRIGGER_ENGINE_DRY_RUN=true."
            )
        await self._check_scenario_types(request.scenario_types)
        # Nothing below awaits: of two callers who come this far, the first begins.
        if self._draining:
            raise Draining("The service is shutting down and begins no run; ask again later.", RETRY_AFTER)
        for other in self._under_way:
            if other.context.dry_run == request.dry_run:
                left = max(other.budget.hard_deadline - trio.current_time(), 1.0)
                raise RunInProgress("Another run is under way; ask again when its budget is over.", left)
        context = RunContext(new_run_id(), request.scenario_types, request.dry_run)
        progress = Progress(Walk([IdRange()], soft_threshold=budget.soft_threshold))
        started = StartedRun(context, budget, progress)
        self._under_way.append(started)
        self._latest = started
        self._runs.start_soon(self._carry_out, started, request)
        return started

    @property
    def progress(self) -> Progress | None:
        """Of the run under way, or of the last one; None before the first."""
        return self._latest.progress if self._latest else None

    def drain(self) -> None:
        """Begin no further run, and no further page or chunk of the one under way."""
        self._draining = True
        for started in self._under_way:
            started.progress.walk.stop(StopReason.DRAINING)

    async def wait_until_idle(self) -> None:
        """Wait for the end of every run under way.

        **Cancellation:** the runs go on.
        """
        while self._under_way:
            await self._under_way[0].ended()

    async def check_ready(self) -> None:
        """Raises DatabaseUnavailable or NotReady, which say what to do, unless a run could begin.

        **Cancellation:** leaves nothing behind.
        """
        try:
            pending = await pending_migrations(self._database)
        except (StatementFailed, MigrationError) as error:
            raise NotReady(str(error), RETRY_AFTER) from error
        if pending:
            raise _not_migrated()

    async def count_mentors(self) -> int:
        """How many mentors a walk would find at this moment. Raises and cancels as MentorSource.count."""
        return await self._mentors.count(IdRange())

    async def _check_scenario_types(self, asked_for: Sequence[str] | None) -> None:
        """Also finds out that Postgres is there before a run is begun on it."""
        try:
            rows = await self._database.fetch(_SCENARIO_TYPES)
        except StatementFailed as error:
            raise _not_migrated() from error
        if self._settings.over_http and not self._settings.trigger_engine_is_built_in:
            return  # a trigger engine of the user's own has scenario types of its own
        enabled = sorted(row["scenario_type"] for row in rows if row["enabled"])
        if any(scenario_type not in enabled for scenario_type in asked_for or ()):
            raise UnknownScenarioType(
                "scenario_types names one that is unknown or disabled; "
                f"enabled are: {', '.join(enabled) or 'none'}."
            )

    async def _carry_out(self, started: StartedRun, request: RunRequest) -> None:
        context = started.context
        limits = Limits(
            page_size=self._settings.mentors_per_page,
            mentors_per_invocation=self._settings.mentors_per_chunk,
            max_concurrency=self._settings.max_concurrency,
            invocation_timeout=self._settings.invocation_timeout,
        )
        run_log = log.bind(run_id=str(context.run_id))
        run_log.info(
            "run_started",
            scenario_types=context.scenario_types,
            dry_run=context.dry_run,
            source=request.source,
            invoked_at=request.invoked_at,
        )
        summary: Summary | None = None
        try:
            summary = await run(
                context, started.budget, limits, self._mentors, self._trigger_engine, started.progress
            )
        except Exception:
            run_log.exception("run_failed")
        else:
            if summary.total_active_mentors == 0 and summary.completed:
                run_log.info("no_active_mentors")
            run_log.info("run_ended", **summary.as_json(), errors=dict(started.progress.tally.errors))
        finally:
            self._under_way.remove(started)
            started.end(summary)


def _not_migrated() -> NotReady:
    return NotReady(
        "The database is not migrated to this version; run `scenario-scheduler migrate`.", RETRY_AFTER
    )


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
            max_connections=EVALUATIONS_AT_ONCE + OTHER_CONNECTIONS,
            pooler=settings.database_pooler,
        ) as database,
        trio.open_nursery() as runs,
    ):
        mentors = PostgresMentors(database, settings.eligible_assignment_statuses)
        built_in = InDatabaseTriggerEngine(database)
        trigger_engine = choose_trigger_engine(settings, built_in)
        yield Scheduler(settings, database, mentors, trigger_engine, built_in, runs)
        runs.cancel_scope.cancel()
