"""One poll: what to ask which broker, and how the answers become a snapshot.

Rounds: metadata when due, log starts when due, group lists, then commits and members, then log ends,
then what is asked rarely. Commits go before log ends, so that no commit is past an end only because
it was read later. They go after log starts, so that no commit is before a start only because it was
read earlier: Kafka Streams deletes records as soon as it has committed past them, and a start that
is read later would tell of a loss. In a round every broker gets one request per API, all sent before any is awaited. A broker
that fails is not asked again in the same poll; the next poll asks it again, but no longer waits for
it. What it last said is kept, marked stale, with the time at which it was seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from monitor.kafka.coordinators import GROUPS_TOPIC
from monitor.kafka.details import LogDirs, TopicConfigs
from monitor.kafka.exchange import Exchange
from monitor.kafka.groups import GroupCollector
from monitor.kafka.looks import LogLooks
from monitor.kafka.offsets import (
    OffsetQuestions,
    ask_at_times,
    created_anew,
    join,
    leader_moved,
    without,
)
from monitor.kafka.questions import Ask, Brokers, ClusterMetadata, Metadata, UnreachableError
from monitor.kafka.rights import UNSEEN, Rights
from monitor.model import Group, LogLook, Offsets, Snapshot, Topic

# Names remembered by a filter: a regular expression costs more than a look-up.
FILTER_CACHE: Final = 100_000

OffsetAndTime = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Intervals:
    """Time limits and refresh intervals, in seconds; what has None is not asked at all."""

    request_timeout: float = 5.0
    metadata: float = 60.0
    start_offsets: float = 60.0
    topic_configs: float | None = None
    log_sizes: float | None = None
    rights: float | None = None


class Collector:
    """Polls one cluster; remembers between polls what need not be asked again.

    `read_committed` adds the last stable offsets. Groups and topics that are not wanted are not
    asked about, and not in the snapshot.
    """

    def __init__(
        self,
        brokers: Brokers,
        intervals: Intervals,
        *,
        wants_group: Callable[[str], bool] | None = None,
        wants_topic: Callable[[str], bool] | None = None,
        read_committed: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._brokers = brokers
        self._intervals = intervals
        self._wants_topic = wants_topic and lru_cache(FILTER_CACHE)(wants_topic)
        self._groups = GroupCollector(
            wants_group and lru_cache(FILTER_CACHE)(wants_group), self._wants_topic
        )
        self._configs = intervals.topic_configs and TopicConfigs(intervals.topic_configs)
        self._log_dirs = intervals.log_sizes and LogDirs(intervals.log_sizes)
        self._rights = intervals.rights and Rights(intervals.rights)
        self._read_committed = read_committed
        self._clock = clock
        self._monotonic = monotonic
        self._metadata: ClusterMetadata | None = None
        self._metadata_due_at = 0.0
        self._leaderless_since: float | None = None
        self._start_offsets_due_at = 0.0
        self._questions = OffsetQuestions({}, intervals.request_timeout)
        self._looks = LogLooks()
        self._reached = False  # whether a broker ever answered at the address that it advertises
        self._unknown_topics: frozenset[str] = frozenset()
        self._exchange = Exchange(brokers, intervals.request_timeout, frozenset())
        self._causes: Mapping[int, str] = {}  # why brokers did not answer in the last poll
        # each with failures of its own
        self._times_exchange = self._exchange.aside()
        self._looks_exchange = self._exchange.aside()
        self._last = Snapshot(None, taken_at=0.0, monotonic_at=0.0)

    def connect(self, timeout_s: float) -> None:
        """Reach the cluster, so that the first poll need not; raises UnreachableError."""
        self._take(self._brokers.find_cluster(timeout_s))

    def poll(self) -> Snapshot:
        """Ask all brokers and return what they said.

        Ends within a few request timeouts, however many brokers hang. Raises UnreachableError when
        no broker was ever reached; once one was, that none can be is told in the snapshot.
        """
        started = self._monotonic()
        self._causes = self._exchange.down
        suspects = self._causes.keys() - self._brokers.take_recovered()
        exchange = self._exchange = Exchange(
            self._brokers, self._intervals.request_timeout, frozenset(suspects), started
        )
        metadata = self._refresh_metadata(exchange)
        last = self._last
        starts = self._read_starts(exchange, metadata, started)
        groups = self._groups.collect(exchange, metadata, last.groups)
        latest = self._questions.latest()
        stable = self._questions.stable() if self._read_committed else []
        exchange.ask([*latest, *stable])
        leaderless = self._questions.leaderless
        ends = join(latest, last.end_offsets, metadata.topics, leaderless)
        starts = self._of_these_logs(starts, ends)
        self._ask_rarely(exchange, metadata, started)
        # partitions and groups of a broker that is lost move to others within seconds
        if leader_moved([*latest, *stable]) or exchange.down or self._groups.moving:
            self._metadata_due_at = 0.0
        self._notice_unknown_topics(groups, metadata)
        self._times_exchange, self._looks_exchange = exchange.aside(), exchange.aside()
        unseen = self._is_unseen(exchange, metadata, groups, started)
        ended = self._monotonic()
        self._last = Snapshot(
            cluster_id=metadata.cluster_id,
            taken_at=self._clock(),
            monotonic_at=ended,
            duration_seconds=ended - started,
            controller=metadata.controller,
            brokers=metadata.brokers,
            broker_errors=self._told(exchange, metadata),
            missing_brokers=metadata.missing_brokers,
            topics=metadata.topics,
            start_offsets=starts,
            end_offsets=ends,
            stable_offsets=join(stable, last.stable_offsets, metadata.topics, leaderless)
            if self._read_committed
            else last.stable_offsets,
            groups=groups,
            groups_complete=self._groups.complete and (bool(groups) or not unseen),
            requests=self._brokers.take_request_counts(),
            errors=(*exchange.errors, *_shared_addresses(metadata), *((UNSEEN,) if unseen else ())),
            topic_configs=self._configs.latest if self._configs else {},
            log_sizes=self._log_dirs.latest if self._log_dirs else {},
            unreadable=self._looks.take_refused(),
        )
        return self._last

    def offsets_for_times(
        self, wanted: Mapping[str, Mapping[int, int]]
    ) -> Mapping[str, Mapping[int, OffsetAndTime]]:
        """Return the first offset at or after a time of each partition, and its record's time.

        `wanted` and the times returned are in milliseconds; (-1, -1) is said of a partition without
        a record as new. One request per leader, within one request timeout. Partitions that were
        not answered are absent; a broker that failed since the last poll began is not asked, and one
        that fails here, as while it searches remote storage, counts as up.
        """
        asks = ask_at_times(self._last.topics, wanted, self._intervals.request_timeout)
        self._times_exchange.ask(asks)
        if leader_moved(asks):
            self._metadata_due_at = 0.0
        found: dict[str, dict[int, OffsetAndTime]] = {}
        for ask in asks:
            if ask.answer is None:
                continue
            for topic, offsets in ask.answer.offsets.items():
                times = ask.answer.timestamps.get(topic, {})
                found.setdefault(topic, {}).update(
                    {index: (offset, times[index]) for index, offset in offsets.items()}
                )
        return found

    def look_at_logs(
        self, wanted: Mapping[str, Mapping[int, int]]
    ) -> Mapping[str, Mapping[int, LogLook]]:
        """Return what a read_committed consumer finds in each partition from an offset on.

        A few small requests per leader. Partitions that may not be read (it needs READ on the
        topic), or that did not answer, are absent; the next snapshot has why. Where a look ends before the last stable offset
        without a readable record, the caller may go on from there.
        """
        found = self._looks.look(self._looks_exchange, self._last.topics, wanted)
        if self._looks.leader_moved:
            self._metadata_due_at = 0.0
        return found

    def take_request_counts(self) -> dict[str, int]:
        """Return the requests sent since the last poll ended, by API name.

        If nobody takes them, the next snapshot counts them as its own.
        """
        return self._brokers.take_request_counts()

    def _refresh_metadata(self, exchange: Exchange) -> ClusterMetadata:
        known = self._metadata
        if known is None:
            return self._take(self._brokers.find_cluster(self._intervals.request_timeout))
        healthy = exchange.healthy(known.brokers)
        if healthy:
            if self._monotonic() < self._metadata_due_at:
                return known
            # another broker each time: one that lags behind in metadata is not believed for ever
            ask = Ask(healthy[int(self._monotonic()) % len(healthy)], Metadata())
            exchange.ask([ask])
            return known if ask.answer is None else self._take(ask.answer)
        try:
            found = self._brokers.find_cluster(self._intervals.request_timeout)
        except UnreachableError as error:
            for broker in known.brokers.values():
                cause = error.causes.get(broker.address) or self._causes.get(broker.id)
                exchange.down[broker.id] = cause or "no broker answers"
            exchange.errors.append(str(error))
            self._metadata = replace(known, bootstrap=None)  # it answers no more
            return self._metadata
        exchange.suspects = frozenset()
        return self._take(found)

    def _take(self, found: ClusterMetadata) -> ClusterMetadata:
        """Have the metadata be what is known from now on; return it as it is kept."""
        known = self._metadata
        found = replace(found, missing_brokers=_replicas(found.topics) - found.brokers.keys())
        if GROUPS_TOPIC in found.topics:
            found = replace(found, group_partitions=found.topics[GROUPS_TOPIC].partitions)
        if self._wants_topic is not None:
            wanted = {n: topic for n, topic in found.topics.items() if self._wants_topic(n)}
            found = replace(found, topics=wanted)
        if found.bootstrap is None and known is not None:
            found = replace(found, bootstrap=known.bootstrap)
        self._plan_metadata(found)
        if known is not None:
            self._forget_replaced(found, known)
        if known is not None and found.topics == known.topics:
            # the same objects as before: what was made of them (questions, text) is still right
            found = replace(found, topics=known.topics)
        else:
            self._questions = OffsetQuestions(found.topics, self._intervals.request_timeout)
            self._start_offsets_due_at = 0.0
        self._metadata = found
        return found

    def _plan_metadata(self, found: ClusterMetadata) -> None:
        """Have the metadata refreshed in time, sooner while partitions have no leader.

        Nobody is asked about those, so no answer tells that they have one again. The wait is as
        long as they had none: a partition that is lost for good does not cost a request per poll.
        """
        now = self._monotonic()
        self._leaderless_since = (
            (now if self._leaderless_since is None else self._leaderless_since)
            if found.leaderless
            else None
        )
        wait = self._intervals.metadata
        if self._leaderless_since is not None:
            wait = min(wait, now - self._leaderless_since)
        self._metadata_due_at = now + wait

    def _read_starts(self, exchange: Exchange, metadata: ClusterMetadata, now: float) -> Offsets:
        """Return the log starts, read anew when that is due."""
        last = self._last.start_offsets
        if now < self._start_offsets_due_at:
            return last
        earliest = self._questions.earliest()
        exchange.ask(earliest)
        if all(ask.answer is not None for ask in earliest):
            self._start_offsets_due_at = now + self._intervals.start_offsets
        if leader_moved(earliest):
            self._metadata_due_at = 0.0
        return join(earliest, last, metadata.topics, self._questions.leaderless)

    def _of_these_logs(self, starts: Offsets, ends: Offsets) -> Offsets:
        """Return the starts without those of topics that were created anew, or cut off, since.

        Those are read in the next poll, again before the commits.
        """
        last = self._last
        anew = created_anew(ends, last.end_offsets, starts)
        if starts is not last.start_offsets:
            # also of ends that are as they were; that is too much to look through at every poll
            anew |= created_anew(ends, Offsets(), starts)
        if anew:
            self._start_offsets_due_at = self._metadata_due_at = 0.0
        return without(starts, anew)

    def _ask_rarely(self, exchange: Exchange, metadata: ClusterMetadata, now: float) -> None:
        """Ask in one round for all that is due of settings and sizes."""
        topics, brokers = metadata.topics, metadata.brokers
        configs = self._configs and self._configs.asks(now, topics, exchange.healthy(brokers))
        log_dirs = self._log_dirs and self._log_dirs.asks(now, brokers)
        exchange.ask([*(configs or ()), *(log_dirs or ())])
        if self._configs:
            self._configs.take(topics)
        if self._log_dirs:
            self._log_dirs.take(now, brokers)

    def _is_unseen(
        self,
        exchange: Exchange,
        metadata: ClusterMetadata,
        groups: Mapping[str, Group],
        now: float,
    ) -> bool:
        """Say whether there may be groups or topics that this login may not see."""
        if not self._rights:
            return False
        if groups and metadata.topics:
            self._rights.seen()
            return False
        return self._rights.unseen(exchange, exchange.healthy(metadata.brokers), now)

    def _forget_replaced(self, found: ClusterMetadata, known: ClusterMetadata) -> None:
        """Forget the offsets of topics that the metadata say were created anew."""
        anew = frozenset(
            name
            for name, topic in found.topics.items()
            if (before := known.topics.get(name)) is not None
            and topic is not before
            # brokers before 2.8 tell no ids, but partitions never become fewer
            and (topic.id != before.id or len(topic.partitions) < len(before.partitions))
        )
        self._last = replace(
            self._last,
            start_offsets=without(self._last.start_offsets, anew),
            end_offsets=without(self._last.end_offsets, anew),
            stable_offsets=without(self._last.stable_offsets, anew),
        )

    def _told(self, exchange: Exchange, metadata: ClusterMetadata) -> dict[int, str]:
        """Return why brokers did not answer.

        Where none ever did at its own address and a bootstrap server does, the addresses are wrong.
        """
        self._reached = self._reached or bool(exchange.answered)
        told = dict(exchange.down)
        for broker in exchange.down.keys() & metadata.brokers.keys() - exchange.refused:
            address = metadata.brokers[broker].address
            if metadata.bootstrap not in {None, address} and not self._reached:
                told[broker] += (
                    f"; the bootstrap server {metadata.bootstrap} answers, and says that this broker "
                    f"is at {address}, which can't be reached from here: see advertised.listeners"
                )
        return told

    def _notice_unknown_topics(
        self, groups: Mapping[str, Group], metadata: ClusterMetadata
    ) -> None:
        """Have the metadata refreshed when a commit names a topic that it does not have yet.

        Once per topic: commits outlive deleted topics, and must not cost a request every poll.
        """
        unknown = frozenset(
            topic
            for group in groups.values()
            for topic in group.commits
            if topic not in metadata.topics
        )
        if unknown - self._unknown_topics:
            self._metadata_due_at = 0.0
        self._unknown_topics = unknown


def _shared_addresses(metadata: ClusterMetadata) -> Iterator[str]:
    """Tell of brokers that are all at one address, where any of them may answer for another."""
    at: dict[str, list[int]] = {}
    for broker in metadata.brokers.values():
        at.setdefault(broker.address, []).append(broker.id)
    for address, brokers in at.items():
        if len(brokers) > 1:
            yield (
                f"brokers {', '.join(map(str, sorted(brokers)))} are all said to be at {address}: "
                "what one of them is asked another may answer; see advertised.listeners"
            )


def _replicas(topics: Mapping[str, Topic]) -> frozenset[int]:
    """Return the brokers that hold, or should hold, a replica of anything."""
    # most partitions share a few lists of replicas
    lists = {p.replicas for topic in topics.values() for p in topic.partitions.values()}
    return frozenset().union(*lists)
