"""Which topics are gone, or were created anew under their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from monitor.model import PartitionOffsets, Topic


class TopicIds:
    """The ids of topics, from one poll to the next."""

    def __init__(self) -> None:
        self._ids: dict[str, str | None] = {}

    def of(self, topic: str) -> str | None:
        """Return a topic's id, None where it is not known."""
        return self._ids.get(topic)

    def restore(self, topic: str, topic_id: str | None) -> None:
        """Go on from the id of before a restart."""
        self._ids[topic] = topic_id

    def observe(
        self,
        topics: Mapping[str, Topic],
        moved: Iterable[str],
        ends: PartitionOffsets,
        last_ends: PartitionOffsets,
    ) -> set[str]:
        """Take in a poll's topics, and log ends that `moved`; return those that are not the same.

        Not all brokers tell ids, and metadata comes late: a log end that moved back says the same.
        """
        replaced = {
            topic
            for topic in moved
            if any(
                end < last_ends.get(topic, nothing()).get(partition, end)
                for partition, end in ends.get(topic, nothing()).items()
            )
        }
        ids = {name: topic.id for name, topic in topics.items()}
        if ids != self._ids:
            for name, old in self._ids.items():
                new = ids.get(name)
                if name not in ids or (old is not None and new is not None and new != old):
                    replaced.add(name)
            self._ids = ids
        return replaced
