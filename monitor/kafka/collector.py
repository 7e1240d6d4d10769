"""One poll: what to ask which broker, and how the answers become a snapshot.

Rounds: metadata when due, log starts when due, group lists, then commits and members, then log ends,
then what is asked rarely. Commits go before log ends, so that no commit is past an end only because
it was read later. They go after log starts, so that no commit is before a start only because it was
read earlier: Kafka Streams deletes records as soon as it has committed past them, and a start that
is read later would tell of a loss. In a round every broker gets one request per API, all sent before
any is awaited. A broker that fails is not asked again in the same poll; the next poll asks it again,
but no longer waits for it. What it last said is kept, marked silent, with the time at which it was seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from monitor.guard import Failure
from monitor.kafka.apis.list_offsets import FoundOffsets
from monitor.kafka.apis.metadata import ClusterMetadata
from monitor.kafka.brokers import Brokers
from monitor.kafka.cluster import Cluster
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
    silenced,
    without,
)
from monitor.kafka.questions import Ask
from monitor.kafka.rights import UNSEEN, Rights
from monitor.kafka.steps import Step, Steps
from monitor.model import Group, LogLook, LogSizes, Offsets, Snapshot, TopicConfig

# Names remembered by a filter: a regular expression costs more than a look-up.
FILTER_CACHE: Final = 100_000

OffsetAndTime = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Read:
    """What the steps of a poll brought home."""

    starts: Offsets
    groups: Mapping[str, Group]
    ends: Offsets
    stable: Offsets
    configs: Mapping[str, TopicConfig]
    log_sizes: Mapping[int, LogSizes]


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
        wants_topic = wants_topic and lru_cache(FILTER_CACHE)(wants_topic)
        wants_group = wants_group and lru_cache(FILTER_CACHE)(wants_group)
        self._groups = GroupCollector(wants_group, wants_topic)
        self._cluster = Cluster(
            brokers,
            intervals.request_timeout,
            intervals.metadata,
            wants_topic=wants_topic,
            monotonic=monotonic,
        )
        self._configs = intervals.topic_configs and TopicConfigs(intervals.topic_configs)
        self._log_dirs = intervals.log_sizes and LogDirs(intervals.log_sizes)
        self._rights = intervals.rights and Rights(intervals.rights)
        self._read_committed = read_committed
        self._clock = clock
        self._monotonic = monotonic
        self._starts_due_at = 0.0
        self._starts_asked: OffsetQuestions | None = None  # with these they were read
        self._looks = LogLooks()
        self._reached = False  # whether a broker ever answered at the address that it advertises
        self._unknown_topics: frozenset[str] = frozenset()
        self._steps = Steps()
        self._steps_between = Steps()  # of what is asked between polls
        self._exchange = self._exchange_of(frozenset(), 0.0)
        self._causes: Mapping[int, str] = {}  # why brokers did not answer in the last poll
        # each with failures of its own; made where it is used, for a fault costs its use only
        self._times_exchange: Exchange | None = None
        self._looks_exchange: Exchange | None = None
        self._last = Snapshot(None, taken_at=0.0, monotonic_at=0.0)

    def connect(self, timeout_s: float) -> None:
        """Reach the cluster, so that the first poll need not; raises UnreachableError."""
        self._cluster.find(timeout_s)

    def poll(self) -> Snapshot:
        """Ask all brokers and return what they said.

        Ends within a few request timeouts, however many brokers hang. Raises UnreachableError when
        no broker was ever reached; once one was, that none can be is told in the snapshot. A fault
        of our own costs the step that it is in, and is named in the snapshot; where nothing was read
        for it, or there are no metadata to begin with, it is raised.
        """
        started = self._monotonic()
        attempt = self._steps.attempt
        self._steps.start_poll()
        self._causes = self._exchange.down
        recovered = attempt(Step.RECOVERED, "", self._brokers.take_recovered)
        suspects = frozenset(self._causes.keys() - (recovered or frozenset()))
        exchange = self._exchange = self._exchange_of(suspects, started)
        metadata = self._refresh_metadata(exchange)
        read = self._read(exchange, metadata, started)
        if self._steps.fault is not None and not exchange.answered and not exchange.down:
            raise self._steps.fault  # nobody was asked
        self._times_exchange = self._looks_exchange = None
        unseen = attempt(Step.RIGHTS, "", self._is_unseen, exchange, metadata, read, started)
        ended = self._monotonic()
        self._last = Snapshot(
            cluster_id=metadata.cluster_id,
            taken_at=self._clock(),
            monotonic_at=ended,
            duration_seconds=ended - started,
            controller=metadata.controller,
            brokers=metadata.brokers,
            broker_errors=attempt(Step.CAUSES, "", self._told, exchange, metadata)
            or dict(exchange.down),
            missing_brokers=metadata.missing_brokers,
            topics=metadata.topics,
            start_offsets=read.starts,
            end_offsets=read.ends,
            stable_offsets=read.stable,
            groups=read.groups,
            groups_complete=self._groups.complete and (bool(read.groups) or not unseen),
            requests=attempt(Step.REQUESTS, "", self.take_request_counts) or {},
            errors=(
                *exchange.errors,
                *(attempt(Step.CAUSES, "", _shared_addresses, metadata) or ()),
                *((UNSEEN,) if unseen else ()),
            ),
            topic_configs=read.configs,
            log_sizes=read.log_sizes,
            unreadable=attempt(Step.CAUSES, "", self._looks.take_refused) or {},
            failures=self._take_failures(),
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
        self._times_exchange = self._times_exchange or self._exchange.aside(self._steps_between)
        self._times_exchange.ask(asks)
        if leader_moved(asks):
            self._cluster.read_soon()
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
        self._looks_exchange = self._looks_exchange or self._exchange.aside(self._steps_between)
        found = self._looks.look(self._looks_exchange, self._last.topics, wanted)
        if self._looks.leader_moved:
            self._cluster.read_soon()
        return found

    def take_request_counts(self) -> dict[str, int]:
        """Return the requests sent since the last poll ended, by API name.

        If nobody takes them, the next snapshot counts them as its own.
        """
        return self._brokers.take_request_counts()

    def _take_failures(self) -> dict[Failure, str]:
        """Return the faults of our own, of this poll and of what was asked since the last."""
        between = self._steps_between.failures
        self._steps_between.start_poll()
        return {**between, **self._steps.failures}

    def _exchange_of(self, suspects: frozenset[int], started_at: float) -> Exchange:
        limit = self._intervals.request_timeout
        return Exchange(self._brokers, limit, suspects, started_at, self._steps)

    def _refresh_metadata(self, exchange: Exchange) -> ClusterMetadata:
        if self._cluster.metadata is None:
            # without any there is nobody to ask: what is raised here is the poll's failure
            return self._cluster.find(self._intervals.request_timeout)
        self._steps.attempt(Step.METADATA, "", self._newer_metadata, exchange)
        return self._cluster.metadata

    def _newer_metadata(self, exchange: Exchange) -> None:
        """Read the metadata anew when that is due; forget the offsets of topics created anew."""
        self._cluster.refresh(exchange, self._causes)
        anew = self._cluster.replaced
        self._last = replace(
            self._last,
            start_offsets=without(self._last.start_offsets, anew),
            end_offsets=without(self._last.end_offsets, anew),
            stable_offsets=without(self._last.stable_offsets, anew),
        )
        self._cluster.replaced = frozenset()

    def _read(self, exchange: Exchange, metadata: ClusterMetadata, now: float) -> _Read:
        """Take the steps in their order; one that fails leaves what was known, as silent."""
        attempt, last = self._steps.attempt, self._last
        starts = attempt(Step.LOG_STARTS, "", self._read_starts, exchange, metadata, now)
        groups = attempt(Step.GROUPS, "", self._groups.collect, exchange, metadata, last.groups)
        if groups is None:
            groups = self._groups.silenced(last.groups)
        asked = attempt(Step.LOG_ENDS, "", self._ask_ends, exchange)
        latest, stable = asked or ([], [])
        # where they could not be asked for, all are as they were, and silent
        kept = metadata.topics, self._cluster.questions.leaderless
        ends = attempt(Step.LOG_ENDS, "", join, latest, last.end_offsets, *kept)
        ends = ends or silenced(last.end_offsets)
        stable_ends = last.stable_offsets
        if self._read_committed:
            joined = attempt(Step.STABLE_OFFSETS, "", join, stable, last.stable_offsets, *kept)
            stable_ends = joined or silenced(last.stable_offsets)
        starts = starts or silenced(last.start_offsets)
        same = attempt(Step.SAME_LOGS, "", self._of_these_logs, starts, ends)
        if same is None:
            # starts that may be of other logs would tell of losses
            same, self._starts_due_at = Offsets(), 0.0
        self._ask_rarely(exchange, metadata, now)
        attempt(Step.NEWER_METADATA, "", self._notice_what_is_newer, exchange, groups, metadata)
        configs = self._configs.latest if self._configs else {}
        log_sizes = self._log_dirs.latest if self._log_dirs else {}
        return _Read(same, groups, ends, stable_ends, configs, log_sizes)

    def _read_starts(self, exchange: Exchange, metadata: ClusterMetadata, now: float) -> Offsets:
        """Return the log starts, read anew when that is due."""
        last = self._last.start_offsets
        questions = self._cluster.questions
        if now < self._starts_due_at and questions is self._starts_asked:
            return last
        earliest = questions.earliest()
        exchange.ask(earliest)
        if all(ask.answer is not None for ask in earliest):
            self._starts_due_at = now + self._intervals.start_offsets
            self._starts_asked = questions
        if leader_moved(earliest):
            self._cluster.read_soon()
        return join(earliest, last, metadata.topics, questions.leaderless)

    def _ask_ends(
        self, exchange: Exchange
    ) -> tuple[list[Ask[FoundOffsets]], list[Ask[FoundOffsets]]]:
        """Ask in one round for the log ends, and the last stable offsets where those are wanted."""
        latest = self._cluster.questions.latest()
        stable = self._cluster.questions.stable() if self._read_committed else []
        exchange.ask([*latest, *stable])
        if leader_moved([*latest, *stable]):
            self._cluster.read_soon()
        return latest, stable

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
            self._starts_due_at = 0.0
            self._cluster.read_soon()
        return without(starts, anew)

    def _ask_rarely(self, exchange: Exchange, metadata: ClusterMetadata, now: float) -> None:
        """Ask for all that is due of settings and sizes."""
        topics, brokers = metadata.topics, metadata.brokers
        if self._configs:
            read = self._configs.read
            self._steps.attempt(Step.TOPIC_CONFIGS, "", read, exchange, now, topics, brokers)
        if self._log_dirs:
            self._steps.attempt(Step.LOG_SIZES, "", self._log_dirs.read, exchange, now, brokers)

    def _is_unseen(
        self, exchange: Exchange, metadata: ClusterMetadata, read: _Read, now: float
    ) -> bool:
        """Say whether there may be groups or topics that this login may not see."""
        if not self._rights:
            return False
        if read.groups and metadata.topics:
            self._rights.seen()
            return False
        return self._rights.unseen(exchange, exchange.healthy(metadata.brokers), now)

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

    def _notice_what_is_newer(
        self, exchange: Exchange, groups: Mapping[str, Group], metadata: ClusterMetadata
    ) -> None:
        """Have the metadata refreshed soon when this poll saw what they do not have.

        Partitions and groups of a broker that is lost move to others within seconds. A commit that
        names an unknown topic counts once per topic: commits outlive deleted topics, and must not
        cost a request every poll.
        """
        unknown = frozenset(
            topic
            for group in groups.values()
            for topic in group.commits
            if topic not in metadata.topics
        )
        if exchange.down or self._groups.moving or unknown - self._unknown_topics:
            self._cluster.read_soon()
        self._unknown_topics = unknown


def _shared_addresses(metadata: ClusterMetadata) -> list[str]:
    """Tell of brokers that are all at one address, where any of them may answer for another."""
    at: dict[str, list[int]] = {}
    for broker in metadata.brokers.values():
        at.setdefault(broker.address, []).append(broker.id)
    return [
        f"brokers {', '.join(map(str, sorted(brokers)))} are all said to be at {address}: "
        "what one of them is asked another may answer; see advertised.listeners"
        for address, brokers in at.items()
        if len(brokers) > 1
    ]
