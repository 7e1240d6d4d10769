"""Lag in seconds: now minus the time at which the oldest unread record was appended.

No record is read and nothing is extrapolated. What is known about a partition's log is kept as
facts of two kinds, from two sources:

- *lower*: records at or after offset ``x`` were appended at ``t`` or later;
- *upper*: records before offset ``x`` were appended at ``t`` or earlier.

A poll that sees the log end at ``x`` at time ``t`` is both. A ListOffsets-by-timestamp question
``q`` whose reply is (offset ``o``, timestamp ``r``) adds: lower (o, r), upper (o, q), upper
(o + 1, r). The committed offset's bracket is its best lower and best upper fact, whoever's question
brought them, so all groups of a partition share them, and a reply with the committed offset itself
is exact. The estimate is the middle of the bracket, and `None` while the bracket is too wide to be
an answer. Which timestamp to ask next is an interpolation in the bracket.

Whose clock: a poll's facts are measured by our own monotonic clock, so a wall clock that jumps does
not move them. A reply's are record timestamps: the broker's clock under
``message.timestamp.type=LogAppendTime``, the producer's under ``CreateTime``, where they may be
old (mirrored, replayed), in the future, or out of order. Where the two disagree, the polls win,
since lag is about the append, and the partition's timestamps are left alone for a while. Only
offsets from before the first poll rest on record timestamps alone.

Pass log end offsets (high watermarks) also for read_committed groups, and ask with isolation level
read_uncommitted: the last stable offset passes a record long after it was appended. Transaction
markers are records to the broker, here as in every tool's lag in messages.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from collections.abc import Set as AbstractSet

TopicPartition: TypeAlias = tuple[str, int]

TOLERANCE_SECONDS = 0.9  # width at which a bracket needs no more questions: error at most half
RECENT_SECONDS = 60.0  # without history, the first guess: most groups lag by less
MAX_ERROR_SECONDS = 1.0  # a wider uncertainty than this, and than this share of the lag, is no
MAX_ERROR_RATIO = 0.001  # answer while there is more to ask: the next poll goes on with the search
UNASKED_ERROR_SECONDS = 30.0  # the same where timestamps can't be asked or can't be believed:
UNASKED_ERROR_RATIO = 0.1  # the polls alone must do
CLOCK_SET_SECONDS = 0.05  # wall and monotonic clock apart by this much more: somebody set the clock
CLOCK_SKEW_SECONDS = (
    2.0  # record timestamps this far outside the polls' bracket are not append times
)
DISTRUST_SECONDS = 600.0  # how long such a partition's record timestamps are left alone
POINTS_KEPT = 48  # polls remembered of a partition that somebody lags on: 1.2 kB
IDLE_POINTS_KEPT = 6  # and of one that nobody does
REACH = 0.95  # of the tolerance: a question this far from a bound closes the bracket if it hits
STRETCH = 3  # how fast the steps grow that leave one end of a bracket


@dataclass(frozen=True, slots=True)
class Bracket:
    """Bounds of the append time of the oldest unread record, in wall-clock seconds."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """Return the uncertainty in seconds; infinite while there is no lower bound."""
        return self.high - self.low


class _Facts:
    """Monotone (offset, time) steps: of facts that say the same, only the strongest is kept."""

    __slots__ = ("offsets", "times")

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.times: list[float] = []

    def add_lower(self, offset: int, time: float) -> None:
        offsets, times = self.offsets, self.times
        at = bisect_right(offsets, offset)
        if at and times[at - 1] >= time:
            return
        end = bisect_right(times, time, at)
        start = at - 1 if at and offsets[at - 1] == offset else at
        offsets[start:end] = [offset]
        times[start:end] = [time]

    def add_upper(self, offset: int, time: float) -> None:
        offsets, times = self.offsets, self.times
        at = bisect_left(offsets, offset)
        if at < len(offsets) and times[at] <= time:
            return
        start = bisect_left(times, time, 0, at)
        end = at + 1 if at < len(offsets) and offsets[at] == offset else at
        offsets[start:end] = [offset]
        times[start:end] = [time]

    def lower(self, offset: int) -> tuple[int, float]:
        at = bisect_right(self.offsets, offset)
        return (self.offsets[at - 1], self.times[at - 1]) if at else (-1, -inf)

    def upper(self, offset: int) -> tuple[int, float]:
        at = bisect_right(self.offsets, offset)
        return (self.offsets[at], self.times[at]) if at < len(self.offsets) else (-1, inf)

    def truncate(self, end: int) -> None:
        at = bisect_right(self.offsets, end)
        del self.offsets[at:], self.times[at:]

    def prune(self, offsets: Collection[int]) -> None:
        """Keep what lies from just below the lowest of the offsets on, and thin that out."""
        first = max(0, bisect_right(self.offsets, min(offsets)) - 1)
        del self.offsets[:first], self.times[:first]
        if len(self.offsets) > POINTS_KEPT:
            keep = _thinned(self.offsets, offsets)
            self.offsets = [self.offsets[i] for i in keep]
            self.times = [self.times[i] for i in keep]


def _thinned(points: list[int] | array[int], wanted: Collection[int]) -> list[int]:
    """Return the indices to keep: around the wanted offsets, the newest half, every second older one."""
    kept = set(range(len(points) // 2, len(points))) | set(range(0, len(points) // 2, 2))
    for offset in wanted:
        at = bisect_right(points, offset)
        kept.update(i for i in (at - 1, at) if 0 <= i < len(points))
    return sorted(kept)


class _Search:
    """Where to ask next for one committed offset."""

    __slots__ = ("above", "after", "found", "high", "low", "questions", "streak")

    def __init__(self) -> None:
        self.questions = 0
        self.low, self.high = -inf, inf  # the bracket when the last question was asked
        self.above = -1  # the offset at which its upper bound was known
        self.after = -1  # the last read record, once asked what came after it
        self.found: tuple[float, float] | None = None  # the answer, and the wall offset it is for
        self.streak = 0  # replies in a row that moved the same end of the bracket; negative: high

    def next(
        self, low: float, high: float, *, below: int, target: int, above: int, tolerance: float
    ) -> float:
        """Return the time to ask, in a bracket whose bounds are known at offsets below and above.

        Interpolate; but each reply in a row that moves the same end of the bracket stretches the
        next step from that end, up to the middle, so that a burst can't hold the search there.
        """
        if low > self.low and high == self.high:
            self.streak = max(self.streak, 0) + 1
        elif high < self.high and low == self.low:
            # no record between two questions: records lie thinner here than interpolation has it
            self.streak = min(self.streak, 0) - (2 if above == self.above else 1)
        else:
            self.streak = 0
        self.low, self.high, self.above = low, high, above
        middle, reach = (low + high) / 2, tolerance * REACH
        guess = low + (high - low) * (target - below) / (above - below)
        stretch = float(STRETCH ** max(0, abs(self.streak) - 1))
        if self.streak > 0 and guess < middle:
            guess = min(middle, low + (guess - low) * stretch)
        elif self.streak < 0 and guess > middle:
            guess = max(middle, high - (high - guess) * stretch)
        # near an end, ask where the reply closes the bracket; elsewhere a little early, since a
        # reply from before the target brings its own timestamp along
        if guess - low <= reach:
            return min(low + reach, middle) if high - low < 2 * reach else low + reach
        if high - guess <= reach:
            return high - reach
        return max(low + reach, guess - reach / 2)


class _Log:
    """What is known about one partition's log."""

    __slots__ = ("distrusted_until", "ends", "first", "last", "lower", "searches", "skips", "upper")

    def __init__(self) -> None:
        self.ends = array("q")  # log end offsets, ascending
        self.first = array("d")  # when each was first seen, and
        self.last = array("d")  # last seen: monotonic seconds
        self.lower: _Facts | None = None  # from replies, wall-clock seconds; most logs have none
        self.upper: _Facts | None = None
        self.skips: dict[int, int] = {}  # committed offset -> first record that compaction left
        self.searches: dict[int, _Search] = {}  # committed offset -> its search
        self.distrusted_until = -inf

    def see_end(self, end: int, now: float) -> None:
        ends = self.ends
        if ends:
            newest = ends[-1]
            if end == newest:
                self.last[-1] = now
                return
            if end < newest:
                self.truncate(end)
                if ends and ends[-1] == end:  # seen before the truncated records came
                    self.last[-1] = now
                    return
        ends.append(end)
        self.first.append(now)
        self.last.append(now)
        if len(ends) > (POINTS_KEPT if self.searches else IDLE_POINTS_KEPT):
            self.thin(self.searches)

    def truncate(self, end: int) -> None:
        """Forget what was known of records that were replaced: the log end moved back."""
        at = bisect_right(self.ends, end)
        del self.ends[at:], self.first[at:], self.last[at:]
        if self.lower and self.upper:
            self.lower.truncate(end - 1)
            self.upper.truncate(end)
        self.skips.clear()
        self.searches.clear()

    def thin(self, wanted: Collection[int]) -> None:
        if not wanted:
            spare = len(self.ends) // 2
            del self.ends[:spare], self.first[:spare], self.last[:spare]
            return
        keep = _thinned(self.ends, wanted)
        if len(keep) == len(self.ends):  # every point is next to somebody's committed offset
            keep = keep[-2 * POINTS_KEPT :]
        self.ends = array("q", [self.ends[i] for i in keep])
        self.first = array("d", [self.first[i] for i in keep])
        self.last = array("d", [self.last[i] for i in keep])

    def want(self, offsets: Collection[int]) -> None:
        """Keep the bookkeeping of these committed offsets and what replies said of their records."""
        if not offsets:
            self.lower = self.upper = None
            self.skips.clear()
            self.searches.clear()
            return
        searches = self.searches
        if searches.keys() == offsets:
            return
        self.searches = {offset: searches.get(offset) or _Search() for offset in offsets}
        if self.skips:
            self.skips = {offset: o for offset, o in self.skips.items() if offset in offsets}
        if self.lower is not None and self.upper is not None:
            self.lower.prune(offsets)
            self.upper.prune(offsets)

    def polled(self, offset: int, wall_offset: float) -> tuple[float, float]:
        """Return the polls' bounds of the record at an offset."""
        at = bisect_right(self.ends, offset)
        low = self.last[at - 1] + wall_offset if at else -inf
        high = self.first[at] + wall_offset if at < len(self.ends) else inf
        return low, high

    def bounds(self, offset: int, wall_offset: float) -> tuple[float, float]:
        """Return the bounds by polls and replies; where they disagree, the polls win."""
        offset = self.skips.get(offset, offset)
        at = bisect_right(self.ends, offset)
        low = self.last[at - 1] + wall_offset if at else -inf
        high = self.first[at] + wall_offset if at < len(self.ends) else inf
        if self.lower is not None and self.upper is not None:
            reply_low = min(max(self.lower.lower(offset)[1], low), high)
            high = min(max(self.upper.upper(offset)[1], low), high)
            # timestamps out of order: only the upper fact holds whatever the order
            low = min(reply_low, high)
        return low, high

    def neighbours(self, offset: int, wall_offset: float) -> tuple[int, int]:
        """Return the offsets at which the bracket's lower and upper bound are known; -1 if none."""
        at = bisect_right(self.ends, offset)
        below, low = (self.ends[at - 1], self.last[at - 1] + wall_offset) if at else (-1, -inf)
        above, high = (
            (self.ends[at], self.first[at] + wall_offset) if at < len(self.ends) else (-1, inf)
        )
        if self.lower is not None and self.upper is not None:
            reply_below, reply_low = self.lower.lower(offset)
            reply_above, reply_high = self.upper.upper(offset)
            if reply_low > low:
                below = reply_below
            if reply_high < high:
                above = reply_above
        return below, above

    def is_record(self, offset: int, time: float) -> bool:
        """Tell whether a reply brought this very record and timestamp."""
        return self.lower is not None and self.lower.lower(offset) == (offset, time)

    def add_reply(self, question: float, offset: int, time: float) -> None:
        """Note that this record is the first that is as new as the question."""
        lower, upper = self._facts()
        lower.add_lower(offset, time)
        upper.add_upper(offset, question)
        upper.add_upper(offset + 1, time)

    def add_older(self, question: float, end: int) -> None:
        """Note that all records before the end are older than the question."""
        _, upper = self._facts()
        upper.add_upper(end, question)

    def _facts(self) -> tuple[_Facts, _Facts]:
        if self.lower is None or self.upper is None:
            self.lower, self.upper = _Facts(), _Facts()
        return self.lower, self.upper

    def distrust(self, until: float) -> None:
        self.lower = self.upper = None
        self.skips.clear()
        for search in self.searches.values():
            search.found = None
        self.distrusted_until = until


