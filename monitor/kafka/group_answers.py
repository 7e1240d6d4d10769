"""What coordinators say of their groups: what each committed, who its members are.

Commits and members of all groups of one coordinator are asked for in one round; only groups with
members are described, and those of the newer types once more when the last member has left, then as
often as the metadata is read: their epoch tells who came and went between two polls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
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
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.metadata import ClusterMetadata
from monitor.kafka.apis.offset_fetch import FetchCommits, GroupCommits
from monitor.kafka.apis.share_offsets import FetchShareOffsets
from monitor.kafka.batches import MEANT_BYTES, Batches, Part, ask_in_batches
from monitor.kafka.encoded import LastAnswer
from monitor.kafka.exchange import Exchange
from monitor.kafka.listings import EMPTY, MEMBERLESS_STATES, Listings, find_coordinators
from monitor.kafka.questions import Ask, Question
from monitor.kafka.steps import Step, Steps
from monitor.model import CLASSIC, CONSUMER, SHARE, STREAMS, Assignment, Group, Topic

# What a group is taken to need of a reply before its first answer: 200 and 500 groups a question.
UNKNOWN_COMMITS_BYTES: Final = MEANT_BYTES // 200
UNKNOWN_MEMBERS_BYTES: Final = MEANT_BYTES // 500
# What a commit needs where the reply's bytes were not counted.
COMMIT_BYTES: Final = 60
# How each type of group is described; a type that is not here keeps its listed state only.
DESCRIBE_BY_TYPE: Final[Mapping[str, type[Question[dict[str, DescribedGroup]]]]] = {
    CLASSIC: DescribeClassicGroups,
    CONSUMER: DescribeConsumerGroups,
    SHARE: DescribeShareGroups,
    STREAMS: DescribeStreamsGroups,
}
# Types of groups that can be asked for their positions.
TYPES_WITH_COMMITS: Final = frozenset({CLASSIC, CONSUMER, STREAMS, SHARE})
COMMITS_TOO_LARGE: Final = "its commits do not fit into one reply"
MEMBERS_TOO_LARGE: Final = "its members do not fit into one reply"
# What is said of a group where a fault of our own kept its members from being read.
MEMBERS_FAILED: Final = "the monitor failed to read its members"


@dataclass(slots=True)
class Told:
    """What the coordinators said of the groups, by group id; `described_of` are those asked for.

    `failed` are those of whose commits a fault of our own cost the answer. `seen_at` is when each
    was told, in seconds of the monotonic clock.
    """

    commits: dict[str, GroupCommits] = field(default_factory=dict)
    described: dict[str, DescribedGroup] = field(default_factory=dict)
    described_of: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    seen_at: dict[str, float] = field(default_factory=dict)

    def moved(self) -> list[str]:
        """Return the groups that another broker coordinates."""
        return [group_id for group_id, commits in self.commits.items() if commits.moved]


class GroupAnswers:
    """Asks coordinators, in batches of a size that replies have room for.

    Remembers what each group had committed: most say the same again.
    """

    def __init__(self) -> None:
        self._commits: dict[str, GroupCommits] = {}
        self._commit_batches = Batches(UNKNOWN_COMMITS_BYTES)
        self._member_batches = Batches(UNKNOWN_MEMBERS_BYTES)
        # what was said of the groups of a question, by the first of them; in this poll, in the last
        self._descriptions: dict[str, LastAnswer[dict[str, DescribedGroup]]] = {}
        self._descriptions_before = self._descriptions
        self._describe_by_type = {
            kind: partial(self._describe, question) for kind, question in DESCRIBE_BY_TYPE.items()
        }
        fetch_commits = partial(FetchCommits, known=self._commits)
        # how each type of group is asked for its positions
        self._fetch_by_type: Mapping[str, Callable[[Sequence[str]], Any]] = {
            **dict.fromkeys(TYPES_WITH_COMMITS, fetch_commits),
            SHARE: FetchShareOffsets,
        }

    def try_all_again(self) -> None:
        """Ask once more for what did not fit into a reply: it may have become smaller."""
        self._commit_batches.try_oversized_again()
        self._member_batches.try_oversized_again()

    def keep(self, groups: AbstractSet[str]) -> None:
        """Forget all other groups."""
        self._commit_batches.keep(groups)
        self._member_batches.keep(groups)
        for group_id in self._commits.keys() - groups:
            del self._commits[group_id]

    def read(
        self,
        exchange: Exchange,
        metadata: ClusterMetadata,
        listings: Listings,
        last: Mapping[str, Group],
    ) -> Told:
        """Ask each group's coordinator; ask the new one where it has moved.

        `last` are the groups of which it need not be asked again what can't have changed.
        """
        told = Told()
        self._descriptions_before, self._descriptions = self._descriptions, {}
        attempt = exchange.steps.attempt
        news = attempt(Step.MEMBERS, "", _with_news, listings, last)
        if news is None:
            news = []
            told.described |= dict.fromkeys(listings.groups, DescribedGroup(error=MEMBERS_FAILED))
        self._ask(exchange, listings, listings.groups, news, told)
        moved = told.moved()
        coordinators = (
            attempt(Step.COMMITS, "moved groups", find_coordinators, moved, exchange, metadata)
            or {}
        )
        for group_id, coordinator in coordinators.items():
            listings.move(group_id, coordinator)
            # all that is told of a group is from one broker
            told.described.pop(group_id, None)
        self._ask(exchange, listings, coordinators, coordinators, told)
        for group_id, described in told.described.items():
            if listings.groups[group_id].type == STREAMS:
                told.described[group_id] = attempt(
                    Step.MEMBERS, group_id, _within, described, metadata.topics
                ) or DescribedGroup(error=MEMBERS_FAILED)
        return told

    def _describe(self, question: Callable[..., Any], groups: Sequence[str]) -> Any:
        first = groups[0]
        last = self._descriptions[first] = self._descriptions_before.get(first) or LastAnswer()
        return question(groups, last)

    def _ask(
        self,
        exchange: Exchange,
        listings: Listings,
        fetched: Iterable[str],
        described: Iterable[str],
        told: Told,
    ) -> None:
        """Ask each coordinator for commits and members of its groups."""
        commits = list(_parts(listings, fetched, self._fetch_by_type, self._commit_batches))
        members = list(_parts(listings, described, self._describe_by_type, self._member_batches))
        for part in members:
            told.described_of.update(part.groups)
        ask_in_batches(exchange, [*commits, *members], partial(self._take, exchange.steps, told))
        for part in members:
            for group_id in self._member_batches.oversized.intersection(part.groups):
                told.described[group_id] = DescribedGroup(error=MEMBERS_TOO_LARGE)
        for part in commits:
            for group_id in self._commit_batches.oversized.intersection(part.groups):
                told.commits[group_id] = GroupCommits(error=COMMITS_TOO_LARGE)

    def _take(self, steps: Steps, told: Told, part: Part, ask: Ask[Any]) -> None:
        """Take in an answer; what a fault of our own makes of it costs members, or commits, only."""
        of_members = part.batches is self._member_batches
        if ask.failure is None:
            step = Step.MEMBERS if of_members else Step.COMMITS
            take = self._take_members if of_members else self._take_commits
            if steps.runs(step, f"broker {part.broker}", take, told, ask):
                return
        elif ask.failure.fault is None:
            return
        if of_members:
            told.described |= dict.fromkeys(part.groups, DescribedGroup(error=MEMBERS_FAILED))
        else:
            told.failed.update(part.groups)

    def _take_members(self, told: Told, ask: Ask[dict[str, DescribedGroup]]) -> None:
        answer = ask.answer or {}
        told.described.update(answer)
        # what was told first counts: the other part is newer at least
        told.seen_at = dict.fromkeys(answer, ask.answered_at) | told.seen_at

    def _take_commits(self, told: Told, ask: Ask[dict[str, GroupCommits]]) -> None:
        answer = ask.answer or {}
        known = self._commits
        news = {name: of for name, of in answer.items() if of is not known.get(name)}
        self._commit_batches.learn({name: of.size or _guessed(of) for name, of in news.items()})
        known.update(news)
        told.commits.update(answer)
        told.seen_at = dict.fromkeys(answer, ask.answered_at) | told.seen_at


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


def _guessed(commits: GroupCommits) -> int:
    """Return how many bytes a group's commits take of a reply, roughly."""
    return COMMIT_BYTES * (1 + sum(map(len, commits.offsets.values())))


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
