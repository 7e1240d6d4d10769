"""Fetch: which offset is the first that a read_committed consumer can read.

Only the headers of batches are decoded, and the keys of control records: no record's value, and
nothing is decompressed. Known are versions 4 to 12, which name topics and carry the aborted
transactions; batches are of format 2 (KIP-98), or messages of the formats before it.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from kafka.protocol.consumer import FetchRequest

from monitor.kafka.apis.compact import read_varint
from monitor.kafka.apis.error_codes import LEADER_MOVED, error_name
from monitor.kafka.questions import Failure, Question, VersionOf
from monitor.model import LogLook

# The first version that tells the last stable offset, the last that names topics.
FETCH_VERSIONS: Final = range(4, 13)
# What one reply may hold, of all partitions and of each: markers are 78 bytes. A broker sends at
# least one batch of the first partition that has any, however large.
MAX_BYTES: Final = 1_024 * 1_024
MAX_PARTITION_BYTES: Final = 64 * 1_024
_READ_COMMITTED: Final = 1
_NO_SESSION: Final = -1

# offset, size of the rest, leader epoch (or checksum), format
_START: Final = struct.Struct(">qiib")
# checksum, attributes, last offset - first offset, two times, producer, its epoch, sequence, count
_BATCH: Final = struct.Struct(">Ihiqqqhii")
_FORMAT_AT: Final = 16
_SIZED_FROM: Final = 12  # where the rest begins that the size is of
_CODECS: Final = 0b111
_TRANSACTIONAL: Final = 0b1_0000
_CONTROL: Final = 0b10_0000
_FORMAT_2: Final = 2
_ABORT: Final = 0
_CONTROL_KEY: Final = struct.Struct(">hh")  # version, type


class _Batch(NamedTuple):
    """A batch's header; `records_at` and `end` are where its records begin, and the next batch."""

    first: int
    last: int
    attributes: int
    producer: int
    size: int  # in records
    records_at: int
    end: int


@dataclass(frozen=True, slots=True)
class FoundLooks:
    """What was found in each log; partitions that may not be read, or failed, have their error.

    `leader_moved` says that the metadata behind the question is out of date.
    """

    looks: dict[str, dict[int, LogLook]]
    errors: dict[str, dict[int, str]] = field(default_factory=dict)
    leader_moved: bool = False


@dataclass(frozen=True, slots=True)
class LookAtLogs(Question[FoundLooks]):
    """The batches of each partition from an offset on, as a read_committed consumer takes them.

    The reply is small, and so tells of some partitions nothing but their last stable offset; of the
    first that has records it tells at least one batch.
    """

    wanted: Mapping[str, Mapping[int, int]]

    def requests(self, version_of: VersionOf) -> list[Any]:
        """Return the request that a read_committed consumer sends, for a reply at once."""
        version_of(FetchRequest, FETCH_VERSIONS[0])  # raises where the broker is older
        topic_of = FetchRequest.FetchTopic
        partition_of = topic_of.FetchPartition
        return [
            FetchRequest(
                replica_id=-1,
                max_wait_ms=0,
                min_bytes=0,
                max_bytes=MAX_BYTES,
                isolation_level=_READ_COMMITTED,
                session_id=0,
                session_epoch=_NO_SESSION,
                topics=[
                    topic_of(
                        topic=topic,
                        partitions=[
                            partition_of(
                                partition=index,
                                current_leader_epoch=-1,
                                fetch_offset=offset,
                                last_fetched_epoch=-1,
                                log_start_offset=-1,
                                partition_max_bytes=MAX_PARTITION_BYTES,
                            )
                            for index, offset in partitions.items()
                        ],
                    )
                    for topic, partitions in self.wanted.items()
                ],
                forgotten_topics_data=[],
                rack_id="",
                min_version=FETCH_VERSIONS[0],
                max_version=FETCH_VERSIONS[-1],
            )
        ]

    def read(self, replies: Sequence[Any]) -> FoundLooks | Failure:
        """Look into the records of each partition."""
        (reply,) = replies
        if reply.error_code:
            return Failure(f"Fetch: {error_name(reply.error_code)}")
        found = FoundLooks({})
        leader_moved = False
        for topic in reply.responses:
            wanted = self.wanted.get(topic.topic, {})
            for part in topic.partitions:
                offset = wanted.get(part.partition_index)
                if part.error_code:
                    leader_moved = leader_moved or part.error_code in LEADER_MOVED
                    errors = found.errors.setdefault(topic.topic, {})
                    errors[part.partition_index] = error_name(part.error_code)
                elif offset is not None:
                    looks = found.looks.setdefault(topic.topic, {})
                    looks[part.partition_index] = _look(part, offset)
        return FoundLooks(found.looks, found.errors, leader_moved)


