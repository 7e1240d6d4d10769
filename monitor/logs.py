"""The program's log: one line an event on standard error, as text or as JSON."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final, Literal

from monitor.memory import without

# it would load them to colour traces and for threads that we have none of: 3 of the program's 71 MB
with without("rich", "greenlet"):
    import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["text", "json"]

_FIRST: Final = ("timestamp", "level", "event", "exception")


def configure(
    level: LogLevel = "WARNING", form: LogFormat = "text", *, traces: bool = True
) -> None:
    """Log from a level up; what libraries log by the standard library goes the same way.

    Without `traces` a fault of our own is its cause only, as whoever is on call can't read a stack trace.
    """
    render: Processor = structlog.processors.JSONRenderer() if form == "json" else _as_text
    number = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # a trace without the values of variables: some are secrets
            structlog.processors.format_exc_info if traces else _without_trace,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=max(number, logging.WARNING), force=True)


def _without_trace(_logger: object, _method: str, event: EventDict) -> EventDict:
    event.pop("exc_info", None)
    return event


def _as_text(_logger: object, _method: str, event: EventDict) -> str:
    """Return one line, and the trace after it; names may hold what a terminal obeys."""
    fields = "".join(f" {name}={value!r}" for name, value in event.items() if name not in _FIRST)
    line = f"{event['timestamp']} {event['level']}: {event['event']}{fields}"
    return f"{line}\n{event['exception']}" if "exception" in event else line


class _ToStructlog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)
