"""Reads Fetch replies by hand: which offset is the first that a read_committed consumer can read.

Only the headers of batches are decoded, and the keys of control records: no record's value, and
nothing is decompressed. Known are Fetch 4 to 12, which name topics and carry the aborted
transactions; batches are of format 2 (KIP-98), or messages of the formats before it.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from monitor.kafka.apis.compact import (
    INT16,
    INT32,
    Decoded,
    checked,
    read_length,
    read_name,
    read_varint,
    skip_tags,
)
from monitor.kafka.apis.describe_groups import LEADER_MOVED, error_name
from monitor.kafka.questions import Failure, FoundLooks
from monitor.model import LogLook

FETCH_VERSIONS: Final = range(4, 13)
# What one reply may hold, of all partitions and of each: markers are 78 bytes. A broker sends at
# least one batch of the first partition that has any, however large.
MAX_BYTES: Final = 1_024 * 1_024
MAX_PARTITION_BYTES: Final = 64 * 1_024

_WITH_LOG_START: Final = 5
_WITH_SESSIONS: Final = 7
_WITH_READ_REPLICA: Final = 11
_COMPACT: Final = 12

# a partition of the reply: index, error, high watermark, last stable offset
_PARTITION: Final = struct.Struct(">ihqq")
_ABORTED: Final = struct.Struct(">qq")  # producer, first offset
_OFFSET_SIZE: Final = 8
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


class _Partition(NamedTuple):
    """What a reply has of a partition; `aborted` as `look` takes it."""

    number: int
    error: int
    stable_end: int
    aborted: list[tuple[int, int]]
    records: bytes


class _Fields:
    """Where the fields of a version of the reply stand; every method returns what comes next, too."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._compact = version >= _COMPACT
        self.length = read_length if self._compact else _read_length
        self.name = read_name if self._compact else _read_name

    def error(self, data: bytes, at: int) -> tuple[int, int]:
        """Read the error of the whole reply, which the oldest versions do not have."""
        if self._version < _WITH_SESSIONS:
            return 0, at
        return INT16.unpack_from(data, at)[0], at + INT16.size + INT32.size

    def partition(self, data: bytes, at: int) -> tuple[_Partition, int]:
        """Read what one partition has."""
        index, error, high_watermark, stable_end = _PARTITION.unpack_from(data, at)
        at += _PARTITION.size + (_OFFSET_SIZE if self._version >= _WITH_LOG_START else 0)
        transactions, at = self.length(data, at)
        aborted = []
        for _ in range(transactions):
            producer, first = _ABORTED.unpack_from(data, at)
            aborted.append((first, producer))
            at = self.after(data, at + _ABORTED.size)
        at += INT32.size if self._version >= _WITH_READ_REPLICA else 0
        size, at = self.length(data, at)
        end = at + size
        if end > len(data):
            raise IndexError
        # brokers before 0.11 do not know the last stable offset, nor transactions
        stable_end = stable_end if stable_end >= 0 else high_watermark
        part = _Partition(index, error, stable_end, aborted, data[at:end])
        return part, self.after(data, end)

    def after(self, data: bytes, at: int) -> int:
        """Return where the next structure begins."""
        return skip_tags(data, at) if self._compact else at


def fetch_decoder(
    version: int, wanted: Mapping[str, Mapping[int, int]]
) -> Callable[[bytes, int], Decoded[FoundLooks | Failure]]:
    """Return the reader of a reply to a request for `wanted`, topic -> partition -> offset."""
    fields = _Fields(version)

    @checked
    def decode(data: bytes, at: int) -> Decoded[FoundLooks | Failure]:
        (throttle,) = INT32.unpack_from(data, at)
        error, at = fields.error(data, at + INT32.size)
        if error:
            return Decoded(Failure(f"Fetch: {error_name(error)}"), throttle)
        found = FoundLooks({})
        leader_moved = False
        topics, at = fields.length(data, at)
        for _ in range(topics):
            topic, at = fields.name(data, at)
            partitions, at = fields.length(data, at)
            for _ in range(partitions):
                part, at = fields.partition(data, at)
                offset = wanted.get(topic, {}).get(part.number)
                if part.error:
                    leader_moved = leader_moved or part.error in LEADER_MOVED
                    found.errors.setdefault(topic, {})[part.number] = error_name(part.error)
                elif offset is not None:
                    seen = look(part.records, offset, part.aborted)
                    looks = found.looks.setdefault(topic, {})
                    looks[part.number] = LogLook(*seen, part.stable_end)
            at = fields.after(data, at)
        return Decoded(FoundLooks(found.looks, found.errors, leader_moved), throttle)

    return decode


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


def _read_length(data: bytes, at: int) -> tuple[int, int]:
    """Read the length of an array or of bytes in the older encoding; null is read as empty."""
    (length,) = INT32.unpack_from(data, at)
    return max(0, length), at + INT32.size


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    (length,) = INT16.unpack_from(data, at)
    at += INT16.size
    if at + length > len(data):
        raise IndexError
    return data[at : at + length].decode(), at + length
