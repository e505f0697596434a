"""This file is how the service logs: every line to standard error, JSON unless a person is looking."""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import TextIO

import structlog

from web.tracebacks import format_traceback

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def configure_logging(level: int = logging.INFO) -> None:
    """For the whole process, libraries included, and what ends it. Tracebacks show no values: those hold ids
    and keys.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=_write_traceback)]
        if sys.stderr.isatty()
        else [structlog.processors.ExceptionRenderer(_traceback), structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Its only line at INFO says what `serving` says, and httpx would log every invocation.
    for name in ("hypercorn.error", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns whenever a connection over TLS ends.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    sys.excepthook = _log_crash


def _traceback(exc_info: structlog.typing.ExcInfo) -> str:
    return format_traceback(exc_info[1])


def _write_traceback(console: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    console.write("\n" + _traceback(exc_info))


def _log_crash(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    log.critical("crashed", exc_info=error)
