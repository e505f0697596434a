"""This file is a run that was begun: carried out on its lease, accounted for, told to whoever waits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import structlog
import trio

from engine.budget import LAST_WRITE_GRACE, Budget
from engine.errors import RunFailed
from engine.lease import Lease
from engine.ledger import Verdict
from engine.run import Progress
from engine.runner import Runner
from engine.tally import StopReason, Summary, summarise
from engine.trigger.protocol import RunContext

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class StartedRun:
    """A run under way, or ended."""

    def __init__(self, context: RunContext, budget: Budget, progress: Progress, lease: Lease) -> None:
        self.context = context
        self.budget = budget
        self.progress = progress
        self.ending: tuple[Verdict, Summary] | None = (
            None  # once nothing more is counted, also when it failed
        )
        self._lease = lease
        self._ended = trio.Event()
        self._outcome: Summary | RunFailed = RunFailed(
            "The run was cut: the service was told to stop at once."
        )

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    async def ended(self) -> None:
        """Wait until the run has ended, however it did.

        **Cancellation:** the run goes on.
        """
        await self._ended.wait()

    async def accounted_for(self) -> None:
        """Wait until its verdict is in the ledger. Never comes if the process is cut before.

        **Cancellation:** the verdict is still written.
        """
        await self._lease.given_back.wait()

    async def summary(self) -> Summary:
        """Wait for the run's end. Raises RunFailed if a bug ended it, or the end of the service.

        **Cancellation:** the run goes on.
        """
        await self._ended.wait()
        if isinstance(self._outcome, Summary):
            return self._outcome
        raise self._outcome

    async def carry_out(self, runner: Runner) -> None:
        """Run to the end. Returns when the verdict is in the ledger, which may be long after the answer.

        Raises nothing: a bug costs its run, and no other.

        **Cancellation:** the run is cut, and its row left running, for the next run to take over.
        """
        outcome = self._outcome  # cut, unless it comes to an end
        try:
            self.ending = verdict, summary = await self._run(runner)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._give_lease_back, verdict, summary)
                with trio.move_on_after(LAST_WRITE_GRACE):
                    await self._lease.given_back.wait()
                if self._lease.is_lost and summary.partial:
                    summary = replace(summary, stop_reason=StopReason.LEASE_LOST)
                outcome = summary
                if verdict is Verdict.FAILED:
                    outcome = RunFailed("The run was ended by a bug; its cause is in the log of the service.")
                self._end(outcome)
        finally:
            self._end(outcome)

    async def _run(self, runner: Runner) -> tuple[Verdict, Summary]:
        budget, progress = self.budget, self.progress
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(self._lease.keep, until=budget.hard_deadline))
                summary = await runner.run(self.context, budget, progress)
                nursery.cancel_scope.cancel()
        except Exception:
            log.exception("run_failed", run_id=str(self.context.run_id))
            counted = summarise(
                progress.tally,
                unfetched=None,
                ended_by=StopReason.HARD_DEADLINE,  # not kept of a run that failed
                duration=trio.current_time() - budget.started,
                run_id=self.context.run_id,
            )
            return Verdict.FAILED, counted
        return Verdict.COMPLETED if summary.completed else Verdict.PARTIAL, summary

    async def _give_lease_back(self, verdict: Verdict, summary: Summary) -> None:
        try:
            await self._lease.give_back(verdict, summary)
        except Exception:
            log.exception("verdict_not_recorded", run_id=str(self.context.run_id))

    def _end(self, outcome: Summary | RunFailed) -> None:
        """Tell whoever waits, once."""
        if self._ended.is_set():
            return
        self._outcome = outcome
        self._ended.set()
        errors = dict(self.progress.tally.errors)
        if isinstance(outcome, Summary):
            say = log.warning if errors else log.info
            say("run_ended", **outcome.as_json(), errors=errors)
            if outcome.total_active_mentors == 0 and outcome.completed:
                log.info("no_active_mentors", run_id=str(self.context.run_id))
        elif self.ending is not None:
            verdict, summary = self.ending
            counts = {name: count for name, count in summary.as_json().items() if name.startswith("total_")}
            log.error(
                "run_ended", run_id=str(self.context.run_id), verdict=str(verdict), **counts, errors=errors
            )
