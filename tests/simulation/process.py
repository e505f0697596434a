"""This file is one process of a world: a trio loop of its own, on a clock of its own, stepped from outside.

So it can be treated as a real one is. Frozen, it is not stepped, in the middle of a pass of its loop if need
be, while its timers run out and answers pile up; woken, trio reads the answers first and looks at deadlines
then, as it does after SIGSTOP and SIGCONT. Killed, nothing that it still says is heard. Its clock may drift.

The loop is trio's own. What is used of its inner parts is in this file alone, as of trio 0.30 to 0.35, and
what differs from `trio.run` is who calls it: no I/O is waited for, because there is none.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import outcome
import trio
from trio._core import _run as trio_loop


class ProcessClock(trio.abc.Clock):
    """Stands still while the process is not stepped."""

    def __init__(self) -> None:
        self.now = 0.0

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.now


class Process:
    """`rate` and `offset` make its clock of the world's. `on_step` is called before each step of a task.

    Between two calls of `step`, `wakes_at` is the moment of the world at which it has to be called again.
    """

    def __init__(
        self,
        name: str,
        main: Callable[[Process], Awaitable[None]],
        *,
        rate: float = 1.0,
        offset: float = 0.0,
        started_at: float = 0.0,
        on_step: Callable[[Process], None] = lambda process: None,
    ) -> None:
        self.name = name
        self.clock = ProcessClock()
        self.clock.now = offset + rate * started_at
        self.is_stopped = False
        self.is_dead = False
        self.has_ended = False
        self.is_stepping = False
        self.failure: BaseException | None = None
        self.steps = 0
        self._rate, self._offset = rate, offset
        self._main = main
        self._scope = trio.CancelScope()
        self._is_runnable = True
        # The next deadline on its own clock, and on the world's.
        self._deadline_here = self._deadline = math.inf
        hooks = sys.get_asyncgen_hooks()
        with _in_place_of_the_running_loop():
            self._runner = trio_loop.setup_runner(self.clock, [_Steps(self, on_step)], False, True)
        # Neither asynchronous generators nor Ctrl-C belong to one loop of several.
        sys.set_asyncgen_hooks(*hooks)
        self._runner.ki_manager.close()
        self._loop = trio_loop.unrolled_run(self._runner, self._run, (), host_uses_signal_set_wakeup_fd=True)
        self._next_events: Any = None

    @property
    def wakes_at(self) -> float:
        return -math.inf if self._is_runnable else self._deadline

    def step(self, now: float) -> None:
        """One pass of its loop, at this moment of the world."""
        self.clock.now = max(self.clock.now, self.here(now))
        if now >= self._deadline:
            self.clock.now = max(self.clock.now, self._deadline_here)  # whatever rounding has left of it
        self._pass()

    def here(self, now: float) -> float:
        """That moment of the world on this clock."""
        return self._offset + self._rate * now

    def resume(self, task: trio.lowlevel.Task, result: outcome.Outcome[Any]) -> None:
        """The answer that a task waits for has come, read when the process is next stepped."""
        self._runner.reschedule(task, result)
        self._is_runnable = True

    def thaw(self, now: float) -> None:
        """Goes on in the middle of the step before which it was frozen."""
        self.clock.now = max(self.clock.now, self.here(now))

    def unwind(self) -> float:
        """Let a killed process clean up, unheard. Returns the seconds it took by its clock; inf: it hangs."""
        self.is_dead = True
        began = self.clock.now
        with _in_place_of_the_running_loop(self._runner):
            self._scope.cancel()
        self._is_runnable = True
        while not self.has_ended:
            if not self._is_runnable:
                if self._deadline_here == math.inf:
                    return math.inf
                self.clock.now = max(self.clock.now, self._deadline_here)
            self._pass()
        return self.clock.now - began

    async def _run(self) -> None:
        with self._scope:
            await self._main(self)

    def _pass(self) -> None:
        self.is_stepping = True
        with _in_place_of_the_running_loop(self._runner):
            try:
                self._loop.send(self._next_events)
            except StopIteration:
                self.has_ended = True
                self._is_runnable = False
                self._deadline = self._deadline_here = math.inf
                result = self._runner.main_task_outcome
                self.failure = result.error if isinstance(result, outcome.Error) else None
                return
            finally:
                self.is_stepping = False
        runner = self._runner
        # The loop's one socket wakes it for what was put in here from elsewhere, which trio does at its end.
        is_called = bool(runner.entry_queue.queue)
        self._next_events = runner.io_manager.get_events(0) if is_called else []
        self._deadline_here = self._runner.deadlines.next_deadline()
        self._deadline = (self._deadline_here - self._offset) / self._rate
        self._is_runnable = is_called or bool(runner.runq) or self._deadline_here <= self.clock.now


class _Steps(trio.abc.Instrument):
    def __init__(self, process: Process, on_step: Callable[[Process], None]) -> None:
        self._process = process
        self._on_step = on_step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._process.steps += 1
        self._on_step(self._process)


@contextmanager
def _in_place_of_the_running_loop(runner: Any = None) -> Iterator[None]:
    """For trio, the loop that runs is this one: steps of several nest where one of them is frozen."""
    running = trio_loop.GLOBAL_RUN_CONTEXT.__dict__
    outer = dict(running)
    running.clear()
    if runner is not None:
        running["runner"] = runner
    try:
        yield
    finally:
        running.clear()
        running.update(outer)


class Call:
    """Something asked of a server, for whose answer one task of a process waits."""

    def __init__(self, process: Process) -> None:
        self.is_given_up = False
        self._process = process
        self._task: trio.lowlevel.Task | None = None

    async def answer(self) -> Any:
        """What the server delivers, an error raised.

        **Cancellation:** the server may act on it all the same; nothing that it says is heard.
        """

        def give_up(_: object) -> trio.lowlevel.Abort:
            self.is_given_up = True
            return trio.lowlevel.Abort.SUCCEEDED

        self._task = trio.lowlevel.current_task()
        return await trio.lowlevel.wait_task_rescheduled(give_up)

    def deliver(self, result: outcome.Outcome[Any]) -> None:
        if self.is_given_up or self._process.is_dead or self._process.has_ended:
            return
        assert self._task is not None
        self.is_given_up = True  # heard once
        self._process.resume(self._task, result)
