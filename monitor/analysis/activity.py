"""Who consumes, in which rhythm, and what stands still, from what polls saw of members and commits.

A group is active while it has members, or while its commits move without any (`assign()`, Flink,
Spark). How long without a commit means nothing is taken from the group itself: twice the longest
that something readable has waited for a commit. Before one whole wait was seen nobody knows its
rhythm, and it is given the time of those that commit seldom by design.

A wait that began before the group was watched, or while it was away, was longer than what was seen
of it: it tells no rhythm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from monitor.analysis.groups import is_rebalancing
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from monitor.analysis.groups import GroupFacts
    from monitor.model import Group, PartitionOffsets

UNKNOWN_RHYTHM_SECONDS: Final = 5_400.0  # files and checkpoints of an hour are usual
SHORTEST_PATIENCE_SECONDS: Final = 60.0
STUCK_SECONDS: Final = 600.0
# One commit of a group without members is an operator's who moves it; a second makes a consumer.
MOVES_OF_A_CONSUMER: Final = 2
# The longest wait of the last day or two counts: an outage must not make a group patient for ever.
REMEMBERED_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Activity:
    """What is known of a group's activity; None for what is not known.

    `by_members` and `by_commits` say whether it is active, None if it never was. `patience` is in
    seconds. `waiting` (topic -> partition -> monotonic seconds) has since when readable records of
    a partition have waited for a commit. `rewinds` counts steps back by topic; `moved_at` is when
    commits last moved without members.
    """

    by_members: bool | None = None
    by_commits: bool | None = None
    patience: float = UNKNOWN_RHYTHM_SECONDS
    waiting: Mapping[str, Mapping[int, float]] = field(default_factory=nothing)
    rewinds: Mapping[str, int] = field(default_factory=nothing)
    moved_at: float | None = None

    @property
    def was_never_active(self) -> bool:
        """Say whether nobody was seen to consume."""
        return self.by_members is None and self.by_commits is None

    def turns(self) -> Iterator[float]:
        """Yield when a partition stands still for too long, and when its commits count no more.

        If nothing happens until then; in monotonic seconds. `by_commits` is taken to rest on commits
        from before the window.
        """
        waits = [since for of in self.waiting.values() for since in of.values()]
        limit = max(STUCK_SECONDS, self.patience)
        yield from (since + limit for since in waits)
        if self.by_commits and self.moved_at is not None:
            yield max(self.moved_at, min(waits, default=0.0)) + self.patience

    def stuck(self, topic: str, now: float) -> list[float]:
        """Return since when each of a topic's partitions that stand still for too long does."""
        limit = now - max(STUCK_SECONDS, self.patience)
        return [since for since in self.waiting.get(topic, nothing()).values() if since < limit]


@dataclass(slots=True)
class _Group:
    """What is remembered of a group; times are monotonic seconds."""

    watched_from: float
    commits: PartitionOffsets = field(default_factory=nothing)
    had_members: bool = False
    had_none: bool = False  # at the last poll
    was_missed: bool = False
    moves: int = 0  # without members
    moved_at: float | None = None
    waiting: Mapping[str, Mapping[int, float]] = field(default_factory=nothing)
    rewinds: Mapping[str, int] = field(default_factory=nothing)
    # the commits on topics that were re-created since: what comes after them is no step back
    replaced: Mapping[str, Mapping[int, int]] = field(default_factory=nothing)
    knows_rhythm: bool = False
    longest: float = 0.0
    longest_before: float = 0.0  # in the day before
    day_began: float = 0.0

    @property
    def is_left(self) -> bool:
        """Say whether its members left, and it never committed without any."""
        return self.had_none and self.had_members and self.moves < MOVES_OF_A_CONSUMER


