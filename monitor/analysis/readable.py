"""What of a group's lag a consumer can read: one notion for seconds, status, rates and advice.

Lag in messages is log end minus committed offset, as Apache's tool has it. Not all of that can be
read: what is before the log start is deleted, transaction markers and records of aborted
transactions are passed over, and an open transaction holds back all that comes after it. Only a look
into the log tells, so logs are looked at where a commit stands still before the log end, and once
more only where the log has gone on since. What was learned is shared by all groups of a partition.

Where the log can't be looked at, all that is there counts as readable: a consumer that is really
stuck must not pass for one that has nothing to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from monitor.guard import Guard
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from monitor.model import LogLook

TopicPartition: TypeAlias = tuple[str, int]

# Looks per poll at several groups' positions of one partition, and to go on past many markers; what
# they leave is looked at in the next poll.
MAX_LOOKS: Final = 3
# A consumer that goes on and had records to read is not suspected of markers again so soon.
POLLS_BETWEEN_LOOKS: Final = 10


class Position(NamedTuple):
    """Where a group stands on a partition: at its commit, or at the log start if that is later.

    `stands` says whether the commit stands still; `is_never_at_end` that it goes on, and still never
    came to the log end: what it leaves may be markers.
    """

    topic: str
    partition: int
    offset: int
    end: int
    stands: bool
    is_never_at_end: bool = False


class Readable(NamedTuple):
    """What can be read from a position on.

    `messages` counts from the position to the readable end: 0 where nothing can be read. `first` is
    the offset of the first record that may be readable, None where none is. `held_at` is the last
    stable offset where an open transaction holds all back that is left.
    """

    messages: int
    first: int | None
    held_at: int | None = None


class _Look(NamedTuple):
    """Nothing readable lies between a position and `to`; `found`: a readable record is at `to`."""

    to: int
    found: bool
    stable_end: int


NOTHING: Final = Readable(0, None)


class ReadableLogs:
    """What looks into logs have told of the positions of groups.

    Each poll: `observe` once, with the topics on which something moved or that are `topics_in_doubt`,
    then while `questions` has some (`MAX_LOOKS` rounds at most) send them
    and hand the replies to `answers`; then `of` for each position.
    """

    def __init__(self, guard: Guard | None = None) -> None:
        self._guard = guard or Guard()
        self._looks: dict[TopicPartition, dict[int, _Look]] = {}
        self._partitions: dict[str, set[int]] = {}  # of each topic, those with looks
        self._pending: dict[TopicPartition, dict[int, int]] = {}  # position -> log end
        self._asked: dict[TopicPartition, dict[int, int]] = {}  # in this poll, likewise
        self._seen_now: set[tuple[TopicPartition, int]] = set()
        self._polls = 0
        self._had_records: dict[TopicPartition, int] = {}  # at which poll a moving reader had some

    def observe(self, topics: Mapping[str, Iterable[Position]]) -> None:
        """Take in all positions of one poll that are before their log ends, of some topics.

        What is known of others on those topics is forgotten. Those that stand still are looked at; a
        consumer that goes on mostly shows by itself what it can read.
        """
        self._seen_now.clear()
        self._polls += 1
        self._pending = {}
        for topic, positions in topics.items():
            before = {
                partition: self._looks.pop((topic, partition), {})
                for partition in self._partitions.pop(topic, ())
            }
            for position in positions:
                self._take_in(position, before.get(position.partition))
        self._asked = {key: dict(positions) for key, positions in self._pending.items()}

    def _take_in(self, position: Position, known: Mapping[int, _Look] | None) -> None:
        topic, partition, offset, end, stands, is_never_at_end = position
        key = topic, partition
        look = None if known is None else known.get(offset) or _covering(known, offset)
        if look is not None:
            self._note(key, offset, look)
            if look.found or look.to >= end:
                return
        if stands or (is_never_at_end and not self._had_records_lately(key)):
            self._pending.setdefault(key, {})[offset] = end

    def _note(self, key: TopicPartition, offset: int, look: _Look) -> None:
        self._looks.setdefault(key, {})[offset] = look
        self._partitions.setdefault(key[0], set()).add(key[1])

    def topics_in_doubt(self) -> set[str]:
        """Return the topics of which the next look may tell more, without anything happening there."""
        return {
            key[0]
            for key, positions in self._asked.items()
            for position, end in positions.items()
            if (look := self._looks.get(key, nothing()).get(position)) is None
            or not (look.found or look.to >= end)
        }

    def _had_records_lately(self, key: TopicPartition) -> bool:
        seen = self._had_records.get(key)
        if seen is None:
            return False
        if self._polls - seen < POLLS_BETWEEN_LOOKS:
            return True
        del self._had_records[key]
        return False

    def forget(self, topic: str) -> None:
        """Drop a topic that was deleted, or re-created under its name."""
        for partition in self._partitions.pop(topic, ()):
            self._looks.pop((topic, partition), None)
        for key in [key for key in self._had_records if key[0] == topic]:
            del self._had_records[key]

    def questions(self) -> dict[str, dict[int, int]]:
        """Return topic -> partition -> the offset to look from; one of each partition at a time."""
        asked: dict[str, dict[int, int]] = {}
        for (topic, partition), positions in self._pending.items():
            # the lowest: what it tells may serve the others
            asked.setdefault(topic, {})[partition] = self._from((topic, partition), min(positions))
        return asked

    def _from(self, key: TopicPartition, position: int) -> int:
        look = self._looks.get(key, {}).get(position)
        return position if look is None else look.to

    def answers(self, replies: Mapping[str, Mapping[int, LogLook]]) -> None:
        """Take in what was found; a partition without a reply is not asked again in this poll."""
        pending: dict[TopicPartition, dict[int, int]] = {}
        for key, positions in self._pending.items():
            reply = replies.get(key[0], {}).get(key[1])
            if reply is None:
                continue
            try:
                left = self._learn(key, positions, reply)
            except Exception as error:  # noqa: BLE001  # one partition's fault must not cost the others
                self._guard.failed("looks", f"{key[0]}-{key[1]}", error)
                self._looks.pop(key, None)
                continue
            if left:
                pending[key] = left
        self._pending = pending

    def _learn(
        self, key: TopicPartition, positions: dict[int, int], reply: LogLook
    ) -> dict[int, int]:
        """Note a reply; return the positions that are to be looked at still."""
        asked = self._from(key, min(positions))
        found = reply.readable_at is not None
        to = reply.looked_to if reply.readable_at is None else reply.readable_at
        look = _Look(max(to, asked), found, reply.stable_end)
        if found:
            self._had_records[key] = self._polls
        left = {}
        for position, end in positions.items():
            if not (self._from(key, position) == asked or asked <= position <= look.to):
                left[position] = end
                continue
            self._note(key, position, look)
            self._seen_now.add((key, position))
            is_short = not found and look.to < min(end, look.stable_end)
            if is_short and look.to > asked:
                left[position] = end
        return left

    def of(self, position: Position) -> Readable:
        """Return what can be read from a position on."""
        topic, partition, offset, end, _, _ = position
        if offset >= end:
            return NOTHING
        look = self._looks.get((topic, partition), {}).get(offset)
        if look is None:
            return Readable(end - offset, offset)
        if look.found:
            return Readable(end - offset, look.to)
        if look.to >= end:
            return NOTHING
        is_held = offset <= look.stable_end <= look.to
        if is_held and ((topic, partition), offset) in self._seen_now:
            return Readable(0, None, look.stable_end)
        # who is past the last stable offset reads uncommitted records: all is readable to it
        return Readable(end - offset, offset if offset > look.stable_end else look.to)


def _covering(looks: Mapping[int, _Look], offset: int) -> _Look | None:
    """Return the look from before an offset that got there, None where none did."""
    return next((look for at, look in looks.items() if at <= offset <= look.to), None)
