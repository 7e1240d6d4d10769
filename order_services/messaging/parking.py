"""Partitions whose messages fail while those of others do not: they wait for retries of their own."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from order_services.messaging.commits import Partition
from order_services.messaging.messages import ReceivedMessage
from order_services.process import instrumentation
from order_services.process.backoff import Backoff

# A parked partition's retries wait this much longer than they take: the others get most of the time.
WAIT_FACTOR: Final = 4

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Parked:
    """The messages of a partition, taken at `taken_at` of `time.perf_counter`."""

    messages: list[ReceivedMessage]
    taken_at: float
    backoff: Backoff
    due_at: float = 0.0

    def postpone(self, attempt_seconds: float) -> float:
        """Wait for the next retry, after one that took so long; returns for how many seconds."""
        wait_seconds = max(self.backoff.next_seconds(), WAIT_FACTOR * attempt_seconds)
        self.due_at = time.monotonic() + wait_seconds
        return wait_seconds


class Parking(Mapping[Partition, Parked]):
    """What is parked, by partition."""

    def __init__(self) -> None:
        self._parked: dict[Partition, Parked] = {}

    def __getitem__(self, key: Partition) -> Parked:
        return self._parked[key]

    def __iter__(self) -> Iterator[Partition]:
        return iter(self._parked)

    def __len__(self) -> int:
        return len(self._parked)

    def park(self, key: Partition, parked: Parked, attempt_seconds: float) -> None:
        """Take in messages whose attempt has just failed."""
        self._parked[key] = parked
        wait_seconds = parked.postpone(attempt_seconds)
        instrumentation.PARKED_PARTITIONS.set(len(self))
        _log.warning(
            "partition parked",
            topic=key[0],
            partition=key[1],
            messages=len(parked.messages),
            wait_seconds=round(wait_seconds, 2),
        )

    def release(self, keys: Collection[Partition]) -> None:
        """Forget partitions: what was parked is done, or somebody else's."""
        for key in keys:
            self._parked.pop(key, None)
        instrumentation.PARKED_PARTITIONS.set(len(self))

    def due(self) -> tuple[Partition, Parked] | None:
        """Return the first that is due: one, so that others are not kept waiting."""
        now = time.monotonic()
        return next(((key, each) for key, each in self._parked.items() if each.due_at <= now), None)

    def due_in(self) -> float:
        """Return for how many seconds none is due."""
        due_at = min((each.due_at for each in self._parked.values()), default=math.inf)
        return max(0.0, due_at - time.monotonic())

    def queue_behind(self, messages: Sequence[ReceivedMessage]) -> list[ReceivedMessage]:
        """Take in what was fetched before its partition was parked; returns the other messages."""
        others = []
        for message in messages:
            parked = self._parked.get((message.topic, message.partition))
            if parked is None:
                others.append(message)
            else:
                # handling it first would commit its offset, and with that those that still wait
                parked.messages.append(message)
        return others
