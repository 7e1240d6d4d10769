"""A stand-in for a large cluster: brokers that answer a monitor's questions, and do nothing else.

It is no Kafka. A real cluster of 100,000 partitions takes more memory than a test machine has, and
what is measured against this one is the monitor. Offsets, groups and commits are numbers in memory.
Replies are encoded once, by kafka-python's own classes, and kept as bytes until something happens.

With `behind` as a second argument every group lags on each partition by another number of records.
A line on standard input has a tenth of the topics written to and their live groups commit; a line on
standard output says that it is done. The first line there has the ports of the brokers.
"""

from __future__ import annotations

import asyncio
import random
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final
from uuid import UUID

from kafka.protocol.admin import (
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    ListGroupsRequest,
    ListGroupsResponse,
)
from kafka.protocol.consumer import (
    FetchRequest,
    FetchResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    OffsetFetchRequest,
)
from kafka.protocol.metadata import (
    ApiVersionsRequest,
    ApiVersionsResponse,
    MetadataRequest,
    MetadataResponse,
)

from monitor.kafka.coordinators import GROUPS_TOPIC, partition_of

BROKERS: Final = 3
PARTITIONS: Final = 10
GROUP_PARTITIONS: Final = 50
GROUPS_PER_TOPIC: Final = 2
RECORDS: Final = 20
MORE_RECORDS: Final = 3
UNREAD: Final = 8
HOST: Final = "127.0.0.1"
# Versions of the reply whose header has tagged fields are the flexible ones, but of this API.
API_VERSIONS: Final = ApiVersionsRequest.API_KEY
LAST_WITH_NAMES: Final = {OffsetFetchRequest: 9, FetchRequest: 12}
REQUESTS: Final = (
    ApiVersionsRequest,
    MetadataRequest,
    ListGroupsRequest,
    OffsetFetchRequest,
    DescribeGroupsRequest,
    ListOffsetsRequest,
    FetchRequest,
    DescribeConfigsRequest,
)
# one record: what a look into a log reads of it is the header of its batch
_BATCH: Final = struct.Struct(">qiibIhiqqqhii")
_REQUEST: Final = struct.Struct(">hhih")


