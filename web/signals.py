"""This file is what SIGTERM and SIGINT mean: first an orderly end, the second time one at once."""

from __future__ import annotations

import signal
from collections.abc import Callable

import trio

# Seconds in which a process that was told twice to stop must have stopped by itself; then the kernel ends it.
CUT_TIMEOUT = 1


def end_for_certain() -> None:
    """Have the process ended by the kernel when CUT_TIMEOUT is over, whatever hangs in it."""
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(CUT_TIMEOUT)


async def watch_signals(
    on_first: Callable[[], object],
    on_second: Callable[[], object],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call the one, then the other, then the other again. Watching when it has started.

    **Cancellation:** the signals mean again what they meant before.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        react = on_first
        async for _ in signals:
            react()
            react = on_second
