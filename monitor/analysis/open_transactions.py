"""The open transactions that hold readers back: how many records each does, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitor.analysis.timelag import TimeLag
    from monitor.guard import Guard
    from monitor.model import PartitionOffsets


class OpenTransaction(NamedTuple):
    """How many records an open transaction holds back, and since when (monotonic seconds)."""

    records: int
    since: float


class OpenTransactions:
    """What was seen of them, from one poll to the next."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        # (topic, partition) -> last stable offset, and when it was first seen to hold readers back
        self._held_from: dict[tuple[str, int], tuple[int, float]] = {}

    def observe(
        self,
        held_at: Iterable[tuple[str, int, int]],
        ends: PartitionOffsets,
        times: TimeLag,
        now: float,
    ) -> dict[str, dict[int, OpenTransaction]]:
        """Return those that hold somebody back now, by topic and partition.

        `held_at` has (topic, partition, last stable offset) of each reader that is held back. One is
        open since its first record was appended, as far as `times` know that.
        """
        transactions: dict[str, dict[int, OpenTransaction]] = {}
        held_from: dict[tuple[str, int], tuple[int, float]] = {}
        for topic, partition, offset in held_at:
            key = topic, partition
            if key in held_from or partition not in ends.get(topic, nothing()):
                continue
            before = self._held_from.get(key)
            held_from[key] = before if before and before[0] == offset else (offset, now)
            appended = self._guard.attempt(
                "times", f"{topic}-{partition}", times.oldest_at, key, offset
            )
            since = held_from[key][1] if appended is None else min(appended, now)
            transactions.setdefault(topic, {})[partition] = OpenTransaction(
                ends[topic][partition] - offset, since
            )
        self._held_from = held_from
        return transactions

    def export(self) -> list[tuple[str, int, int, float]]:
        """Return (topic, partition, last stable offset, seen since) of each, for a restart."""
        return [(*key, offset, since) for key, (offset, since) in self._held_from.items()]

    def restore(self, kept: Iterable[tuple[str, int, int, float]], shift: float) -> None:
        """Go on from what was seen before a restart."""
        for topic, partition, offset, since in kept:
            self._held_from[topic, partition] = offset, since + shift
