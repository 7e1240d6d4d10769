"""Lag in seconds: now minus the time at which the oldest unread record was appended.

No record is read and nothing is extrapolated. What is known about a partition's log is kept as
facts, from our own polls and from replies to ListOffsets-by-timestamp questions (`append_times`).
The committed offset's bracket is its best lower and best upper fact, whoever's question
brought them, so all groups of a partition share them, and a reply with the committed offset itself
is exact. The estimate is the middle of the bracket, and `None` while the bracket is too wide to be
an answer. Which timestamp to ask next is an interpolation in the bracket (`time_search`).

Compaction: the oldest unread record is the first that is left at or after the committed offset,
and until a reply of this very poll has brought a record from there, it may be any later one. The
bracket reaches to that record. Where that record is much newer than the question, some may be
missing in between: then the question is the newest before which no unread record can be, and a
reply from beyond the committed offset is exact. What is gone stays gone, whoever reads on. (Where
records of the last read one's millisecond are left, and then a gap, they pass for gone: ListOffsets
can't tell.) Topics whose cleanup.policy is not known are treated as compacted.

Whose clock: a poll's facts are measured by our own monotonic clock, so a wall clock that jumps does
not move them. A reply's are record timestamps: the broker's clock under
``message.timestamp.type=LogAppendTime``, the producer's under ``CreateTime``, where they may be
old (mirrored, replayed), in the future, or out of order. Where the two disagree, the polls win,
since lag is about the append, and the partition's timestamps are left alone for a while. Only
offsets from before the first poll rest on record timestamps alone: where those can't be append times
(in the future, or from before there was Kafka), the time since the first poll is what is surely
waited for, and no more is told. A wall clock of ours that is set changes no age: that of the first
poll is gone by, until a reply makes sense by the new one only.

Retention goes by the record's own timestamp, whoever stamped it (`record_time`).

Pass log end offsets (high watermarks) also for read_committed groups, and ask with isolation level
read_uncommitted: the last stable offset passes a record long after it was appended. Transaction
markers are records to the broker: pass the offset of a record that can be read (`readable`).
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, TypeAlias

from monitor.analysis.append_times import CLOCK_SKEW_SECONDS, Appends, Reply
from monitor.analysis.topic import TopicLog
from monitor.guard import Guard
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from collections.abc import Set as AbstractSet

    from monitor.analysis.append_times import PartitionLog
    from monitor.analysis.time_search import Search

TopicPartition: TypeAlias = tuple[str, int]

TOLERANCE_SECONDS = 0.9  # width at which a bracket needs no more questions: error at most half
MAX_ERROR_SECONDS = 1.0  # a wider uncertainty than this, and than this share of the lag, is no
MAX_ERROR_RATIO = 0.001  # answer while there is more to ask: the next poll goes on with the search
UNASKED_ERROR_SECONDS = 30.0  # the same where timestamps can't be asked or can't be believed:
UNASKED_ERROR_RATIO = 0.1  # the polls alone must do
CLOCK_SET_SECONDS = 0.05  # wall and monotonic clock apart by this much more: somebody set the clock
NO_PARTITION = -1  # the topic as a whole
DISTRUST_SECONDS = 600.0  # how long such a partition's record timestamps are left alone
FIRST_APPEND = 1_293_840_000.0  # 2011-01-01: no record was appended before there was Kafka


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
        # committed offsets with unread records, by topic and partition
        self._wanted: dict[str, Mapping[int, Collection[int]]] = {}
        self._in_doubt: set[TopicPartition] = set()  # that may have something to ask
        self._asking: AbstractSet[TopicPartition] = frozenset()  # of them, still in this poll
        self._silent: set[TopicPartition] = set()
        self._failed: set[TopicPartition] = set()
        self._asked: dict[TopicPartition, set[int]] = {}  # in this poll
        self._uncompacted: Collection[str] = ()
        self._dated: Collection[str] = ()
        self._starts: Mapping[str, Mapping[int, int]] = nothing()
        self._now = 0.0
        # what the brokers' clock is taken to be ahead of the monotonic one, and what ours is now
        self._wall_offset: float = 0.0
        self._told_offset: float | None = None

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
        `now` monotonic and
        `wall` epoch seconds of the ListOffsets reply; `uncompacted` the topics whose
        cleanup.policy is known to be without compact, `dated` those of which `record_time` will be
        asked, and `starts` their log starts. Of a partition that did not answer, what is known is
        kept; of a topic that is gone, or has a new id, it must be forgotten: `forget`.
        """
        self._now = now
        told_offset = wall - now
        if self._told_offset is None or abs(told_offset - self._wall_offset) < CLOCK_SET_SECONDS:
            self._wall_offset = told_offset
        self._told_offset = told_offset
        self._uncompacted = uncompacted
        self._dated = dated
        self._starts = nothing() if starts is None else starts
        self._silent.clear()
        self._failed.clear()
        self._asked = {}
        for topic, ends in log_ends.items():
            try:
                self._see(topic, ends)
            except Exception as error:  # noqa: BLE001  # one topic's fault must not cost the others
                self._guard.failed("times", topic, error)
                self.forget(topic)
                self._failed.add((topic, NO_PARTITION))
                self._in_doubt.add((topic, NO_PARTITION))
        for key in self._in_doubt:
            if (log := self._log(key)) is not None:
                self._begin(key[0], log)

    def _begin(self, topic: str, log: PartitionLog) -> None:
        """Begin a poll's search in a log."""
        log.replies = ()
        for search in log.searches.values():
            search.stuck = search.gap_tried = False
            if topic not in self._uncompacted:
                search.found = None  # the record may be gone by now

    def want(self, wanted: Mapping[str, Mapping[int, Collection[int]]]) -> None:
        """Say which committed offsets with unread records there are: topic -> partition -> offsets.

        All of a topic that is named; those of others stay as they are.
        """
        for topic, partitions in wanted.items():
            for partition in self._wanted.get(topic, nothing()).keys() - partitions.keys():
                self._in_doubt.discard((topic, partition))
                if (log := self._log((topic, partition))) is not None:
                    log.want(())
            if partitions:
                self._wanted[topic] = partitions
            else:
                self._wanted.pop(topic, None)
            for partition, offsets in partitions.items():
                try:
                    self._want_of((topic, partition), offsets)
                except Exception as error:  # noqa: BLE001  # one partition's fault
                    self._fail((topic, partition), error)
        self._asking = self._in_doubt

    def _see(self, topic: str, ends: Mapping[int, int]) -> None:
        known = self._topics.get(topic)
        if known is None:
            known = self._topics[topic] = TopicLog()
        known.appends.see(ends, self._now)

    def _want_of(self, key: TopicPartition, offsets: Collection[int]) -> None:
        log = self._log(key)
        if log is None:
            return
        # at the newest end, and past it (the log is another one now), there is nothing to search
        log.want({offset for offset in offsets if log.ends and offset < log.ends[-1]})
        self._begin(key[0], log)
        if log.searches:
            self._in_doubt.add(key)

    def topics_in_doubt(self) -> set[str]:
        """Return the topics of which the next poll may know more, without anything happening there.

        All else is found, and holds.
        """
        self._in_doubt = {key for key in self._in_doubt if self._is_in_doubt(key)}
        return {topic for topic, _ in self._in_doubt}

    def _is_in_doubt(self, key: TopicPartition) -> bool:
        if key in self._failed:
            return True
        log = self._log(key)
        if log is None or not log.searches:
            return False
        return (
            key[0] not in self._uncompacted
            or log.distrusted_until > self._now
            or any(
                not self._is_found(search)
                or (key[0] in self._dated and not search.dated and search.stamp is None)
                for search in log.searches.values()
            )
        )

    def _fail(self, key: TopicPartition, error: Exception) -> None:
        """Do without a partition in this poll, and start it anew in the next one."""
        self._guard.failed("times", f"{key[0]}-{key[1]}", error)
        self._silent.add(key)
        self._failed.add(key)
        self._in_doubt.add(key)
        if key[0] in self._topics:
            self._topics[key[0]].appends.logs().pop(key[1], None)

    def _log(self, key: TopicPartition) -> PartitionLog | None:
        known = self._topics.get(key[0])
        return None if known is None else known.appends.logs().get(key[1])

    @property
    def wall(self) -> float:
        """Return the time at `observe` by the clock that records are stamped with, epoch seconds."""
        return self._now + self._wall_offset

    def forget(self, topic: str) -> None:
        """Drop all that is known about a topic: it was deleted, or re-created under its name."""
        if topic in self._topics:
            self._topics[topic].appends = Appends()
        self._wanted.pop(topic, None)
        self._in_doubt = {key for key in self._in_doubt if key[0] != topic}

    def questions(self) -> dict[TopicPartition, int]:
        """Return the timestamp in epoch milliseconds to ask next, for each partition in doubt.

        One timestamp per partition, since the broker refuses a request that names one twice; of
        several committed offsets in doubt the widest bracket is asked about.
        """
        asked = {}
        for partition in list(self._asking):
            log = self._log(partition)
            if log is None or partition in self._silent:
                continue
            try:
                question = self._any_question(partition, log)
            except Exception as error:  # noqa: BLE001  # one partition's fault
                self._fail(partition, error)
                continue
            if question is not None:
                asked[partition] = question
        self._asking = asked.keys()
        return asked

    def _any_question(self, partition: TopicPartition, log: PartitionLog) -> int | None:
        question = None
        if log.distrusted_until <= self._now:
            question = self._next_question(partition, log)
        if question is None and partition[0] in self._dated:
            question = self._date_question(partition, log)
        return question

    def _date_question(self, partition: TopicPartition, log: PartitionLog) -> int | None:
        """Return what may bring a wanted record's own timestamp, once for each; None if nothing."""
        start = self._starts.get(partition[0], {}).get(partition[1])
        for committed, search in log.searches.items():
            if search.dated or self.record_time(partition, committed) is not None:
                continue
            search.dated = True
            low, _ = log.bounds(committed, self._wall_offset)
            if committed == start:
                question = 0  # the first record of all
            elif log.distrusted_until > self._now or low == -inf:
                continue
            else:  # it may have been stamped a moment before it was appended
                question = int((low - CLOCK_SKEW_SECONDS) * 1000)
            asked = self._asked.setdefault(partition, set())
            if question not in asked:
                asked.add(question)
                return question
        return None

    def _next_question(self, partition: TopicPartition, log: PartitionLog) -> int | None:
        compacted = partition[0] not in self._uncompacted
        asked = self._asked.setdefault(partition, set())
        while (found := self._widest(log, compacted=compacted)) is not None:
            committed, low, high = found
            question = self._question(log, committed, low, high, compacted=compacted)
            if question not in asked:
                asked.add(question)
                return question
            log.searches[committed].stuck = True  # its reply taught nothing: on with the others
        return None

    def _bounds(self, log: PartitionLog, committed: int, *, compacted: bool) -> tuple[float, float]:
        if compacted:
            return log.bounds_of_left(committed, self._wall_offset)
        return log.bounds(committed, self._wall_offset)

    def _widest(self, log: PartitionLog, *, compacted: bool) -> tuple[int, float, float] | None:
        """Return the committed offset with the widest bracket, None when all are narrow enough."""
        widest, width = None, self._tolerance
        for offset, search in log.searches.items():
            if search.stuck or (search.found and self._is_found(search)):
                continue
            low, high = self._bounds(log, offset, compacted=compacted)
            if high - low <= self._tolerance:
                search.find((low + high) / 2 - self._wall_offset, self._wall_offset)
            elif high - low > width:
                widest, width = (offset, low, high), high - low
        return widest

    def _is_found(self, search: Search) -> bool:
        """Tell whether the answer is known; a wall clock that was set since makes it unknown."""
        found = search.found
        return found is not None and abs(found[1] - self._wall_offset) < CLOCK_SET_SECONDS

    def _question(
        self, log: PartitionLog, committed: int, low: float, high: float, *, compacted: bool
    ) -> int:
        search, target = log.searches[committed], committed
        if compacted:
            target = log.left(committed)
            low, high = log.bounds(target, self._wall_offset)
            question = self._what_is_left(log, search, target, low, high)
            if question is not None:
                return question
        below, above = log.around(target, self._wall_offset)
        if low == -inf:
            wall = self._now + self._wall_offset
            return int(search.first(above, target=target, end=log.ends[-1], wall=wall) * 1000)
        is_first, search.began = not search.began, True
        last_read = below[0][0]
        if last_read == target and is_first:
            return int(low * 1000)  # what came after this moment is what is unread
        if last_read == target - 1 and log.is_record(last_read, low) and search.after != last_read:
            search.after = last_read
            return round(low * 1000) + 1  # what came after the last read record is what is unread
        if compacted and (reply := log.after(target)) is not None:
            high = max(low, min(high, reply.question))
        return int(
            search.next(
                low, high, below=below, above=above, target=target, tolerance=self._tolerance
            )
            * 1000
        )

    def _what_is_left(
        self, log: PartitionLog, search: Search, target: int, low: float, high: float
    ) -> int | None:
        """Return what to ask to learn whether compaction removed records; None to search on."""
        reply = log.after(target)
        if reply is None:  # known before, and still there?
            return round(high * 1000) if high - low <= self._tolerance else None
        if reply.time - reply.question <= min(self._tolerance, reply.question - low):
            return None
        # next to a record this may lead on by one record only: try it once, then narrow first
        if reply.question - low > self._tolerance:
            if search.gap_tried:
                return None
            search.gap_tried = True
        else:
            search.narrowed = not search.narrowed
            if search.narrowed:
                return None
        return int(log.decisive(target, self._wall_offset) * 1000 + 0.1)

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
        for partition, milliseconds in asked.items():
            reply = replies.get(partition)
            log = self._log(partition)
            if reply is None or log is None or not log.ends:
                self._silent.add(partition)
                continue
            compacted = partition[0] not in self._uncompacted
            try:
                self._take(log, milliseconds / 1000, *reply, compacted=compacted)
            except Exception as error:  # noqa: BLE001  # one partition's fault
                self._fail(partition, error)

    def _take(
        self, log: PartitionLog, question: float, offset: int, timestamp: int, *, compacted: bool
    ) -> None:
        newest = log.ends[-1]
        offset, time = (newest, inf) if offset < 0 else (offset, timestamp / 1000)
        if (search := log.searches.get(offset)) is not None:
            search.stamp = time
        if self._contradicts(log, question, offset, time, compacted=compacted) and not (
            self._follows_clock(log, question, offset, time, compacted=compacted)
        ):
            log.distrust(self._now + DISTRUST_SECONDS)
            return
        if offset < newest:
            log.add_reply(question, offset, time)
            if compacted:
                _, time = log.bounds(offset, self._wall_offset)
        else:  # of records that came after the poll it says nothing
            offset, time = newest, question  # compaction leaves the newest record
            log.add_older(question, newest)
        if compacted:
            log.add_left(Reply(question, offset, time), self._wall_offset)

    def _follows_clock(
        self, log: PartitionLog, question: float, offset: int, time: float, *, compacted: bool
    ) -> bool:
        """Go by our wall clock as it was set since, if that makes sense of a reply."""
        if self._told_offset is None or self._told_offset == self._wall_offset:
            return False
        before, self._wall_offset = self._wall_offset, self._told_offset
        if not self._contradicts(log, question, offset, time, compacted=compacted):
            self._doubt_all()
            return True
        self._wall_offset = before
        return False

    def _doubt_all(self) -> None:
        """Have what was found by another clock be found anew."""
        for topic, partitions in self._wanted.items():
            self._in_doubt.update((topic, partition) for partition in partitions)

    def _contradicts(
        self, log: PartitionLog, question: float, offset: int, time: float, *, compacted: bool
    ) -> bool:
        """Tell whether the reply's timestamps can't be append times, by what the polls saw."""
        newest = log.ends[-1]
        is_clock_set = self._now + self._wall_offset > FIRST_APPEND  # ours, at that
        asked_for_all = offset >= newest and question < FIRST_APPEND
        if is_clock_set and (time < FIRST_APPEND or asked_for_all):
            return True  # nobody's clock, or records without a time
        if offset < newest:
            low, high = log.polled(offset, self._wall_offset)
            if not low - CLOCK_SKEW_SECONDS <= time <= high + CLOCK_SKEW_SECONDS:
                return True
            if compacted:  # those before it that are as new as the question may be gone
                return False
        low, _ = log.polled(min(offset, newest) - 1, self._wall_offset)
        return low > question + CLOCK_SKEW_SECONDS

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
        search = log.searches.get(committed)
        if search is not None and search.found is not None and self._is_found(search):
            return search.found[0]
        low, high = self._bounds(log, committed, compacted=partition[0] not in self._uncompacted)
        wall = self._now + self._wall_offset
        is_distrusted = log.distrusted_until > self._now
        if high - low == inf:
            known = is_distrusted and high < wall
            return _told(search, high - self._wall_offset) if known else None
        lag = wall - (low + high) / 2
        if partition in self._silent or is_distrusted:
            allowed = max(UNASKED_ERROR_SECONDS, UNASKED_ERROR_RATIO * lag)
        else:
            allowed = max(MAX_ERROR_SECONDS, MAX_ERROR_RATIO * lag)
        if (high - low) / 2 > allowed:
            return None
        return _told(search, (low + high) / 2 - self._wall_offset)

    def expires_at(
        self, partition: TopicPartition, committed: int, retention_seconds: float
    ) -> float | None:
        """Return when the record at an offset is older than its topic keeps records.

        In monotonic seconds, by its own timestamp, or its append where that was earlier; None where
        no reply told.
        """
        stamp = self.record_time(partition, committed)
        log = self._log(partition)
        search = None if log is None else log.searches.get(committed)
        if stamp is None or search is None:
            return None
        if search.dated_at is None or abs(search.dated_at[1] - self._wall_offset) >= (
            CLOCK_SET_SECONDS
        ):
            search.dated_at = stamp - self._wall_offset, self._wall_offset
        appended = self.oldest_at(partition, committed)
        first = search.dated_at[0] if appended is None else min(search.dated_at[0], appended)
        return first + retention_seconds

    def record_time(self, partition: TopicPartition, committed: int) -> float | None:
        """Return the timestamp that the record at an offset carries, in wall-clock seconds.

        Or a little less, by a record before it of which the same is known as of when it was
        appended. None where no reply told.
        """
        log = self._log(partition)
        search = None if log is None else log.searches.get(committed)
        if log is None or search is None:
            return None
        if search.stamp is not None:
            return search.stamp
        if log.lower is None or log.distrusted_until > self._now:
            return None
        _, before = log.lower.lower(committed)
        if (
            before == -inf
            or before < log.bounds(committed, self._wall_offset)[0] - CLOCK_SKEW_SECONDS
        ):
            return None
        search.stamp = before  # it is not to be found out anew at each poll
        return before


def _told(search: Search | None, moment: float) -> float:
    return moment if search is None else search.tell(moment)
