"""What is to be seen of a group on one topic: all that its causes are told by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from monitor.analysis.activity import UNKNOWN_RHYTHM_SECONDS, Activity
from monitor.analysis.causes.course import Course, Rate, Rewind, Stretch, by_partition
from monitor.analysis.groups import is_rebalancing
from monitor.analysis.measures import NOTHING_UNREAD
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from monitor.analysis.findings import Findings
    from monitor.analysis.measures import GroupMeasures
    from monitor.model import Snapshot

# What one commits within is in flight: twice the minute in which ordinary consumers commit.
IN_FLIGHT_SECONDS: Final = 60.0
# A partition of which no commit was ever seen may be seldom committed: its lag must be as much older.
UNSEEN_RHYTHM: Final = 3
LEAST_STRETCHES: Final = 3


class PartitionSymptoms(NamedTuple):
    """A partition that the group committed; rates in messages per second, None while not known.

    `age` is that of the oldest unread record, `stands_for` how long its commit has not moved, in
    seconds. `is_behind` says that more is unread than is in flight, `stands` that its commit should
    have moved, `awaits_turn` that it would be said to stand if its owner had time for it (see `with_turns`).
    """

    partition: int
    lag: int
    age: float | None
    stands_for: float
    produced: float | None
    consumed: float | None
    owner: str | None
    leader: int | None
    is_behind: bool
    stands: bool
    awaits_turn: bool = False

    @property
    def moves_now(self) -> bool:
        """Say whether its commit moved as lately as it does where somebody reads."""
        return bool(self.consumed) and self.stands_for <= IN_FLIGHT_SECONDS


class Pool(NamedTuple):
    """A pool of database connections that is used up; `is_own` if the group's own service uses it."""

    name: str
    is_own: bool
    waiting: int
    longest_seconds: float | None
    in_use: int | None
    most: int | None


@dataclass(frozen=True, slots=True)
class Pools:
    """What is known of databases: those that are `exhausted`, and how many were looked at."""

    exhausted: tuple[Pool, ...]
    looked_at: int


@dataclass(frozen=True, slots=True)
class Around:
    """What else there is on the cluster: `behind` finds group -> topic -> leaders of partitions behind.

    `in_time` counts the groups that read what a leader leads, and are not behind on it. Both look at all
    partitions of the cluster: they are asked for where one broker may be the cause. `pools` is None where
    databases are not watched.
    """

    behind: Callable[[], Mapping[str, Mapping[str, frozenset[int]]]]
    in_time: Callable[[int], int]
    pools: Pools | None = None


