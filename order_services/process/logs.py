"""Structured logs: one JSON object a line on standard error."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping


def configure(level: str, **always: str) -> None:
    """Log from `level` up, with the fields `always` on every line."""
    number = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _adder(always),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


class KafkaLog:
    """Takes the lines of the Kafka client, which would go to standard error as they are."""

    def log(self, level: int, line: str, *arguments: object) -> None:
        """Log one line as the standard library's loggers do."""
        structlog.get_logger("kafka").log(level, line % arguments if arguments else line)


def _adder(fields: Mapping[str, str]) -> structlog.types.Processor:
    def add(
        _logger: object, _method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        event.update(fields)
        return event

    return add
