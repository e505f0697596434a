"""This file is the bridge from trio to asyncio, for the libraries that speak nothing else."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import structlog
import trio_asyncio

T = TypeVar("T")

Loop: TypeAlias = trio_asyncio.BaseTrioEventLoop

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Cancelled timers that may be kept: few enough to weigh nothing, enough that looking through all is rare.
CANCELLED_TIMERS = 50


@asynccontextmanager
async def open_asyncio() -> AsyncIterator[Loop]:
    """Open an asyncio loop in this trio run; several may be open at once.

    **Cancellation:** the loop ends; whoever started something in it has to end it before.
    """
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_log_error_of_nobody)
        _forget_cancelled_timers(loop)
        yield loop


async def on_asyncio(loop: Loop, work: Callable[[], Awaitable[T]]) -> T:
    """Await asyncio's `work` from trio. The loop is passed, not looked up: whoever calls may be a task that
    was not started inside it.

    **Cancellation:** is one cancel in asyncio, and `work` ends before this does.
    """

    async def run() -> T:
        return await work()

    return await loop.run_aio_coroutine(run())  # type: ignore[no-any-return]


def _forget_cancelled_timers(loop: Loop) -> None:
    """Have timers forgotten soon after they are cancelled, as asyncio's own loop forgets them.

    trio-asyncio (0.16) keeps them until they are due. At the end of every statement asyncpg sets one of five
    minutes, for its idle connection, and cancels it at the next. It holds the context of whoever called, and
    so a whole request: 15 kB for each 50 mentors at /trigger-engine, a gigabyte at 300 requests a second.
    """
    cancelled = 0

    def cancel(handle: asyncio.TimerHandle) -> None:
        nonlocal cancelled
        cancelled += 1
        if cancelled > max(CANCELLED_TIMERS, len(loop._timers) // 2):
            cancelled = 0
            loop._timers[:] = [timer for timer in loop._timers if not timer.cancelled()]
            heapq.heapify(loop._timers)

    loop._timer_handle_cancelled = cancel


def _log_error_of_nobody(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An error on the loop that no call waits for, such as of a connection given up while it was opened.

    trio-asyncio's own way is to raise it out of the loop, which would end the process.
    """
    log.warning("connection_error", what=context["message"], error=type(context.get("exception")).__name__)
