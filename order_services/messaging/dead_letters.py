"""What becomes of a message that cannot be processed, and how many of those are too many."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from order_services.domain.events import Headers
from order_services.domain.topics import ConsumerGroup
from order_services.messaging.messages import ReceivedMessage
from order_services.storage.outbox import Message

HEADER_PREFIX: Final = "dead-letter-"
MAX_ERROR_LENGTH: Final = 500


class DeadLetterLimitError(Exception):
    """So many messages failed that the fault is more likely ours than theirs."""


class DeadLetterLimit:
    """Allows `count` dead letters in any window of `window_seconds`.

    A bad deploy would otherwise drain whole topics into the dead-letter topic.
    """

    def __init__(
        self, count: int, window_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._window_seconds = window_seconds
        self._clock = clock
        self._times: deque[float] = deque()

    def check(self, more: int) -> None:
        """Raise `DeadLetterLimitError` if `more` dead letters would be too many."""
        now = self._clock()
        while self._times and now - self._times[0] >= self._window_seconds:
            self._times.popleft()
        if len(self._times) + more > self._count:
            raise DeadLetterLimitError(
                f"more than {self._count} messages failed within {self._window_seconds:.0f} s "
                "(DEAD_LETTER_LIMIT, DEAD_LETTER_WINDOW_SECONDS)"
            )

    def record(self, count: int) -> None:
        """Count dead letters whose transaction is committed."""
        self._times.extend([self._clock()] * count)


def dead_letter(
    message: ReceivedMessage, group: ConsumerGroup, error: Exception, attempts: int
) -> Message:
    """Return the message for the group's dead-letter topic: the original and why it failed."""
    about = {
        "error": describe(error),
        "topic": message.topic,
        "partition": str(message.partition),
        "offset": str(message.offset),
        "group": group.group_id,
        "attempts": str(attempts),
        "time": datetime.now(UTC).isoformat(),
    }
    headers: Headers = [
        # a letter that failed again tells of its last failure
        *(each for each in message.headers if not each[0].startswith(HEADER_PREFIX)),
        *((HEADER_PREFIX + name, text.encode()) for name, text in about.items()),
    ]
    return Message(group.dead_letter_topic, message.key, message.value, headers)


def describe(error: Exception) -> str:
    """Say on one line what went wrong; the text of a database error shows no parameters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= MAX_ERROR_LENGTH else text[: MAX_ERROR_LENGTH - 1] + "…"
