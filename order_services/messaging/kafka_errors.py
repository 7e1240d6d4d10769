"""What the Kafka client's errors mean for the client itself."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

from order_services.process.settings import ServiceSettings

# A client is replaced for a fatal error. When so many have done nothing else, the fault may lie in this
# process, and a restart is the one thing that has not been tried.
MAX_FATAL_IN_A_ROW: Final = 10


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


class FatalErrors:
    """Counts the clients of one part that met a fatal error before any of them was of use."""

    def __init__(self, part: str, settings: ServiceSettings) -> None:
        self._part = part
        self._who = (
            f"KAFKA_CLIENT_ID {settings.kafka_client_id!r}, INSTANCE_ID {settings.instance_id!r}"
        )
        self._in_a_row = 0
        self._last = ""

    def met(self, error: FatalClientError) -> None:
        """Count a client that is given up."""
        self._in_a_row += 1
        self._last = str(error)

    def forget(self) -> None:
        """Begin anew: a client has done what it is for."""
        self._in_a_row = 0

    def too_many(self) -> str | None:
        """Say that another client will not do, which error it was and which replica met it, or None."""
        if self._in_a_row < MAX_FATAL_IN_A_ROW:
            return None
        return (
            f"{self._part}: {self._in_a_row} Kafka clients in a row met a fatal error, "
            f"the last: {self._last} ({self._who})"
        )
