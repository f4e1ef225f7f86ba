"""The worker's log: structlog on stderr, JSON unless somebody watches on a terminal."""

import logging
import sys
from typing import TextIO

import structlog

from worker.config import Log

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(settings: Log, stream: TextIO | None = None) -> None:
    """Set structlog up for the whole process, now or anew, writing to `stream` (stderr, unless given).

    pika's own loggers are quietened: what they would say, the broker room says in this log's words.
    """
    stream = stream or sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not console:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    logging.getLogger("pika").addHandler(logging.NullHandler())
    logging.getLogger("pika").propagate = False
