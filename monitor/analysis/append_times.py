"""What is known of when a partition's records were appended, whoever asked for it.

A poll that sees the log end at ``x`` at time ``t`` is a lower and an upper fact (`append_facts`). A
ListOffsets-by-timestamp question ``q`` whose reply is (offset ``o``, timestamp ``r``) adds: lower
(o, r), upper (o, q), upper (o + 1, r). Facts last, but compaction removes records: the first that is
left at or after an offset may be much later than the one that was there. So of what is left, each
poll asks anew.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from monitor.analysis.append_facts import POINTS_KEPT, Facts, thinned
from monitor.analysis.kept import KeptLog
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from monitor.analysis.append_facts import Point

_time = itemgetter(1)

POINTS_EXPORTED = 16
IDLE_POINTS_KEPT = 6  # polls remembered of a partition that nobody lags on
CLOCK_SKEW_SECONDS = (
    2.0  # record timestamps this far outside the polls' bracket are not append times
)


class Reply(NamedTuple):
    """The first record that is left and as new as the question; times in seconds.

    Where none is, the log end and the question's own time: the newest record is always left.
    """

    question: float
    offset: int
    time: float


class PartitionLog:
    """What is known about one partition's log; `wanted` are the offsets of which it must tell much."""

    __slots__ = (
        "distrusted_until", "ends", "first", "last", "lower", "replies", "skips", "upper", "wanted",
    )  # fmt: skip

    def __init__(self) -> None:
        self.ends = array("q")  # log end offsets, ascending
        self.first = array("d")  # when each was first seen, and
        self.last = array("d")  # last seen: monotonic seconds
        self.lower: Facts | None = None  # from replies, wall-clock seconds; most logs have none
        self.upper: Facts | None = None
        # of this poll, where compaction may remove records
        self.replies: tuple[Reply, ...] = ()
        self.wanted: Collection[int] = ()
        # wanted offset -> none is left between it and this one
        self.skips: Mapping[int, int] = nothing()
        self.distrusted_until = -inf

    def export(self) -> KeptLog:
        """Return what a restart takes up: some ends, and what replies said."""
        points = [*zip(self.ends, self.first, self.last, strict=True)]
        step = -max(1, len(points) // POINTS_EXPORTED)
        return KeptLog(
            points[::step][::-1],
            lower=[] if self.lower is None else self.lower.points(),
            upper=[] if self.upper is None else self.upper.points(),
        )

    @classmethod
    def restored(cls, kept: KeptLog, shift: float) -> PartitionLog:
        """Return what was kept; raises ValueError where it can't be."""
        log = cls()
        for end, first, last in kept.points:
            if log.ends and end <= log.ends[-1]:
                raise ValueError("log ends that do not ascend")
            log.ends.append(end)
            log.first.append(first + shift)
            log.last.append(last + shift)
        if kept.lower or kept.upper:
            lower, upper = log._facts()
            for offset, time in kept.lower:
                lower.add_lower(offset, time)
            for offset, time in kept.upper:
                upper.add_upper(offset, time)
        return log

    def see_end(self, end: int, now: float) -> bool:
        """Take in the log end of a poll; tell whether it moved back: nothing is wanted then."""
        ends, is_back = self.ends, False
        if ends:
            newest = ends[-1]
            if end == newest:
                self.last[-1] = now
                return False
            if end < newest:
                is_back = True
                self.truncate(end)
                if ends and ends[-1] == end:  # seen before the truncated records came
                    self.last[-1] = now
                    return True
        ends.append(end)
        self.first.append(now)
        self.last.append(now)
        if len(ends) > (POINTS_KEPT if self.wanted else IDLE_POINTS_KEPT):
            self.thin(self.wanted)
        return is_back

    def truncate(self, end: int) -> None:
        """Forget what was known of records that were replaced: the log end moved back."""
        at = bisect_right(self.ends, end)
        del self.ends[at:], self.first[at:], self.last[at:]
        if self.lower and self.upper:
            self.lower.truncate(end - 1)
            self.upper.truncate(end)
        self.skips, self.wanted = nothing(), ()

    def thin(self, wanted: Collection[int]) -> None:
        """Drop points that tell little about the wanted offsets."""
        if not wanted:
            spare = len(self.ends) // 2
            del self.ends[:spare], self.first[:spare], self.last[:spare]
            return
        keep = thinned(self.ends, wanted)
        if len(keep) == len(self.ends):  # every point is next to somebody's committed offset
            keep = keep[-2 * POINTS_KEPT :]
        self.ends = array("q", [self.ends[i] for i in keep])
        self.first = array("d", [self.first[i] for i in keep])
        self.last = array("d", [self.last[i] for i in keep])

    def want(self, offsets: Collection[int]) -> None:
        """Keep what replies said of the records at these offsets, and nothing of others."""
        self.replies = ()
        self.wanted = offsets
        if not offsets:
            self.lower = self.upper = None
            self.skips = nothing()
            return
        if self.skips:
            gone = self.skips.items()  # none of these comes back, whoever reads on
            left = {x: max((o for c, o in gone if c <= x < o), default=x) for x in offsets}
            self.skips = {x: o for x, o in left.items() if o > x}
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
        low, high = self.polled(offset, wall_offset)
        if self.lower is not None and self.upper is not None:
            reply_low = min(max(self.lower.lower(offset)[1], low), high)
            high = min(max(self.upper.upper(offset)[1], low), high)
            # timestamps out of order: only the upper fact holds whatever the order
            low = min(reply_low, high)
        return low, high

    def left(self, committed: int) -> int:
        """Return the first offset at which a record may be left that a group has not read."""
        return self.skips.get(committed, committed)

    def after(self, offset: int) -> Reply | None:
        """Return the first record at or after an offset that this poll has seen to be left."""
        return min((r for r in self.replies if r.offset >= offset), default=None)

    def bounds_of_left(self, committed: int, wall_offset: float) -> tuple[float, float]:
        """Return the bounds of the oldest unread record that compaction has left."""
        offset = self.left(committed)
        low, high = self.bounds(offset, wall_offset)
        reply = self.after(offset)
        if reply is None:
            return low, inf  # any of them may be gone
        return (low, high) if reply.offset == offset else (low, max(low, reply.time))

    def decisive(self, offset: int, wall_offset: float) -> float:
        """Return the newest question before which no record is that is at or after the offset.

        A reply from beyond the offset then says that the records up to the reply's are gone.
        """
        low, _ = self.polled(offset, wall_offset)
        below, time = self.lower.lower(offset) if self.lower is not None else (-1, -inf)
        # records are stamped before they are appended; and next to the last read record only the
        # next millisecond tells
        return max(0.0, low - CLOCK_SKEW_SECONDS, time + 0.001 * (below < offset))

    def around(self, offset: int, wall_offset: float) -> tuple[list[Point], list[Point]]:
        """Return the nearest points at or below the offset and above it, nearest first."""
        ends, at = self.ends, bisect_right(self.ends, offset)
        below: list[Point] = []
        above: list[Point] = []
        if at:
            below.append((ends[at - 1], self.last[at - 1] + wall_offset))
            if at > 1:
                below.append((ends[at - 2], self.last[at - 2] + wall_offset))
        if at < len(ends):
            above.append((ends[at], self.first[at] + wall_offset))
            if at + 1 < len(ends):
                above.append((ends[at + 1], self.first[at + 1] + wall_offset))
        if self.lower is not None and self.upper is not None:
            below += self.lower.before(offset)
            above += self.upper.after(offset)
            above += [(r.offset, r.question) for r in self.replies if r.offset > offset]
            below.sort(key=_time, reverse=True)
            above.sort(key=_time)
        return below, above

    def is_record(self, offset: int, time: float) -> bool:
        """Tell whether a reply brought this very record and timestamp."""
        return self.lower is not None and self.lower.lower(offset) == (offset, time)

    def add_reply(self, question: float, offset: int, time: float) -> None:
        """Note the first record that is left and as new as the question."""
        lower, upper = self._facts()
        lower.add_lower(offset, time)
        upper.add_upper(offset, question)
        upper.add_upper(offset + 1, time)

    def add_older(self, question: float, end: int) -> None:
        """Note that all records before the end are older than the question."""
        _, upper = self._facts()
        upper.add_upper(end, question)

    def add_left(self, reply: Reply, wall_offset: float) -> None:
        """Note what this poll saw to be left of a compacted log."""
        self.replies = (*self.replies, reply)
        if reply.offset == self.ends[-1]:
            return
        for committed in self.wanted:
            offset = self.left(committed)
            if (
                offset < reply.offset
                and reply.question <= self.decisive(offset, wall_offset) + 1e-4
            ):
                self.skips = {**self.skips, committed: reply.offset}

    def _facts(self) -> tuple[Facts, Facts]:
        if self.lower is None or self.upper is None:
            self.lower, self.upper = Facts(), Facts()
        return self.lower, self.upper

    def distrust(self, until: float) -> None:
        """Do without the timestamps of this log's records for a while."""
        self.lower = self.upper = None
        self.replies = ()
        self.skips = nothing()
        self.distrusted_until = until


class Appends:
    """When the records of one topic were appended, by partition.

    Until anything is written to the topic, or somebody lags on it, two moments say it of all its
    partitions: 10,000 logs would take 4 MB.
    """

    __slots__ = ("_ends", "_first_seen", "_last_seen", "_logs")

    def __init__(self) -> None:
        self._ends: Mapping[int, int] | None = None
        self._first_seen = self._last_seen = 0.0  # monotonic seconds
        self._logs: dict[int, PartitionLog] | None = None

    def see(self, ends: Mapping[int, int], now: float) -> Iterable[int]:
        """Take in the log ends of a poll; return the partitions whose end moved back."""
        if self._logs is None:
            if self._ends is None:
                self._ends, self._first_seen = ends, now
            if self._ends == ends:
                self._last_seen = now
                return ()
        logs = self.logs()
        shorter = []
        for partition, end in ends.items():
            log = logs.get(partition)
            if log is None:
                log = logs[partition] = PartitionLog()
            elif log.ends and log.ends[-1] == end:  # most partitions of most clusters are idle
                log.last[-1] = now
                continue
            if log.see_end(end, now):
                shorter.append(partition)
        return shorter

    def export(self) -> dict[int, KeptLog]:
        """Return what a restart takes up: the newest ends, and what replies said."""
        if self._logs is None:
            ends = self._ends or {}
            moments = self._first_seen, self._last_seen
            return {p: KeptLog([(end, *moments)]) for p, end in ends.items()}
        return {p: log.export() for p, log in self._logs.items() if log.ends}

    def restore(self, kept: Mapping[int, KeptLog], shift: float) -> None:
        """Go on from what was kept; raises ValueError where that can't be."""
        moments = {(first, last) for of in kept.values() for _, first, last in of.points}
        if len(moments) == 1 and not any(of.found or of.stamps for of in kept.values()):
            ((first, last),) = moments
            self._ends = {p: end for p, of in kept.items() for end, _, _ in of.points}
            self._first_seen, self._last_seen = first + shift, last + shift
        else:
            self._logs = {p: PartitionLog.restored(of, shift) for p, of in kept.items()}

    def logs(self) -> dict[int, PartitionLog]:
        """Return what is known of each partition, one by one from now on."""
        if self._logs is None:
            logs = self._logs = {}
            for partition, end in (self._ends or {}).items():
                log = logs[partition] = PartitionLog()
                log.see_end(end, self._first_seen)
                log.see_end(end, self._last_seen)
            self._ends = None
        return self._logs