class StubCluster:
    """Topics, groups and commits as numbers, and the replies about them as bytes."""

    def __init__(self, topics: int, *, behind: bool = False) -> None:
        self._dice = random.Random(0) if behind else None
        self.ports: list[int] = []
        self.names = [f"topic-{index:05}" for index in range(topics)]
        self.index = {name: index for index, name in enumerate(self.names)}
        # what was appended, and when, in milliseconds: first offsets and times by topic
        now = int(time.time() * 1000)
        self.appended = [[(0, now)] for _ in self.names]
        self.ends = [RECORDS] * topics
        self.groups = [f"group-{index:05}" for index in range(topics * GROUPS_PER_TOPIC)]
        self.commits = [RECORDS - UNREAD * (group % 10 == 0) for group in range(len(self.groups))]
        self.number = {name: group for group, name in enumerate(self.groups)}
        self._group_bytes: dict[str, bytes] = {}
        self._offset_bytes: dict[tuple[int, int], bytes] = {}
        self._replies: dict[tuple[int, int, int, bytes], bytes] = {}
        self._lists: defaultdict[int, list[str]] = defaultdict(list)
        for group in self.groups:
            self._lists[partition_of(group, GROUP_PARTITIONS) % BROKERS].append(group)

    def go_on(self) -> None:
        """Write to a tenth of the topics; their live groups commit, half of them still behind."""
        live = [group for group in range(len(self.groups)) if is_live(group)]
        topics = {group % len(self.names) for group in live}
        now = int(time.time() * 1000)
        for topic in topics:
            self.appended[topic].append((self.ends[topic], now))
            self.ends[topic] += MORE_RECORDS
        for group in live:
            topic = group % len(self.names)
            self.commits[group] = self.ends[topic] - UNREAD * (group % 10 == 0)
            self._group_bytes.pop(self.groups[group], None)
        self._replies = {
            key: reply
            for key, reply in self._replies.items()
            if key[0] not in {OffsetFetchRequest.API_KEY, ListOffsetsRequest.API_KEY}
        }

    def reply(self, broker: int, api: int, version: int, body: bytes) -> bytes:
        """Return the body of the reply to a request."""
        if api == FetchRequest.API_KEY:
            return _fetched(FetchRequest.decode(body, version=version), version)
        # all ask for all topics; who connects waits for no longer than five seconds
        key = (
            (0, api, version, b"")
            if api == MetadataRequest.API_KEY
            else (broker, api, version, body)
        )
        if key not in self._replies:
            self._replies[key] = bytes(self._answers()[api](broker, version, body))
        return self._replies[key]

    def _answers(self) -> Mapping[int, Callable[[int, int, bytes], bytes]]:
        return {
            ApiVersionsRequest.API_KEY: self._api_versions,
            MetadataRequest.API_KEY: self._metadata,
            ListGroupsRequest.API_KEY: self._list_groups,
            OffsetFetchRequest.API_KEY: self._offset_fetch,
            DescribeGroupsRequest.API_KEY: self._describe_groups,
            ListOffsetsRequest.API_KEY: self._list_offsets,
            DescribeConfigsRequest.API_KEY: self._describe_configs,
        }

    def _api_versions(self, _broker: int, version: int, _body: bytes) -> bytes:
        entry = ApiVersionsResponse.ApiVersion
        keys = [
            entry(
                api_key=request.API_KEY,
                min_version=0,
                max_version=LAST_WITH_NAMES.get(request, request.max_version),
            )
            for request in REQUESTS
        ]
        encoded: bytes = ApiVersionsResponse(
            error_code=0, api_keys=keys, throttle_time_ms=0
        ).encode(version=version)
        return encoded

    def _metadata(self, _broker: int, version: int, _body: bytes) -> bytes:
        told = MetadataResponse.MetadataResponseTopic
        placed = told.MetadataResponsePartition

        def topic(name: str, number: int, partitions: int) -> Any:
            return told(
                error_code=0,
                name=name,
                topic_id=UUID(int=number + 1),
                is_internal=name == GROUPS_TOPIC,
                partitions=[
                    placed(
                        error_code=0,
                        partition_index=index,
                        leader_id=(number + index) % BROKERS,
                        leader_epoch=0,
                        replica_nodes=(nodes := [(number + index + n) % BROKERS for n in (0, 1)]),
                        isr_nodes=nodes,
                        offline_replicas=[],
                    )
                    for index in range(partitions)
                ],
            )

        listed = MetadataResponse.MetadataResponseBroker
        encoded: bytes = MetadataResponse(
            throttle_time_ms=0,
            brokers=[
                listed(node_id=number, host=HOST, port=port, rack=None)
                for number, port in enumerate(self.ports)
            ],
            cluster_id="stand-in",
            controller_id=0,
            topics=[
                *(topic(name, 3 * number, PARTITIONS) for name, number in self.index.items()),
                topic(GROUPS_TOPIC, 3 * len(self.names), GROUP_PARTITIONS),
            ],
        ).encode(version=version)
        return encoded

    def _list_groups(self, broker: int, version: int, _body: bytes) -> bytes:
        entry = ListGroupsResponse.ListedGroup
        encoded: bytes = ListGroupsResponse(
            throttle_time_ms=0,
            error_code=0,
            groups=[
                entry(
                    group_id=group,
                    protocol_type="consumer",
                    group_state="Stable" if is_live(self.number[group]) else "Empty",
                    group_type="classic",
                )
                for group in self._lists[broker]
            ],
        ).encode(version=version)
        return encoded

    def _offset_fetch(self, _broker: int, version: int, body: bytes) -> bytes:
        asked = [g.group_id for g in OffsetFetchRequest.decode(body, version=version).groups]
        parts = [self._group_bytes.get(group) or self._encode_group(group) for group in asked]
        return b"".join([bytes(4), _varint(len(parts) + 1), *parts, b"\0"])

    def _encode_group(self, group: str) -> bytes:
        """Return a group's commits as they stand in replies of version 8 and 9."""
        number = self.number[group]
        topic = self.names[number % len(self.names)].encode()
        rest = bytes(4) + b"\1" + bytes(3)  # no leader epoch, no metadata
        partitions = b"".join(
            struct.pack(">iq", index, self._committed(number)) + rest for index in range(PARTITIONS)
        )
        encoded = (
            _varint(len(group) + 1) + group.encode() + b"\2"
            + _varint(len(topic) + 1) + topic + _varint(PARTITIONS + 1) + partitions + b"\0"
            + bytes(2) + b"\0"
        )  # fmt: skip
        self._group_bytes[group] = encoded
        return encoded

    def _committed(self, group: int) -> int:
        if self._dice is None:
            return self.commits[group]
        return self.ends[group % len(self.names)] - self._dice.randint(1, RECORDS)

    def _describe_groups(self, _broker: int, version: int, body: bytes) -> bytes:
        entry = DescribeGroupsResponse.DescribedGroup
        member = entry.DescribedGroupMember
        encoded: bytes = DescribeGroupsResponse(
            throttle_time_ms=0,
            groups=[
                entry(
                    error_code=0,
                    error_message=None,
                    group_id=group,
                    group_state="Stable",
                    protocol_type="consumer",
                    protocol_data="range",
                    members=[
                        member(
                            member_id=f"{group}-member",
                            group_instance_id=None,
                            client_id="stand-in",
                            client_host="/10.0.0.1",
                            member_metadata=b"",
                            member_assignment=self._assignment(group),
                        )
                    ],
                    authorized_operations=set(),
                )
                for group in DescribeGroupsRequest.decode(body, version=version).groups
            ],
        ).encode(version=version)
        return encoded

    def _assignment(self, group: str) -> bytes:
        topic = self.names[self.number[group] % len(self.names)].encode()
        partitions = struct.pack(f">i{PARTITIONS}i", PARTITIONS, *range(PARTITIONS))
        return struct.pack(">hih", 0, 1, len(topic)) + topic + partitions + struct.pack(">i", -1)

    def _list_offsets(self, _broker: int, version: int, body: bytes) -> bytes:
        told = ListOffsetsResponse.ListOffsetsTopicResponse
        entry = told.ListOffsetsPartitionResponse
        topics = []
        for topic in ListOffsetsRequest.decode(body, version=version).topics:
            found = [
                (p.partition_index, *self._found(topic.name, p.timestamp)) for p in topic.partitions
            ]
            topics.append(
                told(
                    name=topic.name,
                    partitions=[
                        entry(
                            partition_index=index,
                            error_code=0,
                            timestamp=at,
                            offset=offset,
                            leader_epoch=0,
                        )
                        for index, offset, at in found
                    ],
                )
            )
        encoded: bytes = ListOffsetsResponse(throttle_time_ms=0, topics=topics).encode(
            version=version
        )
        return encoded

    def _found(self, topic: str, at: int) -> tuple[int, int]:
        """Return the offset and the record's time for a ListOffsets timestamp."""
        if topic == GROUPS_TOPIC or at == -2:  # the log's start
            return 0, -1
        number = self.index[topic]
        if at < 0:
            return self.ends[number], -1
        return next(
            ((offset, time_ms) for offset, time_ms in self.appended[number] if time_ms >= at),
            (-1, -1),
        )

    def _describe_configs(self, _broker: int, version: int, body: bytes) -> bytes:
        result = DescribeConfigsResponse.DescribeConfigsResult
        value = result.DescribeConfigsResourceResult
        settings = {
            "retention.ms": "604800000",
            "retention.bytes": "-1",
            "cleanup.policy": "delete",
        }
        encoded: bytes = DescribeConfigsResponse(
            throttle_time_ms=0,
            results=[
                result(
                    error_code=0,
                    error_message=None,
                    resource_type=2,
                    resource_name=resource.resource_name,
                    configs=[
                        value(
                            name=name,
                            value=text,
                            read_only=False,
                            config_source=5,
                            is_sensitive=False,
                            synonyms=[],
                            config_type=0,
                            documentation=None,
                        )
                        for name, text in settings.items()
                    ],
                )
                for resource in DescribeConfigsRequest.decode(body, version=version).resources
            ],
        ).encode(version=version)
        return encoded