# without slots: seventeen causes ask for the same sums, which of a thousand groups behind is half a second
@dataclass(frozen=True)
class Symptoms:
    """A group on one topic; moments are monotonic seconds, rates messages per second.

    `span` is the time over which rates are reckoned, 0 while there are none. `usual_produced` is the
    median of the stretches before the lag began, None with fewer than `LEAST_STRETCHES`; `managed` is
    what one consumer was seen to take, `had_to_hurry` if that was while messages waited.
    """

    group: str
    topic: str
    now: float
    snapshot: Snapshot
    measures: GroupMeasures
    activity: Activity
    course: Course
    around: Around
    partitions: tuple[PartitionSymptoms, ...]
    span: float
    produced: float
    consumed: float
    consumers: int
    rebalances: int
    usual_produced: float | None
    managed: float | None
    had_to_hurry: bool
    peak_produced: float

    @property
    def members(self) -> int | None:
        """Return how many members there are, None where that is not known."""
        return self.measures.facts.members

    @cached_property
    def lag(self) -> int:
        """Return the messages that can be read and were not."""
        return sum(p.lag for p in self.partitions)

    @cached_property
    def behind(self) -> tuple[PartitionSymptoms, ...]:
        """Return the partitions of which more is unread than is in flight."""
        return tuple(p for p in self.partitions if p.is_behind)

    @cached_property
    def standing(self) -> tuple[PartitionSymptoms, ...]:
        """Return the partitions of which the commit should have moved."""
        return tuple(p for p in self.partitions if p.stands)

    @cached_property
    def age(self) -> float | None:
        """Return how long the oldest unread record has waited, in seconds."""
        return max((p.age for p in self.behind if p.age is not None), default=None)

    @property
    def since(self) -> float | None:
        """Return when the oldest unread record was appended."""
        return None if self.age is None else self.now - self.age

    @property
    def knows_rates(self) -> bool:
        """Say whether there were polls enough to tell rates."""
        return self.span > 0

    @cached_property
    def left_alone(self) -> tuple[PartitionSymptoms, ...]:
        """Return the partitions behind that are not read now while others are: too early to say that they stand."""
        others_move = any(p.moves_now for p in self.partitions)
        return tuple(
            p
            for p in self.behind
            if not p.awaits_turn
            and (not p.consumed or (others_move and p.stands_for > IN_FLIGHT_SECONDS))
        )

    @cached_property
    def wedged(self) -> frozenset[str]:
        """Return the members of whom all that they have to read stands."""
        owners = {p.owner for p in self.standing if p.owner is not None}
        return frozenset(
            owner
            for owner in owners
            if not any(p.consumed for p in self.of_owner(owner))
            and all(p.stands for p in self.of_owner(owner) if p.lag)
            and not self.reads_other_topics(owner)
        )

    @property
    def per_consumer(self) -> float:
        """Return what one consumer takes now, of those that go on."""
        return self.consumed / max(1, self.consumers - len(self.wedged))

    @property
    def shrinks(self) -> bool:
        """Say whether the lag gets less, by more than chance."""
        return self.knows_rates and self.consumed > 1.05 * self.produced and self.consumed > 0

    @property
    def over_at(self) -> float | None:
        """Return when the lag is gone at the rates of now, None if never."""
        slowest = 0.0
        for p in self.behind:
            if p.produced is None or p.consumed is None or p.consumed <= p.produced:
                return None
            slowest = max(slowest, p.lag / (p.consumed - p.produced))
        return self.now + slowest if slowest else None

    def of_owner(self, owner: str | None) -> tuple[PartitionSymptoms, ...]:
        """Return the partitions that a member holds."""
        return tuple(p for p in self.partitions if p.owner == owner)

    def of_owner_elsewhere(self, owner: str | None) -> list[tuple[str, int]]:
        """Return the (topic, partition) pairs of other topics that a member holds."""
        return [
            (topic, partition)
            for member, topic, partition in self.measures.group.assignments()
            if member.id == owner and topic != self.topic
        ]

    def reads_other_topics(self, owner: str | None) -> bool:
        """Say whether a member's commits on other topics moved lately."""
        after = self.now - max(self.span, IN_FLIGHT_SECONDS)
        return any(
            self.measures.commits_at(topic).get(partition, after) > after
            for topic, partition in self.of_owner_elsewhere(owner)
        )

    def is_read_in_time(self, topic: str, partition: int) -> bool:
        """Say whether what waits is read at once, and what was there at each mark was read in time."""
        marks = (*self.course.marks, self.course.last)
        rate = by_partition(marks[0], marks[-1], topic).get(partition)
        lag = self.measures.lag.readable(topic).get(partition, 0)
        # what takes longer to read than it is old will be behind
        if rate is not None and rate.consumed and lag > rate.consumed * IN_FLIGHT_SECONDS:
            return False
        limit = in_flight_seconds(self.measures, topic)
        for n, mark in enumerate(marks):
            end = mark.ends.get(topic, nothing()).get(partition)
            due = next((later for later in marks[n + 1 :] if later.at - mark.at >= limit), None)
            if end is None or due is None:
                continue
            if not lag:  # markers of transactions at the end are read by nobody
                end = min(end, marks[-1].commits.get(topic, nothing()).get(partition, end))
            if due.commits.get(topic, nothing()).get(partition, end) < end:
                return False
        return True

    @property
    def is_rebalancing(self) -> bool:
        """Say whether the group is between two assignments now."""
        return is_rebalancing(self.measures.facts.state)

    @property
    def rewinds(self) -> tuple[Rewind, ...]:
        """Return the steps back on the topic."""
        return tuple(r for r in self.course.rewinds if r.topic == self.topic)


