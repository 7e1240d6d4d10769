"""Burrow's status of a partition and of a group, by its rules and without thresholds.

The rules are those of Burrow's evaluator (core/internal/evaluator/caching.go), evaluated over a
window of the last commits. What differs is where the commits come from: Burrow reads each from
__consumer_offsets, we see them by polling (`windows`). Therefore:

- A window's times are those of polls, all late by up to one interval: differences stay right.
- *complete* is the share of a full window's polls in which the partition was watched, since a
  partition without a commit in ten polls was watched completely. Until then it is OK
  (`minimum_complete` 1): the time of the commit that the first poll found is not known, and Burrow's
  rules would call every quiet consumer stopped right after a start. Burrow's own default is 0.
- A consumer that commits the same offset over and over looks like one that does not commit: it is
  STOP here where Burrow says STALL, unless the caller has evidence of such commits. Both make
  the group ERR; its members tell whether somebody is there.
- Burrow knows the lag at each commit; a poll also sees what came after it. A consumer that had read all
  that the poll before its commit saw is not WARN, however much is on its way at each poll.
- Lag is what can be read (`readable`): markers of transactions stop nobody.
- Seldom commits are judged by the group's own rhythm: silence is STOP only beyond its *patience*,
  and a single commit tells of no rhythm: it is neither STALL nor WARN.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from monitor.analysis.windows import NO_LAG_KNOWN, WINDOW, CommitWindow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.analysis.topic import EndWindow, TopicLog
    from monitor.analysis.windows import CommitWindows, PartitionOffsets


class Status(IntEnum):
    """Burrow's status constants (core/protocol/evaluator.go), in its order: higher is worse."""

    NOTFOUND = 0
    OK = 1
    WARN = 2
    ERR = 3
    STOP = 4
    STALL = 5
    REWIND = 6


class PartitionStatus(NamedTuple):
    """The status of one partition, and what of it can be read and is not."""

    topic: str
    partition: int
    status: Status
    current_lag: int


class GroupStatus(NamedTuple):
    """The status of a group: its worst partition's, capped to ERR.

    `complete` is the share of its partitions whose window is complete; `partitions` are those worse
    than OK. `stops_at` is when the next one will be STOP if nothing happens until then, in monotonic
    seconds; infinity if none will.
    """

    status: Status
    complete: float
    partition_count: int = 0
    partitions: tuple[PartitionStatus, ...] = ()
    stops_at: float = inf


NOT_FOUND = GroupStatus(Status.NOTFOUND, complete=1.0)


def window_status(
    window: CommitWindow,
    broker_offsets: Sequence[int],
    *,
    current_lag: int,
    now_ms: int,
    allowed_lag: int = 0,
    patience_ms: int = 0,
) -> Status:
    """Return the status of a partition by the commits in its window, oldest first.

    `broker_offsets` are the log ends seen recently, in any order; `current_lag` is what can be read
    from the newest commit on, at least 0. Silence of up to `patience_ms` means nothing.
    """
    if current_lag <= allowed_lag or not window.offsets:
        return Status.OK
    if now_ms > stopped_after(window.times, patience_ms) and not was_read_recently(
        window.offsets, broker_offsets
    ):
        return Status.STOP
    if _rewound(window.offsets):
        return Status.REWIND
    known = [lag for lag in window.lags if lag != NO_LAG_KNOWN]
    if len(window.offsets) == 1 or any(lag <= allowed_lag for lag in known):
        return Status.OK
    if all(offset == window.offsets[0] for offset in window.offsets):
        return Status.STALL
    shrank = any(later < earlier for earlier, later in pairwise(known))
    return Status.OK if shrank else Status.WARN


def stopped_after(times: Sequence[int], patience_ms: int) -> int:
    """Return when the silence since the last commit is longer than the window, and than is usual."""
    return times[-1] + max(times[-1] - times[0], patience_ms)


def was_read_recently(offsets: Sequence[int], broker_offsets: Sequence[int]) -> bool:
    """Tell whether the last commit had read all that was there in one of the recent polls."""
    return min(broker_offsets, default=inf) <= offsets[-1]


