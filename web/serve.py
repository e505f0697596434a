"""This file serves the application: Hypercorn inside the open scheduler, signals, and the drain.

The order matters. The scheduler, its asyncio loop and the nursery of its runs are opened around Hypercorn, so
that a run outlives its caller's connection. Hypercorn is told to stop only when the last run has ended; what
it then still has to do is put finished answers on the wire.
"""

from __future__ import annotations

import logging
import math
import socket
from functools import partial

import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_hypercorn

from engine import ConfigurationError, Scheduler, SchedulerError, Settings, open_scheduler
from web.app import create_app
from web.connection import use_bounded_connections
from web.signals import end_for_certain, watch_signals

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds on top of the platform limit after which a connection that sends nothing is closed.
READ_MARGIN = 5

# Seconds for answers that are ready to reach their callers, once every run has ended.
GRACEFUL_TIMEOUT = 1.0


def open_listener(bind: str) -> socket.socket:
    """A listening socket for `address:port`; port 0 takes a free one. Raises ConfigurationError."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    try:
        return socket.create_server(
            (host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        fault = (
            f"SCHEDULER_BIND is {bind}, which can't be listened on: {error.strerror}. Free it or set another."
        )
        raise ConfigurationError([fault]) from error


def base_url(listener: socket.socket) -> str:
    """Where a caller on this machine reaches the listener."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    settings: Settings,
    listener: socket.socket,
    *,
    task_status: trio.TaskStatus[Scheduler] = trio.TASK_STATUS_IGNORED,
) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; a second signal cuts the drain. Owns the listener.

    Has started, as `nursery.start` means it, when requests are answered; the scheduler is its value. Returns
    whether the drain was left to come to its end.

    **Cancellation:** as a second signal: runs are cut, and no task or connection is left.
    """
    with listener:
        async with open_scheduler(settings) as scheduler:
            stopping = trio.Event()

            async def drained() -> None:
                await stopping.wait()
                log.info("draining")
                scheduler.drain()
                await scheduler.wait_until_idle()

            def cut() -> None:
                until_cut.cancel()
                end_for_certain()

            use_bounded_connections()
            with trio.CancelScope() as until_cut:
                async with trio.open_nursery() as nursery:
                    await nursery.start(watch_signals, stopping.set, cut)
                    nursery.start_soon(_say_hello, scheduler, base_url(listener))
                    app, config = create_app(scheduler, settings), _hypercorn_config(settings, listener)
                    async with trio.open_nursery() as serving:
                        await serving.start(partial(serve_hypercorn, app, config, shutdown_trigger=drained))
                        task_status.started(scheduler)
                    nursery.cancel_scope.cancel()
            log.info("stopped", cut=until_cut.cancelled_caught)
            return not until_cut.cancelled_caught


async def _say_hello(scheduler: Scheduler, url: str) -> None:
    log.info("serving", url=url)
    try:
        await scheduler.check_ready()
    except SchedulerError as error:
        log.warning("not_ready", reason=str(error))


def _hypercorn_config(settings: Settings, listener: socket.socket) -> Config:
    config = Config()
    # The read time-out also runs while a caller waits for its run, so it has to be longer than any; it ends
    # connections whose request never becomes whole.
    config.read_timeout = math.ceil(settings.platform_limit) + READ_MARGIN
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = GRACEFUL_TIMEOUT
    config.include_server_header = False
    config.accesslog = None  # it would name the path of every probe
    config.errorlog = logging.getLogger("hypercorn.error")
    return config
