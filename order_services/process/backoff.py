"""How long to wait before the next try."""

from __future__ import annotations

import random


class Backoff:
    """Doubles from `first_seconds` to `max_seconds`; jitter keeps replicas from trying in step."""

    def __init__(self, first_seconds: float, max_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self._tries = 0

    def next_seconds(self) -> float:
        """Return the next wait: between half of the current step and all of it."""
        step = min(self._max_seconds, self._first_seconds * 2.0 ** min(self._tries, 32))
        self._tries += 1
        return step * random.uniform(0.5, 1)  # noqa: S311  # spreads load, hides nothing

    def reset(self) -> None:
        """Begin anew after a success."""
        self._tries = 0