def symptoms_of(
    topic: str,
    snapshot: Snapshot,
    measures: GroupMeasures,
    findings: Findings,
    around: Around,
) -> Symptoms | None:
    """Return the symptoms of a group on a topic that it committed; None where it was not seen."""
    group = measures.group.id
    course = findings.courses.get(group)
    if course is None:
        return None
    now = snapshot.monotonic_at
    began = course.since(now)
    here = course.last
    # a group that rests stands where it stood
    span = now - began.at if began else 0.0
    rates = by_partition(began, here._replace(at=now), topic) if began else {}
    partitions = _partitions(topic, snapshot, measures, course, rates)
    age = max((p.age for p in partitions if p.is_behind and p.age is not None), default=0.0)
    stretches = course.stretches.get(topic, ())
    before = [stretch for stretch in stretches if stretch.at <= now - age]
    # of a lag that is older than the watch, what was earlier in it may still have been faster
    best = max(
        (s for s in before or stretches[:-1] if s.consumers),
        key=lambda each: each.consumed / each.consumers,
        default=None,
    )
    return Symptoms(
        group=group,
        topic=topic,
        now=now,
        snapshot=snapshot,
        measures=measures,
        activity=measures.activity or Activity(),
        course=course,
        around=around,
        partitions=partitions,
        span=span if rates else 0.0,
        produced=sum(rate.produced for rate in rates.values()),
        consumed=sum(rate.consumed for rate in rates.values()),
        consumers=measures.facts.consumers(topic),
        rebalances=(measures.rebalances or 0) - course.counts[0].rebalances,
        usual_produced=_usual(before),
        managed=best and best.consumed / best.consumers,
        had_to_hurry=best is not None and best.had_backlog,
        peak_produced=max((s.produced for s in stretches if s.at > now - age), default=0.0),
    )


def with_turns(found: Sequence[Symptoms]) -> list[Symptoms]:
    """Return the symptoms of a group's topics, where nothing stands whose owner is busy elsewhere.

    Clients work through what they fetched one partition after the other, of all their topics. While a
    member reads what it is behind on, the rest stands because it takes its time, not for a fault of its own.
    """
    busy = {
        p.owner
        for s in found
        for p in s.partitions
        if p.owner is not None and p.is_behind and p.moves_now
    }
    if not busy:
        return list(found)
    return [
        replace(
            s,
            partitions=tuple(
                p._replace(stands=False, awaits_turn=True)
                if p.owner in busy and (p.stands or (p.is_behind and not p.moves_now))
                else p
                for p in s.partitions
            ),
        )
        for s in found
    ]


def topics_of(measures: GroupMeasures, snapshot: Snapshot) -> list[str]:
    """Return the topics with lag of any kind, and those of which a part could not be read."""
    ends = snapshot.end_offsets.values
    return [
        topic
        for topic, commits in measures.group.commits.items()
        if measures.lag.topics.get(topic)
        or (
            topic in snapshot.topics
            and (topic in snapshot.end_offsets.silent or len(ends.get(topic, ())) < len(commits))
        )
    ]


def _usual(before: Sequence[Stretch]) -> float | None:
    if len(before) < LEAST_STRETCHES:
        return None
    return median(stretch.produced for stretch in before)


def in_flight_seconds(measures: GroupMeasures, topic: str) -> float:
    """Return how old a record may be that is only in flight: up to the time between two commits.

    A group whose commits come one after the other now is not given the patience of an outage.
    """
    activity = measures.activity or Activity()
    rates = measures.rates.get(topic)
    partitions = len(measures.lag.partitions.get(topic, ()))
    if rates is not None and rates.commit_rate:
        between = partitions / rates.commit_rate
        # else one partition's commit would speak for others that are due in an hour
        if between <= IN_FLIGHT_SECONDS:
            return max(IN_FLIGHT_SECONDS, min(activity.patience, 2 * between))
    return activity.patience


class _Waiting:
    """What of a topic waits for a group, by partition: all that is the same for all is looked up once."""

    def __init__(self, measures: GroupMeasures, topic: str, now: float) -> None:
        self.readable: Mapping[int, int] = measures.lag.readable(topic)
        self.limit = in_flight_seconds(measures, topic)
        self._now = now
        self._as_of = measures.as_of(now)
        self._oldest: Mapping[int, float] = measures.oldest_unread_at.get(topic, nothing())
        waits = measures.activity.waiting if measures.activity else nothing()
        self._waits: Mapping[int, float] = waits.get(topic, nothing())
        self._committed = measures.commits_at(topic)

    def age(self, partition: int) -> float | None:
        """Return how long its oldest unread record has waited, None where that is not known."""
        moment = self._oldest.get(partition)
        if moment is None or moment == NOTHING_UNREAD:
            return None
        return max(0.0, self._as_of - moment)

    def stands_for(self, partition: int) -> float:
        """Return how long readable records have waited for a commit."""
        moved = self._committed.get(partition, self._now)
        return self._now - max(moved, self._waits.get(partition, moved))


