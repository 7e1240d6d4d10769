"""Which broker speaks for a group: what the brokers' lists say, and what their silence means.

A group is listed by its coordinator. Two brokers may list one group: a former coordinator goes on
after a crash, with old members and commits. A list may also be short: a broker that has just started
lists nothing for seconds, without an error, and some services list only groups that run. So a group
that is listed by nobody is asked for by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from monitor.kafka.coordinators import leader_of
from monitor.kafka.exchange import Exchange
from monitor.kafka.questions import Ask, ClusterMetadata, FindCoordinators, ListedGroup
from monitor.model import Group

# States in which a group has no members.
EMPTY: Final = "Empty"
DEAD: Final = "Dead"
MEMBERLESS_STATES: Final = frozenset({EMPTY, DEAD})
# So many coordinators are asked for in a poll: brokers before 3.0 take one request for each.
MAX_SOUGHT: Final = 500


@dataclass(slots=True)
class Listings:
    """The groups that are to be read, and who is asked for each.

    `by_name` are those of the last poll that nobody lists now, and whose coordinator can be asked;
    `away` are those whose coordinator is silent or not known. `heard` are the lists by broker.
    """

    groups: dict[str, ListedGroup] = field(default_factory=dict)
    coordinators: dict[str, int] = field(default_factory=dict)
    by_name: set[str] = field(default_factory=set)
    away: set[str] = field(default_factory=set)
    heard: dict[str, dict[int, ListedGroup]] = field(default_factory=dict)

    def take(self, heard: Mapping[int, ListedGroup], coordinator: int) -> None:
        """Have one of those who list a group speak for it."""
        group = heard[coordinator]
        self.groups[group.id] = group
        self.coordinators[group.id] = coordinator

    def move(self, group_id: str, coordinator: int) -> None:
        """Have another broker speak for a group; what it does not list it tells by name."""
        self.coordinators[group_id] = coordinator
        now = self.groups[group_id]
        unknown = ListedGroup(group_id, now.type, None, now.protocol_type)
        self.groups[group_id] = self.heard.get(group_id, {}).get(coordinator, unknown)


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
    found = Listings()
    for ask in lists:
        for group in ask.answer or ():
            found.heard.setdefault(group.id, {})[ask.broker] = group
    contested = _choose(found, exchange, metadata, last)
    unlisted = last.keys() - found.heard.keys() - refused
    found.away |= refused
    leaders = {
        group_id: leader_of(group_id, metadata.group_partitions)
        if metadata.group_partitions
        else last[group_id].coordinator
        for group_id in unlisted
    }
    reachable = metadata.brokers.keys() - exchange.down.keys()
    sought = sorted(group_id for group_id, leader in leaders.items() if leader not in reachable)
    told = find_coordinators([*contested, *_in_turn(sought, exchange)], exchange, metadata)
    for group_id in contested:
        heard = found.heard[group_id]
        # a former coordinator mostly has no members left
        likely = max(heard, key=lambda broker: heard[broker].state not in MEMBERLESS_STATES)
        told_of = told.get(group_id)
        found.take(heard, told_of if told_of in heard else likely)
    for group_id in unlisted:
        coordinator = told.get(group_id, leaders[group_id])
        if coordinator is None or coordinator not in reachable:
            found.away.add(group_id)
            continue
        before = last[group_id]
        unknown = ListedGroup(group_id, before.type, None, before.protocol_type)
        found.take({coordinator: unknown}, coordinator)
        found.by_name.add(group_id)
    return found


def _choose(
    found: Listings, exchange: Exchange, metadata: ClusterMetadata, last: Mapping[str, Group]
) -> list[str]:
    """Take in the groups of which it is clear who speaks for them; return the others."""
    contested = []
    for group_id, heard in found.heard.items():
        if len(heard) == 1:
            (lister,) = heard
            if _is_former(group_id, lister, exchange, metadata, last):
                found.away.add(group_id)
            else:
                found.take(heard, lister)
            continue
        leader = leader_of(group_id, metadata.group_partitions)
        if leader in heard:
            found.take(heard, leader)
        else:
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


def _is_former(
    group_id: str,
    lister: int,
    exchange: Exchange,
    metadata: ClusterMetadata,
    last: Mapping[str, Group],
) -> bool:
    """Say whether the coordinator is silent, and another broker speaks in its place.

    If that one has taken over, the next metadata say so.
    """
    before = last.get(group_id)
    if before is None or before.coordinator == lister or before.coordinator not in exchange.down:
        return False
    return leader_of(group_id, metadata.group_partitions) == before.coordinator


def _in_turn(groups: list[str], exchange: Exchange) -> list[str]:
    """Return as many as are sought in one poll, others in the next."""
    if len(groups) <= MAX_SOUGHT:
        return groups
    start = int(exchange.started_at) % len(groups)
    return (groups + groups)[start : start + MAX_SOUGHT]
