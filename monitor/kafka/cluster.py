"""The cluster's metadata: kept between polls, read anew when due or when something speaks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from monitor.kafka.apis.metadata import ClusterMetadata, Metadata
from monitor.kafka.brokers import Brokers, UnreachableError
from monitor.kafka.coordinators import GROUPS_TOPIC
from monitor.kafka.encoded import LastAnswer
from monitor.kafka.exchange import Exchange
from monitor.kafka.offsets import OffsetQuestions
from monitor.kafka.questions import Ask
from monitor.model import Topic


class Cluster:
    """What is known of brokers and topics; topics that are not wanted are left out.

    `questions` are those about the offsets of its topics: while the topics are as they were, they are
    the same object. `replaced` collects the topics that were created anew, until whoever keeps their
    offsets has forgotten them.
    """

    def __init__(
        self,
        brokers: Brokers,
        timeout_s: float,
        interval_s: float,
        *,
        wants_topic: Callable[[str], bool] | None,
        monotonic: Callable[[], float],
    ) -> None:
        self._brokers = brokers
        self._timeout_s = timeout_s
        self._interval_s = interval_s
        self._wants_topic = wants_topic
        self._monotonic = monotonic
        self._said: LastAnswer[ClusterMetadata] = LastAnswer()
        self._due_at = 0.0
        self._leaderless_since: float | None = None
        self.metadata: ClusterMetadata | None = None
        self.questions = OffsetQuestions({}, timeout_s)
        self.replaced: frozenset[str] = frozenset()

    def find(self, timeout_s: float) -> ClusterMetadata:
        """Ask the bootstrap servers; raises UnreachableError."""
        return self._take(self._brokers.find_cluster(timeout_s))

    def read_soon(self) -> None:
        """Have the metadata read anew in the next poll."""
        self._due_at = 0.0

    def refresh(self, exchange: Exchange, causes: Mapping[int, str]) -> None:
        """Read the metadata anew when that is due.

        Where no broker answers, the bootstrap servers are asked, and `causes` has why brokers did not
        answer in the last poll.
        """
        known = self.metadata
        if known is None:
            self.find(self._timeout_s)
            return
        healthy = exchange.healthy(known.brokers)
        if healthy:
            if self._monotonic() < self._due_at:
                return
            # another broker each time: one that lags behind in metadata is not believed for ever
            ask = Ask(
                healthy[int(self._monotonic()) % len(healthy)], Metadata(self._said, known.topics)
            )
            exchange.ask([ask])
            if ask.answer is not None:
                self._take(ask.answer)
            return
        try:
            found = self._brokers.find_cluster(self._timeout_s)
        except UnreachableError as error:
            for broker in known.brokers.values():
                cause = error.causes.get(broker.address) or causes.get(broker.id)
                exchange.down[broker.id] = cause or "no broker answers"
            exchange.errors.append(str(error))
            self.metadata = replace(known, bootstrap=None)  # it answers no more
            return
        exchange.suspects = frozenset()
        self._take(found)

    def _take(self, found: ClusterMetadata) -> ClusterMetadata:
        """Have the metadata be what is known from now on; return it as it is kept."""
        known = self.metadata
        found = replace(found, missing_brokers=_replicas(found.topics) - found.brokers.keys())
        if GROUPS_TOPIC in found.topics:
            found = replace(found, group_partitions=found.topics[GROUPS_TOPIC].partitions)
        if self._wants_topic is not None:
            wanted = {n: topic for n, topic in found.topics.items() if self._wants_topic(n)}
            found = replace(found, topics=wanted)
        if found.bootstrap is None and known is not None:
            found = replace(found, bootstrap=known.bootstrap)
        self._plan(found)
        if known is not None:
            self.replaced |= _created_anew(found.topics, known.topics)
        if known is not None and found.topics == known.topics:
            # the same objects as before: what was made of them (questions, text) is still right
            found = replace(found, topics=known.topics)
        else:
            self.questions = OffsetQuestions(found.topics, self._timeout_s)
        self.metadata = found
        return found

    def _plan(self, found: ClusterMetadata) -> None:
        """Have the metadata read anew in time, sooner while partitions have no leader.

        Nobody is asked about those, so no answer tells that they have one again. The wait is as
        long as they had none: a partition that is lost for good does not cost a request per poll.
        """
        now = self._monotonic()
        self._leaderless_since = (
            (now if self._leaderless_since is None else self._leaderless_since)
            if found.leaderless
            else None
        )
        wait = self._interval_s
        if self._leaderless_since is not None:
            wait = min(wait, now - self._leaderless_since)
        self._due_at = now + wait


def _created_anew(found: Mapping[str, Topic], known: Mapping[str, Topic]) -> frozenset[str]:
    """Return the topics that the metadata say were deleted and created anew."""
    return frozenset(
        name
        for name, topic in found.items()
        if (before := known.get(name)) is not None
        and topic is not before
        # Brokers before 2.8 tell no ids: an upgrade, whose brokers answer by turns, replaces nothing.
        # Partitions never become fewer.
        and (
            (None not in {topic.id, before.id} and topic.id != before.id)
            or len(topic.partitions) < len(before.partitions)
        )
    )


def _replicas(topics: Mapping[str, Topic]) -> frozenset[int]:
    """Return the brokers that hold, or should hold, a replica of anything."""
    # most partitions share a few lists of replicas
    lists = {p.replicas for topic in topics.values() for p in topic.partitions.values()}
    return frozenset().union(*lists)
