"""Where Kafka takes nothing at the moment: partitions, or topics as a whole, and when to try again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from order_services.process.backoff import Backoff

WHOLE_TOPIC: Final = -1
# Messages without a key, which go to any partition.
KEYLESS: Final = -2

_MASK: Final = 0xFFFF_FFFF


class Lane(NamedTuple):
    """A partition, `WHOLE_TOPIC`, or `KEYLESS`."""

    topic: str
    partition: int


@dataclass(slots=True)
class _Trouble:
    """Why a lane is closed: `row_id`, the first that waits, is tried alone when it is due."""

    row_id: int
    backoff: Backoff
    due_at: float


class Lanes:
    """The lanes in trouble; all others are open."""

    def __init__(
        self,
        first_seconds: float,
        max_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self._clock = clock
        self._partitions: Mapping[str, int] = {}
        self._troubles: dict[Lane, _Trouble] = {}
        self._topics: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self._troubles)

    def learn(self, partitions: Mapping[str, int]) -> None:
        """Take in how many partitions topics have; a topic that is not there is one lane."""
        self._partitions = partitions

    def of(self, topic: str, key: bytes | None) -> Lane:
        """Return the lane of a message."""
        if Lane(topic, WHOLE_TOPIC) in self._troubles:
            return Lane(topic, WHOLE_TOPIC)
        count = self._partitions.get(topic)
        if not count:
            return Lane(topic, WHOLE_TOPIC)
        return Lane(topic, KEYLESS if key is None else partition_of(key, count))

    def is_open(self, topic: str, key: bytes | None) -> bool:
        """Say whether a message may go now."""
        return topic not in self._topics or self.of(topic, key) not in self._troubles

    def closed_topics(self) -> list[str]:
        """Return the topics of which nothing may go."""
        return [lane.topic for lane in self._troubles if lane.partition == WHOLE_TOPIC]

    def close(self, lane: Lane, row_id: int, seconds: float | None = None) -> None:
        """Let nothing go for so many seconds, by default for longer after each failure."""
        trouble = self._troubles.get(lane)
        if trouble is None:
            backoff = Backoff(self._first_seconds, self._max_seconds)
            trouble = self._troubles[lane] = _Trouble(row_id, backoff, 0.0)
        trouble.row_id = min(trouble.row_id, row_id)
        wait_seconds = trouble.backoff.next_seconds() if seconds is None else seconds
        trouble.due_at = self._clock() + wait_seconds
        self._note_topics()

    def open(self, lane: Lane) -> bool:
        """Let all go again; return whether the lane was closed."""
        was_closed = self._troubles.pop(lane, None) is not None
        if was_closed:
            self._note_topics()
        return was_closed

    def due(self) -> dict[int, Lane]:
        """Return the lanes to try again, by the row to try each with."""
        now = self._clock()
        return {each.row_id: lane for lane, each in self._troubles.items() if each.due_at <= now}

    def _note_topics(self) -> None:
        self._topics = frozenset(lane.topic for lane in self._troubles)


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that the Java client, and ours, gives this key.

    Murmur2 with the seed of `org.apache.kafka.common.utils.Utils.murmur2`, without its sign.
    """
    factor = 0x5BD1_E995
    whole = len(key) - len(key) % 4
    digest = 0x9747_B28C ^ len(key)
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * factor & _MASK
        word = (word ^ word >> 24) * factor & _MASK
        digest = (digest * factor & _MASK) ^ word
    if whole < len(key):
        digest = (digest ^ int.from_bytes(key[whole:], "little")) * factor & _MASK
    digest = (digest ^ digest >> 13) * factor & _MASK
    return ((digest ^ digest >> 15) & 0x7FFF_FFFF) % partitions
