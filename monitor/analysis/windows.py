"""What the last polls saw of log ends and commits: the compact memory under status and rates.

OffsetFetch tells the committed offset, not when it was committed. So a committed offset that
differs from the last poll's is *one commit observed*, at the time of the poll that saw it: late by
at most one poll interval, and several commits between two polls count as one. Commits that repeat
the same offset can't be seen (a group without lag makes many of them). The first sight of a partition enters as a commit too,
although it may be much older; `polls` tells how long the partition has been watched.

Times are integer milliseconds of a monotonic clock, so a wall clock that jumps disturbs nothing.
"""

from __future__ import annotations

import threading
from array import array
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from monitor.guard import Guard
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PartitionOffsets: TypeAlias = "Mapping[str, Mapping[int, int]]"
"""Topic -> partition -> offset."""

_Seen: TypeAlias = "tuple[tuple[int, ...], array[int]]"
"""Partitions of a topic, and their log ends."""

Key = TypeVar("Key", str, int)
Kept = TypeVar("Kept")

WINDOW = 10  # Burrow's `intervals`
NO_LAG_KNOWN = -1  # the log end was not seen when the commit was

# An array of int64, 20,000 of which stay below 8 MB where tuples would need 32:
# [number of the first poll, time of the last rewind, time, offset, lag, time, offset, lag, ...],
# oldest commit first.
_HEADER = 2
_ENTRY = 3


class CommitWindow:
    """The last commits observed on one partition by one group; times in ms, oldest first."""

    __slots__ = ("lags", "offsets", "polls", "times")

    def __init__(self, packed: array[int], polls: int) -> None:
        self.times = packed[_HEADER::_ENTRY].tolist()
        self.offsets = packed[_HEADER + 1 :: _ENTRY].tolist()
        self.lags = packed[_HEADER + 2 :: _ENTRY].tolist()
        self.polls = polls - packed[0] + 1


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


@dataclass(slots=True)
class _Topic:
    """What is kept of a group on one topic; times in ms.

    Until a commit changes, its windows follow from the first poll: most groups of a large cluster
    do nothing, and 20,000 windows take 3 MB.
    """

    commits: Mapping[int, int]  # as the last poll saw them
    changed: int  # when any of them last changed
    newest_poll: int  # the first poll of the partition that was seen last
    first_ends: Mapping[int, int]  # the log ends of the first poll
    changed_windows: dict[int, array[int]] | None = None

    @property
    def windows(self) -> dict[int, array[int]]:
        """Return partition -> window."""
        if self.changed_windows is not None:
            return self.changed_windows
        ends = self.first_ends
        return {
            partition: array(
                "q", (self.newest_poll, 0, self.changed, offset, _lag(offset, ends.get(partition)))
            )
            for partition, offset in self.commits.items()
        }


