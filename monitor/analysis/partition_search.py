"""What is asked about one partition, to learn when the records at committed offsets were appended.

The bracket of an offset is its best lower and best upper fact, whoever's question brought them, so all
groups of a partition share them, and a reply with the offset itself is exact. Which timestamp to ask
next is an interpolation in the bracket (`time_search`).

Compaction: the oldest unread record is the first that is left at or after the committed offset,
and until a reply of this very poll has brought a record from there, it may be any later one. The
bracket reaches to that record. Where that record is much newer than the question, some may be
missing in between: then the question is the newest before which no unread record can be, and a
reply from beyond the committed offset is exact. What is gone stays gone, whoever reads on. (Where
records of the last read one's millisecond are left, and then a gap, they pass for gone: ListOffsets
can't tell.)

Whose clock: a poll's facts are measured by our own monotonic clock, so a wall clock that jumps does
not move them. A reply's are record timestamps: the broker's clock under
``message.timestamp.type=LogAppendTime``, the producer's under ``CreateTime``, where they may be
old (mirrored, replayed), in the future, or out of order. Where the two disagree, the polls win,
since lag is about the append, and the partition's timestamps are left alone for a while.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from monitor.analysis.append_times import CLOCK_SKEW_SECONDS, Reply
from monitor.analysis.time_search import Search
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from monitor.analysis.append_times import PartitionLog
    from monitor.analysis.kept import KeptLog
    from monitor.analysis.record_clock import RecordClock

DISTRUST_SECONDS = 600.0  # how long such a partition's record timestamps are left alone
FIRST_APPEND = 1_293_840_000.0  # 2011-01-01: no record was appended before there was Kafka


class PartitionSearch:
    """The searches in one partition's log, by committed offset; they end at a bracket of `tolerance`.

    `compacted` says in each call whether compaction may remove records.
    """

    __slots__ = ("_asked", "_clock", "_log", "_searches", "_tolerance")

    def __init__(self, log: PartitionLog, clock: RecordClock, tolerance: float) -> None:
        self._log = log
        self._clock = clock
        self._tolerance = tolerance
        self._searches: Mapping[int, Search] = nothing()
        self._asked: tuple[int, ...] = ()  # in this poll

    def search_for(self, offsets: Collection[int]) -> None:
        """Go on with the searches for these committed offsets, at least one, and end all others."""
        before = self._searches
        if before.keys() == offsets:
            return
        self._searches = {offset: before.get(offset) or Search() for offset in offsets}
        self._log.want(self._searches.keys())

    def start_anew(self) -> None:
        """Search for nothing until told again: the log's records were replaced."""
        self._searches = nothing()

    def add_to(self, kept: KeptLog) -> KeptLog:
        """Return what is kept of the log with what was found in it, for a restart."""
        searches = self._searches.items()
        return replace(
            kept,
            found={offset: search.found[0] for offset, search in searches if search.found},
            stamps={
                offset: search.stamp for offset, search in searches if search.stamp is not None
            },
        )

    def restore(self, kept: KeptLog, shift: float, wall_offset: float) -> None:
        """Go on with what was found before a restart."""
        searches = {offset: Search() for offset in {**kept.found, **kept.stamps}}
        for offset, moment in kept.found.items():
            searches[offset].find(moment + shift, wall_offset)
        for offset, stamp in kept.stamps.items():
            searches[offset].stamp = stamp
        self._searches, self._log.wanted = searches, searches.keys()

    def begin(self, *, compacted: bool) -> None:
        """Begin a poll's search."""
        self._asked = self._log.replies = ()
        for search in self._searches.values():
            search.stuck = search.gap_tried = False
            if compacted:
                search.found = None  # the record may be gone by now

    def is_in_doubt(self, *, compacted: bool, dated: bool) -> bool:
        """Tell whether the next poll may know more, without anything happening to the log."""
        return any(
            compacted
            or self.is_distrusted
            or not self._is_found(search)
            or (dated and not search.dated and search.stamp is None)
            for search in self._searches.values()
        )

    # -- what to ask ------------------------------------------------------------------------------

    def question(self, *, compacted: bool, dated: bool, start: int | None) -> int | None:
        """Return the timestamp in epoch milliseconds to ask next, None when there is none.

        `dated` asks for the wanted records' own timestamps as well, in a log that starts at `start`.
        """
        question = None if self.is_distrusted else self._append_question(compacted=compacted)
        if question is None and dated:
            question = self._date_question(start)
        return question

    def _append_question(self, *, compacted: bool) -> int | None:
        while (widest := self._widest(compacted=compacted)) is not None:
            committed, low, high = widest
            question = self._next(committed, low, high, compacted=compacted)
            if question not in self._asked:
                self._asked += (question,)
                return question
            self._searches[committed].stuck = True  # its reply taught nothing: on with the others
        return None

    def _widest(self, *, compacted: bool) -> tuple[int, float, float] | None:
        """Return the committed offset with the widest bracket, None when all are narrow enough."""
        widest, width, clock = None, self._tolerance, self._clock
        for offset, search in self._searches.items():
            if search.stuck or (search.found and self._is_found(search)):
                continue
            low, high = self.bracket(offset, compacted=compacted)
            if high - low <= self._tolerance:
                search.find((low + high) / 2 - clock.offset, clock.offset)
            elif high - low > width:
                widest, width = (offset, low, high), high - low
        return widest

    def _next(self, committed: int, low: float, high: float, *, compacted: bool) -> int:
        log, search, target = self._log, self._searches[committed], committed
        if compacted:
            target = log.left(committed)
            low, high = log.bounds(target, self._clock.offset)
            question = self._what_is_left(search, target, low, high)
            if question is not None:
                return question
        below, above = log.around(target, self._clock.offset)
        if low == -inf:
            first = search.first(above, target=target, end=log.ends[-1], wall=self._clock.wall)
            return int(first * 1000)
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

    def _what_is_left(self, search: Search, target: int, low: float, high: float) -> int | None:
        """Return what to ask to learn whether compaction removed records; None to search on."""
        reply = self._log.after(target)
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
        return int(self._log.decisive(target, self._clock.offset) * 1000 + 0.1)

    def _date_question(self, start: int | None) -> int | None:
        """Return what may bring a wanted record's own timestamp, once for each; None if nothing."""
        for committed, search in self._searches.items():
            if search.dated or self.record_time(committed) is not None:
                continue
            search.dated = True
            low, _ = self._log.bounds(committed, self._clock.offset)
            if committed == start:
                question = 0  # the first record of all
            elif self.is_distrusted or low == -inf:
                continue
            else:  # it may have been stamped a moment before it was appended
                question = int((low - CLOCK_SKEW_SECONDS) * 1000)
            if question not in self._asked:
                self._asked += (question,)
                return question
        return None

    # -- what is answered -------------------------------------------------------------------------

    def answer(self, question: float, offset: int, timestamp: int, *, compacted: bool) -> None:
        """Tighten the brackets by a reply: (offset, timestamp in ms), -1 where no record is as new.

        The clock may go by ours since. What was found by another clock is found no more.
        """
        log, newest = self._log, self._log.ends[-1]
        offset, time = (newest, inf) if offset < 0 else (offset, timestamp / 1000)
        if (search := self._searches.get(offset)) is not None:
            search.stamp = time
        if self._contradicts(question, offset, time, compacted=compacted) and not (
            self._makes_sense_by_ours(question, offset, time, compacted=compacted)
        ):
            self._distrust()
            return
        if offset < newest:
            log.add_reply(question, offset, time)
            if compacted:
                _, time = log.bounds(offset, self._clock.offset)
        else:  # of records that came after the poll it says nothing
            offset, time = newest, question  # compaction leaves the newest record
            log.add_older(question, newest)
        if compacted:
            log.add_left(Reply(question, offset, time), self._clock.offset)

    def _distrust(self) -> None:
        self._log.distrust(self._clock.now + DISTRUST_SECONDS)
        for search in self._searches.values():
            search.found = None

    def _makes_sense_by_ours(
        self, question: float, offset: int, time: float, *, compacted: bool
    ) -> bool:
        """Go by our wall clock as it was set since, if that makes sense of a reply."""
        if not self._clock.was_set():
            return False
        before = self._clock.go_by_ours()
        if not self._contradicts(question, offset, time, compacted=compacted):
            return True
        self._clock.offset = before
        return False

    def _contradicts(self, question: float, offset: int, time: float, *, compacted: bool) -> bool:
        """Tell whether the reply's timestamps can't be append times, by what the polls saw."""
        log, clock = self._log, self._clock
        newest = log.ends[-1]
        is_clock_set = clock.wall > FIRST_APPEND  # ours, at that
        asked_for_all = offset >= newest and question < FIRST_APPEND
        if is_clock_set and (time < FIRST_APPEND or asked_for_all):
            return True  # nobody's clock, or records without a time
        if offset < newest:
            low, high = log.polled(offset, clock.offset)
            if not low - CLOCK_SKEW_SECONDS <= time <= high + CLOCK_SKEW_SECONDS:
                return True
            if compacted:  # those before it that are as new as the question may be gone
                return False
        low, _ = log.polled(min(offset, newest) - 1, clock.offset)
        return low > question + CLOCK_SKEW_SECONDS

    # -- what is known ----------------------------------------------------------------------------

    def found_at(self, committed: int) -> float | None:
        """Return when the record was appended (monotonic seconds), None while it is not found."""
        search = self._searches.get(committed)
        if search is None or search.found is None or not self._is_found(search):
            return None
        return search.found[0]

    def bracket(self, committed: int, *, compacted: bool) -> tuple[float, float]:
        """Return between which times the oldest unread record was appended, epoch seconds."""
        if compacted:
            return self._log.bounds_of_left(committed, self._clock.offset)
        return self._log.bounds(committed, self._clock.offset)

    def tell(self, committed: int, time: float) -> float:
        """Return a time in monotonic seconds, the one told last where that is the same."""
        moment, search = time - self._clock.offset, self._searches.get(committed)
        return moment if search is None else search.tell(moment)

    def dated_at(self, committed: int) -> float | None:
        """Return `record_time` in monotonic seconds, the same as long as no clock is set."""
        stamp = self.record_time(committed)
        if stamp is None:
            return None
        search, offset = self._searches[committed], self._clock.offset
        if search.dated_at is None or not self._clock.is_at(search.dated_at[1]):
            search.dated_at = stamp - offset, offset
        return search.dated_at[0]

    def record_time(self, committed: int) -> float | None:
        """Return the timestamp that the record at an offset carries, in wall-clock seconds.

        Or a little less, by a record before it of which the same is known as of when it was
        appended. None where no reply told.
        """
        log, search = self._log, self._searches.get(committed)
        if search is None:
            return None
        if search.stamp is not None:
            return search.stamp
        if log.lower is None or self.is_distrusted:
            return None
        _, before = log.lower.lower(committed)
        if (
            before == -inf
            or before < log.bounds(committed, self._clock.offset)[0] - CLOCK_SKEW_SECONDS
        ):
            return None
        search.stamp = before  # it is not to be found out anew at each poll
        return before

    @property
    def is_distrusted(self) -> bool:
        """Tell whether the timestamps of the log's records are left alone."""
        return self._log.distrusted_until > self._clock.now

    def _is_found(self, search: Search) -> bool:
        """Tell whether the answer is known; a wall clock that was set since makes it unknown."""
        return search.found is not None and self._clock.is_at(search.found[1])
