"""Groups: what each committed, who its members are.

Commits and members of all groups of one coordinator are asked for in one round; only groups with
members are described, and those of the newer types once more when the last member has left, then as
often as the metadata is read: their epoch tells who came and went between two polls.

A group leaves only when its absence is proven: its coordinator, asked by name, knows no such group
and has no commits of it. Who speaks for a group: see `listings`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from monitor.kafka.apis.describe_groups import (
    DescribeClassicGroups,
    DescribeConsumerGroups,
    DescribedGroup,
    DescribeShareGroups,
    DescribeStreamsGroups,
)
from monitor.kafka.apis.list_groups import ListedGroup, ListGroups
from monitor.kafka.apis.metadata import ClusterMetadata
from monitor.kafka.apis.offset_fetch import FetchCommits, GroupCommits
from monitor.kafka.apis.share_offsets import FetchShareOffsets
from monitor.kafka.batches import MEANT_BYTES, Batches, Part, ask_in_batches
from monitor.kafka.exchange import Exchange
from monitor.kafka.listings import (
    DEAD,
    EMPTY,
    MEMBERLESS_STATES,
    Listings,
    find_coordinators,
    read_lists,
)
from monitor.kafka.questions import Ask
from monitor.kafka.steps import Step, Steps
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

# What a group is taken to need of a reply before its first answer: 200 and 500 groups a question.
UNKNOWN_COMMITS_BYTES: Final = MEANT_BYTES // 200
UNKNOWN_MEMBERS_BYTES: Final = MEANT_BYTES // 500
# What a commit needs where the reply's bytes were not counted.
COMMIT_BYTES: Final = 60
# A broker that has just started lists no groups for some seconds, and no error: until it has
# answered for so long, what it does not list may be there.
STARTING_S: Final = 30.0

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
NO_SUCH_GROUP: Final = "GROUP_ID_NOT_FOUND"
COMMITS_TOO_LARGE: Final = "its commits do not fit into one reply"
MEMBERS_TOO_LARGE: Final = "its members do not fit into one reply"
AWAY: Final = "its coordinator is away"
# What is said of a group where a fault of our own kept a part of it from being read.
FAILED: Final = "the monitor failed to read it"
MEMBERS_FAILED: Final = "the monitor failed to read its members"


@dataclass(slots=True)
class _Found:
    """What the coordinators said of the groups, by group id; `described_of` are those asked for.

    `failed` are those of whose commits a fault of our own cost the answer.
    """

    commits: dict[str, GroupCommits] = field(default_factory=dict)
    described: dict[str, DescribedGroup] = field(default_factory=dict)
    described_of: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    seen_at: dict[str, float] = field(default_factory=dict)

    def moved(self) -> list[str]:
        """Return the groups that another broker coordinates."""
        return [group_id for group_id, commits in self.commits.items() if commits.moved]


class GroupCollector:
    """Reads the groups that are wanted, and of their commits the topics that are.

    After a poll `complete` says that there are no others; `moving` that the metadata may be out of
    date: some are listed by nobody although the broker that should be their coordinator answers, or
    are new where the metadata do not have them.
    """

    def __init__(
        self,
        wants_group: Callable[[str], bool] | None = None,
        wants_topic: Callable[[str], bool] | None = None,
    ) -> None:
        self._wants_group = wants_group
        self._wants_topic = wants_topic
        self._seen_at: dict[str, float] = {}  # when each group's coordinator last answered
        self._metadata: ClusterMetadata | None = None  # that the epochs of empty groups are from
        self._commit_batches = Batches(UNKNOWN_COMMITS_BYTES)
        self._member_batches = Batches(UNKNOWN_MEMBERS_BYTES)
        self._answering_since: dict[int, float] | None = None  # brokers that sent their lists
        self._unlisted: frozenset[str] = frozenset()  # of the last poll, asked by name
        self._unexpected: frozenset[str] = frozenset()  # of the last poll
        self.moving = False
        self.complete = False

    def collect(
        self,
        exchange: Exchange,
        metadata: ClusterMetadata,
        last: Mapping[str, Group],
    ) -> dict[str, Group]:
        """Return all groups; those whose coordinator is silent or away as they were, and silent."""
        lists: list[Ask[list[ListedGroup]]] = [
            Ask(broker, ListGroups()) for broker in metadata.brokers
        ]
        exchange.ask(lists)
        if self._wants_group is not None:
            for ask in lists:
                if ask.answer is not None:
                    ask.answer = [g for g in ask.answer if self._wants_group(g.id)]
        # asked again as often as the metadata is read
        refused = {
            group_id
            for group_id in (self._unlisted if metadata is self._metadata else ())
            if group_id in last
            and isinstance(last[group_id].answer, Refused)
            and not last[group_id].commits
        }
        has_new_metadata = metadata is not self._metadata
        listings = read_lists(lists, exchange, metadata, last, refused)
        found = self._read(exchange, metadata, listings, last)
        groups = {}
        for group_id, listed in listings.groups.items():
            args = listed, listings, found, exchange, last.get(group_id)
            try:
                group = self._assemble(*args)
            except Exception as error:  # noqa: BLE001  # a fault of our own must cost this group only
                exchange.steps.failed(Step.GROUP, group_id, error)
                group = self._unread(listed, last.get(group_id))
            if group is not None:
                groups[group_id] = group
        for group_id in listings.away & last.keys():
            before = last[group_id]
            groups[group_id] = (
                before
                if group_id in refused
                else replace(before, answer=Silent(self._seen_at.get(group_id), AWAY))
            )
        self.moving = self.complete = False
        exchange.steps.attempt(
            Step.ABSENCE, "", self._conclude, lists, listings, groups, exchange, metadata
        )
        # once for each: where groups are placed by another hash, or the metadata do not tell where,
        # newer ones tell nothing else
        news = listings.unexpected - self._unexpected
        self._unexpected = frozenset(listings.unexpected)
        self.moving = self.moving or (bool(news) and not has_new_metadata)
        return groups

    def silenced(self, last: Mapping[str, Group]) -> dict[str, Group]:
        """Return the groups as they were, where a fault of our own kept them all from being read."""
        self.moving = self.complete = False
        return {
            group_id: replace(group, answer=Silent(self._seen_at.get(group_id), FAILED))
            for group_id, group in last.items()
        }

    def _unread(self, listed: ListedGroup, last: Group | None) -> Group:
        known = last or Group(listed.id, listed.type, listed.state, listed.protocol_type)
        return replace(known, answer=Silent(self._seen_at.get(listed.id), FAILED))

    def _conclude(
        self,
        lists: Sequence[Ask[list[ListedGroup]]],
        listings: Listings,
        groups: Mapping[str, Group],
        exchange: Exchange,
        metadata: ClusterMetadata,
    ) -> None:
        """Find out what may be concluded from absence, and forget what is gone."""
        self._unlisted = frozenset((listings.by_name | listings.away) & groups.keys())
        silent = {group_id for group_id in self._unlisted if groups[group_id].is_silent}
        self.moving = not silent.isdisjoint(listings.by_name)
        now = exchange.started_at
        before = self._answering_since
        answered = [ask.broker for ask in lists if ask.answer is not None]
        self._answering_since = {
            broker: now - STARTING_S if before is None else before.get(broker, now)
            for broker in answered
        }
        self.complete = (
            not silent
            # a broker lists it and its coordinator knows of none: one of them is behind
            and listings.listed <= groups.keys()
            and len(answered) == len(lists)
            and all(now - since >= STARTING_S for since in self._answering_since.values())
            and all(p.leader in self._answering_since for p in metadata.group_partitions.values())
        )
        for group_id in self._seen_at.keys() - groups.keys():
            del self._seen_at[group_id]
        self._commit_batches.keep(groups)
        self._member_batches.keep(groups)

    def _read(
        self,
        exchange: Exchange,
        metadata: ClusterMetadata,
        listings: Listings,
        last: Mapping[str, Group],
    ) -> _Found:
        found = _Found()
        unchanged = last
        if metadata is not self._metadata:
            # what is asked as often as the metadata: epochs of empty groups, and what did not fit
            unchanged = {}
            self._commit_batches.try_oversized_again()
            self._member_batches.try_oversized_again()
        self._metadata = metadata
        attempt = exchange.steps.attempt
        news = attempt(Step.MEMBERS, "", _with_news, listings, unchanged)
        if news is None:
            news = []
            found.described |= dict.fromkeys(listings.groups, DescribedGroup(error=MEMBERS_FAILED))
        self._ask(exchange, listings, listings.groups, news, found)
        moved = found.moved()
        coordinators = (
            attempt(Step.COMMITS, "moved groups", find_coordinators, moved, exchange, metadata)
            or {}
        )
        for group_id, coordinator in coordinators.items():
            listings.move(group_id, coordinator)
            # all that is told of a group is from one broker
            found.described.pop(group_id, None)
        self._ask(exchange, listings, coordinators, coordinators, found)
        for group_id, described in found.described.items():
            if listings.groups[group_id].type == STREAMS:
                found.described[group_id] = attempt(
                    Step.MEMBERS, group_id, _within, described, metadata.topics
                ) or DescribedGroup(error=MEMBERS_FAILED)
        return found

    def _ask(
        self,
        exchange: Exchange,
        listings: Listings,
        fetched: Iterable[str],
        described: Iterable[str],
        found: _Found,
    ) -> None:
        """Ask each coordinator for commits and members of its groups."""
        commits = list(_parts(listings, fetched, FETCH_BY_TYPE, self._commit_batches))
        members = list(_parts(listings, described, DESCRIBE_BY_TYPE, self._member_batches))
        for part in members:
            found.described_of.update(part.groups)
        ask_in_batches(exchange, [*commits, *members], partial(self._take, exchange.steps, found))
        for part in members:
            for group_id in self._member_batches.oversized.intersection(part.groups):
                found.described[group_id] = DescribedGroup(error=MEMBERS_TOO_LARGE)
        for part in commits:
            for group_id in self._commit_batches.oversized.intersection(part.groups):
                found.commits[group_id] = GroupCommits(error=COMMITS_TOO_LARGE)

    def _take(self, steps: Steps, found: _Found, part: Part, ask: Ask[Any]) -> None:
        """Take in an answer; what a fault of our own makes of it costs members, or commits, only."""
        of_members = part.batches is self._member_batches
        if ask.failure is None:
            step = Step.MEMBERS if of_members else Step.COMMITS
            take = self._take_members if of_members else self._take_commits
            if steps.runs(step, f"broker {part.broker}", take, found, ask):
                return
        elif ask.failure.fault is None:
            return
        if of_members:
            found.described |= dict.fromkeys(part.groups, DescribedGroup(error=MEMBERS_FAILED))
        else:
            found.failed.update(part.groups)

    def _take_members(self, found: _Found, ask: Ask[dict[str, DescribedGroup]]) -> None:
        answer = ask.answer or {}
        found.described.update(answer)
        # what was told first counts: the other part is newer at least
        found.seen_at = dict.fromkeys(answer, ask.answered_at) | found.seen_at

    def _take_commits(self, found: _Found, ask: Ask[dict[str, GroupCommits]]) -> None:
        answer = ask.answer or {}
        sizes = {name: of.size or _guessed(of) for name, of in answer.items()}
        self._commit_batches.learn(sizes)
        found.commits.update(answer)
        found.seen_at = dict.fromkeys(answer, ask.answered_at) | found.seen_at

    def _assemble(
        self,
        listed: ListedGroup,
        listings: Listings,
        found: _Found,
        exchange: Exchange,
        last: Group | None,
    ) -> Group | None:
        """Join what was read of a group; None where it is proven not to be there.

        Its errors stay with it, its last commits are kept.
        """
        if listed.id in listings.by_name and _is_gone(listed, found, listings):
            return None
        coordinator = listings.coordinators[listed.id]
        commits, described = found.commits.get(listed.id), found.described.get(listed.id)
        if (
            described is not None
            and listed.state is None
            and (described.error == NO_SUCH_GROUP or described.state == DEAD)
        ):
            # it has commits and no members: some services know a group only while it runs
            described = DescribedGroup(state=EMPTY, members=())
        errors = [part.error for part in (commits, described) if part and part.error]
        missing = (listed.type in FETCH_BY_TYPE and commits is None) or (
            listed.id in found.described_of and described is None
        )
        if missing:
            errors.append(
                FAILED
                if listed.id in found.failed
                else exchange.down.get(coordinator, "its coordinator did not answer")
            )
        error = "; ".join(dict.fromkeys(errors)) or None
        if last is not None and (missing or any(map(_passes, errors))):
            answer = Silent(self._seen_at.get(listed.id), error)
            return replace(last, state=listed.state or last.state, answer=answer)
        group = Group(
            id=listed.id,
            type=listed.type,
            state=(described and described.state) or listed.state,
            protocol_type=listed.protocol_type,
            assignor=described.assignor if described and described.members else None,
            coordinator=coordinator,
            members=_members(listed, described, last),
            commits=self._offsets(commits, last),
            lags=self._wanted(commits.lags) if commits else {},
            epoch=_epoch(listed, described, last),
            answer=Refused(error) if error else ANSWERED,
        )
        if missing or any(map(_passes, errors)):
            return replace(group, answer=Silent(None, error))
        self._seen_at[listed.id] = found.seen_at.get(listed.id, exchange.started_at)
        return group

    def _offsets(self, commits: GroupCommits | None, last: Group | None) -> PartitionOffsets:
        offsets = self._wanted(commits.offsets) if commits else {}
        if last is not None and offsets == last.commits:
            return last.commits  # one object for all polls: analysis keeps it, too
        return offsets

    def _wanted(self, offsets: PartitionOffsets) -> PartitionOffsets:
        if self._wants_topic is None:
            return offsets
        return {name: of for name, of in offsets.items() if self._wants_topic(name)}


def _parts(
    listings: Listings,
    wanted: Iterable[str],
    by_type: Mapping[str, Callable[[Sequence[str]], Any]],
    batches: Batches,
) -> Iterator[Part]:
    """Sort groups by coordinator and kind of question."""
    groups: defaultdict[tuple[int, Any], list[str]] = defaultdict(list)
    for group_id in wanted:
        question = by_type.get(listings.groups[group_id].type)
        if question is not None:
            groups[listings.coordinators[group_id], question].append(group_id)
    for (broker, question), of in groups.items():
        yield Part(broker, question, batches, of)


def _is_gone(listed: ListedGroup, found: _Found, listings: Listings) -> bool:
    """Say whether a group is proven not to be there, by its coordinator, which does not list it."""
    commits, described = found.commits.get(listed.id), found.described.get(listed.id)
    if listed.type not in FETCH_BY_TYPE:
        return listed.id not in listings.listed  # nobody can be asked about it
    if commits is None or commits.offsets or commits.error not in {None, NO_SUCH_GROUP}:
        return False
    if described is not None and described.error is None and described.state not in {None, DEAD}:
        return False
    if listings.placed:
        return described is not None and described.error in {None, NO_SUCH_GROUP}
    # a service that lists only groups that run, and describes no others
    return described is None or described.error is None or not _passes(described.error)


def _members(
    listed: ListedGroup, described: DescribedGroup | None, last: Group | None
) -> tuple[Any, ...] | None:
    members = described.members if described else None
    if members is None and listed.state in MEMBERLESS_STATES:
        return ()
    if last is not None and members == last.members:
        return last.members  # one object for all polls
    return members


def _epoch(listed: ListedGroup, described: DescribedGroup | None, last: Group | None) -> int | None:
    epoch = described.epoch if described else None
    if epoch is None and last is not None and last.type == listed.type:
        return last.epoch
    return epoch


def _guessed(commits: GroupCommits) -> int:
    """Return how many bytes a group's commits take of a reply, roughly."""
    return COMMIT_BYTES * (1 + sum(map(len, commits.offsets.values())))


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


def _with_news(listings: Listings, last: Mapping[str, Group]) -> list[str]:
    """Return the groups of which a description may say what is not known.

    Those are members, or an empty group's epoch.
    """
    return [group.id for group in listings.groups.values() if _has_news(group, last.get(group.id))]


def _has_news(group: ListedGroup, last: Group | None) -> bool:
    if group.state not in MEMBERLESS_STATES:
        return True
    return group.state == EMPTY and group.type != CLASSIC and (last is None or last.members != ())
