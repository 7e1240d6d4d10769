"""Each API: a question as requests (several where a broker is too old), replies as its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from kafka.protocol.admin import (
    DescribeClusterRequest,
    DescribeConfigsRequest,
    DescribeGroupsRequest,
    DescribeLogDirsRequest,
    ListGroupsRequest,
)
from kafka.protocol.consumer import FetchRequest, ListOffsetsRequest, OffsetFetchRequest
from kafka.protocol.metadata import FindCoordinatorRequest, MetadataRequest

from monitor.kafka import binary, binary_metadata, fetch, replies
from monitor.kafka.compact import Decoded
from monitor.kafka.questions import (
    ClusterMetadata,
    DescribeClassicGroups,
    DescribeConsumerGroups,
    DescribeLogDirs,
    DescribeOwnRights,
    DescribeShareGroups,
    DescribeStreamsGroups,
    DescribeTopicConfigs,
    FetchCommits,
    FetchShareOffsets,
    FindCoordinators,
    FoundOffsets,
    GroupCommits,
    ListGroups,
    ListOffsets,
    LookAtLogs,
    Metadata,
    Question,
)
from monitor.kafka.wire.declared import (
    ConsumerGroupDescribeRequest,
    DescribeShareGroupOffsetsRequest,
    ShareGroupDescribeRequest,
    StreamsGroupDescribeRequest,
)
from monitor.kafka.wire.encoded import EncodedRequest

# The first version that takes many groups in one request (KIP-709, KIP-699).
MANY_GROUPS: Final = 8
MANY_KEYS: Final = 4
# The last version that names topics; from 10 on topics have only ids.
LAST_WITH_TOPIC_NAMES: Final = 9

VersionOf: TypeAlias = Callable[..., int]
"""What version of a request the broker and kafka-python both know, from a lowest one on."""

# -- questions as requests -------------------------------------------------------------------------


def _metadata_requests(_question: Metadata, version_of: VersionOf) -> list[Any]:
    request = MetadataRequest(topics=None, allow_auto_topic_creation=False)
    version = version_of(MetadataRequest)
    if version not in binary_metadata.METADATA_VERSIONS:
        return [request]
    body = request.encode(version=version)
    decode = binary_metadata.metadata_decoder(version)
    return [EncodedRequest(MetadataRequest, version, body, decode)]


def _list_groups_requests(_question: ListGroups, _version_of: VersionOf) -> list[Any]:
    return [ListGroupsRequest(states_filter=[], types_filter=[])]


def _describe_classic_requests(
    question: DescribeClassicGroups, _version_of: VersionOf
) -> list[Any]:
    groups = list(question.groups)
    return [DescribeGroupsRequest(groups=groups, include_authorized_operations=False)]


def _describing(request: Any) -> Callable[[Any, VersionOf], list[Any]]:
    """Return how groups of a newer type are described: by a request of the same form for each."""
    return lambda question, _version_of: [
        request(group_ids=list(question.groups), include_authorized_operations=False)
    ]


def _share_offsets_requests(question: FetchShareOffsets, _version_of: VersionOf) -> list[Any]:
    named = DescribeShareGroupOffsetsRequest.DescribeShareGroupOffsetsRequestGroup
    return [
        DescribeShareGroupOffsetsRequest(
            groups=[named(group_id=group, topics=None) for group in question.groups]
        )
    ]


def _coordinator_requests(question: FindCoordinators, version_of: VersionOf) -> list[Any]:
    if version_of(FindCoordinatorRequest) >= MANY_KEYS:
        return [FindCoordinatorRequest(key_type=0, coordinator_keys=list(question.groups))]
    return [
        FindCoordinatorRequest(key=group, key_type=0, max_version=MANY_KEYS - 1)
        for group in question.groups
    ]


def commit_requests(question: FetchCommits, version_of: VersionOf) -> list[Any]:
    """Return one request for all groups, or one per group for brokers before 3.0."""
    version = min(version_of(OffsetFetchRequest), LAST_WITH_TOPIC_NAMES)
    if version >= MANY_GROUPS:
        body = binary.encode_offset_fetch(question.groups, version)
        return [EncodedRequest(OffsetFetchRequest, version, body, binary.decode_offset_fetch)]
    return [
        OffsetFetchRequest(
            group_id=g,
            topics=None,
            require_stable=False,
            min_version=2,
            max_version=MANY_GROUPS - 1,
        )
        for g in question.groups
    ]


def _offsets_requests(question: ListOffsets, version_of: VersionOf) -> list[Any]:
    version = version_of(ListOffsetsRequest)
    by_hand = version in binary.LIST_OFFSETS_VERSIONS
    if question.encoded is None or question.encoded[0] != version:
        body = (
            binary.encode_list_offsets(
                question.wanted,
                version,
                read_committed=question.read_committed,
                timeout_ms=question.timeout_ms,
            )
            if by_hand
            else offsets_request(question).encode(version=version)
        )
        question.encoded = (version, body)
    decode = (
        binary.list_offsets_decoder(with_timestamps=_asks_for_times(question)) if by_hand else None
    )
    return [EncodedRequest(ListOffsetsRequest, *question.encoded, decode)]


def offsets_request(question: ListOffsets) -> Any:
    """Return the request as kafka-python's object, for brokers that know no compact encoding."""
    topic_of = ListOffsetsRequest.ListOffsetsTopic
    partition_of = topic_of.ListOffsetsPartition
    return ListOffsetsRequest(
        replica_id=-1,
        isolation_level=int(question.read_committed),
        timeout_ms=question.timeout_ms,
        topics=[
            topic_of(
                name=topic,
                partitions=[
                    partition_of(partition_index=index, current_leader_epoch=-1, timestamp=at)
                    for index, at in partitions.items()
                ],
            )
            for topic, partitions in question.wanted.items()
        ],
    )


