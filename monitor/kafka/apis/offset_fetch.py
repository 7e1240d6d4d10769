"""Encodes and decodes by hand the messages that are most of a poll's bytes: offsets.

A client library makes an object of every committed offset; the dictionaries that the monitor wants
can be filled from the bytes directly, at a fifth of the CPU time. Only the compact encoding is
known here, of OffsetFetch 8 and 9 and of ListOffsets 6 and later: for older brokers the client
library does it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from monitor.kafka.apis.compact import (
    INT16,
    INT32,
    NO_TAGS,
    NULL,
    Decoded,
    checked,
    encode_name,
    encode_varint,
    read_length,
    read_name,
    skip_tags,
)
from monitor.kafka.apis.describe_groups import (
    COORDINATOR_MOVED,
    LEADER_MOVED,
    error_name,
)
from monitor.kafka.questions import FoundOffsets, GroupCommits

OFFSET_FETCH_VERSIONS: Final = range(8, 10)
LIST_OFFSETS_VERSIONS: Final = range(6, 12)
LIST_OFFSETS_WITH_TIMEOUT: Final = 10

# a partition of OffsetFetch whose metadata is empty: index, offset, leader epoch, length of the
# metadata, error, number of tagged fields
_COMMIT: Final = struct.Struct(">iqiBhB")
_COMMIT_START: Final = struct.Struct(">iqi")
# a partition to ask about: index, leader epoch, timestamp, number of tagged fields
_ASKED: Final = struct.Struct(">iiqB")
# a partition of ListOffsets: index, error, timestamp, offset, leader epoch, number of tagged fields
_OFFSET: Final = struct.Struct(">ihqqiB")
_OFFSET_START: Final = struct.Struct(">ihqqi")


def encode_offset_fetch(groups: Iterable[str], version: int) -> bytes:
    """Return the body of an OffsetFetch request for all commits of these groups."""
    # from version 9 on a member may name itself: none does here
    rest = NULL + NO_TAGS if version == OFFSET_FETCH_VERSIONS[0] else _MEMBERLESS
    asked = [encode_name(group) + rest for group in groups]
    require_stable = b"\x00"
    return encode_varint(len(asked) + 1) + b"".join(asked) + require_stable + NO_TAGS


_MEMBERLESS: Final = NULL + INT32.pack(-1) + NULL + NO_TAGS


@checked
def decode_offset_fetch(data: bytes, at: int) -> Decoded[dict[str, GroupCommits]]:
    """Read an OffsetFetch reply from its body, which begins at `at`; raises ValueError."""
    (throttle,) = INT32.unpack_from(data, at)
    count, at = read_length(data, at + 4)
    groups: dict[str, GroupCommits] = {}
    for _ in range(count):
        begin = at
        group_id, at = read_name(data, at)
        topic_count, at = read_length(data, at)
        offsets: dict[str, dict[int, int]] = {}
        error = None
        for _ in range(topic_count):
            topic, at = read_name(data, at)
            partition_count, at = read_length(data, at)
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
            at = skip_tags(data, at)
            if committed:
                offsets[topic] = committed
        (code,) = INT16.unpack_from(data, at)
        at = skip_tags(data, at + 2)
        groups[group_id] = (
            GroupCommits(error=error_name(code), moved=code in COORDINATOR_MOVED)
            if code
            else GroupCommits(offsets, error=error, size=at - begin)
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
        length, at = read_length(data, at + _COMMIT_START.size)
        at += length
        (code,) = INT16.unpack_from(data, at)
        at = skip_tags(data, at + 2)
        yield index, offset, code, at


def encode_list_offsets(
    wanted: Mapping[str, Mapping[int, int]],
    version: int,
    *,
    read_committed: bool,
    timeout_ms: int,
) -> bytes:
    """Return the body of a ListOffsets request; see `questions.ListOffsets` for what is wanted."""
    no_replica, any_epoch = -1, -1
    asked = []
    for topic, times in wanted.items():
        partitions = [_ASKED.pack(index, any_epoch, at, 0) for index, at in times.items()]
        asked += [encode_name(topic), encode_varint(len(times) + 1), *partitions, NO_TAGS]
    return b"".join(
        [
            INT32.pack(no_replica),
            bytes([read_committed]),
            encode_varint(len(wanted) + 1),
            *asked,
            INT32.pack(timeout_ms) if version >= LIST_OFFSETS_WITH_TIMEOUT else b"",
            NO_TAGS,
        ]
    )


def list_offsets_decoder(*, with_timestamps: bool) -> Callable[[bytes, int], Decoded[FoundOffsets]]:
    """Return the reader of a ListOffsets reply; see `replies.read_offsets` for what it returns."""

    @checked
    def decode(data: bytes, at: int) -> Decoded[FoundOffsets]:
        (throttle,) = INT32.unpack_from(data, at)
        count, at = read_length(data, at + 4)
        found = FoundOffsets({})
        leader_moved = False
        for _ in range(count):
            topic, at = read_name(data, at)
            partition_count, at = read_length(data, at)
            offsets = found.offsets[topic] = {}
            times: dict[int, int] = {}
            for _ in range(partition_count):
                index, code, timestamp, offset, _, tags = _OFFSET.unpack_from(data, at)
                at = skip_tags(data, at + _OFFSET_START.size) if tags else at + _OFFSET.size
                if code:
                    leader_moved = leader_moved or code in LEADER_MOVED
                    found.errors.setdefault(topic, {})[index] = error_name(code)
                elif with_timestamps:
                    offsets[index] = offset
                    times[index] = timestamp
                elif offset >= 0:
                    offsets[index] = offset
            at = skip_tags(data, at)
            if times:
                found.timestamps[topic] = times
        return Decoded(
            FoundOffsets(found.offsets, found.timestamps, found.errors, leader_moved), throttle
        )

    return decode
