"""What the last polls saw of a group's commits: the compact memory under status and rates.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from monitor.analysis.kept import KeptCommits

if TYPE_CHECKING:
    from collections.abc import Mapping

PartitionOffsets: TypeAlias = "Mapping[str, Mapping[int, int]]"
"""Topic -> partition -> offset."""

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

    def __init__(self, packed: array[int], poll: int) -> None:
        self.times = packed[_HEADER::_ENTRY].tolist()
        self.offsets = packed[_HEADER + 1 :: _ENTRY].tolist()
        self.lags = packed[_HEADER + 2 :: _ENTRY].tolist()
        self.polls = poll - packed[0] + 1


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
    """The last commits observed of one group, by topic and partition.

    Polls are numbered; `poll` is the number of the one that asks.
    """

    __slots__ = ("_lock", "_most", "_topics")

    def __init__(self, *, window: int = WINDOW) -> None:
        self._most = _HEADER + _ENTRY * window
        self._topics: dict[str, _Topic] = {}
        # `all` is asked by other threads than the one that polls
        self._lock = threading.Lock()

    def observe(
        self, commits: PartitionOffsets, log_ends: PartitionOffsets, now: float, poll: int
    ) -> None:
        """Take in the committed offsets as one poll saw them, at `now` monotonic seconds."""
        with self._lock:
            self._observe(commits, log_ends, int(now * 1000), poll)

    def _observe(
        self, commits: PartitionOffsets, log_ends: PartitionOffsets, now_ms: int, poll: int
    ) -> None:
        topics = self._topics
        for topic, partitions in commits.items():
            kept = topics.get(topic)
            ends = log_ends.get(topic, {})
            if kept is None:
                topics[topic] = _Topic(partitions, now_ms, poll, ends)
                continue
            if kept.commits == partitions:
                continue  # nothing was committed: most topics of most groups
            windows = kept.changed_windows = kept.windows
            before = kept.commits
            kept.commits, kept.changed, kept.first_ends = partitions, now_ms, {}
            for partition, offset in partitions.items():
                packed = windows.get(partition)
                if packed is None:
                    packed = windows[partition] = array("q", (poll, 0))
                    kept.newest_poll = poll
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

    def forget(self, topic: str) -> None:
        """Start a topic anew."""
        with self._lock:
            self._topics.pop(topic, None)

    def has_moved(self, topic: str) -> bool:
        """Tell whether a commit on the topic was seen to change, and not only to be there."""
        kept = self._topics.get(topic)
        return kept is not None and kept.changed_windows is not None

    def last(self) -> PartitionOffsets:
        """Return the commits that the last poll saw; empty when the group was not seen."""
        return {topic: kept.commits for topic, kept in self._topics.items()}

    def was_never_read_up(self, topic: str, partition: int) -> bool:
        """Tell whether a full window of commits all left some of the log before them."""
        packed = self.packed(topic).get(partition)
        if packed is None or len(packed) < self._most:
            return False
        return min(packed[_HEADER + 2 :: _ENTRY]) > 0

    def all(self, poll: int) -> dict[str, dict[int, CommitWindow]]:
        """Return topic -> partition -> window; any thread may ask."""
        with self._lock:
            return {
                topic: {
                    partition: CommitWindow(packed, poll)
                    for partition, packed in kept.windows.items()
                }
                for topic, kept in self._topics.items()
            }

    def changed_at(self, topic: str) -> float | None:
        """Return when a commit on the topic last changed or was first seen, in monotonic seconds."""
        kept = self._topics.get(topic)
        return None if kept is None else kept.changed / 1000

    def committed_at(self, topic: str) -> Mapping[int, float]:
        """Return partition -> when its commit last changed or was first seen, in monotonic seconds."""
        return {partition: packed[-3] / 1000 for partition, packed in self.packed(topic).items()}

    def newest_poll(self, topic: str) -> int | None:
        """Return the number of the first poll that saw the topic's newest partition."""
        kept = self._topics.get(topic)
        return None if kept is None else kept.newest_poll

    def export(self) -> dict[str, KeptCommits]:
        """Return what a restart takes up, by topic."""
        return {
            topic: KeptCommits(
                dict(of.commits), of.changed, of.newest_poll, dict(of.first_ends),
                None if of.changed_windows is None else {
                    partition: packed.tolist() for partition, packed in of.changed_windows.items()
                },
            )
            for topic, of in self._topics.items()
        }  # fmt: skip

    def restore(self, kept: Mapping[str, KeptCommits], shift: float) -> None:
        """Go on from what was kept; raises ValueError where that can't be."""
        shift_ms = round(shift * 1000)
        topics = {}
        for topic, of in kept.items():
            windows = None
            if of.windows is not None:
                windows = {p: self._restored(packed, shift_ms) for p, packed in of.windows.items()}
                if windows.keys() != of.commits.keys():
                    raise ValueError("commits without a window")
            topics[topic] = _Topic(
                of.commits, of.changed + shift_ms, of.newest_poll, of.first_ends, windows
            )
        with self._lock:
            self._topics = topics

    def _restored(self, packed: list[int], shift_ms: int) -> array[int]:
        if len(packed) < _HEADER + _ENTRY or (len(packed) - _HEADER) % _ENTRY:
            raise ValueError("a window that ends within a commit")
        window = array("q", packed)
        window[1] += shift_ms if window[1] else 0
        for at in range(_HEADER, len(window), _ENTRY):
            window[at] += shift_ms
        if len(window) > self._most:  # fewer polls count than did
            del window[_HEADER : len(window) - (self._most - _HEADER)]
        return window

    def packed(self, topic: str) -> Mapping[int, array[int]]:
        """Return partition -> packed window, for loops over all partitions.

        What such a loop may read of a packed window: [0] is the number of the first poll that saw
        the partition, [-3] the time in ms of the newest commit observed, and what `is_single` and
        `progress` tell.
        """
        kept = self._topics.get(topic)
        return {} if kept is None else kept.windows


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
