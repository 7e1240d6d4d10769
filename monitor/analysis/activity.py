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
from monitor.analysis.kept import KeptActivity, by_topic, moved
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
class GroupActivity:
    """What is remembered of one group, poll by poll; times are monotonic seconds."""

    watched_from: float | None = None  # None before the first look
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

    def miss(self) -> None:
        """Note that the group could not be seen: what happens meanwhile is not known."""
        if self.watched_from is not None:
            self.waiting = nothing()
            self.was_missed = True
            self.had_none = False

    def replace_topic(self, topic: str) -> None:
        """Note that a topic was deleted or re-created: commits on it are those on the old one."""
        if topic in self.commits:
            self.replaced = {**self.replaced, topic: self.commits[topic]}
        if topic in self.waiting:
            self.waiting = {t: of for t, of in self.waiting.items() if t != topic}

    def leaves_old_log(self, commits: PartitionOffsets) -> list[str]:
        """Return the re-created topics on which the group commits for the first time since."""
        old = self.replaced.items()
        return [t for t, of in old if commits.get(t, of) != self.commits.get(t)]

    def observe(
        self,
        commits: PartitionOffsets,
        unread: Mapping[str, Mapping[int, int]],
        members: int | None,
        *,
        now: float,
        last_poll: float | None,
        window: float,
    ) -> Activity:
        """Take in its commits, what it can read and has not, and how many members it has.

        `unread` need only have the topics with something readable; `last_poll` is when the one before
        was, None at the first; `window` is the time in seconds over which commits count as recent.
        """
        if self.watched_from is None:
            self.watched_from = self.day_began = now
            moved = False
        else:
            moved = self._see_moves(commits, now, now if last_poll is None else last_poll)
        if self.was_missed:
            self.was_missed = False
            self.watched_from = now
        self.commits = commits
        was_left = self.is_left
        if members == 0:
            if moved and self.had_none:
                self.moves += 1
                self.moved_at = now
        elif members:
            self.had_members = True
        self.had_none = members == 0
        if was_left or self.is_left:  # nobody is, or was, there to be slow
            self.waiting = nothing()
            self.watched_from = now
        if not self.is_left:
            self.waiting = _waiting(self.waiting, unread, now)
        patience = self._patience()
        return Activity(
            by_members=(members > 0) if self.had_members and members is not None else None,
            by_commits=self._by_commits(members, now, max(window, patience)),
            patience=patience,
            waiting=self.waiting,
            rewinds=self.rewinds,
            moved_at=self.moved_at,
        )

    def export(self) -> KeptActivity:
        """Return what a restart takes up, beside the commits."""
        return KeptActivity(
            self.watched_from, self.had_members, self.had_none, self.was_missed, self.moves,
            self.moved_at, {topic: dict(of) for topic, of in self.waiting.items()},
            dict(self.rewinds), by_topic(self.replaced), self.knows_rhythm, self.longest,
            self.longest_before, self.day_began,
        )  # fmt: skip

    @classmethod
    def restored(
        cls,
        kept: KeptActivity,
        commits: PartitionOffsets,
        shift: float,
        away_until: float | None,
    ) -> GroupActivity:
        """Return what was kept; nobody watched until `away_until`, None for no longer than a poll.

        A wait that began before that was longer than what was seen of it.
        """
        watched_from = moved(kept.watched_from, shift)
        return cls(
            watched_from if watched_from is None or away_until is None else away_until,
            commits, kept.had_members, kept.had_none, kept.was_missed, kept.moves,
            moved(kept.moved_at, shift),
            {t: {p: at + shift for p, at in of.items()} for t, of in kept.waiting.items()},
            kept.rewinds, kept.replaced, kept.knows_rhythm, kept.longest, kept.longest_before,
            kept.day_began + shift,
        )  # fmt: skip

    def _see_moves(self, commits: PartitionOffsets, now: float, last_poll: float) -> bool:
        """Take in which commits changed; return whether any did."""
        moved = False
        for topic, partitions in commits.items():
            before = self.commits.get(topic)
            if before is None or before is partitions or before == partitions:
                continue
            waits = self.waiting.get(topic, nothing())
            back = 0
            for partition, offset in partitions.items():
                last = before.get(partition)
                if last is None or last == offset:
                    continue
                moved = True
                self._learn(waits.get(partition), now, last_poll)
                if offset < last and self.replaced.get(topic, nothing()).get(partition) != last:
                    back += 1
            if back:
                self.rewinds = {**self.rewinds, topic: self.rewinds.get(topic, 0) + back}
            if waits:
                left = {p: at for p, at in waits.items() if partitions.get(p) == before.get(p)}
                self.waiting = {**self.waiting, topic: left}
            self._forget_old_commits(topic, partitions)
        return moved

    def _forget_old_commits(self, topic: str, commits: Mapping[int, int]) -> None:
        old = self.replaced.get(topic)
        if old is None:
            return
        left = {p: offset for p, offset in old.items() if commits.get(p) == offset}
        self.replaced = {t: of for t, of in self.replaced.items() if t != topic}
        if left:
            self.replaced = {**self.replaced, topic: left}

    def _learn(self, since: float | None, now: float, last_poll: float) -> None:
        """Take in how long something waited for a commit; since None for less than a poll."""
        if self.was_missed or self.is_left:
            return
        if since is None:
            since = last_poll
        elif self.watched_from is not None and since <= self.watched_from:
            return
        if now - self.day_began > REMEMBERED_SECONDS:
            self.longest_before, self.longest = self.longest, 0.0
            self.day_began = now
        self.knows_rhythm = True
        self.longest = max(self.longest, now - since)

    def _patience(self) -> float:
        if not self.knows_rhythm:
            return UNKNOWN_RHYTHM_SECONDS
        return max(2 * max(self.longest, self.longest_before), SHORTEST_PATIENCE_SECONDS)

    def _by_commits(self, members: int | None, now: float, recent: float) -> bool | None:
        if members != 0 or self.moved_at is None or self.moves < MOVES_OF_A_CONSUMER:
            return None
        # who has nothing to read has nothing to commit: silence counts from when something came
        waits = [since for of in self.waiting.values() for since in of.values()]
        return now - max(self.moved_at, min(waits, default=0.0)) <= recent


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