class CommitWindows:
    """The last commits observed, by group, topic and partition."""

    def __init__(self, *, window: int = WINDOW) -> None:
        self._most = _HEADER + _ENTRY * window
        self._groups: dict[str, dict[str, _Topic]] = {}
        # `of_group` is asked by other threads than the one that polls
        self._lock = threading.Lock()
        self.polls = 0  # how many were made

    def start_poll(self, groups: Collection[str]) -> None:
        """Begin a poll; forget the groups that exist no more."""
        self.polls += 1
        for group in self._groups.keys() - groups:
            del self._groups[group]

    def observe(
        self,
        group: str,
        commits: PartitionOffsets,
        log_ends: PartitionOffsets,
        now: float,
    ) -> None:
        """Take in a group's committed offsets as one poll saw them, at `now` monotonic seconds."""
        with self._lock:
            self._observe(group, commits, log_ends, int(now * 1000))

    def _observe(
        self,
        group: str,
        commits: PartitionOffsets,
        log_ends: PartitionOffsets,
        now_ms: int,
    ) -> None:
        topics = self._groups.setdefault(group, {})
        for topic, partitions in commits.items():
            kept = topics.get(topic)
            ends = log_ends.get(topic, {})
            if kept is None:
                topics[topic] = _Topic(partitions, now_ms, self.polls, ends)
                continue
            if kept.commits == partitions:
                continue  # nothing was committed: most topics of most groups
            windows = kept.changed_windows = kept.windows
            before = kept.commits
            kept.commits, kept.changed, kept.first_ends = partitions, now_ms, {}
            for partition, offset in partitions.items():
                packed = windows.get(partition)
                if packed is None:
                    packed = windows[partition] = array("q", (self.polls, 0))
                    kept.newest_poll = self.polls
                elif before.get(partition) == offset:
                    continue
                self._append(packed, now_ms, offset, _lag(offset, ends.get(partition)))
            _drop_others(windows, partitions)
        _drop_others(topics, commits)

    def _append(self, packed: array[int], now_ms: int, offset: int, lag: int) -> None:
        if len(packed) > _HEADER and offset < packed[-2]:
            packed[1] = now_ms
        packed.extend((now_ms, offset, lag))
        if len(packed) > self._most:
            del packed[_HEADER : _HEADER + _ENTRY]

    def forget_group(self, group: str) -> None:
        """Start a group anew."""
        self._groups.pop(group, None)

    def forget(self, group: str, topic: str) -> None:
        """Start a topic of a group anew."""
        self._groups.get(group, {}).pop(topic, None)

    def has_moved(self, group: str, topic: str) -> bool:
        """Tell whether a commit on the topic was seen to change, and not only to be there."""
        kept = self._groups.get(group, {}).get(topic)
        return kept is not None and kept.changed_windows is not None

    def last(self, group: str) -> PartitionOffsets:
        """Return the commits that the last poll saw of a group; empty when it was not seen."""
        return {topic: kept.commits for topic, kept in self._groups.get(group, {}).items()}

    def was_never_read_up(self, group: str, topic: str, partition: int) -> bool:
        """Tell whether a full window of commits all left some of the log before them."""
        packed = self.packed(group, topic).get(partition)
        if packed is None or len(packed) < self._most:
            return False
        return min(packed[_HEADER + 2 :: _ENTRY]) > 0

    def get(self, group: str, topic: str, partition: int) -> CommitWindow | None:
        """Return the window of one partition, None when no commit was seen."""
        packed = self.packed(group, topic).get(partition)
        return None if packed is None else CommitWindow(packed, self.polls)

    def of_group(self, group: str) -> dict[str, dict[int, CommitWindow]]:
        """Return topic -> partition -> window of a group; any thread may ask."""
        with self._lock:
            return {
                topic: {
                    partition: self.unpack(packed) for partition, packed in kept.windows.items()
                }
                for topic, kept in list(self._groups.get(group, {}).items())
            }

    def changed_at(self, group: str, topic: str) -> float | None:
        """Return when a commit on the topic last changed or was first seen, in monotonic seconds."""
        kept = self._groups.get(group, {}).get(topic)
        return None if kept is None else kept.changed / 1000

    def committed_at(self, group: str, topic: str) -> Mapping[int, float]:
        """Return partition -> when its commit last changed or was first seen, in monotonic seconds."""
        kept = self._groups.get(group, {}).get(topic)
        if kept is None:
            return {}
        if kept.changed_windows is None:
            return dict.fromkeys(kept.commits, kept.changed / 1000)
        return {partition: packed[-3] / 1000 for partition, packed in kept.windows.items()}

    def newest_poll(self, group: str, topic: str) -> int:
        """Return the number of the first poll that saw the topic's newest partition."""
        kept = self._groups.get(group, {}).get(topic)
        return self.polls if kept is None else kept.newest_poll

    def packed(self, group: str, topic: str) -> Mapping[int, array[int]]:
        """Return partition -> packed window, for loops over all partitions.

        What such a loop may read of a packed window: [0] is the number of the first poll that saw
        the partition, [-3] the time in ms of the newest commit observed, and what `is_single` and
        `progress` tell.
        """
        kept = self._groups.get(group, {}).get(topic)
        return {} if kept is None else kept.windows

    def unpack(self, packed: array[int]) -> CommitWindow:
        """Return a packed window in full."""
        return CommitWindow(packed, self.polls)


