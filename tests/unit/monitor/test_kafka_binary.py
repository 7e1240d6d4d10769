"""What is read by hand, held to kafka-python's own encoder and decoder on the same bytes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol.consumer import (
    ListOffsetsResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
)
from kafka.protocol.metadata import MetadataResponse

from monitor.kafka import binary_metadata
from monitor.kafka.apis import describe_groups as replies
from monitor.kafka.apis import offset_fetch as binary
from monitor.kafka.apis.tables import commit_requests, offsets_request, read_commits
from monitor.kafka.questions import FetchCommits, GroupCommits, ListOffsets

Group = OffsetFetchResponse.OffsetFetchResponseGroup
FetchTopic = Group.OffsetFetchResponseTopics
FetchPartition = FetchTopic.OffsetFetchResponsePartitions
ListTopic = ListOffsetsResponse.ListOffsetsTopicResponse
ListPartition = ListTopic.ListOffsetsPartitionResponse
ListedBroker = MetadataResponse.MetadataResponseBroker
ListedTopic = MetadataResponse.MetadataResponseTopic
PlacedPartition = ListedTopic.MetadataResponsePartition

names = st.text(min_size=1, max_size=200)
error_codes = st.sampled_from([0, 0, 0, 0, 3, 6, 15, 16, 29, 30, 74])
offsets = st.integers(min_value=-1, max_value=2**63 - 1)
indexes = st.integers(min_value=0, max_value=2**31 - 1)
throttles = st.integers(min_value=0, max_value=2**31 - 1)

fetch_partitions = st.builds(
    FetchPartition,
    partition_index=indexes,
    committed_offset=offsets,
    committed_leader_epoch=st.integers(min_value=-1, max_value=5),
    # one that looks like the plain form for as long as possible, too
    metadata=st.one_of(st.just(""), st.none(), st.just("\0" * 20), st.text(max_size=300)),
    error_code=error_codes,
)
plain_partitions = st.builds(
    FetchPartition,
    partition_index=indexes,
    committed_offset=offsets,
    committed_leader_epoch=st.just(-1),
    metadata=st.just(""),
    error_code=st.just(0),
)
fetch_topics = st.builds(
    FetchTopic,
    name=names,
    partitions=st.one_of(
        st.lists(plain_partitions, max_size=150), st.lists(fetch_partitions, max_size=5)
    ),
)
fetched_groups = st.builds(
    Group,
    group_id=names,
    topics=st.lists(fetch_topics, max_size=4, unique_by=lambda topic: topic.name),
    error_code=error_codes,
)
list_topics = st.builds(
    ListTopic,
    name=names,
    partitions=st.lists(
        st.builds(
            ListPartition,
            partition_index=indexes,
            error_code=error_codes,
            timestamp=offsets,
            offset=offsets,
            leader_epoch=st.just(3),
        ),
        max_size=150,
    ),
)

node_ids = st.integers(min_value=0, max_value=5)
# few and short, so that partitions are placed alike; and some longer than one byte can tell
node_lists = st.one_of(st.lists(node_ids, max_size=3), st.just([7] * 200))
brokers = st.builds(
    ListedBroker,
    node_id=node_ids,
    host=names,
    port=st.integers(min_value=0, max_value=65_535),
    rack=st.one_of(st.none(), st.text(max_size=5)),
)
listed_topics = st.builds(
    ListedTopic,
    error_code=error_codes,
    name=names,
    topic_id=st.one_of(st.just(UUID(int=0)), st.uuids()),
    is_internal=st.booleans(),
    partitions=st.lists(
        st.builds(
            PlacedPartition,
            error_code=error_codes,
            partition_index=st.integers(min_value=0, max_value=200),
            leader_id=st.integers(min_value=-1, max_value=5),
            leader_epoch=st.just(3),
            replica_nodes=node_lists,
            isr_nodes=node_lists,
            offline_replicas=node_lists,
        ),
        max_size=20,
    ),
)


def theirs(groups: list[Any]) -> dict[str, GroupCommits]:
    return {g.group_id: replies.read_group_commits(g.topics, g.error_code) for g in groups}


@given(
    st.lists(fetched_groups, max_size=4, unique_by=lambda group: group.group_id),
    throttles,
    st.sampled_from([8, 9]),
    st.binary(max_size=10),
)
def test_commits_are_read_as_kafka_python_reads_them(
    groups: list[Any], throttle: int, version: int, before: bytes
) -> None:
    data = OffsetFetchResponse(throttle_time_ms=throttle, groups=groups).encode(version=version)
    decoded = binary.decode_offset_fetch(before + bytes(data), len(before))
    assert decoded.answer == theirs(OffsetFetchResponse.decode(data, version=version).groups)
    assert decoded.throttle_time_ms == throttle


@given(
    topics=st.lists(list_topics, max_size=4, unique_by=lambda topic: topic.name),
    throttle=throttles,
    version=st.sampled_from(binary.LIST_OFFSETS_VERSIONS),
    by_time=st.booleans(),
)
def test_offsets_are_read_as_kafka_python_reads_them(
    *, topics: list[Any], throttle: int, version: int, by_time: bool
) -> None:
    data = ListOffsetsResponse(throttle_time_ms=throttle, topics=topics).encode(version=version)
    decoded = binary.list_offsets_decoder(with_timestamps=by_time)(bytes(data), 0)
    found = ListOffsetsResponse.decode(data, version=version)
    assert decoded.answer == replies.read_offsets([found], with_timestamps=by_time)
    assert decoded.throttle_time_ms == throttle


@given(
    brokers=st.lists(brokers, max_size=4),
    cluster_id=st.one_of(st.none(), names),
    controller=st.integers(min_value=-1, max_value=5),
    topics=st.lists(listed_topics, max_size=4, unique_by=lambda topic: topic.name),
    throttle=throttles,
    version=st.sampled_from(binary_metadata.METADATA_VERSIONS),
)
def test_metadata_is_read_as_kafka_python_reads_it(
    *,
    brokers: list[Any],
    cluster_id: str | None,
    controller: int,
    topics: list[Any],
    throttle: int,
    version: int,
) -> None:
    data = MetadataResponse(
        throttle_time_ms=throttle,
        brokers=brokers,
        cluster_id=cluster_id,
        controller_id=controller,
        topics=topics,
    ).encode(version=version)
    decoded = binary_metadata.metadata_decoder(version)(bytes(data), 0)
    found = replies.read_metadata(MetadataResponse.decode(data, version=version))
    assert decoded.answer == found
    assert decoded.throttle_time_ms == throttle
    for name, topic in decoded.answer.topics.items():
        assert list(topic.partitions) == list(found.topics[name].partitions)


@given(
    wanted=st.dictionaries(names, st.dictionaries(indexes, offsets, max_size=150), max_size=4),
    read_committed=st.booleans(),
    version=st.sampled_from(binary.LIST_OFFSETS_VERSIONS),
)
def test_the_offsets_request_is_byte_for_byte_kafka_pythons(
    *, wanted: dict[str, dict[int, int]], read_committed: bool, version: int
) -> None:
    question = ListOffsets(wanted, read_committed, timeout_ms=1_234)
    encoded = binary.encode_list_offsets(
        wanted, version, read_committed=read_committed, timeout_ms=1_234
    )
    assert encoded == bytes(offsets_request(question).encode(version=version))


@given(st.lists(names, max_size=200), st.sampled_from([8, 9]))
def test_the_commits_request_is_byte_for_byte_kafka_pythons(
    groups: list[str], version: int
) -> None:
    group = OffsetFetchRequest.OffsetFetchRequestGroup
    request = OffsetFetchRequest(
        groups=[group(group_id=g, member_id=None, member_epoch=-1, topics=None) for g in groups],
        require_stable=False,
    )
    assert binary.encode_offset_fetch(groups, version) == bytes(request.encode(version=version))


def test_fields_that_a_later_broker_adds_are_skipped() -> None:
    two_tags = b"\x02" + b"\x05\x01x" + b"\x81\x01\x00"
    partition = (7).to_bytes(4) + (42).to_bytes(8) + bytes(4) + b"\x01" + bytes(2)
    topic = b"\x02t" + b"\x02" + partition + two_tags + two_tags
    data = bytes(4) + b"\x02" + b"\x02g" + b"\x02" + topic + bytes(2) + two_tags + b"\x00"
    assert binary.decode_offset_fetch(data, 0).answer == {"g": GroupCommits({"t": {7: 42}})}

    partition = (7).to_bytes(4) + bytes(2) + (9).to_bytes(8) + (42).to_bytes(8) + bytes(4)
    topic = b"\x02t" + b"\x02" + partition + two_tags + two_tags
    data = bytes(4) + b"\x02" + topic + b"\x00"
    assert binary.list_offsets_decoder(with_timestamps=True)(data, 0).answer.offsets == {
        "t": {7: 42}
    }


def test_a_reply_that_ends_too_early_is_a_value_error_and_nothing_else() -> None:
    group = Group(
        group_id="g",
        topics=[
            FetchTopic(
                name="t",
                partitions=[
                    FetchPartition(
                        partition_index=0,
                        committed_offset=1,
                        committed_leader_epoch=0,
                        metadata="m",
                        error_code=0,
                    )
                ],
            )
        ],
        error_code=0,
    )
    data = bytes(OffsetFetchResponse(throttle_time_ms=0, groups=[group]).encode(version=9))
    for end in range(len(data) - 2):
        with pytest.raises(ValueError, match="ends too early"):
            binary.decode_offset_fetch(data[:end], 0)
    topic = ListedTopic(
        error_code=0,
        name="t",
        topic_id=UUID(int=1),
        is_internal=False,
        partitions=[
            PlacedPartition(
                error_code=0,
                partition_index=0,
                leader_id=1,
                leader_epoch=0,
                replica_nodes=[1, 2],
                isr_nodes=[1],
                offline_replicas=[2],
            )
        ],
    )
    broker = ListedBroker(node_id=1, host="h", port=9092, rack="r")
    metadata = MetadataResponse(
        throttle_time_ms=0, brokers=[broker], cluster_id="c", controller_id=1, topics=[topic]
    )
    data = bytes(metadata.encode(version=12))
    for end in range(len(data) - 1):
        with pytest.raises(ValueError, match="ends too early"):
            binary_metadata.metadata_decoder(12)(data[:end], 0)


@pytest.mark.parametrize(("version", "requests"), [(2, 3), (7, 3), (8, 1), (9, 1), (10, 1)])
def test_a_broker_older_than_offset_fetch_8_is_asked_once_per_group_all_at_once(
    version: int, requests: int
) -> None:
    question = FetchCommits(["a", "b", "c"])
    made = commit_requests(question, lambda _: version)
    assert len(made) == requests
    if requests == 1:
        # from 10 on topics have only ids: never more than 9 is asked for
        assert [request.API_VERSION for request in made] == [min(version, 9)]
    else:
        assert [request.group_id for request in made] == ["a", "b", "c"]
        assert all(request.topics is None for request in made)
        assert all(request._max_version == 7 for request in made)
        answers = [
            OffsetFetchResponse(topics=[], error_code=code, version=version) for code in (0, 16, 30)
        ]
        assert read_commits(question, answers) == {
            "a": GroupCommits(),
            "b": GroupCommits(error="NOT_COORDINATOR", moved=True),
            "c": GroupCommits(error="GROUP_AUTHORIZATION_FAILED"),
        }
