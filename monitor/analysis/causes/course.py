"""What was seen of each group over the last hour, as little of it as its causes need.

A mark is where a group stood at a poll: commits and log ends by reference, as the poll brought them.
One in `POLLS_OF_A_MARK` polls is kept, and of those older than `MARKS` only the rates between two. So
a rate is that of at least so many polls, and a group to which nothing happens costs nothing. No rate is
reckoned over a step back of commits, nor over a change of who reads: half an outage is no pace.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from monitor.guard import Guard
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from monitor.analysis.measures import GroupMeasures
    from monitor.model import PartitionOffsets

POLLS_OF_A_MARK: Final = 4  # a minute at the usual 15 s
MARKS: Final = 3
STRETCHES: Final = 60  # an hour
EVENTS: Final = 20


class Mark(NamedTuple):
    """Where a group stood at a poll; `ends` are of its topics, `consumers` hold partitions of them."""

    poll: int
    at: float
    commits: PartitionOffsets
    ends: PartitionOffsets
    members: int | None
    consumers: Mapping[str, int]
    rebalances: int


class Count(NamedTuple):
    """How many rebalances had been seen at a poll."""

    poll: int
    at: float
    rebalances: int


class Stretch(NamedTuple):
    """What happened on a topic up to `at`: messages per second; `had_backlog` if some waited all the time."""

    at: float
    produced: float
    consumed: float
    consumers: int
    had_backlog: bool


class Rewind(NamedTuple):
    """A commit that moved back."""

    at: float
    topic: str
    partition: int
    messages: int


class MembersChange(NamedTuple):
    """The number of members was another than at the poll before."""

    at: float
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Course:
    """What was seen of a group, oldest first; `began` is when it was first seen.

    `others_since` is from when on others read than before, None if those of the beginning do;
    `counts` are as far apart as marks.
    """

    began: float
    last: Mark
    counts: tuple[Count, ...]
    marks: tuple[Mark, ...] = ()
    others_since: float | None = None
    stretches: Mapping[str, tuple[Stretch, ...]] = field(default_factory=nothing)
    rewinds: tuple[Rewind, ...] = ()
    members_changes: tuple[MembersChange, ...] = ()

    def since(self, now: float) -> Mark | None:
        """Return the mark from which rates of now are reckoned: one that is old enough, else the oldest.

        Those who have just begun to read are not judged by a poll or two: None until they have read on.
        """
        for mark in reversed(self.marks):
            if _are_apart(mark, self.last):
                return mark
        oldest = self.marks[0] if self.marks else None
        is_too_soon = oldest is None or oldest.at in (now, self.others_since)
        return None if is_too_soon else oldest


class Courses:
    """The course of each group, poll by poll."""

    def __init__(self, guard: Guard | None = None) -> None:
        self._guard = guard or Guard()
        self._courses: dict[str, Course] = {}
        self._polls = 0
        self._last_poll = 0.0

    def observe(
        self,
        measured: Mapping[str, GroupMeasures],
        seen: Iterable[str],
        ends: PartitionOffsets,
        replaced: Collection[str],
        now: float,
    ) -> Mapping[str, Course]:
        """Take in the groups that were `seen` anew in a poll; return the courses of all.

        `replaced` are topics that were created anew: what is committed on them is no step back.
        """
        self._polls += 1
        courses = dict(self._courses)
        for group_id in courses.keys() - measured.keys():
            del courses[group_id]
        for group_id in seen:
            before = courses.get(group_id)
            last = None if before is None else before.last
            course = self._guard.attempt(
                "course", group_id, self._next,
                before, _mark(measured[group_id], ends, self._polls, now, last), replaced,
            )  # fmt: skip
            if course is None:
                courses.pop(group_id, None)
            else:
                courses[group_id] = course
        self._courses, self._last_poll = courses, now
        return courses

    def _next(self, course: Course | None, mark: Mark, replaced: Collection[str]) -> Course:
        count = _count(mark.poll, mark.at, mark.rebalances)
        if course is None:
            return Course(mark.at, mark, (count,), (mark,))
        last = course.last
        if last.poll < mark.poll - 1:
            # it rested, and stood there until the last poll: rates of now are not those of the rest
            last = last._replace(at=self._last_poll, poll=mark.poll - 1)
            counts = (_count(last.poll, last.at, last.rebalances),)
            course = replace(_with_mark(course, last), marks=(last,), counts=counts)
        if _are_apart(course.counts[-1], mark):
            course = replace(course, counts=(*course.counts, count)[-MARKS:])
        rewinds = _rewinds(last, mark, replaced)
        changes = course.members_changes
        if None not in (last.members, mark.members) and last.members != mark.members:
            changes = (*changes, MembersChange(mark.at, last.members or 0, mark.members or 0))
        course = replace(
            course,
            last=mark,
            rewinds=(*course.rewinds, *rewinds)[-EVENTS:],
            members_changes=changes[-EVENTS:],
        )
        if rewinds or not last.commits.keys().isdisjoint(replaced):
            # nothing is reckoned over a step back
            return replace(course, marks=(mark,))
        if _others_read(last, mark):
            # whose this poll's commits are nobody knows: it counts from the next on
            return replace(course, marks=())
        if not course.marks:
            return replace(_with_mark(course, mark), others_since=mark.at)
        return _with_mark(course, mark) if _are_apart(course.marks[-1], mark) else course


@lru_cache(maxsize=100)
def _count(poll: int, at: float, rebalances: int) -> Count:
    """Return one object for all groups of a poll that rebalanced as often: most never did."""
    return Count(poll, at, rebalances)


def _are_apart(one: Mark | Count, other: Mark) -> bool:
    return other.poll - one.poll >= POLLS_OF_A_MARK


def _others_read(last: Mark, mark: Mark) -> bool:
    """Say whether others may have read after this mark than before the last."""
    return (last.consumers, last.rebalances) != (mark.consumers, mark.rebalances) or (
        None not in (last.members, mark.members) and last.members != mark.members
    )


def _with_mark(course: Course, mark: Mark) -> Course:
    if not course.marks:
        return replace(course, marks=(mark,))
    before = course.marks[-1]
    stretches = dict(course.stretches)
    for topic in mark.commits:
        stretch = stretch_between(before, mark, topic)
        if stretch is not None:
            stretches[topic] = (*stretches.get(topic, ()), stretch)[-STRETCHES:]
    for topic in stretches.keys() - mark.commits.keys():
        del stretches[topic]
    return replace(course, marks=(*course.marks, mark)[-MARKS:], stretches=stretches)


def stretch_between(one: Mark, other: Mark, topic: str) -> Stretch | None:
    """Return what happened on a topic between two marks, None where that is not known."""
    seconds = other.at - one.at
    rates = by_partition(one, other, topic)
    if seconds <= 0 or not rates:
        return None
    produced = sum(rate.produced for rate in rates.values())
    consumed = sum(rate.consumed for rate in rates.values())
    in_flight = consumed * seconds / POLLS_OF_A_MARK
    had_backlog = all(
        sum(mark.ends[topic][p] - mark.commits[topic][p] for p in rates) > in_flight
        for mark in (one, other)
    )
    return Stretch(other.at, produced, consumed, one.consumers.get(topic, 0), had_backlog)


class Rate(NamedTuple):
    """Messages per second of a partition."""

    produced: float
    consumed: float


def by_partition(one: Mark, other: Mark, topic: str) -> dict[int, Rate]:
    """Return partition -> rates between two marks, of the partitions that both know."""
    seconds = other.at - one.at
    if seconds <= 0:
        return {}
    before, after = one.commits.get(topic, nothing()), other.commits.get(topic, nothing())
    ends_before, ends_after = one.ends.get(topic, nothing()), other.ends.get(topic, nothing())
    return {
        partition: Rate(
            max(0, ends_after[partition] - ends_before[partition]) / seconds,
            max(0, offset - before[partition]) / seconds,
        )
        for partition, offset in after.items()
        if partition in before and partition in ends_before and partition in ends_after
    }


def _mark(
    measures: GroupMeasures, ends: PartitionOffsets, poll: int, now: float, last: Mark | None
) -> Mark:
    group = measures.group
    ends = {topic: ends[topic] for topic in group.commits if topic in ends}
    if last is not None and last.ends == ends:
        ends = last.ends  # most logs rest: 230 bytes of each mark
    consumers = {topic: measures.facts.consumers(topic) for topic in measures.facts.per_topic}
    return Mark(
        poll,
        now,
        group.commits,
        ends,
        measures.facts.members,
        consumers or nothing(),
        measures.rebalances or 0,
    )


def _rewinds(last: Mark, mark: Mark, replaced: Collection[str]) -> list[Rewind]:
    found = []
    for topic, commits in mark.commits.items():
        before = last.commits.get(topic)
        if before is None or before is commits or topic in replaced:
            continue
        found += [
            Rewind(mark.at, topic, partition, before[partition] - offset)
            for partition, offset in commits.items()
            if offset < before.get(partition, offset)
        ]
    return found
