"""What polls saw of a topic's log: its ends over the window, and when its records were appended."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, TypeAlias

from monitor.analysis.append_times import Appends
from monitor.analysis.kept import KeptTopic

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from monitor.model import PartitionOffsets

Seen: TypeAlias = "tuple[tuple[int, ...], array[int]]"
"""Partitions of a topic, and their log ends."""


def fresh(offsets: PartitionOffsets, stale: Mapping[str, Collection[int]]) -> PartitionOffsets:
    """Return the offsets without the partitions whose value is an earlier poll's."""
    if not stale:
        return offsets
    return {
        topic: {p: offset for p, offset in partitions.items() if p not in stale[topic]}
        if topic in stale
        else partitions
        for topic, partitions in offsets.items()
    }


class EndWindow:
    """The log ends that the last polls saw of one topic: Burrow's broker offsets.

    A log end that moves back (truncation, a topic created anew) starts its partition's window anew.
    What a poll saw is one array, and the same one while nothing is written to the topic; it is put
    in order by partition when it is asked for, as few topics are.
    """

    __slots__ = ("_last", "_packed", "_seen", "_times")

    def __init__(self) -> None:
        self._times = array("q")  # of polls in which any partition answered, in ms, and
        self._seen: list[Seen] = []  # what each of them saw
        self._last: Mapping[int, int] | None = None  # what was taken in last
        self._packed: dict[int, array[int]] | None = None

    def see(self, offsets: Mapping[int, int], now: float, began: float) -> None:
        """Take in the log ends of a poll, in a window that began then; in monotonic seconds."""
        self.go_on(began)
        known = self._seen[-1] if self._seen else None
        seen = known if known and self._last is offsets else self._next(offsets, known)
        self._times.append(int(now * 1000))
        self._seen.append(seen)
        self._last = offsets

    def go_on(self, began: float) -> None:
        """Drop what polls saw before the window began."""
        self._packed = None
        began_ms, old = int(began * 1000), 0
        for time in self._times:
            if time >= began_ms:
                break
            old += 1
        if old:
            del self._times[:old], self._seen[:old]

    @staticmethod
    def _next(offsets: Mapping[int, int], before: Seen | None) -> Seen:
        partitions, ends = tuple(offsets), array("q", offsets.values())
        if before is None or before[0] != partitions:
            return partitions, ends
        return before if before[1] == ends else (before[0], ends)

    def export(self) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
        """Return what a restart takes up: the times (ms) of polls, and what each of them saw."""
        return self._times.tolist(), [(list(of), ends.tolist()) for of, ends in self._seen]

    def restore(
        self, times: list[int], seen: list[tuple[list[int], list[int]]], later: list[int]
    ) -> None:
        """Go on from what was kept; polls `later` saw the same as the last one."""
        if len(times) != len(seen) or any(len(of) != len(ends) for of, ends in seen):
            raise ValueError("times without log ends")
        found: list[Seen] = []
        for of, ends in seen:
            each: Seen = tuple(of), array("q", ends)
            found.append(found[-1] if found and found[-1] == each else each)
        self._times = array("q", [*times, *later])
        self._seen = [*found, *(found[-1:] * len(later))]

    @property
    def newest(self) -> Mapping[int, int]:
        """Return the log ends that were seen last, by partition."""
        return dict(zip(*self._seen[-1], strict=True)) if self._seen else {}

    def ends(self, partition: int) -> list[int]:
        """Return the log ends seen, oldest first; empty when none was."""
        packed = self.packed().get(partition)
        return [] if packed is None else packed[1::2].tolist()

    def packed(self) -> Mapping[int, array[int]]:
        """Return partition -> array of (time in ms, log end) pairs, oldest first."""
        if self._packed is None:
            self._packed = self._pack()
        return self._packed

    def _pack(self) -> dict[int, array[int]]:
        windows: dict[int, array[int]] = {}
        for now_ms, seen in zip(self._times, self._seen, strict=True):
            for partition, end in zip(*seen, strict=True):
                packed = windows.get(partition)
                if packed is None:
                    windows[partition] = array("q", (now_ms, end))
                    continue
                if end < packed[-1]:
                    del packed[:]
                packed.append(now_ms)
                packed.append(end)
        return windows


class TopicLog:
    """What is known of a topic's log: `ends` of the window, and when records were appended."""

    __slots__ = ("appends", "ends")

    def __init__(self) -> None:
        self.ends = EndWindow()
        self.appends = Appends()

    def export(self, topic_id: str | None, poll: int, now: float) -> KeptTopic:
        """Return what a restart takes up."""
        times, seen = self.ends.export()
        is_seen = bool(times) and times[-1] == int(now * 1000)
        return KeptTopic(topic_id, poll, times, seen, is_seen, self.appends.export())

    @classmethod
    def restored(cls, kept: KeptTopic, later: list[int], shift: float) -> TopicLog:
        """Return what was kept; `later` are the times (ms) of the polls since, by the clock of now.

        Raises ValueError where it can't be.
        """
        log = cls()
        shift_ms = round(shift * 1000)
        times = [time + shift_ms for time in kept.times]
        log.ends.restore(times, kept.seen, later if kept.is_seen and times else [])
        log.appends.restore(kept.logs, shift)
        return log
