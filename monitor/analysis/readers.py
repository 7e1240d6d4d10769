"""Who reads a topic, and where in its logs they stand."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from monitor.analysis.readable import Position, Readable


class Readers:
    """The groups of each topic: those that read it, and where those that lag stand."""

    def __init__(self) -> None:
        self._topics: dict[str, Collection[str]] = {}  # by group
        self._groups: defaultdict[str, set[str]] = defaultdict(set)  # by topic
        self._positions: defaultdict[str, dict[str, list[Position]]] = defaultdict(dict)
        self._readable: dict[str, Mapping[str, Mapping[int, Readable]]] = {}  # by group
        self._holding: set[str] = set()  # groups that open transactions hold back

    def read(self, group: str, topics: Collection[str]) -> None:
        """Note which topics a group reads."""
        for topic in self._topics.get(group, ()):
            if topic not in topics:
                self._groups[topic].discard(group)
                self._leave(group, topic)
        for topic in topics:
            self._groups[topic].add(group)
        self._topics[group] = tuple(topics)  # a set of one takes 216 bytes

    def forget(self, groups: Collection[str]) -> set[str]:
        """Forget all other groups; return the topics that they read."""
        gone = self._topics.keys() - groups
        return {topic for group in gone for topic in self.drop(group)}

    def drop(self, group: str) -> Collection[str]:
        """Forget a group; return the topics that it read."""
        topics = self._topics.pop(group, ())
        for topic in topics:
            self._groups[topic].discard(group)
            self._leave(group, topic)
            if not self._groups[topic]:
                del self._groups[topic]
        self.can_read(group, nothing())
        return topics

    def _leave(self, group: str, topic: str) -> None:
        if topic in self._positions:
            self._positions[topic].pop(group, None)
            if not self._positions[topic]:
                del self._positions[topic]

    def topics(self, group: str) -> Collection[str]:
        """Return what a group reads."""
        return self._topics.get(group, ())

    def of(self, topics: Iterable[str]) -> set[str]:
        """Return the groups that read any of these topics."""
        groups: set[str] = set()
        for topic in topics:
            groups |= self._groups.get(topic, set())
        return groups

    def stand(self, group: str, positions: Iterable[Position]) -> None:
        """Note where a group stands; it stands nowhere else."""
        for topic in self._topics.get(group, ()):
            self._leave(group, topic)
        for position in positions:
            self._positions[position.topic].setdefault(group, []).append(position)

    def can_read(self, group: str, readable: Mapping[str, Mapping[int, Readable]]) -> None:
        """Note what a group can read where it stands."""
        self._holding.discard(group)
        if not readable:
            self._readable.pop(group, None)
            return
        self._readable[group] = readable
        if any(of.held_at is not None for each in readable.values() for of in each.values()):
            self._holding.add(group)

    def positions(self, topic: str) -> Iterator[Position]:
        """Yield where groups stand on a topic."""
        for positions in self._positions.get(topic, nothing()).values():
            yield from positions

    def readable(self, group: str) -> Mapping[str, Mapping[int, Readable]]:
        """Return what a group can read, by topic and partition."""
        return self._readable.get(group, nothing())

    def held_at(self) -> Iterator[tuple[str, int, int]]:
        """Yield (topic, partition, last stable offset) where open transactions hold groups back."""
        for group in self._holding:
            for topic, partitions in self._readable[group].items():
                for partition, of in partitions.items():
                    if of.held_at is not None:
                        yield topic, partition, of.held_at

    def offsets_in_doubt(self, topic: str) -> Mapping[int, set[int]]:
        """Return partition -> offsets of the oldest records that wait, to be read or for a transaction."""
        offsets: defaultdict[int, set[int]] = defaultdict(set)
        for group in self._groups.get(topic, ()):
            for partition, of in self.readable(group).get(topic, nothing()).items():
                if of.first is not None:
                    offsets[partition].add(of.first)
                if of.held_at is not None:
                    offsets[partition].add(of.held_at)
        return offsets