def _fetch_requests(question: LookAtLogs, version_of: VersionOf) -> list[Any]:
    """Return the request that a read_committed consumer sends, for a reply at once."""
    known = fetch.FETCH_VERSIONS
    version = min(version_of(FetchRequest, known[0]), known[-1])
    topic_of = FetchRequest.FetchTopic
    partition_of = topic_of.FetchPartition
    request = FetchRequest(
        replica_id=-1,
        max_wait_ms=0,
        min_bytes=0,
        max_bytes=fetch.MAX_BYTES,
        isolation_level=1,
        session_id=0,
        session_epoch=-1,
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
                        partition_max_bytes=fetch.MAX_PARTITION_BYTES,
                    )
                    for index, offset in partitions.items()
                ],
            )
            for topic, partitions in question.wanted.items()
        ],
        forgotten_topics_data=[],
        rack_id="",
    )
    body = request.encode(version=version)
    return [
        EncodedRequest(FetchRequest, version, body, fetch.fetch_decoder(version, question.wanted))
    ]


def _topic_configs_requests(question: DescribeTopicConfigs, _version_of: VersionOf) -> list[Any]:
    resource = DescribeConfigsRequest.DescribeConfigsResource
    keys = [replies.RETENTION_MS, replies.RETENTION_BYTES, replies.CLEANUP_POLICY]
    return [
        DescribeConfigsRequest(
            resources=[
                resource(
                    resource_type=replies.TOPIC_RESOURCE,
                    resource_name=topic,
                    configuration_keys=keys,
                )
                for topic in question.topics
            ],
            include_synonyms=False,
            include_documentation=False,
        )
    ]


def _log_dirs_requests(_question: DescribeLogDirs, _version_of: VersionOf) -> list[Any]:
    return [DescribeLogDirsRequest(topics=None)]


# -- replies as answers ----------------------------------------------------------------------------


def _metadata(found: list[Any]) -> ClusterMetadata:
    """Read the reply; raises ValueError when it has no brokers: the broker is starting."""
    (reply,) = found
    answer: ClusterMetadata = (
        reply.answer if isinstance(reply, Decoded) else replies.read_metadata(reply)
    )
    if not answer.brokers:
        raise ValueError("its metadata names no brokers yet")
    return answer


def read_commits(question: FetchCommits, found: list[Any]) -> dict[str, GroupCommits]:
    """Read the replies to `commit_requests`."""
    if found and isinstance(found[0], Decoded):
        answer: dict[str, GroupCommits] = found[0].answer
        return answer
    return {
        group: replies.read_group_commits(reply.topics, reply.error_code)
        for group, reply in zip(question.groups, found, strict=True)
    }


def _coordinators(question: FindCoordinators, found: list[Any]) -> dict[str, int]:
    if found and found[0].API_VERSION >= MANY_KEYS:
        return replies.read_coordinators(found[0].coordinators)
    return {
        group: reply.node_id
        for group, reply in zip(question.groups, found, strict=True)
        if not reply.error_code and reply.node_id >= 0
    }


def _asks_for_times(question: ListOffsets) -> bool:
    return any(at >= 0 for times in question.wanted.values() for at in times.values())


def _offsets(question: ListOffsets, found: list[Any]) -> FoundOffsets:
    if isinstance(found[0], Decoded):
        answer: FoundOffsets = found[0].answer
        return answer
    return replies.read_offsets(found, with_timestamps=_asks_for_times(question))


REQUESTS: Final[dict[type[Question[Any]], Callable[[Any, VersionOf], list[Any]]]] = {
    Metadata: _metadata_requests,
    ListGroups: _list_groups_requests,
    DescribeClassicGroups: _describe_classic_requests,
    DescribeConsumerGroups: _describing(ConsumerGroupDescribeRequest),
    DescribeShareGroups: _describing(ShareGroupDescribeRequest),
    DescribeStreamsGroups: _describing(StreamsGroupDescribeRequest),
    FetchShareOffsets: _share_offsets_requests,
    FindCoordinators: _coordinator_requests,
    FetchCommits: commit_requests,
    ListOffsets: _offsets_requests,
    LookAtLogs: _fetch_requests,
    DescribeTopicConfigs: _topic_configs_requests,
    DescribeLogDirs: _log_dirs_requests,
    DescribeOwnRights: lambda _question, _version_of: [
        DescribeClusterRequest(include_cluster_authorized_operations=True)
    ],
}

ANSWERS: Final[dict[type[Question[Any]], Callable[[Any, list[Any]], Any]]] = {
    Metadata: lambda _, found: _metadata(found),
    ListGroups: lambda _, found: replies.read_groups(found[0]),
    DescribeClassicGroups: lambda _, found: replies.read_classic_descriptions(found[0]),
    DescribeConsumerGroups: lambda _, found: replies.read_consumer_descriptions(found[0]),
    DescribeShareGroups: lambda _, found: replies.read_share_descriptions(found[0]),
    DescribeStreamsGroups: lambda _, found: replies.read_streams_descriptions(found[0]),
    FetchShareOffsets: lambda _, found: replies.read_share_offsets(found[0]),
    FindCoordinators: _coordinators,
    FetchCommits: read_commits,
    ListOffsets: _offsets,
    LookAtLogs: lambda _, found: found[0].answer,
    DescribeTopicConfigs: lambda _, found: replies.read_topic_configs(found[0]),
    DescribeLogDirs: lambda _, found: replies.read_log_dirs(found[0]),
    DescribeOwnRights: lambda _, found: replies.read_own_rights(found[0]),
}
