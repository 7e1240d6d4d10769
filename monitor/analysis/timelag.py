"""Lag in seconds: now minus the time at which the oldest unread record was appended.

No record is read and nothing is extrapolated. What is known about a partition's log is kept as
facts, from our own polls and from replies to ListOffsets-by-timestamp questions (`append_times`); what
is asked next is a search for each committed offset that lags (`partition_search`), with a bracket
between its best facts. The estimate is the middle of the bracket, and `None` while the bracket is too
wide to be an answer. Topics whose cleanup.policy is not known are treated as compacted.

Only offsets from before the first poll rest on record timestamps alone: where those can't be append
times (in the future, or from before there was Kafka), the time since the first poll is what is surely
waited for, and no more is told. A wall clock of ours that is set changes no age (`record_clock`).

Retention goes by the record's own timestamp, whoever stamped it (`record_time`).

Pass log end offsets (high watermarks) also for read_committed groups, and ask with isolation level
read_uncommitted: the last stable offset passes a record long after it was appended. Transaction
markers are records to the broker: pass the offset of a record that can be read (`readable`).
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, TypeAlias

from monitor.analysis.append_times import Appends
from monitor.analysis.partition_search import PartitionSearch
from monitor.analysis.record_clock import RecordClock
from monitor.analysis.topic import TopicLog
from monitor.guard import Guard
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from collections.abc import Set as AbstractSet

    from monitor.analysis.append_times import PartitionLog
    from monitor.analysis.kept import KeptLog

TopicPartition: TypeAlias = tuple[str, int]

TOLERANCE_SECONDS = 0.9  # width at which a bracket needs no more questions: error at most half
MAX_ERROR_SECONDS = 1.0  # a wider uncertainty than this, and than this share of the lag, is no
MAX_ERROR_RATIO = 0.001  # answer while there is more to ask: the next poll goes on with the search
UNASKED_ERROR_SECONDS = 30.0  # the same where timestamps can't be asked or can't be believed:
UNASKED_ERROR_RATIO = 0.1  # the polls alone must do
NO_PARTITION = -1  # the topic as a whole


class TimeLag:
    """Lag in seconds of every lagging committed offset, from polls and a few batched questions.

    Each poll: `observe` once, `want` for the topics on which a commit or a log end moved, then while
    `questions` returns some (a few rounds at most): send them, one request per broker, and hand the
    replies to `answers`; then `oldest_at` for each commit. What was found once is the same moment at
    each poll, until `topics_in_doubt` names its topic.
    """

    def __init__(
        self,
        topics: dict[str, TopicLog] | None = None,
        *,
        tolerance_seconds: float = TOLERANCE_SECONDS,
        guard: Guard | None = None,
    ) -> None:
        self._topics = {} if topics is None else topics
        self._tolerance = tolerance_seconds
        self._guard = guard or Guard()
        # of partitions on which somebody lags, by topic
        self._searches: dict[str, dict[int, PartitionSearch]] = {}
        self._in_doubt: set[TopicPartition] = set()  # that may have something to ask
        self._asking: AbstractSet[TopicPartition] = frozenset()  # of them, still in this poll
        self._silent: set[TopicPartition] = set()
        self._failed: set[TopicPartition] = set()
        self._uncompacted: Collection[str] = ()
        self._dated: Collection[str] = ()
        self._starts: Mapping[str, Mapping[int, int]] = nothing()
        self._clock = RecordClock()

    def observe(
        self,
        log_ends: Mapping[str, Mapping[int, int]],
        *,
        now: float,
        wall: float,
        uncompacted: Collection[str] = (),
        dated: Collection[str] = (),
        starts: Mapping[str, Mapping[int, int]] | None = None,
    ) -> None:
        """Take in one poll.

        `log_ends` (topic -> partition -> offset) holds the partitions that answered in this poll;
        `now` monotonic and `wall` epoch seconds of the ListOffsets reply; `uncompacted` the topics
        whose cleanup.policy is known to be without compact, `dated` those of which `record_time` will
        be asked, and `starts` their log starts. Of a partition that did not answer, what is known is
        kept; of a topic that is gone, or has a new id, it must be forgotten: `forget`.
        """
        self._clock.observe(now, wall)
        self._uncompacted = uncompacted
        self._dated = dated
        self._starts = nothing() if starts is None else starts
        self._silent.clear()
        self._failed.clear()
        for topic, ends in log_ends.items():
            try:
                self._see(topic, ends)
            except Exception as error:  # noqa: BLE001  # one topic's fault must not cost the others
                self._guard.failed("times", topic, error)
                self.forget(topic)
                self._failed.add((topic, NO_PARTITION))
                self._in_doubt.add((topic, NO_PARTITION))
        for key in self._in_doubt:
            if (search := self._search(key)) is not None:
                search.begin(compacted=self._is_compacted(key))

    def _see(self, topic: str, ends: Mapping[int, int]) -> None:
        known = self._topics.get(topic)
        if known is None:
            known = self._topics[topic] = TopicLog()
        for partition in known.appends.see(ends, self._clock.now):
            if (search := self._search((topic, partition))) is not None:
                search.start_anew()

    def want(self, wanted: Mapping[str, Mapping[int, Collection[int]]]) -> None:
        """Say which committed offsets with unread records there are: topic -> partition -> offsets.

        All of a topic that is named; those of others stay as they are.
        """
        for topic, partitions in wanted.items():
            for partition in self._searches.get(topic, nothing()).keys() - partitions.keys():
                self._end_search((topic, partition))
            for partition, offsets in partitions.items():
                try:
                    self._want_of((topic, partition), offsets)
                except Exception as error:  # noqa: BLE001  # one partition's fault
                    self._fail((topic, partition), error)
        self._asking = self._in_doubt

    def _want_of(self, key: TopicPartition, offsets: Collection[int]) -> None:
        log = self._log(key)
        if log is None:
            return
        # at the newest end, and past it (the log is another one now), there is nothing to search
        behind = {offset for offset in offsets if log.ends and offset < log.ends[-1]}
        if not behind:
            self._end_search(key)
            return
        search = self._search(key)
        if search is None:
            search = self._begin_search(key, log)
        search.search_for(behind)
        search.begin(compacted=self._is_compacted(key))
        self._in_doubt.add(key)

    def _begin_search(self, key: TopicPartition, log: PartitionLog) -> PartitionSearch:
        search = PartitionSearch(log, self._clock, self._tolerance)
        self._searches.setdefault(key[0], {})[key[1]] = search
        return search

    def _end_search(self, key: TopicPartition) -> None:
        """Nobody lags there any more."""
        self._in_doubt.discard(key)
        self._drop_search(key)
        if (log := self._log(key)) is not None:
            log.want(())

    def _drop_search(self, key: TopicPartition) -> None:
        of_topic = self._searches.get(key[0])
        if of_topic is not None:
            of_topic.pop(key[1], None)
            if not of_topic:
                del self._searches[key[0]]

    def _search(self, key: TopicPartition) -> PartitionSearch | None:
        of_topic = self._searches.get(key[0])
        return None if of_topic is None else of_topic.get(key[1])

    def _log(self, key: TopicPartition) -> PartitionLog | None:
        known = self._topics.get(key[0])
        return None if known is None else known.appends.logs().get(key[1])

    def _is_compacted(self, key: TopicPartition) -> bool:
        return key[0] not in self._uncompacted

    def topics_in_doubt(self) -> set[str]:
        """Return the topics of which the next poll may know more, without anything happening there.

        All else is found, and holds.
        """
        self._in_doubt = {key for key in self._in_doubt if self._is_in_doubt(key)}
        return {topic for topic, _ in self._in_doubt}

    def _is_in_doubt(self, key: TopicPartition) -> bool:
        if key in self._failed:
            return True
        search = self._search(key)
        return search is not None and search.is_in_doubt(
            compacted=self._is_compacted(key), dated=key[0] in self._dated
        )

    def _fail(self, key: TopicPartition, error: Exception) -> None:
        """Do without a partition in this poll, and start it anew in the next one."""
        self._guard.failed("times", f"{key[0]}-{key[1]}", error)
        self._failed.add(key)
        self._in_doubt.add(key)
        self._drop_search(key)
        if key[0] in self._topics:
            self._topics[key[0]].appends.logs().pop(key[1], None)

    @property
    def wall(self) -> float:
        """Return the time at `observe` by the clock that records are stamped with, epoch seconds."""
        return self._clock.wall

    def forget(self, topic: str) -> None:
        """Drop all that is known about a topic: it was deleted, or re-created under its name."""
        if topic in self._topics:
            self._topics[topic].appends = Appends()
        self._searches.pop(topic, None)
        self._in_doubt = {key for key in self._in_doubt if key[0] != topic}

    # -- what a restart takes up ------------------------------------------------------------------

    def export(self, topic: str, kept: dict[int, KeptLog]) -> None:
        """Add what was found in a topic's logs to what is kept of them."""
        for partition, search in self._searches.get(topic, nothing()).items():
            if partition in kept:
                kept[partition] = search.add_to(kept[partition])

    def restore(
        self, topic: str, kept: Mapping[int, KeptLog], shift: float, wall_offset: float
    ) -> None:
        """Go on with what was found in a topic's logs, once those are restored."""
        for partition, of in kept.items():
            log = self._log((topic, partition)) if of.found or of.stamps else None
            if log is not None:
                self._begin_search((topic, partition), log).restore(of, shift, wall_offset)

    # -- questions and answers --------------------------------------------------------------------

    def questions(self) -> dict[TopicPartition, int]:
        """Return the timestamp in epoch milliseconds to ask next, for each partition in doubt.

        One timestamp per partition, since the broker refuses a request that names one twice; of
        several committed offsets in doubt the widest bracket is asked about.
        """
        asked = {}
        for key in list(self._asking):
            search = self._search(key)
            if search is None or key in self._silent:
                continue
            try:
                question = self._question(key, search)
            except Exception as error:  # noqa: BLE001  # one partition's fault
                self._fail(key, error)
                continue
            if question is not None:
                asked[key] = question
        self._asking = asked.keys()
        return asked

    def _question(self, key: TopicPartition, search: PartitionSearch) -> int | None:
        topic, partition = key
        return search.question(
            compacted=self._is_compacted(key),
            dated=topic in self._dated,
            start=self._starts.get(topic, nothing()).get(partition),
        )

    def answers(
        self,
        asked: Mapping[TopicPartition, int],
        replies: Mapping[TopicPartition, tuple[int, int]],
    ) -> None:
        """Tighten the brackets.

        `asked` is what `questions` returned, `replies` the (offset, timestamp in ms) of each
        partition that answered, (-1, -1) where no record is as new. A partition without a reply
        (error, broker away) is not asked again in this poll.
        """
        offset = self._clock.offset
        for key, milliseconds in asked.items():
            reply, search = replies.get(key), self._search(key)
            if reply is None or search is None:
                self._silent.add(key)
                continue
            try:
                search.answer(milliseconds / 1000, *reply, compacted=self._is_compacted(key))
            except Exception as error:  # noqa: BLE001  # one partition's fault
                self._fail(key, error)
        if self._clock.offset != offset:  # what was found by another clock is to be found anew
            self._in_doubt.update((topic, p) for topic, of in self._searches.items() for p in of)

    # -- what a group makes of it -----------------------------------------------------------------

    def oldest_at(self, partition: TopicPartition, committed: int) -> float | None:
        """Return when the oldest unread record of a group at a committed offset was appended.

        In monotonic seconds; infinity when nothing is unread. None when the answer is not known well
        enough, by the errors that the constants above allow: half the bracket's width. Where
        timestamps can't be believed, since when the record has been there to be seen.
        """
        log = self._log(partition)
        if log is None or not log.ends:
            return None
        if committed >= log.ends[-1]:
            return inf
        search = self._search(partition) or PartitionSearch(log, self._clock, self._tolerance)
        found = search.found_at(committed)
        if found is not None:
            return found
        low, high = search.bracket(committed, compacted=self._is_compacted(partition))
        if high - low == inf:
            is_seen = search.is_distrusted and high < self.wall
            return search.tell(committed, high) if is_seen else None
        middle = (low + high) / 2
        lag = self.wall - middle
        if partition in self._silent or search.is_distrusted:
            allowed = max(UNASKED_ERROR_SECONDS, UNASKED_ERROR_RATIO * lag)
        else:
            allowed = max(MAX_ERROR_SECONDS, MAX_ERROR_RATIO * lag)
        return search.tell(committed, middle) if (high - low) / 2 <= allowed else None

    def expires_at(
        self, partition: TopicPartition, committed: int, retention_seconds: float
    ) -> float | None:
        """Return when the record at an offset is older than its topic keeps records.

        In monotonic seconds, by its own timestamp, or its append where that was earlier; None where
        no reply told.
        """
        search = self._search(partition)
        stamped = None if search is None else search.dated_at(committed)
        if stamped is None:
            return None
        appended = self.oldest_at(partition, committed)
        first = stamped if appended is None else min(stamped, appended)
        return first + retention_seconds

    def record_time(self, partition: TopicPartition, committed: int) -> float | None:
        """Return the timestamp that the record at an offset carries, see `PartitionSearch`."""
        search = self._search(partition)
        return None if search is None else search.record_time(committed)
