"""This file is who carries a run out: this process by itself, or whoever else keeps the same promises."""

from __future__ import annotations

from typing import Protocol

import trio

from engine.budget import Budget
from engine.mentors.protocol import MentorSource
from engine.run import Limits, Progress, run
from engine.settings import Settings
from engine.tally import Summary
from engine.trigger.in_database import EVALUATIONS_AT_ONCE
from engine.trigger.protocol import RunContext, TriggerEngine


class Runner(Protocol):
    async def check_ready(self) -> None:
        """Raises NotNow, which says what to do, unless a run could be carried out.

        **Cancellation:** leaves nothing behind.
        """
        ...

    async def run(self, context: RunContext, budget: Budget, progress: Progress) -> Summary:
        """As `engine.run.run`: ends in time, cut or not, with a summary that is true.

        **Cancellation:** as there.
        """
        ...


class LocalRunner:
    """Implements Runner: the run as engine/run.py has it, in this process."""

    def __init__(self, limits: Limits, mentors: MentorSource, trigger_engine: TriggerEngine) -> None:
        self._limits = limits
        self._mentors = mentors
        self._trigger_engine = trigger_engine

    async def check_ready(self) -> None:
        await trio.lowlevel.checkpoint()

    async def run(self, context: RunContext, budget: Budget, progress: Progress) -> Summary:
        return await run(context, budget, self._limits, self._mentors, self._trigger_engine, progress)


def limits_from(settings: Settings) -> Limits:
    """Of a run that one process carries out alone."""
    # Of ten dispatchers on four connections, six would wait on the time-outs of their invocations.
    at_once = settings.max_concurrency if settings.over_http else EVALUATIONS_AT_ONCE
    return Limits(
        page_size=settings.mentors_per_page,
        mentors_per_invocation=settings.mentors_per_chunk,
        max_concurrency=min(settings.max_concurrency, at_once),
        invocation_timeout=settings.invocation_timeout,
    )