def _lag(offset: int, end: int | None) -> int:
    return NO_LAG_KNOWN if end is None else max(0, end - offset)


def _drop_others(kept: dict[Key, Kept], seen: Mapping[Key, object]) -> None:
    if len(kept) > len(seen):
        for key in kept.keys() - seen.keys():
            del kept[key]


def is_single(packed: array[int]) -> bool:
    """Tell whether the committed offset never changed while it was watched."""
    return len(packed) == _HEADER + _ENTRY


def progress(packed: array[int], since_ms: int) -> tuple[int, int, int]:
    """Return (messages, commits, time in ms from which on they count) since a moment.

    It counts from the moment, from the first sight of the partition, or from the last rewind,
    whichever was last.
    """
    since = max(since_ms, packed[1])
    at = _HEADER
    newest = len(packed) - _ENTRY
    while at < newest and packed[at + _ENTRY] <= since:
        at += _ENTRY  # the last commit before the moment tells the offset at it
    return packed[-2] - packed[at + 1], (newest - at) // _ENTRY, max(since, packed[at])


class EndWindows:
    """The log end offsets that the last polls saw, by topic and partition: Burrow's broker offsets.

    A log end that moves back (truncation, a topic re-created) starts its window anew. What a poll
    saw of a topic is kept as one array, and the same one while nothing is written to the topic; it
    is put in order by partition when it is asked for, as few topics are.
    """

    def __init__(self, *, window: int = WINDOW, guard: Guard | None = None) -> None:
        self._guard = guard or Guard()
        # time in ms, and what was seen by topic
        self._polls: deque[tuple[int, dict[str, _Seen]]] = deque(maxlen=window)
        self._last: PartitionOffsets = nothing()
        # what was asked for since the last poll
        self._packed: dict[str, dict[int, array[int]]] = {}

    def observe(self, log_ends: PartitionOffsets, now: float) -> None:
        """Take in the log ends that one poll saw."""
        last = self._polls[-1][1] if self._polls else {}
        before, self._last = self._last, log_ends
        seen: dict[str, _Seen] = {}
        failed = []
        for topic, offsets in log_ends.items():
            known = last.get(topic)
            if known is not None and before.get(topic) is offsets:
                seen[topic] = known
                continue
            try:
                seen[topic] = self._next(offsets, known)
            except Exception as error:  # noqa: BLE001  # one topic's fault must not cost the others
                self._guard.failed("end_windows", topic, error)
                failed.append(topic)
        self._polls.append((int(now * 1000), seen))
        self._packed.clear()
        for topic in failed:
            self.forget(topic)

    @staticmethod
    def _next(offsets: Mapping[int, int], before: _Seen | None) -> _Seen:
        partitions, ends = tuple(offsets), array("q", offsets.values())
        if before is None or before[0] != partitions:
            return partitions, ends
        return before if before[1] == ends else (before[0], ends)

    def forget(self, topic: str) -> None:
        """Drop a topic that is gone, or was re-created under its name."""
        for _, seen in self._polls:
            seen.pop(topic, None)
        self._packed.pop(topic, None)

    def ends(self, topic: str, partition: int) -> list[int]:
        """Return the log ends seen, oldest first; empty when none was."""
        packed = self.packed(topic).get(partition)
        return [] if packed is None else packed[1::2].tolist()

    def packed(self, topic: str) -> Mapping[int, array[int]]:
        """Return partition -> array of (time in ms, log end) pairs, oldest first."""
        found = self._packed.get(topic)
        if found is None:
            found = self._packed[topic] = self._pack(topic)
        return found

    def _pack(self, topic: str) -> dict[int, array[int]]:
        windows: dict[int, array[int]] = {}
        for now_ms, seen in self._polls:
            if topic not in seen:
                continue
            for partition, end in zip(*seen[topic], strict=True):
                packed = windows.get(partition)
                if packed is None:
                    windows[partition] = array("q", (now_ms, end))
                    continue
                if end < packed[-1]:
                    del packed[:]
                packed.append(now_ms)
                packed.append(end)
        return windows