def _behind(measures: GroupMeasures, topic: str, now: float) -> Iterator[int]:
    """Yield the partitions of which more is unread than is in flight."""
    waiting = _Waiting(measures, topic, now)
    consumed = _mean_consumed(measures, topic)
    for partition, lag in waiting.readable.items():
        if _is_behind(
            lag, waiting.age(partition), waiting.stands_for(partition), waiting.limit, consumed
        ):
            yield partition


def _mean_consumed(measures: GroupMeasures, topic: str) -> float:
    """Return the messages per second that are read of a partition, on average."""
    rates = measures.rates.get(topic)
    return ((rates and rates.consumed) or 0.0) / max(1, len(measures.lag.partitions.get(topic, ())))


def _is_behind(
    lag: int, age: float | None, stands_for: float, limit: float, consumed: float
) -> bool:
    if lag <= 0:
        return False
    if age is not None:
        return age > limit
    # the brokers have not told the age yet: what waits takes as long as it takes to read
    return (lag / consumed if consumed else stands_for) > limit


def _partitions(
    topic: str,
    snapshot: Snapshot,
    measures: GroupMeasures,
    course: Course,
    rates: Mapping[int, Rate],
) -> tuple[PartitionSymptoms, ...]:
    now = snapshot.monotonic_at
    waiting = _Waiting(measures, topic, now)
    owners = {
        partition: member.id
        for member, held, partition in measures.group.assignments()
        if held == topic
    }
    silence = _Silence(
        (measures.activity or Activity()).patience,
        now - course.began,
        any(of.consumed for of in measures.rates.values()),
    )
    known = snapshot.topics.get(topic)
    usual = _mean_consumed(measures, topic)
    found = []
    for partition, lag in sorted(waiting.readable.items()):
        age, stands_for = waiting.age(partition), waiting.stands_for(partition)
        rate = rates.get(partition)
        leader = (
            known.partitions[partition].leader if known and partition in known.partitions else None
        )
        found.append(
            PartitionSymptoms(
                partition,
                lag,
                age,
                stands_for,
                rate.produced if rate else None,
                rate.consumed if rate else None,
                owners.get(partition),
                leader,
                is_behind=_is_behind(
                    lag, age, stands_for, waiting.limit, rate.consumed if rate else usual
                ),
                stands=bool(rate and not rate.consumed and lag > 0)
                and silence.is_unusual(stands_for, age or 0.0),
            )
        )
    return tuple(found)


class _Silence(NamedTuple):
    """What is known of how long a group is usually silent; seconds."""

    patience: float
    watched: float
    others_move: bool

    def is_unusual(self, seconds: float, age: float) -> bool:
        """Say whether a commit should have moved, the oldest unread record being so old."""
        if seconds > self.patience:
            return True
        # who looks for a minute only, as a command does, has not seen the silence begin
        is_known = self.patience < UNKNOWN_RHYTHM_SECONDS
        limit = UNSEEN_RHYTHM * (self.patience if is_known else IN_FLIGHT_SECONDS)
        return self.others_move and age > limit and seconds >= self.watched - 1.0


def leaders_behind(measures: GroupMeasures, snapshot: Snapshot) -> dict[str, frozenset[int]]:
    """Return topic -> leaders of the partitions that a group is behind on."""
    found = {}
    for topic in topics_of(measures, snapshot):
        if topic in measures.not_consumed:
            continue
        leaders = _leaders(snapshot, topic, _behind(measures, topic, snapshot.monotonic_at))
        if leaders:
            found[topic] = leaders
    return found


def leaders_read(measures: GroupMeasures, snapshot: Snapshot) -> frozenset[int]:
    """Return the leaders of partitions that a group reads now."""
    moved_after = snapshot.monotonic_at - IN_FLIGHT_SECONDS
    read = (
        _leaders(
            snapshot, topic, (p for p, at in measures.commits_at(topic).items() if at > moved_after)
        )
        for topic in measures.changed_at
    )
    return frozenset[int]().union(*read)


def _leaders(snapshot: Snapshot, topic: str, partitions: Iterable[int]) -> frozenset[int]:
    known = snapshot.topics.get(topic)
    if known is None:
        return frozenset()
    return frozenset(
        leader
        for partition in partitions
        if partition in known.partitions
        and (leader := known.partitions[partition].leader) is not None
    )
