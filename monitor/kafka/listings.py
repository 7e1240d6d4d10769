"""Which broker speaks for a group: what the brokers' lists say, and what their silence means.

A group is listed by its coordinator. Two brokers may list one group: a former coordinator goes on
after a crash, with old members and commits. A list may also be short: a broker that has just started
lists nothing for seconds, without an error, and some services list only groups that run. So a group
that is listed by nobody is asked for by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final

from monitor.kafka.apis.find_coordinator import FindCoordinators
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.metadata import ClusterMetadata
from monitor.kafka.coordinators import leader_of
from monitor.kafka.exchange import Exchange
from monitor.kafka.questions import Ask
from monitor.model import Group

# States in which a group has no members.
EMPTY: Final = "Empty"
DEAD: Final = "Dead"
MEMBERLESS_STATES: Final = frozenset({EMPTY, DEAD})
# The number of no broker.
NOBODY: Final = -1
# So many coordinators are asked for in a poll: brokers before 3.0 take one request for each.
MAX_SOUGHT: Final = 500


@dataclass(slots=True)
class Listings:
    """The groups that are to be read, and who is asked for each.

    `by_name` are those that their coordinator, which can be asked, does not list; `away` are those
    of the last poll whose coordinator is silent or not known. `heard` has the lists of groups that
    several brokers list, by broker. `listed` are all that a broker lists, `unexpected` those of them
    of which the metadata do not say that a broker that lists them is their coordinator. `placed`
    says whether the metadata tell where groups are coordinated.
    """

    groups: dict[str, ListedGroup] = field(default_factory=dict)
    coordinators: dict[str, int] = field(default_factory=dict)
    by_name: set[str] = field(default_factory=set)
    away: set[str] = field(default_factory=set)
    heard: dict[str, dict[int, ListedGroup]] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    unexpected: set[str] = field(default_factory=set)
    placed: bool = False

    def hear(self, broker: int, groups: Iterable[ListedGroup]) -> None:
        """Take in a broker's list."""
        listed = {group.id: group for group in groups}
        for group_id in self.groups.keys() & listed.keys():
            before = {self.coordinators[group_id]: self.groups[group_id]}
            self.heard.setdefault(group_id, before)[broker] = listed[group_id]
        self.groups |= listed
        self.listed |= listed.keys()
        self.coordinators |= dict.fromkeys(listed, broker)

    def lists_of(self, group_id: str) -> Mapping[int, ListedGroup]:
        """Return what each broker that lists a group says of it."""
        known = {self.coordinators[group_id]: self.groups[group_id]}
        return self.heard.get(group_id, known)

    def move(self, group_id: str, coordinator: int) -> None:
        """Have a broker speak for a group; what it does not list it is asked for by name."""
        listed = self.lists_of(group_id).get(coordinator)
        if listed is None:
            self.by_name.add(group_id)
            listed = replace(self.groups[group_id], state=None)
        self.coordinators[group_id] = coordinator
        self.groups[group_id] = listed

    def set_away(self, group_id: str) -> None:
        """Have nobody speak for a group."""
        self.groups.pop(group_id, None)
        self.coordinators.pop(group_id, None)
        self.away.add(group_id)


def read_lists(
    lists: Iterable[Ask[list[ListedGroup]]],
    exchange: Exchange,
    metadata: ClusterMetadata,
    last: Mapping[str, Group],
    refused: AbstractSet[str],
) -> Listings:
    """Decide who speaks for each group of the lists, and of the last poll.

    `refused` are unlisted groups that need not be asked for again now.
    """
    found = Listings(away=set(refused), placed=bool(metadata.group_partitions))
    for ask in lists:
        found.hear(ask.broker, ask.answer or ())
    unlisted = last.keys() - found.groups.keys() - refused
    contested = _choose(found, exchange, metadata, last)
    for group_id in unlisted:
        before = last[group_id]
        leader = leader_of(group_id, metadata.group_partitions)
        coordinator = leader if metadata.group_partitions else before.coordinator
        found.groups[group_id] = ListedGroup(group_id, before.type, None, before.protocol_type)
        found.coordinators[group_id] = NOBODY if coordinator is None else coordinator
        found.by_name.add(group_id)
    reachable = metadata.brokers.keys() - exchange.down.keys()
    sought = [g for g in sorted(unlisted) if found.coordinators[g] not in reachable]
    told = find_coordinators(_in_turn([*contested, *sought], exchange), exchange, metadata)
    for group_id in contested:
        coordinator = told.get(group_id)
        if coordinator is None or (coordinator not in reachable and group_id not in last):
            coordinator = _likeliest(found.lists_of(group_id), last.get(group_id))
        found.move(group_id, coordinator)
    for group_id in sought:
        found.coordinators[group_id] = told.get(group_id, NOBODY)
    for group_id in (*contested, *sought):
        if found.coordinators[group_id] not in reachable:
            found.by_name.discard(group_id)
            found.set_away(group_id)
    return found


def _choose(
    found: Listings, exchange: Exchange, metadata: ClusterMetadata, last: Mapping[str, Group]
) -> list[str]:
    """Have those speak for groups of whom it is clear; return the groups that are contested."""
    contested = []
    formers = {group_id: group.coordinator for group_id, group in last.items()}
    # nothing is new of nearly all
    new = {group_id for group_id, _ in found.coordinators.items() - formers.items()}
    for group_id in sorted(new | found.heard.keys()):
        former = formers.get(group_id)
        leader = leader_of(group_id, metadata.group_partitions)
        if leader is not None and leader in found.lists_of(group_id):
            found.move(group_id, leader)
            continue
        found.unexpected.add(group_id)
        if leader is not None and leader == former and leader in exchange.down:
            # another broker speaks in its place; if it has taken over, the next metadata say so
            found.set_away(group_id)
        elif leader is not None or group_id in found.heard:
            contested.append(group_id)
    return contested


def find_coordinators(
    groups: list[str], exchange: Exchange, metadata: ClusterMetadata
) -> dict[str, int]:
    """Ask a broker who coordinates these groups; those without a known coordinator are absent."""
    healthy = exchange.healthy(metadata.brokers)
    if not groups or not healthy:
        return {}
    ask = Ask(healthy[0], FindCoordinators(groups))
    exchange.ask([ask])
    told = ask.answer or {}
    return {group_id: broker for group_id, broker in told.items() if broker in metadata.brokers}


def _likeliest(heard: Mapping[int, ListedGroup], before: Group | None) -> int:
    """Return a broker that lists a group: a former coordinator mostly has no members left."""
    return max(
        heard,
        key=lambda broker: (
            heard[broker].state not in MEMBERLESS_STATES,
            before is not None and broker == before.coordinator,
            -broker,
        ),
    )


def _in_turn(groups: list[str], exchange: Exchange) -> list[str]:
    """Return as many as are sought in one poll, others in the next."""
    if len(groups) <= MAX_SOUGHT:
        return groups
    start = int(exchange.started_at) % len(groups)
    return (groups + groups)[start : start + MAX_SOUGHT]
