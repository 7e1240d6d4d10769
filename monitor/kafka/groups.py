"""Groups: who coordinates each, what it committed, who its members are.

A group is listed by its coordinator, so no request is spent on finding it. Commits and members of
all groups of one broker are asked for in one round; only groups with members are described, and
those of the newer types once more when the last member has left, then as often as the metadata is
read: their epoch tells who came and went between two polls.

A group that nobody lists is deleted, or its coordinator is away. A broker that is fenced leaves the
metadata and is asked nothing, so that no broker is silent; who should coordinate the group tells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from monitor.kafka.coordinators import is_answered
from monitor.kafka.exchange import Exchange
from monitor.kafka.questions import (
    Ask,
    ClusterMetadata,
    DescribeClassicGroups,
    DescribeConsumerGroups,
    DescribedGroup,
    DescribeShareGroups,
    DescribeStreamsGroups,
    FetchCommits,
    FetchShareOffsets,
    FindCoordinators,
    GroupCommits,
    ListedGroup,
    ListGroups,
)
from monitor.model import (
    ANSWERED,
    CLASSIC,
    CONSUMER,
    SHARE,
    STREAMS,
    Assignment,
    Group,
    PartitionOffsets,
    Refused,
    Silent,
    Topic,
)

# Bounds of one reply: past them a question goes out as several.
MAX_GROUPS_PER_FETCH: Final = 5_000
MAX_COMMITS_PER_FETCH: Final = 100_000
MAX_GROUPS_PER_DESCRIBE: Final = 500

# How each type of group is described; a type that is not here keeps its listed state only.
DESCRIBE_BY_TYPE: Final[Mapping[str, Callable[[Sequence[str]], Any]]] = {
    CLASSIC: DescribeClassicGroups,
    CONSUMER: DescribeConsumerGroups,
    SHARE: DescribeShareGroups,
    STREAMS: DescribeStreamsGroups,
}
# How each type of group is asked for its positions.
FETCH_BY_TYPE: Final[Mapping[str, Callable[[Sequence[str]], Any]]] = {
    CLASSIC: FetchCommits,
    CONSUMER: FetchCommits,
    STREAMS: FetchCommits,
    SHARE: FetchShareOffsets,
}
# States in which a group has no members.
EMPTY: Final = "Empty"
# Errors of a group that pass by themselves: its coordinator is away or not ready, not unwilling.
PASSING: Final = frozenset(
    {
        "REQUEST_TIMED_OUT",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "COORDINATOR_NOT_AVAILABLE",
        "NOT_COORDINATOR",
        "UNSTABLE_OFFSET_COMMIT",
    }
)
MEMBERLESS_STATES: Final = frozenset({EMPTY, "Dead"})


@dataclass(slots=True)
class _Found:
    """What the brokers said of the listed groups, by group id."""

    listed: dict[str, ListedGroup] = field(default_factory=dict)
    coordinators: dict[str, int] = field(default_factory=dict)
    commits: dict[str, GroupCommits] = field(default_factory=dict)
    described: dict[str, DescribedGroup] = field(default_factory=dict)
    seen_at: dict[str, float] = field(default_factory=dict)


class GroupCollector:
    """Reads the groups that are wanted, and of their commits the topics that are."""

    def __init__(
        self,
        wants_group: Callable[[str], bool] | None = None,
        wants_topic: Callable[[str], bool] | None = None,
        *,
        hide_empty: bool = False,
    ) -> None:
        self._hide_empty = hide_empty
        self._wants_group = wants_group
        self._wants_topic = wants_topic
        self._seen_at: dict[str, float] = {}  # when each group's coordinator last answered
        self._metadata: ClusterMetadata | None = None  # that the epochs of empty groups are from
        # not listed although their coordinators answered: deleted, if that is said twice
        self.missing: frozenset[str] = frozenset()
        self.complete = False  # whether all groups are known

    def collect(
        self,
        exchange: Exchange,
        metadata: ClusterMetadata,
        last: Mapping[str, Group],
    ) -> dict[str, Group]:
        """Return all groups; those whose coordinator is silent or away as they were, and silent.

        One that is gone is kept for one poll more: while a coordinator moves, neither the old nor
        the new one lists its groups.
        """
        found = _Found()
        hidden = set()
        lists = [Ask(broker, ListGroups()) for broker in metadata.brokers]
        exchange.ask(lists)
        for ask in lists:
            for group in ask.answer or ():
                if self._hide_empty and group.state in MEMBERLESS_STATES:
                    hidden.add(group.id)
                elif self._wants_group is None or self._wants_group(group.id):
                    found.listed[group.id] = group
                    found.coordinators[group.id] = ask.broker
        self._read(exchange, metadata, found, last)
        for group_id, described in found.described.items():
            if found.listed[group_id].type == STREAMS:
                found.described[group_id] = _within(described, metadata.topics)
        groups = {
            group_id: self._assemble(group, found, exchange, last.get(group_id))
            for group_id, group in found.listed.items()
        }
        answered = {ask.broker for ask in lists if ask.answer is not None}
        unlisted = last.keys() - groups.keys() - hidden
        missing = frozenset(
            group_id
            for group_id in unlisted
            if is_answered(
                group_id, last[group_id].coordinator, metadata.group_partitions, answered
            )
        )
        for group_id in unlisted - (missing & self.missing):
            groups[group_id] = replace(
                last[group_id], answer=self._silent(group_id, "its coordinator is away")
            )
        self.missing = missing - self.missing
        self.complete = len(answered) == len(lists) and not (unlisted & groups.keys())
        for group_id in self._seen_at.keys() - groups.keys():
            del self._seen_at[group_id]
        return groups

    def _read(
        self,
        exchange: Exchange,
        metadata: ClusterMetadata,
        found: _Found,
        last: Mapping[str, Group],
    ) -> None:
        wanted: Collection[str] = found.listed
        unchanged = last if metadata is self._metadata else {}
        self._metadata = metadata
        for attempt in range(2):
            fetches = list(_fetches(wanted, found, last))
            describes = list(_describes(wanted, found, unchanged))
            exchange.ask([*fetches, *describes])
            for fetch in fetches:
                if fetch.answer is not None:
                    found.commits.update(fetch.answer)
                    found.seen_at.update(dict.fromkeys(fetch.answer, fetch.answered_at))
            for describe in describes:
                if describe.answer is not None:
                    found.described.update(describe.answer)
                    for group_id in describe.answer:
                        found.seen_at.setdefault(group_id, describe.answered_at)
            wanted = [group_id for group_id, commits in found.commits.items() if commits.moved]
            if not wanted or attempt:
                return
            if healthy := exchange.healthy(metadata.brokers):
                ask = Ask(healthy[0], FindCoordinators(wanted))
                exchange.ask([ask])
                found.coordinators.update(ask.answer or {})

    def _assemble(
        self,
        listed: ListedGroup,
        found: _Found,
        exchange: Exchange,
        last: Group | None,
    ) -> Group:
        """Join what was read of a group; its errors stay with it, its last commits are kept."""
        commits, described = found.commits.get(listed.id), found.described.get(listed.id)
        coordinator = found.coordinators[listed.id]
        errors = [part.error for part in (commits, described) if part and part.error]
        missing = listed.type in FETCH_BY_TYPE and (commits is None or any(map(_passes, errors)))
        if commits is None and missing:
            errors.append(exchange.down.get(coordinator, "its coordinator did not answer"))
        members = described.members if described else None
        if members is None and listed.state in MEMBERLESS_STATES:
            members = ()
        epoch = described.epoch if described else None
        if epoch is None and last is not None and last.type == listed.type:
            epoch = last.epoch
        error = "; ".join(dict.fromkeys(errors)) or None
        offsets = self._wanted(commits.offsets) if commits else {}
        if last is not None and offsets == last.commits:
            offsets = last.commits  # one object for all polls: analysis keeps it, too
        group = Group(
            id=listed.id,
            type=listed.type,
            state=(described and described.state) or listed.state,
            protocol_type=listed.protocol_type,
            assignor=described.assignor if described and members else None,
            coordinator=coordinator,
            members=members,
            commits=offsets,
            lags=self._wanted(commits.lags) if commits else {},
            epoch=epoch,
            answer=Refused(error) if error else ANSWERED,
        )
        if missing:
            answer = self._silent(listed.id, error)
            return replace(
                group,
                commits=last.commits if last else group.commits,
                lags=last.lags if last else group.lags,
                answer=answer,
            )
        self._seen_at[listed.id] = found.seen_at.get(listed.id, exchange.started_at)
        return group

    def _silent(self, group_id: str, error: str | None) -> Silent:
        return Silent(self._seen_at.get(group_id), error)

    def _wanted(self, offsets: PartitionOffsets) -> PartitionOffsets:
        if self._wants_topic is None:
            return offsets
        return {name: of for name, of in offsets.items() if self._wants_topic(name)}


def _passes(error: str) -> bool:
    """Say whether an error, of a group or of one of its partitions, passes by itself."""
    return error.rpartition(": ")[2] in PASSING


def _within(described: DescribedGroup, topics: Mapping[str, Topic]) -> DescribedGroup:
    """Drop partitions that do not exist: tasks are as many as the largest of their topics has."""

    def existing(assignment: Assignment | None) -> Assignment | None:
        return assignment and {
            name: tuple(p for p in held if name not in topics or p in topics[name].partitions)
            for name, held in assignment.items()
        }

    return replace(
        described,
        members=described.members
        and tuple(
            replace(
                member,
                assignment=existing(member.assignment) or {},
                target=existing(member.target),
            )
            for member in described.members
        ),
    )


def _fetches(
    wanted: Iterable[str], found: _Found, last: Mapping[str, Group]
) -> Iterator[Ask[dict[str, GroupCommits]]]:
    """Batch groups by coordinator and type of question, by how many commits each had last time."""
    batches: defaultdict[tuple[int, Any], list[str]] = defaultdict(list)
    sizes: defaultdict[tuple[int, Any], int] = defaultdict(int)
    for group_id in wanted:
        fetch = FETCH_BY_TYPE.get(found.listed[group_id].type)
        if fetch is None:
            continue
        key = found.coordinators[group_id], fetch
        before = last.get(group_id)
        size = sum(map(len, before.commits.values())) if before is not None else 1
        if len(batches[key]) >= MAX_GROUPS_PER_FETCH or (
            batches[key] and sizes[key] + size > MAX_COMMITS_PER_FETCH
        ):
            yield Ask(key[0], fetch(batches.pop(key)))
            sizes[key] = 0
        batches[key].append(group_id)
        sizes[key] += size
    for (broker, fetch), batch in batches.items():
        yield Ask(broker, fetch(batch))


def _describes(
    wanted: Iterable[str], found: _Found, last: Mapping[str, Group]
) -> Iterator[Ask[dict[str, DescribedGroup]]]:
    batches: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for group_id in wanted:
        group = found.listed[group_id]
        if group.type in DESCRIBE_BY_TYPE and _has_news(group, last.get(group_id)):
            batches[found.coordinators[group_id], group.type].append(group_id)
    for (broker, kind), groups in batches.items():
        for start in range(0, len(groups), MAX_GROUPS_PER_DESCRIBE):
            part = groups[start : start + MAX_GROUPS_PER_DESCRIBE]
            yield Ask(broker, DESCRIBE_BY_TYPE[kind](part))


def _has_news(group: ListedGroup, last: Group | None) -> bool:
    """Tell whether a description may say what is not known: members, or an empty group's epoch."""
    if group.state not in MEMBERLESS_STATES:
        return True
    return group.state == EMPTY and group.type != CLASSIC and (last is None or last.members != ())
