"""What a restart takes up of one monitor's memory: plain data, by group and by topic.

Moments are seconds (`changed` and windows: milliseconds) of the monotonic clock of the process that
wrote them; `KeptPolls.wall_offset` is what the wall clock was ahead of it, and makes the `shift` with
which they are moments of the reader's. Each process writes all of it at its first poll, and then what
changes. A monitor that goes on from it is one that missed the polls in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

VERSION: Final = 1
"""Of all that is below: what another version wrote is not read."""

# What happened in a day is another story; and by a clock that was set, no moment is right.
MAX_AWAY_SECONDS: Final = 86_400.0
MAX_AHEAD_SECONDS: Final = 60.0

ByPartition = dict[int, int]


@dataclass(frozen=True, slots=True)
class KeptCommits:
    """Of one group on one topic: `windows.CommitWindows`."""

    commits: ByPartition
    changed: int
    newest_poll: int
    first_ends: ByPartition
    windows: dict[int, list[int]] | None


@dataclass(frozen=True, slots=True)
class KeptActivity:
    """Of one group: `activity.GroupActivity`; what it committed is that of its windows."""

    watched_from: float | None
    had_members: bool
    had_none: bool
    was_missed: bool
    moves: int
    moved_at: float | None
    waiting: dict[str, dict[int, float]]
    rewinds: dict[str, int]
    replaced: dict[str, ByPartition]
    knows_rhythm: bool
    longest: float
    longest_before: float
    day_began: float


@dataclass(frozen=True, slots=True)
class KeptLosses:
    """Of one group: `losses.Losses`."""

    counted_to: dict[str, ByPartition]
    lost: dict[str, int]
    lost_at: dict[str, float]


@dataclass(frozen=True, slots=True)
class KeptRebalances:
    """Of one group: `rebalances.Rebalances`."""

    count: int | None
    epoch: int | None
    rebalancing: bool
    assignment: list[tuple[str, str, tuple[int, ...]]]
    seen_at: list[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class KeptGroup:
    """Of one group: `group_history.GroupHistory`."""

    commits: dict[str, KeptCommits]
    activity: KeptActivity
    losses: KeptLosses
    rebalances: KeptRebalances
    not_consumed: list[str]


@dataclass(frozen=True, slots=True)
class KeptLog:
    """Of one partition: `append_times.PartitionLog`.

    `points` have log ends, and when each was first and last seen, the newest last. Of offsets of which
    it was searched: `found` has when the record there was appended, `stamps` the timestamp that it
    carries, in wall-clock seconds. `lower` and `upper` are the facts of replies, (offset, time) by
    the clock of records.
    """

    points: list[tuple[int, float, float]]
    found: dict[int, float] = field(default_factory=dict)
    stamps: dict[int, float] = field(default_factory=dict)
    lower: list[tuple[int, float]] = field(default_factory=list)
    upper: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class KeptTopic:
    """Of one topic: its id, and `topic.TopicLog`.

    `times` (ms) are of the polls of the window that saw its ends, `seen` has partitions and ends of
    each. `poll` is the number of the one that wrote this, `is_seen` whether that saw any: then each
    later one saw the same, as else there would be a newer row.
    """

    id: str | None
    poll: int
    times: list[int]
    seen: list[tuple[list[int], list[int]]]
    is_seen: bool
    logs: dict[int, KeptLog]


@dataclass(frozen=True, slots=True)
class KeptPolls:
    """Of the monitor of one cluster: how many polls were made, and when the last ones were."""

    cluster_id: str | None
    wall_offset: float
    number: int
    times: list[float]
    held_from: list[tuple[str, int, int, float]]
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Kept:
    """What is to be kept of a poll, or was kept of all; None in place of what is no more."""

    polls: KeptPolls
    groups: Mapping[str, KeptGroup | None] = field(default_factory=dict)
    topics: Mapping[str, KeptTopic | None] = field(default_factory=dict)

    def followed_by(self, later: Kept) -> Kept:
        """Return both in one."""
        return Kept(later.polls, {**self.groups, **later.groups}, {**self.topics, **later.topics})


def why_not(polls: KeptPolls, cluster_id: str | None, wall: float) -> str | None:
    """Return why nobody may go on from these polls at this Unix time, None where that is right."""
    if None not in (cluster_id, polls.cluster_id) and polls.cluster_id != cluster_id:
        return f"it is of another cluster, {polls.cluster_id}"
    if not polls.times:
        return "no poll was made"
    since = wall - (polls.times[-1] + polls.wall_offset)
    if since > MAX_AWAY_SECONDS:
        return f"the last poll was {since / 3600:.0f} h ago"
    if since < -MAX_AHEAD_SECONDS:
        return "the last poll is yet to come by the clock of now"
    return None


def by_topic(offsets: Mapping[str, Mapping[int, int]]) -> dict[str, ByPartition]:
    """Return a copy in plain dictionaries."""
    return {topic: dict(of) for topic, of in offsets.items()}


def moved(moment: float | None, shift: float) -> float | None:
    """Return a moment by another clock."""
    return None if moment is None else moment + shift
