"""What the Kafka client's errors mean for the client itself."""

from __future__ import annotations

from confluent_kafka import KafkaError


class FatalClientError(Exception):
    """A Kafka client cannot go on, whatever it is asked: only another client can."""


def is_fatal(error: KafkaError) -> bool:
    """Say whether only another client can go on.

    What a client raises or reports after a fatal error says `_FATAL`, and denies to be fatal.
    """
    return error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001  # its public name


def means(error: KafkaError, code: int) -> bool:
    """Say whether this is the error `code`, or a fatal error because of it.

    A fatal error tells its cause in its text only, in the client's own words for it.
    """
    return error.code() == code or KafkaError(code).str() in error.str()
