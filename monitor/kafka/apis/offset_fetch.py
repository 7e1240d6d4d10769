"""OffsetFetch: what groups have committed.

Its reply is most of a poll's bytes, and is read by hand where it is in the compact encoding (versions
8 and 9): kafka-python makes an object of every committed offset, and the dictionaries that are wanted
can be filled from the bytes, at a third of the CPU time. Of older brokers kafka-python reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from typing import Any, Final

from kafka.protocol.consumer import OffsetFetchRequest

from monitor.kafka.apis.compact import (
    INT16,
    INT32,
    NO_TAGS,
    NULL,
    encode_name,
    encode_varint,
    read_length,
    read_name,
    skip_tags,
)
from monitor.kafka.apis.error_codes import COORDINATOR_MOVED, error_name
from monitor.kafka.encoded import EncodedRequest, Reply
from monitor.kafka.questions import Question, VersionOf
from monitor.model import PartitionOffsets, nothing

# The first version that takes many groups in one request (KIP-709, brokers from 3.0 on), and the
# last that names topics; from 10 on topics have only ids.
MANY_GROUPS: Final = 8
LAST_WITH_TOPIC_NAMES: Final = 9

# a partition whose metadata is empty: index, offset, leader epoch, length of the metadata, error,
# number of tagged fields
_COMMIT: Final = struct.Struct(">iqiBhB")
_COMMIT_START: Final = struct.Struct(">iqi")
_MEMBERLESS: Final = NULL + INT32.pack(-1) + NULL + NO_TAGS


# The bytes of a group's commits that are kept until the next poll, at most: about 100 commits. What
# is made of them takes five times as much.
KEPT_BYTES: Final = 2_048


@dataclass(frozen=True, slots=True)
class GroupCommits:
    """A group's positions, or its own error; `moved` when another broker coordinates it.

    `lags` has the lag of a share group's partitions, from brokers that tell it. `size` is what it
    took of the reply, in bytes, 0 where that is not known. `raw` are those bytes, where they are few.
    """

    offsets: PartitionOffsets = field(default_factory=nothing)
    lags: PartitionOffsets = field(default_factory=nothing)
    error: str | None = None
    moved: bool = False
    size: int = field(default=0, compare=False)
    raw: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FetchCommits(Question[dict[str, GroupCommits]]):
    """All committed offsets of each group.

    Groups that say the same as in `known`, by group id, have the same object in the answer.
    """

    groups: Sequence[str]
    known: Mapping[str, GroupCommits] = field(default_factory=nothing, compare=False, repr=False)

    def requests(self, version_of: VersionOf) -> list[Any]:
        """Return one request for all groups, or one per group for brokers before 3.0."""
        version = min(version_of(OffsetFetchRequest), LAST_WITH_TOPIC_NAMES)
        if version >= MANY_GROUPS:
            body = encode(self.groups, version)
            return [EncodedRequest(OffsetFetchRequest, version, body, raw=True)]
        return [
            OffsetFetchRequest(
                group_id=group,
                topics=None,
                require_stable=False,
                min_version=2,
                max_version=MANY_GROUPS - 1,
            )
            for group in self.groups
        ]

    def read(self, replies: Sequence[Any]) -> dict[str, GroupCommits]:
        """Read the commits of each group; raises ValueError where the reply ends too early."""
        if replies and isinstance(replies[0], Reply):
            return decode(replies[0].data, replies[0].at, self.groups, self.known)
        return {
            group: read_group(reply.topics, reply.error_code)
            for group, reply in zip(self.groups, replies, strict=True)
        }


_NOTHING_KNOWN: Final[Mapping[str, GroupCommits]] = nothing()


def read_group(topics: Iterable[Any], error_code: int) -> GroupCommits:
    """Read a group's topics from kafka-python's message; an offset of -1 is no commit."""
    if error_code:
        return GroupCommits(error=error_name(error_code), moved=error_code in COORDINATOR_MOVED)
    offsets: dict[str, dict[int, int]] = {}
    error = None
    for topic in topics:
        committed = {}
        for partition in topic.partitions:
            index = partition.partition_index
            if partition.error_code:
                error = f"{topic.name}-{index}: {error_name(partition.error_code)}"
            elif partition.committed_offset >= 0:
                committed[index] = partition.committed_offset
        if committed:
            offsets[topic.name] = committed
    return GroupCommits(offsets, error=error)


def encode(groups: Iterable[str], version: int) -> bytes:
    """Return the body of a request for all commits of these groups."""
    # from version 9 on a member may name itself: none does here
    rest = NULL + NO_TAGS if version == MANY_GROUPS else _MEMBERLESS
    asked = [encode_name(group) + rest for group in groups]
    require_stable = b"\x00"
    return encode_varint(len(asked) + 1) + b"".join(asked) + require_stable + NO_TAGS


def decode(
    data: bytes,
    at: int,
    asked: Sequence[str] = (),
    known: Mapping[str, GroupCommits] = _NOTHING_KNOWN,
) -> dict[str, GroupCommits]:
    """Read a reply of version 8 or 9 from its body, which begins at `at`; raises ValueError.

    Most groups have committed nothing since the last poll: where the bytes of one that was `asked`
    about, in this order, are those that are `known`, they need not be read again.
    """
    try:
        return _groups(data, at, asked, known)
    except (struct.error, IndexError) as error:
        raise ValueError(f"a reply of {len(data)} bytes ends too early") from error


def _groups(
    data: bytes, at: int, asked: Iterable[str], known: Mapping[str, GroupCommits]
) -> dict[str, GroupCommits]:
    count, at = read_length(data, at + INT32.size)  # after the throttle time
    groups: dict[str, GroupCommits] = {}
    for expected in islice(chain(asked, repeat("")), count):
        before = known.get(expected)
        if before is not None and before.raw and data.startswith(before.raw, at):
            groups[expected] = before
            at += before.size
            continue
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
            else GroupCommits(
                offsets,
                error=error,
                size=at - begin,
                raw=data[begin:at] if at - begin <= KEPT_BYTES else b"",
            )
        )
    return groups


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
