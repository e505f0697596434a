"""This file is the scheduler: the runs it begins, and has carried out.

A run lives in the scheduler's own nursery, not in its caller's task: a caller who hangs up does not end it,
and a bug in it costs that run only. Nothing that a run goes by is kept here from one to the next: where the
last one stopped, and that this one is the only one, is in the ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import structlog
import trio

from engine.budget import Budget, budget_from
from engine.errors import (
    DatabaseUnavailable,
    Draining,
    DryRunUnsupported,
    NotReady,
    OverridesUnsupported,
    RunInProgress,
    StatementFailed,
    UnknownScenarioType,
)
from engine.lease import NoLease, RecordedLease
from engine.ledger import Ledger
from engine.live_run import LiveRun, live_run_here
from engine.measures import Measures
from engine.mentors.protocol import IdRange
from engine.overrides import Overrides, read_overrides
from engine.parts import Parts
from engine.reader import Reader
from engine.readiness import RETRY_AFTER
from engine.run import Progress
from engine.run_id import new_run_id
from engine.runner import LocalRunner, Runner, limits_from
from engine.settings import Settings
from engine.started_run import StartedRun
from engine.tally import StopReason
from engine.trigger.protocol import SCENARIO_TYPE_PATTERN, RunContext
from engine.walk import Walk

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

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


class Scheduler(Reader):
    """Carries out runs, one at a time, and a dry run beside. Made by `open_scheduler`.

    `built_in` is the trigger engine in the database, for who invokes it over HTTP, whichever the runs use.
    `measures` is what its runs have done so far. Runs are carried out by `runner`, dry ones here in any case.
    """

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        runs: trio.Nursery,
        runner: Runner | None = None,
    ) -> None:
        super().__init__(settings, parts.database, parts.mentors)
        self.measures = Measures()
        self._local = LocalRunner(limits_from(settings), parts.mentors, parts.trigger_engine)
        self._runner = runner or self._local
        self.built_in = parts.built_in
        self._runs = runs
        self._ledger = Ledger(parts.database, self.measures.count_abandoned)
        self._under_way: list[StartedRun] = []
        self._beginning: list[trio.Event] = []
        self._latest: StartedRun | None = None
        self._draining = trio.Event()

    async def start(self, request: RunRequest, *, asked_at: float | None = None) -> StartedRun:
        """Begin a run. Its budget counts from `asked_at` on trio's clock, by default from this call.

        Raises DryRunUnsupported, OverridesUnsupported, UnknownScenarioType, DatabaseUnavailable,
        FleetUnavailable, Draining, RunInProgress, and NotReady, also where Postgres refuses a statement that
        a run begins with.

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
            with _refused_is_not_ready():
                await self._check_scenario_types(request.scenario_types)
            await (self._local if request.dry_run else self._runner).check_ready()
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

    async def read_overrides(
        self, assignments: Sequence[str], scenario_types: Sequence[str] | None
    ) -> Overrides:
        """For a dry run to try, as `engine.overrides.read_overrides`. Raises as that, and as `start`."""
        self._check_overrides_supported(dry_run=True)
        await self.check_ready()
        await self._check_scenario_types(scenario_types)
        return await read_overrides(self._database, assignments, scenario_types)

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
            with (
                trio.CancelScope(shield=True, deadline=budget.hard_deadline),
                _refused_is_not_ready(),
            ):
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
        # In this task and those that it starts: from here on, every line about the run says which one it is.
        structlog.contextvars.bind_contextvars(run_id=str(started.context.run_id))
        asked = {name: value for name, value in asdict(request).items() if value is not None}
        log.info("run_started", run_id=str(started.context.run_id), **asked)
        try:
            with self.measures.watching(started):
                await started.carry_out(self._local if request.dry_run else self._runner)
        finally:
            self._under_way.remove(started)


@contextmanager
def _refused_is_not_ready() -> Iterator[None]:
    """A refused statement, by a statement_timeout for example, has begun nothing: ask again."""
    try:
        yield
    except StatementFailed as error:
        raise NotReady(
            f"{error} Look at its log; if it names a time-out, raise statement_timeout or lock_timeout of "
            "the role that the service logs in as.",
            RETRY_AFTER,
        ) from None


def _no_answer_in_time() -> DatabaseUnavailable:
    return DatabaseUnavailable("Postgres did not answer within the budget; check the network and its load.")