class TimeLag:
    """Lag in seconds of every lagging committed offset, from polls and a few batched questions.

    Each poll: `observe` once, then while `questions` returns some (five rounds at most): send them,
    one request per broker, and hand the replies to `answers`; then `seconds` for each commit.
    """

    def __init__(self, *, tolerance_seconds: float = TOLERANCE_SECONDS) -> None:
        self._tolerance = tolerance_seconds
        self._logs: dict[str, dict[int, _Log]] = {}
        self._wanted: AbstractSet[TopicPartition] = frozenset()  # that somebody lags on
        self._open: AbstractSet[TopicPartition] = frozenset()  # that may have something to ask
        self._silent: set[TopicPartition] = set()
        self._verified: set[tuple[TopicPartition, int]] = set()
        self._compacted: Collection[str] = ()
        self._now = 0.0
        self._wall_offset = 0.0

    def observe(
        self,
        log_ends: Mapping[str, Mapping[int, int]],
        lagging: Iterable[tuple[TopicPartition, int]],
        *,
        now: float,
        wall: float,
        compacted: Collection[str] = (),
    ) -> None:
        """Take in one poll.

        `log_ends` (topic -> partition -> offset) holds the partitions that answered in this poll;
        `lagging` the (partition, committed offset) pairs with unread records; `now` monotonic and
        `wall` epoch seconds of the ListOffsets reply; `compacted` the topics whose cleanup.policy
        has compact. Of a partition that did not answer, what is known is kept; of a topic that is
        gone, or has a new id, it must be forgotten: `forget`.
        """
        self._now = now
        self._wall_offset = wall - now
        self._compacted = compacted
        self._silent.clear()
        self._verified.clear()
        self._see(log_ends)
        self._want(lagging)

    def _see(self, log_ends: Mapping[str, Mapping[int, int]]) -> None:
        now = self._now
        for topic, ends in log_ends.items():
            logs = self._logs.setdefault(topic, {})
            for partition, end in ends.items():
                log = logs.get(partition)
                if log is None:
                    log = logs[partition] = _Log()
                elif log.ends and log.ends[-1] == end:  # most partitions of most clusters are idle
                    log.last[-1] = now
                    continue
                log.see_end(end, now)

    def _want(self, lagging: Iterable[tuple[TopicPartition, int]]) -> None:
        wanted: dict[TopicPartition, set[int]] = {}
        for key, offset in lagging:
            if key in wanted:
                wanted[key].add(offset)
            else:
                wanted[key] = {offset}
        for key in self._wanted - wanted.keys():
            if (log := self._log(key)) is not None:
                log.want(())
        for key, offsets in wanted.items():
            if (log := self._log(key)) is not None:
                log.want(offsets)
        self._wanted = wanted.keys()
        self._open = wanted.keys()

    def _log(self, key: TopicPartition) -> _Log | None:
        logs = self._logs.get(key[0])
        return None if logs is None else logs.get(key[1])

    def topics(self) -> Collection[str]:
        """Return the topics of which something is known: those to `forget` once they are gone."""
        return self._logs.keys()

    def forget(self, topic: str) -> None:
        """Drop all that is known about a topic: it was deleted, or re-created under its name."""
        self._logs.pop(topic, None)

    def questions(self) -> dict[TopicPartition, int]:
        """Return the timestamp in epoch milliseconds to ask next, for each partition in doubt.

        One timestamp per partition, since the broker refuses a request that names one twice; of
        several committed offsets in doubt the widest bracket is asked about.
        """
        asked = {}
        for partition in self._open:
            log = self._log(partition)
            if log is None or partition in self._silent or log.distrusted_until > self._now:
                continue
            if (offset := self._widest(log)) is not None:
                asked[partition] = self._question(log, offset)
            elif partition[0] in self._compacted:
                for offset in log.searches:
                    if (partition, offset) not in self._verified:
                        asked[partition] = self._verification(log, offset)
                        break
        self._open = asked.keys()
        return asked

    def _widest(self, log: _Log) -> int | None:
        """Return the committed offset with the widest bracket, None when all are narrow enough."""
        widest, width = None, self._tolerance
        for offset, search in log.searches.items():
            if self._is_found(search):
                continue
            low, high = log.bounds(offset, self._wall_offset)
            if high - low <= self._tolerance:
                search.found = (low + high) / 2, self._wall_offset
            elif high - low > width:
                widest, width = offset, high - low
        return widest

    def _is_found(self, search: _Search) -> bool:
        """Tell whether the answer is known; a wall clock that was set since makes it unknown."""
        found = search.found
        return found is not None and abs(found[1] - self._wall_offset) < CLOCK_SET_SECONDS

    def _question(self, log: _Log, committed: int) -> int:
        search = log.searches[committed]
        search.questions += 1
        target = log.skips.get(committed, committed)
        low, high = log.bounds(committed, self._wall_offset)
        if low == -inf:
            return self._first_guess(log, search, target, high)
        below, above = log.neighbours(target, self._wall_offset)
        if below == target and search.questions == 1:
            return int(low * 1000)  # what came after this moment is what is unread
        if below == target - 1 and log.is_record(below, low) and search.after != below:
            search.after = below
            return int(low * 1000) + 1  # what came after the last read record is what is unread
        return int(
            search.next(
                low, high, below=below, target=target, above=above, tolerance=self._tolerance
            )
            * 1000
        )

    def _first_guess(self, log: _Log, search: _Search, target: int, high: float) -> int:
        """Look for a lower bound: a minute ago, then by that minute's rate, then the first record."""
        wall = self._now + self._wall_offset
        since = RECENT_SECONDS
        if search.questions == 2:
            _, above = log.neighbours(target, self._wall_offset)
            end = log.ends[-1]
            since *= 2 * (end - target) / (end - above) if above < end else inf
        oldest = wall - since
        return int(oldest * 1000) if search.questions <= 2 and 0 < oldest < high else 0

    def _verification(self, log: _Log, offset: int) -> int:
        """Ask whether compaction has removed the oldest unread record."""
        target = log.skips.get(offset, offset)
        low, _ = log.bounds(offset, self._wall_offset)
        below, _ = log.neighbours(target, self._wall_offset)
        return int(low * 1000) + (below < target)

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
            offset, timestamp = reply
            question = milliseconds / 1000
            newest = log.ends[-1]
            offset, time = (newest, inf) if offset < 0 else (offset, timestamp / 1000)
            if self._contradicts(log, question, offset, time):
                log.distrust(self._now + DISTRUST_SECONDS)
                continue
            if partition[0] in self._compacted:
                self._skip_removed(log, partition, question, offset)
            if offset < newest:
                log.add_reply(question, offset, time)
            else:  # of records that came after the poll it says nothing
                log.add_older(question, newest)

    def _contradicts(self, log: _Log, question: float, offset: int, time: float) -> bool:
        """Tell whether the reply's timestamps can't be append times, by what the polls saw."""
        if offset < log.ends[-1]:
            low, high = log.polled(offset, self._wall_offset)
            if not low - CLOCK_SKEW_SECONDS <= time <= high + CLOCK_SKEW_SECONDS:
                return True
        low, _ = log.polled(offset - 1, self._wall_offset)
        return low > question + CLOCK_SKEW_SECONDS

    def _skip_removed(
        self, log: _Log, partition: TopicPartition, question: float, offset: int
    ) -> None:
        """Note where the unread records begin: asked at or below the lower bound, a reply beyond
        the committed offset says that compaction removed all before it.
        """  # noqa: D205 - the reason needs the room
        for committed in log.searches:
            target = log.skips.get(committed, committed)
            low, _ = log.bounds(committed, self._wall_offset)
            if offset >= target and question <= low + 0.002:
                self._verified.add((partition, committed))
                if offset > target and offset < log.ends[-1]:
                    log.skips[committed] = offset
                    log.searches[committed].found = None

    def bracket(self, partition: TopicPartition, committed: int) -> Bracket | None:
        """Return the bounds of the oldest unread record's append time; None if nothing is known."""
        log = self._log(partition)
        if log is None or not log.ends:
            return None
        return Bracket(*log.bounds(committed, self._wall_offset))

    def seconds(self, partition: TopicPartition, committed: int) -> float | None:
        """Return the lag in seconds of a group at a committed offset, as of the last `observe`.

        0 when nothing is unread. None when the answer is not known well enough, by the errors that
        the constants above allow: half the bracket's width.
        """
        log = self._log(partition)
        if log is None or not log.ends:
            return None
        if committed >= log.ends[-1]:
            return 0.0
        search = log.searches.get(committed)
        wall = self._now + self._wall_offset
        if search is not None and search.found is not None and self._is_found(search):
            return max(0.0, wall - search.found[0])
        low, high = log.bounds(committed, self._wall_offset)
        if low == -inf:
            return None
        lag = wall - (low + high) / 2
        if partition in self._silent or log.distrusted_until > self._now:
            allowed = max(UNASKED_ERROR_SECONDS, UNASKED_ERROR_RATIO * lag)
        else:
            allowed = max(MAX_ERROR_SECONDS, MAX_ERROR_RATIO * lag)
        if (high - low) / 2 > allowed:
            return None
        return max(0.0, lag)
