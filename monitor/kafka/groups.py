"""Groups: who is there, who speaks for each, and what is concluded from absence.

A group leaves only when its absence is proven: its coordinator, asked by name, knows no such group
and has no commits of it. Who speaks for a group: see `listings`. What its coordinator says of it: see
`group_answers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from monitor.kafka.apis.describe_groups import DescribedGroup
from monitor.kafka.apis.list_groups import ListedGroup, ListGroups
from monitor.kafka.apis.metadata import ClusterMetadata
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.exchange import Exchange
from monitor.kafka.group_answers import TYPES_WITH_COMMITS, GroupAnswers, Told
from monitor.kafka.listings import DEAD, EMPTY, MEMBERLESS_STATES, Listings, read_lists
from monitor.kafka.questions import Ask
from monitor.kafka.steps import Step
from monitor.model import ANSWERED, Group, Member, PartitionOffsets, Refused, Silent

# A broker that has just started lists no groups for some seconds, and no error: until it has
# answered for so long, what it does not list may be there.
STARTING_S: Final = 30.0

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
AWAY: Final = "its coordinator is away"
# What is said of a group where a fault of our own kept a part of it from being read.
FAILED: Final = "the monitor failed to read it"

_NO_TOPICS: Final = frozenset[str]()  # one for all groups: each takes 216 bytes


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
        self._list_questions: dict[int, ListGroups] = {}
        self._answers = GroupAnswers()
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
        self._list_questions = {
            broker: self._list_questions.get(broker) or ListGroups() for broker in metadata.brokers
        }
        lists = [Ask(broker, question) for broker, question in self._list_questions.items()]
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
        if has_new_metadata:
            # what is asked as often as the metadata: epochs of empty groups, and what did not fit
            self._answers.try_all_again()
        self._metadata = metadata
        told = self._answers.read(exchange, metadata, listings, {} if has_new_metadata else last)
        groups = {}
        for group_id, listed in listings.groups.items():
            args = listed, listings, told, exchange, last.get(group_id)
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
        self._answers.keep(groups.keys())

    def _assemble(
        self,
        listed: ListedGroup,
        listings: Listings,
        told: Told,
        exchange: Exchange,
        last: Group | None,
    ) -> Group | None:
        """Join what was read of a group; None where it is proven not to be there.

        Its errors stay with it, its last commits are kept.
        """
        if listed.id in listings.by_name and _is_gone(listed, told, listings):
            return None
        coordinator = listings.coordinators[listed.id]
        commits, described = told.commits.get(listed.id), told.described.get(listed.id)
        offsets = self._offsets(commits, last)
        if (
            last is not None
            and described is None
            and listed.id not in told.described_of
            and commits is not None
            and _is_at_rest(listed, coordinator, commits, offsets, last)
        ):
            self._seen_at[listed.id] = told.seen_at.get(listed.id, exchange.started_at)
            return last
        if (
            described is not None
            and listed.state is None
            and (described.error == NO_SUCH_GROUP or described.state == DEAD)
        ):
            # it has commits and no members: some services know a group only while it runs
            described = DescribedGroup(state=EMPTY, members=())
        errors = [part.error for part in (commits, described) if part and part.error]
        missing = (listed.type in TYPES_WITH_COMMITS and commits is None) or (
            listed.id in told.described_of and described is None
        )
        if missing:
            errors.append(
                FAILED
                if listed.id in told.failed
                else exchange.down.get(coordinator, "its coordinator did not answer")
            )
        error = "; ".join(dict.fromkeys(errors)) or None
        if last is not None and (missing or any(map(_passes, errors))):
            answer = Silent(self._seen_at.get(listed.id), error)
            return replace(last, state=listed.state or last.state, answer=answer)
        members = _members(listed, described, last)
        group = Group(
            id=listed.id,
            type=listed.type,
            state=(described and described.state) or listed.state,
            protocol_type=listed.protocol_type,
            assignor=described.assignor if described and described.members else None,
            coordinator=coordinator,
            members=members,
            commits=offsets,
            lags=self._wanted(commits.lags) if commits else {},
            epoch=_epoch(listed, described, last),
            left_out=self._left_out(members),
            answer=Refused(error) if error else ANSWERED,
        )
        if missing or any(map(_passes, errors)):
            return replace(group, answer=Silent(None, error))
        self._seen_at[listed.id] = told.seen_at.get(listed.id, exchange.started_at)
        # one object for as long as nothing happens to it
        return last if group == last else group

    def _offsets(self, commits: GroupCommits | None, last: Group | None) -> PartitionOffsets:
        offsets = self._wanted(commits.offsets) if commits else {}
        if last is not None and (offsets is last.commits or offsets == last.commits):
            return last.commits  # one object for all polls: analysis keeps it, too
        return offsets

    def _left_out(self, members: Iterable[Member] | None) -> frozenset[str]:
        wants = self._wants_topic
        if wants is None:
            return _NO_TOPICS
        held = (topic for member in members or () for topic in member.assignment)
        return frozenset(topic for topic in held if not wants(topic)) or _NO_TOPICS

    def _wanted(self, offsets: PartitionOffsets) -> PartitionOffsets:
        if self._wants_topic is None:
            return offsets
        return {name: of for name, of in offsets.items() if self._wants_topic(name)}


def _is_at_rest(
    listed: ListedGroup,
    coordinator: int,
    commits: GroupCommits,
    offsets: PartitionOffsets,
    last: Group,
) -> bool:
    """Say whether all is as it was of a group without members: nearly all are, in most polls."""
    return (
        listed.state == last.state
        and listed.state in MEMBERLESS_STATES
        and offsets is last.commits
        and last.answer is ANSWERED
        and commits.error is None
        and not commits.lags
        and not last.lags
        and last.members == ()
        and last.assignor is None
        and coordinator == last.coordinator
        and listed.type == last.type
        and listed.protocol_type == last.protocol_type
    )


def _is_gone(listed: ListedGroup, told: Told, listings: Listings) -> bool:
    """Say whether a group is proven not to be there, by its coordinator, which does not list it."""
    commits, described = told.commits.get(listed.id), told.described.get(listed.id)
    if listed.type not in TYPES_WITH_COMMITS:
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


def _passes(error: str) -> bool:
    """Say whether an error, of a group or of one of its partitions, passes by itself."""
    return error.rpartition(": ")[2] in PASSING