def _rewound(offsets: Sequence[int]) -> bool:
    """Tell whether the first step back has not been made good since."""
    for i, (before, after) in enumerate(pairwise(offsets), start=1):
        if after < before:
            return all(later < before for later in offsets[i:])
    return False


@dataclass(frozen=True, slots=True)
class StatusRules:
    """Burrow's settings of the evaluation, and its storage's `intervals`."""

    allowed_lag: int = 0
    minimum_complete: float = 1.0
    intervals: int = WINDOW


DEFAULT_RULES = StatusRules()
_NO_ENDS: Mapping[int, int] = {}
_NO_TOPICS: Mapping[str, int] = {}
_NO_UNREAD: Mapping[str, Mapping[int, int]] = {}


def group_status(
    commits: PartitionOffsets,
    log_ends: PartitionOffsets,
    commit_windows: CommitWindows,
    topics: Mapping[str, TopicLog],
    *,
    now: float,
    poll: int,
    rules: StatusRules = DEFAULT_RULES,
    caught_up: Mapping[str, int] = _NO_TOPICS,
    unread: PartitionOffsets = _NO_UNREAD,
    patience: float = 0.0,
) -> GroupStatus:
    """Return the status of a group after its commits of this poll were observed.

    A partition whose log end is not known can't be judged: it is left out. A group of which no
    partition is left is not found. `caught_up` (topic -> partitions that can be judged) are topics
    known to have nothing unread: they are OK without a look at their windows. `unread` has what can
    be read of partitions where that is not all up to the log end; `patience` is the silence, in
    seconds, that is usual for the group; `poll` is this one's number.
    """
    allowed, now_ms = rules.allowed_lag, int(now * 1000)
    full = poll - rules.intervals + 1  # watched since this poll or before: complete
    enough = poll - rules.minimum_complete * rules.intervals + 1
    newest = ((topic, commit_windows.newest_poll(topic)) for topic in caught_up)
    watched = [topic for topic, first in newest if first is not None and first <= full]
    count = complete = sum(caught_up[topic] for topic in watched)
    patience_ms = int(patience * 1000)
    stops_at_ms = inf
    bad = []
    for topic, partitions in _without(commits, watched).items():
        ends = log_ends.get(topic, _NO_ENDS)
        readable = unread.get(topic, _NO_ENDS)
        windows = commit_windows.packed(topic)
        for partition, committed in partitions.items():
            end = ends.get(partition)
            packed = windows.get(partition)
            if end is None or packed is None:
                continue
            count += 1
            first_poll = packed[0]
            if first_poll <= full:
                complete += 1
            lag = readable.get(partition, end - committed)
            if lag <= 0:
                continue
            if lag <= allowed or first_poll > enough:
                continue
            window = CommitWindow(packed, poll)
            log = topics[topic].ends if topic in topics else None
            broker_offsets = [] if log is None else log.ends(partition)
            status = window_status(
                window, broker_offsets, current_lag=lag, now_ms=now_ms, allowed_lag=allowed,
                patience_ms=patience_ms,
            )  # fmt: skip
            status = _less_in_flight(status, window, log, partition, allowed)
            if status > Status.OK:
                bad.append(PartitionStatus(topic, partition, status, lag))
            after = stopped_after(window.times, patience_ms)
            if now_ms <= after < stops_at_ms and not was_read_recently(
                window.offsets, broker_offsets
            ):
                stops_at_ms = after
    if not count:
        return NOT_FOUND
    worst = min(max((p.status for p in bad), default=Status.OK), Status.ERR)
    return GroupStatus(worst, complete / count, count, tuple(bad), stops_at_ms / 1000)


def _less_in_flight(
    status: Status, window: CommitWindow, log: EndWindow | None, partition: int, allowed: int
) -> Status:
    """Return OK in place of WARN where any commit had read all that the poll before it saw."""
    packed = None if log is None else log.packed().get(partition)
    if status is not Status.WARN or packed is None:
        return status
    times, ends = packed[::2], packed[1::2]
    for offset, at in zip(window.offsets, window.times, strict=True):
        index = bisect_left(times, at)
        if index and ends[index - 1] - offset <= allowed:
            return Status.OK
    return status


def _without(commits: PartitionOffsets, topics: Sequence[str]) -> PartitionOffsets:
    return {t: commits[t] for t in commits if t not in topics} if topics else commits
