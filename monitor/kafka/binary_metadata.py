"""Decodes a cluster's metadata by hand.

A client library makes an object of every partition; most partitions of a cluster are placed as
others are, and share one object here. Only the compact encoding is known, of versions 9 and later:
of older brokers the client library reads it.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from typing import Final, TypeAlias

from monitor.kafka.apis.compact import (
    INT16,
    INT32,
    Decoded,
    checked,
    read_length,
    read_name,
    read_nullable_name,
    skip_tags,
)
from monitor.kafka.apis.describe_groups import error_name, placed
from monitor.kafka.questions import ClusterMetadata
from monitor.model import Broker, Partition, Topic

METADATA_VERSIONS: Final = range(9, 14)
METADATA_WITH_TOPIC_IDS: Final = 10

# a partition of Metadata up to its lists of brokers: error, index, leader, leader epoch
_PARTITION: Final = struct.Struct(">hiii")
_INT32_BYTES: Final = INT32.size
_UUID: Final = struct.Struct("16s")
_NO_ID: Final = bytes(_UUID.size)

_Placements: TypeAlias = dict[tuple[int, bytes], Partition]
"""Leader and encoded lists of brokers -> what they tell."""


def metadata_decoder(version: int) -> Callable[[bytes, int], Decoded[ClusterMetadata]]:
    """Return the reader of a Metadata reply; see `replies.read_metadata` for what it returns."""

    @checked
    def decode(data: bytes, at: int) -> Decoded[ClusterMetadata]:
        (throttle,) = INT32.unpack_from(data, at)
        brokers, at = _brokers(data, at + _INT32_BYTES)
        cluster_id, at = read_nullable_name(data, at)
        (controller,) = INT32.unpack_from(data, at)
        count, at = read_length(data, at + _INT32_BYTES)
        topics = {}
        placements: _Placements = {}
        for _ in range(count):
            topic, at = _topic(data, at, version, placements)
            if topic is not None:
                topics[topic.name] = topic
        return Decoded(
            ClusterMetadata(cluster_id, controller if controller >= 0 else None, brokers, topics),
            throttle,
        )

    return decode


def _brokers(data: bytes, at: int) -> tuple[dict[int, Broker], int]:
    count, at = read_length(data, at)
    brokers = {}
    for _ in range(count):
        (node_id,) = INT32.unpack_from(data, at)
        host, at = read_name(data, at + _INT32_BYTES)
        (port,) = INT32.unpack_from(data, at)
        rack, at = read_nullable_name(data, at + _INT32_BYTES)
        at = skip_tags(data, at)
        brokers[node_id] = Broker(node_id, host, port, rack)
    return brokers, at


def _topic(data: bytes, at: int, version: int, placements: _Placements) -> tuple[Topic | None, int]:
    (code,) = INT16.unpack_from(data, at)
    name, at = read_nullable_name(data, at + INT16.size)
    topic_id = None
    if version >= METADATA_WITH_TOPIC_IDS:
        (told,) = _UUID.unpack_from(data, at)
        at += _UUID.size
        topic_id = str(uuid.UUID(bytes=told)) if told != _NO_ID else None
    internal = bool(data[at])
    count, at = read_length(data, at + 1)
    partitions: dict[int, Partition] = {}
    lists = b"?"
    for _ in range(count):
        _, index, leader, _ = _PARTITION.unpack_from(data, at)
        at += _PARTITION.size
        # the bytes of the lists of brokers stand for their contents, and many are those just read
        if not data.startswith(lists, at):
            lists = data[at : _after_lists(data, at)]
        partition = placements.get((leader, lists))
        if partition is None:
            partition = placements[leader, lists] = placed(leader, *_lists(data, at))
        partitions[index] = partition
        at = skip_tags(data, at + len(lists))
    at = skip_tags(data, at + _INT32_BYTES)  # after the operations that are allowed
    if name is None:
        return None, at
    in_order = dict(sorted(partitions.items()))
    return Topic(name, in_order, internal, topic_id, error_name(code) if code else None), at


def _after_lists(data: bytes, at: int) -> int:
    """Return what comes after the replicas, those in sync, and those that are offline."""
    for _ in range(3):
        length, at = read_length(data, at)
        at += length * _INT32_BYTES
    return at


def _lists(data: bytes, at: int) -> list[tuple[int, ...]]:
    lists = []
    for _ in range(3):
        length, at = read_length(data, at)
        lists.append(struct.unpack_from(f">{length}i", data, at))
        at += length * _INT32_BYTES
    return lists
