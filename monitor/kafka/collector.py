"""One poll: what to ask which broker, and how the answers become a snapshot.

Rounds: metadata when due, group lists, then commits and members, then offsets. Commits go before
end offsets, so that no commit is past an end only because it was read later. In a round every
broker gets one request per API, all sent before any is awaited. A broker that fails is not asked
again in the same poll; the next poll asks it again, but no longer waits for it. What it last said
is kept, marked stale, with the time at which it was seen.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from monitor.kafka.questions import (
    EARLIEST,
    LATEST,
    Ask,
    Brokers,
    ClusterMetadata,
    DescribeClassicGroups,
    DescribeConsumerGroups,
    DescribedGroup,
    FetchCommits,
    FindCoordinators,
    FoundOffsets,
    GroupCommits,
    ListedGroup,
    ListGroups,
    ListOffsets,
    Metadata,
    UnreachableError,
)
from monitor.model import CLASSIC, CONSUMER, STREAMS, Group, Offsets, Snapshot

# Bounds of one reply: past them a question goes out as several.
MAX_GROUPS_PER_FETCH: Final = 5_000
MAX_COMMITS_PER_FETCH: Final = 100_000
MAX_GROUPS_PER_DESCRIBE: Final = 500
MAX_PARTITIONS_PER_LIST: Final = 50_000

# How each type of group is described; a type that is not here keeps its listed state only.
DESCRIBE_BY_TYPE: Final[Mapping[str, Callable[[Sequence[str]], Any]]] = {
    CLASSIC: DescribeClassicGroups,
    CONSUMER: DescribeConsumerGroups,
}
# Types whose positions are committed offsets.
COMMITTING_TYPES: Final = frozenset({CLASSIC, CONSUMER, STREAMS})
# States in which a group has no members, so that there is nothing to describe.
MEMBERLESS_STATES: Final = frozenset({"Empty", "Dead"})


@dataclass(frozen=True, slots=True)
class Intervals:
    """Time limits and refresh intervals, in seconds."""

    request_timeout: float = 5.0
    metadata: float = 60.0
    start_offsets: float = 60.0


def _everything(_name: str) -> bool:
    return True


class Collector:
    """Polls one cluster; remembers between polls what need not be asked again."""

    def __init__(
        self,
        brokers: Brokers,
        intervals: Intervals,
        *,
        wants_group: Callable[[str], bool] = _everything,
        wants_topic: Callable[[str], bool] = _everything,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._brokers = brokers
        self._intervals = intervals
        self._wants_group = wants_group
        self._wants_topic = wants_topic
        self._clock = clock
        self._monotonic = monotonic
        self._metadata: ClusterMetadata | None = None
        self._metadata_due_at = 0.0
        self._start_offsets_due_at = 0.0
        self._offset_questions: dict[int, list[tuple[int, ListOffsets]]] = {}
        self._unknown_topics: frozenset[str] = frozenset()
        self._suspects: frozenset[int] = frozenset()
        self._last = Snapshot(None, taken_at=0.0, monotonic_at=0.0)

    def poll(self) -> Snapshot:
        """Ask all brokers and return what they said.

        Ends within a few request timeouts, however many brokers hang. Raises UnreachableError when
        no broker was ever reached.
        """
        started = self._monotonic()
        poll = _Poll(self._suspects)
        metadata = self._refresh_metadata(poll)
        groups = self._collect_groups(poll, metadata)
        end_offsets = self._list_offsets(poll, LATEST, self._last.end_offsets)
        start_offsets = self._last.start_offsets
        if started >= self._start_offsets_due_at:
            start_offsets = self._list_offsets(poll, EARLIEST, start_offsets)
            self._start_offsets_due_at = started + self._intervals.start_offsets
        self._notice_unknown_topics(groups.values(), metadata)
        ended = self._monotonic()
        self._suspects = frozenset(poll.down)
        self._last = Snapshot(
            cluster_id=metadata.cluster_id,
            taken_at=self._clock(),
            monotonic_at=ended,
            duration_seconds=ended - started,
            controller=metadata.controller,
            brokers=metadata.brokers,
            broker_errors=poll.down,
            topics=metadata.topics,
            start_offsets=start_offsets,
            end_offsets=end_offsets,
            groups=groups,
            requests=self._brokers.take_request_counts(),
            errors=tuple(poll.errors),
        )
        return self._last

    # -- rounds -------------------------------------------------------------------------------

    def _ask(self, poll: _Poll, asks: Iterable[Ask[Any]]) -> None:
        asks = [ask for ask in asks if ask.broker not in poll.down]
        if asks:
            self._brokers.ask(asks, self._intervals.request_timeout, poll.suspects)
        for ask in asks:
            if ask.failure is not None:
                if ask.failure.broker_down:
                    poll.down.setdefault(ask.broker, ask.failure.cause)
                else:
                    poll.errors.append(f"broker {ask.broker}: {ask.failure.cause}")

    def _refresh_metadata(self, poll: _Poll) -> ClusterMetadata:
        known = self._metadata
        healthy = [] if known is None else [b for b in known.brokers if b not in self._suspects]
        if known is not None and healthy and self._monotonic() < self._metadata_due_at:
            return known
        if known is not None and healthy:
            # another broker each time: one that lags behind in metadata is not believed for ever
            ask = Ask(healthy[int(self._monotonic()) % len(healthy)], Metadata())
            self._ask(poll, [ask])
            found = ask.answer
        else:
            try:
                found = self._brokers.find_cluster(self._intervals.request_timeout)
                poll.suspects = frozenset()
            except UnreachableError as error:
                if known is None:
                    raise
                poll.down.update(dict.fromkeys(known.brokers, "no broker answers"))
                poll.errors.append(str(error))
                return known
        if found is None:
            assert known is not None  # noqa: S101  # find_cluster returns or raises
            return known
        self._metadata_due_at = self._monotonic() + self._intervals.metadata
        if known is not None and found.topics == known.topics:
            # the same objects as before: what was made of them (questions, text) is still right
            found = replace(found, topics=known.topics)
        else:
            leaders = _by_leader(found, self._wants_topic)
            self._offset_questions = {
                at: [
                    (leader, ListOffsets(wanted))
                    for leader, topics in leaders.items()
                    for wanted in _batches(topics, at)
                ]
                for at in (LATEST, EARLIEST)
            }
        self._metadata = found
        return found

    def _collect_groups(self, poll: _Poll, metadata: ClusterMetadata) -> Mapping[str, Group]:
        lists = [Ask(broker, ListGroups()) for broker in metadata.brokers]
        self._ask(poll, lists)
        # a group is listed by its coordinator: no request is spent on finding it
        coordinators: dict[str, int] = {}
        listed: dict[str, ListedGroup] = {}
        for ask in lists:
            for group in ask.answer or ():
                if self._wants_group(group.id):
                    listed[group.id] = group
                    coordinators[group.id] = ask.broker
        silent = {ask.broker for ask in lists if ask.answer is None}
        commits, described, seen_at = self._read_groups(poll, listed, coordinators)

        groups: dict[str, Group] = {}
        for group_id, group in listed.items():
            coordinator = coordinators[group_id]
            groups[group_id] = _assemble(
                group,
                coordinator,
                commits=commits.get(group_id),
                described=described.get(group_id),
                seen_at=seen_at.get(group_id, 0.0),
                last=self._last.groups.get(group_id),
                coordinator_error=poll.down.get(coordinator),
            )
        for group_id, old in self._last.groups.items():
            if group_id not in groups and old.coordinator in silent:
                groups[group_id] = replace(old, stale=True)
        return groups

    def _read_groups(
        self,
        poll: _Poll,
        listed: Mapping[str, ListedGroup],
        coordinators: dict[str, int],
    ) -> tuple[dict[str, GroupCommits], dict[str, DescribedGroup], dict[str, float]]:
        commits: dict[str, GroupCommits] = {}
        described: dict[str, DescribedGroup] = {}
        seen_at: dict[str, float] = {}
        wanted: Collection[str] = listed
        for attempt in range(2):
            fetches = list(self._fetches(wanted, listed, coordinators))
            describes = list(_describes(wanted, listed, coordinators))
            self._ask(poll, [*fetches, *describes])
            for fetch in fetches:
                if fetch.answer is not None:
                    commits.update(fetch.answer)
                    seen_at.update(dict.fromkeys(fetch.answer, fetch.answered_at))
            for describe in describes:
                if describe.answer is not None:
                    described.update(describe.answer)
                    for group_id in describe.answer:
                        seen_at.setdefault(group_id, describe.answered_at)
            wanted = [group_id for group_id, found in commits.items() if found.moved]
            if not wanted or attempt:
                break
            self._find_coordinators(poll, wanted, coordinators)
        return commits, described, seen_at

    def _find_coordinators(
        self, poll: _Poll, groups: Sequence[str], coordinators: dict[str, int]
    ) -> None:
        brokers = self._metadata.brokers if self._metadata else {}
        healthy = [b for b in brokers if b not in poll.down and b not in poll.suspects]
        if healthy:
            ask = Ask(healthy[0], FindCoordinators(groups))
            self._ask(poll, [ask])
            coordinators.update(ask.answer or {})

    def _fetches(
        self,
        wanted: Iterable[str],
        listed: Mapping[str, ListedGroup],
        coordinators: Mapping[str, int],
    ) -> Iterator[Ask[dict[str, GroupCommits]]]:
        """Batch groups by coordinator, by how many commits each had last time."""
        batches: defaultdict[int, list[str]] = defaultdict(list)
        sizes: defaultdict[int, int] = defaultdict(int)
        for group_id in wanted:
            if listed[group_id].type not in COMMITTING_TYPES:
                continue
            broker = coordinators[group_id]
            last = self._last.groups.get(group_id)
            size = sum(map(len, last.commits.values())) if last is not None else 1
            batch = batches[broker]
            if batch and (
                len(batch) >= MAX_GROUPS_PER_FETCH or sizes[broker] + size > MAX_COMMITS_PER_FETCH
            ):
                yield Ask(broker, FetchCommits(batch))
                batch = batches[broker] = []
                sizes[broker] = 0
            batch.append(group_id)
            sizes[broker] += size
        for broker, batch in batches.items():
            yield Ask(broker, FetchCommits(batch))

    # -- offsets ------------------------------------------------------------------------------

    def _list_offsets(self, poll: _Poll, at: int, last: Offsets) -> Offsets:
        asks = [Ask(leader, question) for leader, question in self._offset_questions[at]]
        self._ask(poll, asks)
        answered = [(ask, ask.answer) for ask in asks if ask.answer is not None]
        if any(answer.leader_moved for _, answer in answered):
            self._metadata_due_at = 0.0
        values = _merge([answer for _, answer in answered])
        seen_at = min((ask.answered_at for ask, _ in answered), default=last.seen_at)
        earlier = self._keep_unanswered(values, last)
        return Offsets(last.values if values == last.values else values, seen_at, earlier)

    def _keep_unanswered(
        self, values: dict[str, dict[int, int]], last: Offsets
    ) -> dict[str, dict[int, float]]:
        """Put the last seen value where none was seen now; return when those were seen."""
        earlier: dict[str, dict[int, float]] = {}
        for name, topic in (self._metadata.topics if self._metadata else {}).items():
            now = values.get(name)
            if now is not None and len(now) == len(topic.partitions):
                continue
            before = last.values.get(name)
            if before is None:
                continue
            kept = {
                index: offset
                for index, offset in before.items()
                if index in topic.partitions and (now is None or index not in now)
            }
            if kept:
                values[name] = {**kept, **(now or {})}
                earlier[name] = {index: last.time_of(name, index) for index in kept}
        return earlier

    def _notice_unknown_topics(self, groups: Iterable[Group], metadata: ClusterMetadata) -> None:
        """Have the metadata refreshed when a commit names a topic that it does not have yet.

        Once per topic: commits outlive deleted topics, and must not cost a request every poll.
        """
        unknown = frozenset(
            topic for group in groups for topic in group.commits if topic not in metadata.topics
        )
        if unknown - self._unknown_topics:
            self._metadata_due_at = 0.0
        self._unknown_topics = unknown


class _Poll:
    """What one poll learns about the brokers on its way."""

    def __init__(self, suspects: frozenset[int]) -> None:
        self.suspects = suspects
        self.down: dict[int, str] = {}
        self.errors: list[str] = []


def _by_leader(
    metadata: ClusterMetadata, wants_topic: Callable[[str], bool]
) -> Mapping[int, Mapping[str, tuple[int, ...]]]:
    leaders: defaultdict[int, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for name, topic in metadata.topics.items():
        if wants_topic(name):
            for index, partition in topic.partitions.items():
                if partition.leader is not None:
                    leaders[partition.leader][name].append(index)
    return {
        leader: {name: tuple(indexes) for name, indexes in topics.items()}
        for leader, topics in leaders.items()
    }


def _batches(topics: Mapping[str, tuple[int, ...]], at: int) -> Iterator[dict[str, dict[int, int]]]:
    batch: dict[str, dict[int, int]] = {}
    size = 0
    for name, indexes in topics.items():
        if batch and size + len(indexes) > MAX_PARTITIONS_PER_LIST:
            yield batch
            batch, size = {}, 0
        batch[name] = dict.fromkeys(indexes, at)
        size += len(indexes)
    if batch:
        yield batch


def _describes(
    wanted: Iterable[str],
    listed: Mapping[str, ListedGroup],
    coordinators: Mapping[str, int],
) -> Iterator[Ask[dict[str, DescribedGroup]]]:
    batches: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for group_id in wanted:
        group = listed[group_id]
        if group.type in DESCRIBE_BY_TYPE and group.state not in MEMBERLESS_STATES:
            batches[coordinators[group_id], group.type].append(group_id)
    for (broker, kind), groups in batches.items():
        for start in range(0, len(groups), MAX_GROUPS_PER_DESCRIBE):
            part = groups[start : start + MAX_GROUPS_PER_DESCRIBE]
            yield Ask(broker, DESCRIBE_BY_TYPE[kind](part))


def _merge(answers: Sequence[FoundOffsets]) -> dict[str, dict[int, int]]:
    """Join what the leaders said; a topic's partitions are spread over them."""
    values: dict[str, dict[int, int]] = {}
    for answer in answers:
        for topic, offsets in answer.offsets.items():
            if topic in values:
                values[topic].update(offsets)
            else:
                values[topic] = offsets
    return values


def _assemble(
    listed: ListedGroup,
    coordinator: int,
    *,
    commits: GroupCommits | None,
    described: DescribedGroup | None,
    seen_at: float,
    last: Group | None,
    coordinator_error: str | None,
) -> Group:
    """Join what was read of a group; its errors stay with it, its last commits are kept stale."""
    errors = [found.error for found in (commits, described) if found and found.error]
    missing = listed.type in COMMITTING_TYPES and (
        commits is None or (bool(commits.error) and not commits.offsets)
    )
    if commits is None and missing:
        errors.append(coordinator_error or "its coordinator did not answer")
    memberless = listed.state in MEMBERLESS_STATES
    members = () if memberless else described.members if described else None
    stale = missing and last is not None
    return Group(
        id=listed.id,
        type=listed.type,
        state=(described and described.state) or listed.state,
        protocol_type=listed.protocol_type,
        assignor=described.assignor if described else None,
        coordinator=coordinator,
        members=members,
        commits=last.commits if stale and last else commits.offsets if commits else {},
        epoch=described.epoch if described else None,
        error="; ".join(dict.fromkeys(errors)) or None,
        seen_at=last.seen_at if stale and last else seen_at,
        stale=stale,
    )
