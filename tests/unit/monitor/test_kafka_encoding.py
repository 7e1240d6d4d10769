"""What is read by hand, held to kafka-python's own encoder and decoder on the same bytes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol.admin import DescribeGroupsResponse, ListGroupsResponse
from kafka.protocol.consumer import (
    OffsetFetchRequest,
    OffsetFetchResponse,
)
from kafka.protocol.metadata import MetadataResponse

from monitor.kafka.apis import list_offsets, offset_fetch
from monitor.kafka.apis.describe_groups import DescribeClassicGroups, DescribedGroup
from monitor.kafka.apis.list_groups import ListedGroup, ListGroups
from monitor.kafka.apis.list_offsets import ListOffsets
from monitor.kafka.apis.metadata import ClusterMetadata, Metadata
from monitor.kafka.apis.offset_fetch import KEPT_BYTES, FetchCommits, GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.encoded import EncodedRequest, LastAnswer, Reply
from monitor.kafka.questions import Failure
from monitor.model import Partition, Topic
from tests.unit.monitor.fake_brokers import FakeBrokers

Group = OffsetFetchResponse.OffsetFetchResponseGroup
FetchTopic = Group.OffsetFetchResponseTopics
FetchPartition = FetchTopic.OffsetFetchResponsePartitions

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


def theirs(groups: list[Any]) -> dict[str, GroupCommits]:
    return {g.group_id: offset_fetch.read_group(g.topics, g.error_code) for g in groups}


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
    found = offset_fetch.decode(before + bytes(data), len(before))
    assert found == theirs(OffsetFetchResponse.decode(data, version=version).groups)


@given(
    wanted=st.dictionaries(names, st.dictionaries(indexes, offsets, max_size=150), max_size=4),
    read_committed=st.booleans(),
    version=st.sampled_from(list_offsets.ENCODED_VERSIONS),
)
def test_the_offsets_request_is_byte_for_byte_kafka_pythons(
    *, wanted: dict[str, dict[int, int]], read_committed: bool, version: int
) -> None:
    question = ListOffsets(wanted, read_committed, timeout_ms=1_234)
    assert question.encode(version) == bytes(question.message().encode(version=version))


@given(st.lists(names, max_size=200), st.sampled_from([8, 9]))
def test_the_commits_request_is_byte_for_byte_kafka_pythons(
    groups: list[str], version: int
) -> None:
    group = OffsetFetchRequest.OffsetFetchRequestGroup
    request = OffsetFetchRequest(
        groups=[group(group_id=g, member_id=None, member_epoch=-1, topics=None) for g in groups],
        require_stable=False,
    )
    assert offset_fetch.encode(groups, version) == bytes(request.encode(version=version))


def test_fields_that_a_later_broker_adds_are_skipped() -> None:
    two_tags = b"\x02" + b"\x05\x01x" + b"\x81\x01\x00"
    partition = (7).to_bytes(4) + (42).to_bytes(8) + bytes(4) + b"\x01" + bytes(2)
    topic = b"\x02t" + b"\x02" + partition + two_tags + two_tags
    data = bytes(4) + b"\x02" + b"\x02g" + b"\x02" + topic + bytes(2) + two_tags + b"\x00"
    assert offset_fetch.decode(data, 0) == {"g": GroupCommits({"t": {7: 42}})}


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
            offset_fetch.decode(data[:end], 0)


@pytest.mark.parametrize(("version", "requests"), [(2, 3), (7, 3), (8, 1), (9, 1), (10, 1)])
def test_a_broker_older_than_offset_fetch_8_is_asked_once_per_group_all_at_once(
    version: int, requests: int
) -> None:
    question = FetchCommits(["a", "b", "c"])
    made = question.requests(lambda _: version)
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
        assert question.read(answers) == {
            "a": GroupCommits(),
            "b": GroupCommits(error="NOT_COORDINATOR", moved=True),
            "c": GroupCommits(error="GROUP_AUTHORIZATION_FAILED"),
        }


def committed(group_id: str, offset: int, metadata: str = "") -> Any:
    partition = FetchPartition(
        partition_index=0,
        committed_offset=offset,
        committed_leader_epoch=0,
        metadata=metadata,
        error_code=0,
    )
    return Group(
        group_id=group_id, topics=[FetchTopic(name="t", partitions=[partition])], error_code=0
    )


def replied(*groups: Any) -> Reply:
    data = bytes(OffsetFetchResponse(throttle_time_ms=0, groups=groups).encode(version=9))
    return Reply(data, 0, 9, 0)


@given(
    pairs=st.lists(
        st.tuples(fetched_groups, fetched_groups, st.booleans()),
        max_size=4,
        unique_by=lambda pair: pair[0].group_id,
    ),
    in_order=st.booleans(),
    more=st.lists(names, max_size=2),
)
def test_what_is_known_changes_no_answer(
    *, pairs: list[tuple[Any, Any, bool]], in_order: bool, more: list[str]
) -> None:
    before = [group for group, _, _ in pairs]
    now = [
        group
        if is_same
        else Group(group_id=group.group_id, topics=other.topics, error_code=other.error_code)
        for group, other, is_same in pairs
    ]
    asked = [group.group_id for group in before]
    known = FetchCommits(asked).read([replied(*before)])
    question = FetchCommits([*(asked if in_order else asked[::-1]), *more], known)
    assert question.read([replied(*now)]) == theirs(now)


def test_a_group_that_says_the_same_again_has_the_same_object_unless_it_is_large() -> None:
    groups = [committed("a", 1), committed("b", 2), committed("large", 3, "m" * KEPT_BYTES)]
    known = FetchCommits(["a", "b", "large"]).read([replied(*groups)])
    groups[1] = committed("b", 5)
    found = FetchCommits(["a", "b", "large"], known).read([replied(*groups)])
    assert found["a"] is known["a"]
    assert found["b"].offsets == {"t": {0: 5}}
    assert found["large"] == known["large"]
    assert not known["large"].raw


def listed(*groups: str, error: int = 0, throttle: int = 0) -> Reply:
    entry = ListGroupsResponse.ListedGroup
    told = ListGroupsResponse(
        throttle_time_ms=throttle,
        error_code=error,
        groups=[
            entry(group_id=g, protocol_type="consumer", group_state="Empty", group_type="Classic")
            for g in groups
        ],
    )
    return Reply(bytes(told.encode(version=5)), 0, 5, throttle)


def test_a_list_of_groups_that_is_as_before_is_the_same_object_and_a_refusal_is_none() -> None:
    question = ListGroups()
    first = question.read([listed("a", "b")])
    assert first == [ListedGroup(g, "classic", "Empty", "consumer") for g in ("a", "b")]
    assert question.read([listed("a", "b", throttle=7)]) is first
    assert question.read([listed("a", "b", error=14)]) == Failure(
        "ListGroups: COORDINATOR_LOAD_IN_PROGRESS"
    )
    assert question.read([listed("a")]) == [ListedGroup("a", "classic", "Empty", "consumer")]
    assert question.read([listed("a", "b")]) == first


def described(state: str, *members: str) -> Reply:
    group = DescribeGroupsResponse.DescribedGroup
    told = DescribeGroupsResponse(
        throttle_time_ms=0,
        groups=[
            group(
                error_code=0,
                error_message=None,
                group_id="g",
                group_state=state,
                protocol_type="consumer",
                protocol_data="range",
                members=[
                    group.DescribedGroupMember(
                        member_id=member,
                        group_instance_id=None,
                        client_id="c",
                        client_host="/h",
                        member_metadata=b"",
                        member_assignment=b"",
                    )
                    for member in members
                ],
                authorized_operations=set(),
            )
        ],
    )
    return Reply(bytes(told.encode(version=5)), 0, 5, 0)


def test_descriptions_that_are_as_before_are_the_same_object_and_others_are_read() -> None:
    last: LastAnswer[dict[str, DescribedGroup]] = LastAnswer()

    def read(reply: Reply) -> Any:
        return DescribeClassicGroups(["g"], last).read([reply])

    first = read(described("Stable", "a", "b"))
    assert [member.id for member in first["g"].members] == ["a", "b"]
    assert read(described("Stable", "a", "b")) is first
    assert [member.id for member in read(described("Stable", "a"))["g"].members] == ["a"]
    assert read(described("PreparingRebalance", "a"))["g"].state == "PreparingRebalance"


@pytest.mark.parametrize(
    ("question", "oldest_with_throttle_time"),
    [(ListGroups(), 1), (DescribeClassicGroups(["g"]), 1)],
)
def test_of_brokers_that_tell_no_throttle_time_kafka_python_reads_the_reply(
    question: Any, oldest_with_throttle_time: int
) -> None:
    for version in (0, 1, 2, 3, 5):
        (request,) = question.requests(lambda _, version=version: version)
        is_raw = isinstance(request, EncodedRequest) and request._raw
        assert is_raw == (version >= oldest_with_throttle_time)


def test_descriptions_are_kept_of_the_last_poll_only() -> None:
    brokers = FakeBrokers(
        groups={1: [ListedGroup(f"g{n}", "classic", "Stable", "consumer") for n in range(9)]},
        described={f"g{n}": DescribedGroup("Stable", members=()) for n in range(9)},
    )
    collector = Collector(brokers, Intervals())
    for _ in range(9):
        collector.poll()
        brokers.groups[1].append(brokers.groups[1].pop(0))  # another is the first
    assert len(collector._groups._answers._descriptions) == 1


def told(leader: int, throttle: int = 0) -> Reply:
    topic = MetadataResponse.MetadataResponseTopic
    reply = MetadataResponse(
        throttle_time_ms=throttle,
        brokers=[MetadataResponse.MetadataResponseBroker(1, "h", 9092, None, version=12)],
        cluster_id="c",
        controller_id=-1,
        topics=[
            topic(
                error_code=0,
                name="t",
                topic_id=UUID(int=7),
                is_internal=False,
                partitions=[
                    topic.MetadataResponsePartition(
                        error_code=0,
                        partition_index=index,
                        leader_id=leader,
                        leader_epoch=3,
                        replica_nodes=[1, 2],
                        isr_nodes=[1],
                        offline_replicas=[2],
                    )
                    for index in (1, 0)
                ],
            )
        ],
    )
    return Reply(bytes(reply.encode(version=12)), 0, 12, throttle)


def test_metadata_that_are_as_before_are_the_same_object_and_others_are_read() -> None:
    question = Metadata()
    first = question.read([told(1)])
    assert isinstance(first, ClusterMetadata)
    placed = Partition(1, (1, 2), (1,), (2,))
    assert first.topics == {"t": Topic("t", {0: placed, 1: placed}, id=str(UUID(int=7)))}
    assert list(first.topics["t"].partitions) == [0, 1]
    assert question.read([told(1, throttle=9)]) is first
    moved = question.read([told(-1)])
    assert isinstance(moved, ClusterMetadata)
    assert moved.leaderless