def _look(part: Any, offset: int) -> LogLook:
    aborted = [(of.first_offset, of.producer_id) for of in part.aborted_transactions or ()]
    # brokers before 0.11 do not know the last stable offset, nor transactions
    known = part.last_stable_offset >= 0
    stable_end = part.last_stable_offset if known else part.high_watermark
    return LogLook(*look(bytes(part.records or b""), offset, aborted), stable_end)


def look(records: bytes, wanted: int, aborted: Iterable[tuple[int, int]]) -> tuple[int | None, int]:
    """Return the first offset from `wanted` on that is readable, and where looking ended.

    `aborted` has the first offset and the producer of each aborted transaction that reaches into
    the records. The last batch may be cut off. Where compaction took records out of a compressed
    batch it is not known whether one is left from `wanted` on: then looking ends before it, unless
    a later one is readable.
    """
    coming = deque(sorted(aborted))
    aborting: set[int] = set()  # the producers whose transaction is one that will be aborted
    looked_to = wanted
    doubtful: int | None = None
    for batch in _batches(records, wanted):
        while coming and coming[0][0] <= batch.last:
            aborting.add(coming.popleft()[1])
        try:
            if batch.attributes & _CONTROL:
                if _ends_aborted(records, batch):
                    aborting.discard(batch.producer)
            elif not (batch.attributes & _TRANSACTIONAL and batch.producer in aborting):
                found = _first_record(records, batch, wanted)
                if found is not None:
                    return found if doubtful is None else doubtful, max(wanted, batch.last + 1)
                if batch.attributes & _CODECS and batch.size and doubtful is None:
                    doubtful = max(wanted, batch.first)
        except (IndexError, struct.error):  # it is the last, and cut off
            break
        looked_to = max(looked_to, batch.last + 1)
    return None, looked_to if doubtful is None else doubtful


def _batches(records: bytes, wanted: int) -> Iterator[_Batch]:
    """Yield the headers of all batches that reach to what is wanted; records may be cut off."""
    at = 0
    while at + _START.size <= len(records):
        batch = (
            _message(records, at) if records[at + _FORMAT_AT] < _FORMAT_2 else _batch(records, at)
        )
        if batch is None:
            return
        if batch.last >= wanted:
            yield batch
        at = batch.end


def _message(records: bytes, at: int) -> _Batch | None:
    """Read a message of the older formats; a compressed one has the offset of the last in it."""
    if at + _START.size >= len(records):
        return None
    offset, size, _, _ = _START.unpack_from(records, at)
    end = at + _SIZED_FROM + size
    if records[at + _START.size] & _CODECS:
        # its first offset is inside: all that is known is that it has one at its end
        return _Batch(0, offset, 0, -1, offset + 1, end, end)
    return _Batch(offset, offset, 0, -1, 1, end, end)


def _batch(records: bytes, at: int) -> _Batch | None:
    rest_at = at + _START.size
    if rest_at + _BATCH.size > len(records):
        return None
    first, size, _, _ = _START.unpack_from(records, at)
    _, attributes, delta, _, _, producer, _, _, count = _BATCH.unpack_from(records, rest_at)
    end = at + _SIZED_FROM + size
    return _Batch(first, first + delta, attributes, producer, count, rest_at + _BATCH.size, end)


def _ends_aborted(records: bytes, batch: _Batch) -> bool:
    """Say whether a control batch ends a transaction as aborted."""
    if not batch.size:
        return False
    _, at = _record_offset(records, batch, batch.records_at)
    length, at = _read_signed(records, at)
    return length >= _CONTROL_KEY.size and _CONTROL_KEY.unpack_from(records, at)[1] == _ABORT


def _first_record(records: bytes, batch: _Batch, wanted: int) -> int | None:
    """Return the first offset from `wanted` on, None where none is seen; IndexError if cut off."""
    first = max(wanted, batch.first)
    if batch.size > batch.last - batch.first:
        return first  # compaction took none out
    if batch.attributes & _CODECS:
        # more are left than there is room for before it
        return first if batch.size > first - batch.first else None
    at = batch.records_at
    for _ in range(batch.size):
        length, after_length = _read_signed(records, at)
        offset, _ = _record_offset(records, batch, at)
        if offset >= wanted:
            return offset
        at = after_length + length
    return None


def _record_offset(records: bytes, batch: _Batch, at: int) -> tuple[int, int]:
    """Return a record's offset, and where its key's length stands."""
    _, at = _read_signed(records, at)  # its size
    _, at = _read_signed(records, at + 1)  # its time, after the attributes
    delta, at = _read_signed(records, at)
    return batch.first + delta, at


def _read_signed(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of zigzag encoding."""
    value, at = read_varint(data, at)
    return (value >> 1) ^ -(value & 1), at
