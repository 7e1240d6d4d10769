"""Encodes and decodes by hand the messages that are most of a poll's bytes.

A client library makes an object of every committed offset; the dictionaries that the monitor wants
can be filled from the bytes directly, at a fifth of the CPU time. Only the compact ("flexible")
encoding is known here, of OffsetFetch 8 and 9 and of ListOffsets 6 and later (KIP-482): for older
brokers the client library does it. Names are interned: 2,000 groups that read one topic share one
string.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Final, Generic, TypeVar

from monitor.kafka.questions import FoundOffsets, GroupCommits
from monitor.kafka.replies import (
    COORDINATOR_MOVED,
    LEADER_MOVED,
    error_name,
)

Answer = TypeVar("Answer")

OFFSET_FETCH_VERSIONS: Final = range(8, 10)
LIST_OFFSETS_VERSIONS: Final = range(6, 12)

_INT32: Final = struct.Struct(">i")
_INT16: Final = struct.Struct(">h")
# a partition of OffsetFetch whose metadata is empty: index, offset, leader epoch, length of the
# metadata, error, number of tagged fields
_COMMIT: Final = struct.Struct(">iqiBhB")
_COMMIT_START: Final = struct.Struct(">iqi")
# a partition of ListOffsets: index, error, timestamp, offset, leader epoch, number of tagged fields
_OFFSET: Final = struct.Struct(">ihqqiB")
_OFFSET_START: Final = struct.Struct(">ihqqi")
_NO_TAGS: Final = b"\x00"
_NULL: Final = b"\x00"


@dataclass(frozen=True, slots=True)
class Decoded(Generic[Answer]):
    """An answer read from bytes; the throttle time is for whoever keeps the connection."""

    answer: Answer
    throttle_time_ms: int


def encode_offset_fetch(groups: Iterable[str], version: int) -> bytes:
    """Return the body of an OffsetFetch request for all commits of these groups."""
    names = [group.encode() for group in groups]
    # from version 9 on a member may name itself: none does here
    rest = _NULL + _NO_TAGS if version == OFFSET_FETCH_VERSIONS[0] else _MEMBERLESS
    body = b"".join([_varint(len(name) + 1) + name + rest for name in names])
    require_stable = b"\x00"
    return _varint(len(names) + 1) + body + require_stable + _NO_TAGS


_MEMBERLESS: Final = _NULL + _INT32.pack(-1) + _NULL + _NO_TAGS


def _checked(
    decode: Callable[[bytes, int], Decoded[Answer]],
) -> Callable[[bytes, int], Decoded[Answer]]:
    @wraps(decode)
    def checked(data: bytes, at: int) -> Decoded[Answer]:
        try:
            return decode(data, at)
        except (struct.error, IndexError) as error:
            raise ValueError(f"a reply of {len(data)} bytes ends too early") from error

    return checked


@_checked
def decode_offset_fetch(data: bytes, at: int) -> Decoded[dict[str, GroupCommits]]:
    """Read an OffsetFetch reply from its body, which begins at `at`; raises ValueError."""
    (throttle,) = _INT32.unpack_from(data, at)
    count, at = _length(data, at + 4)
    groups: dict[str, GroupCommits] = {}
    for _ in range(count):
        group_id, at = _name(data, at)
        topic_count, at = _length(data, at)
        offsets: dict[str, dict[int, int]] = {}
        error = None
        for _ in range(topic_count):
            topic, at = _name(data, at)
            partition_count, at = _length(data, at)
            committed: dict[int, int] = {}
            end = at + partition_count * _COMMIT.size
            if _commits_without_metadata(data, at, end, committed):
                at = end
            else:
                committed.clear()
                for index, offset, code, after in _commits(data, at, partition_count):
                    at = after
                    if code:
                        error = f"{topic}-{index}: {error_name(code)}"
                    elif offset >= 0:
                        committed[index] = offset
            at = _skip_tags(data, at)
            if committed:
                offsets[topic] = committed
        (code,) = _INT16.unpack_from(data, at)
        at = _skip_tags(data, at + 2)
        groups[group_id] = (
            GroupCommits(error=error_name(code), moved=code in COORDINATOR_MOVED)
            if code
            else GroupCommits(offsets, error=error)
        )
    return Decoded(groups, throttle)


def _commits_without_metadata(data: bytes, at: int, end: int, committed: dict[int, int]) -> bool:
    """Fill in the commits of one topic if they all are of the plainest form."""
    if end > len(data):
        return False
    for index, offset, _, metadata, error, tags in _COMMIT.iter_unpack(data[at:end]):
        if metadata > 1 or error or tags:
            return False
        if offset >= 0:
            committed[index] = offset
    return True


def _commits(data: bytes, at: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield index, offset, error and where the next partition begins."""
    for _ in range(count):
        index, offset, _ = _COMMIT_START.unpack_from(data, at)
        length, at = _length(data, at + _COMMIT_START.size)
        at += length
        (code,) = _INT16.unpack_from(data, at)
        at = _skip_tags(data, at + 2)
        yield index, offset, code, at


def list_offsets_decoder(*, with_timestamps: bool) -> Callable[[bytes, int], Decoded[FoundOffsets]]:
    """Return the reader of a ListOffsets reply; see `replies.read_offsets` for what it returns."""

    @_checked
    def decode(data: bytes, at: int) -> Decoded[FoundOffsets]:
        (throttle,) = _INT32.unpack_from(data, at)
        count, at = _length(data, at + 4)
        found = FoundOffsets({})
        leader_moved = False
        for _ in range(count):
            topic, at = _name(data, at)
            partition_count, at = _length(data, at)
            offsets = found.offsets[topic] = {}
            times: dict[int, int] = {}
            for _ in range(partition_count):
                index, code, timestamp, offset, _, tags = _OFFSET.unpack_from(data, at)
                at = _skip_tags(data, at + _OFFSET_START.size) if tags else at + _OFFSET.size
                if code:
                    leader_moved = leader_moved or code in LEADER_MOVED
                    found.errors.setdefault(topic, {})[index] = error_name(code)
                elif with_timestamps:
                    offsets[index] = offset
                    times[index] = timestamp
                elif offset >= 0:
                    offsets[index] = offset
            at = _skip_tags(data, at)
            if times:
                found.timestamps[topic] = times
        return Decoded(
            FoundOffsets(found.offsets, found.timestamps, found.errors, leader_moved), throttle
        )

    return decode


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return value | byte << shift, at + 1


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Read the length of a string or array, which is stored plus one; null is read as empty."""
    value = data[at]
    if value < 0x80:  # nearly all are short
        return (value - 1 if value else 0), at + 1
    value, at = _read_varint(data, at)
    return value - 1, at


def _name(data: bytes, at: int) -> tuple[str, int]:
    length, at = _length(data, at)
    end = at + length
    if end > len(data):
        raise IndexError
    return sys.intern(data[at:end].decode()), end


def _skip_tags(data: bytes, at: int) -> int:
    if not data[at]:
        return at + 1
    count, at = _read_varint(data, at)
    for _ in range(count):
        _, at = _read_varint(data, at)
        size, at = _read_varint(data, at)
        at += size
    return at