class Activities:
    """The activity of each group, poll by poll."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._last_poll: float | None = None
        self._now = 0.0

    def start_poll(self, groups: Collection[str], now: float) -> None:
        """Begin a poll; forget the groups that exist no more."""
        self._last_poll = self._now or None
        self._now = now
        for group in self._groups.keys() - groups:
            del self._groups[group]

    def miss(self, group: str) -> None:
        """Note that a group could not be seen: what happens meanwhile is not known."""
        if (kept := self._groups.get(group)) is not None:
            kept.waiting = nothing()
            kept.was_missed = True
            kept.had_none = False

    def forget_group(self, group: str) -> None:
        """Start a group anew."""
        self._groups.pop(group, None)

    def replace_topic(self, topic: str) -> None:
        """Note that a topic was deleted or re-created: commits on it are those on the old one."""
        for kept in self._groups.values():
            if topic in kept.commits:
                kept.replaced = {**kept.replaced, topic: kept.commits[topic]}
            if topic in kept.waiting:
                kept.waiting = {t: of for t, of in kept.waiting.items() if t != topic}

    def leaves_old_log(self, group: str, commits: PartitionOffsets) -> list[str]:
        """Return the re-created topics on which a group commits for the first time since."""
        kept = self._groups.get(group)
        if kept is None or not kept.replaced:
            return []
        return [t for t, old in kept.replaced.items() if commits.get(t, old) != kept.commits.get(t)]

    def observe(
        self,
        group: str,
        commits: PartitionOffsets,
        unread: Mapping[str, Mapping[int, int]],
        members: int | None,
        *,
        window: float,
    ) -> Activity:
        """Take in one group: its commits, what it can read and has not, and how many members.

        `unread` need only have the topics with something readable; `window` is the time in seconds
        over which commits count as recent.
        """
        now = self._now
        kept = self._groups.get(group)
        if kept is None:
            kept = self._groups[group] = _Group(now, day_began=now)
            moved = False
        else:
            moved = self._see_moves(kept, commits)
        if kept.was_missed:
            kept.was_missed = False
            kept.watched_from = now
        kept.commits = commits
        was_left = kept.is_left
        if members == 0:
            if moved and kept.had_none:
                kept.moves += 1
                kept.moved_at = now
        elif members:
            kept.had_members = True
        kept.had_none = members == 0
        if was_left or kept.is_left:  # nobody is, or was, there to be slow
            kept.waiting = nothing()
            kept.watched_from = now
        if not kept.is_left:
            kept.waiting = _waiting(kept.waiting, unread, now)
        patience = self._patience(kept)
        return Activity(
            by_members=(members > 0) if kept.had_members and members is not None else None,
            by_commits=self._by_commits(kept, members, max(window, patience)),
            patience=patience,
            waiting=kept.waiting,
            rewinds=kept.rewinds,
            moved_at=kept.moved_at,
        )

    def _see_moves(self, kept: _Group, commits: PartitionOffsets) -> bool:
        """Take in which commits changed; return whether any did."""
        moved = False
        for topic, partitions in commits.items():
            before = kept.commits.get(topic)
            if before is None or before is partitions or before == partitions:
                continue
            waits = kept.waiting.get(topic, nothing())
            back = 0
            for partition, offset in partitions.items():
                last = before.get(partition)
                if last is None or last == offset:
                    continue
                moved = True
                self._learn(kept, waits.get(partition))
                if offset < last and kept.replaced.get(topic, nothing()).get(partition) != last:
                    back += 1
            if back:
                kept.rewinds = {**kept.rewinds, topic: kept.rewinds.get(topic, 0) + back}
            if waits:
                left = {p: at for p, at in waits.items() if partitions.get(p) == before.get(p)}
                kept.waiting = {**kept.waiting, topic: left}
            self._forget_old_commits(kept, topic, partitions)
        return moved

    @staticmethod
    def _forget_old_commits(kept: _Group, topic: str, commits: Mapping[int, int]) -> None:
        old = kept.replaced.get(topic)
        if old is None:
            return
        left = {p: offset for p, offset in old.items() if commits.get(p) == offset}
        kept.replaced = {t: of for t, of in kept.replaced.items() if t != topic}
        if left:
            kept.replaced = {**kept.replaced, topic: left}

    def _learn(self, kept: _Group, since: float | None) -> None:
        """Take in how long something waited for a commit; None for less than a poll."""
        if kept.was_missed or kept.is_left or (since is not None and since <= kept.watched_from):
            return
        if since is None:
            since = self._now if self._last_poll is None else self._last_poll
        if self._now - kept.day_began > REMEMBERED_SECONDS:
            kept.longest_before, kept.longest = kept.longest, 0.0
            kept.day_began = self._now
        kept.knows_rhythm = True
        kept.longest = max(kept.longest, self._now - since)

    @staticmethod
    def _patience(kept: _Group) -> float:
        if not kept.knows_rhythm:
            return UNKNOWN_RHYTHM_SECONDS
        return max(2 * max(kept.longest, kept.longest_before), SHORTEST_PATIENCE_SECONDS)

    def _by_commits(self, kept: _Group, members: int | None, recent: float) -> bool | None:
        if members != 0 or kept.moved_at is None or kept.moves < MOVES_OF_A_CONSUMER:
            return None
        # who has nothing to read has nothing to commit: silence counts from when something came
        waits = [since for of in kept.waiting.values() for since in of.values()]
        return self._now - max(kept.moved_at, min(waits, default=0.0)) <= recent


def _waiting(
    before: Mapping[str, Mapping[int, float]],
    unread: Mapping[str, Mapping[int, int]],
    now: float,
) -> Mapping[str, Mapping[int, float]]:
    """Return since when readable records wait, of the partitions that have any now."""
    found = {}
    for topic, partitions in unread.items():
        waits = before.get(topic, nothing())
        if of := {p: waits.get(p, now) for p, messages in partitions.items() if messages}:
            found[topic] = of
    return found or nothing()


def not_consumed(
    topics: Iterable[str],
    held: Collection[str],
    changed_at: Mapping[str, float],
    *,
    recent: float,
) -> frozenset[str]:
    """Return the committed topics of which a stable group holds nothing and commits nothing.

    `changed_at` is when a commit on a topic was last seen to change; before `recent` (monotonic
    seconds) it counts no more. A group that holds nothing at all tells of no topic.
    """
    if not held:
        return frozenset()
    return frozenset(t for t in topics if t not in held and changed_at.get(t, recent) <= recent)


def topics_not_consumed(
    group: Group,
    facts: GroupFacts,
    changed_at: Mapping[str, float],
    recent: float,
    before: frozenset[str],
) -> frozenset[str]:
    """Return the topics with commits that a group no longer consumes.

    While it rebalances nobody knows: then those of the last poll, `before`.
    """
    if not facts.members:
        return frozenset()
    if (facts.state or "").lower() != "stable":
        return before & group.commits.keys() if is_rebalancing(facts.state) else frozenset()
    return not_consumed(group.commits, facts.held, changed_at, recent=recent)