def is_live(group: int) -> bool:
    """Tell whether a group has a member; half of those lag."""
    return group % 20 in {0, 1}


def _fetched(request: Any, version: int) -> bytes:
    """Return one record of each partition, at the offset that is asked for."""
    told = FetchResponse.FetchableTopicResponse
    entry = told.PartitionData
    record = bytes(12)
    encoded: bytes = FetchResponse(
        throttle_time_ms=0,
        error_code=0,
        session_id=0,
        responses=[
            told(
                topic=topic.topic,
                partitions=[
                    entry(
                        partition_index=p.partition,
                        error_code=0,
                        high_watermark=p.fetch_offset + 1,
                        last_stable_offset=p.fetch_offset + 1,
                        log_start_offset=0,
                        aborted_transactions=[],
                        preferred_read_replica=-1,
                        records=_BATCH.pack(
                            p.fetch_offset, _BATCH.size - 12 + len(record), 0, 2, 0, 0, 0, 0, 0, -1, -1, -1, 1
                        ) + record,
                    )
                    for p in topic.partitions
                ],
            )
            for topic in request.topics
        ],
    ).encode(version=version)  # fmt: skip
    return encoded


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


async def _serve(
    cluster: StubCluster, broker: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    flexible = {
        (request.API_KEY, version)
        for request in REQUESTS
        for version in range(request.max_version + 1)
        if request.flexible_version_q(version)
    }
    try:
        while True:
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            frame = await reader.readexactly(size)
            api, version, correlation, client = _REQUEST.unpack_from(frame)
            begins = _REQUEST.size + max(0, client) + ((api, version) in flexible)
            body = cluster.reply(broker, api, version, frame[begins:])
            tags = b"\0" if (api, version) in flexible and api != API_VERSIONS else b""
            head = struct.pack(">ii", 4 + len(tags) + len(body), correlation)
            writer.write(head + tags + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _main(topics: int, *, behind: bool) -> None:
    cluster = StubCluster(topics, behind=behind)
    servers = [
        await asyncio.start_server(partial(_serve, cluster, broker), HOST, 0)
        for broker in range(BROKERS)
    ]
    cluster.ports = [server.sockets[0].getsockname()[1] for server in servers]
    cluster.reply(0, MetadataRequest.API_KEY, MetadataRequest.max_version, b"")
    print(*cluster.ports, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        cluster.go_on()
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), behind="behind" in sys.argv))
