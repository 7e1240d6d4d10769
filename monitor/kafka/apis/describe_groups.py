"""DescribeGroups and its three younger kin: state and members of groups, by the type of group."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Final

from kafka.protocol.admin import DescribeGroupsRequest, DescribeGroupsResponse
from kafka.protocol.api_message import ApiMessage

from monitor.kafka.apis import messages
from monitor.kafka.apis.error_codes import error_name
from monitor.kafka.encoded import EncodedRequest, LastAnswer, Reply
from monitor.kafka.questions import Failure, Question, VersionOf
from monitor.model import Assignment, Member

# What kafka-python lacks is declared from the broker's own schemas; replies are found by their API
# key in its registry.


class ConsumerGroupDescribeRequest(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """KIP-848's description of groups."""


class ConsumerGroupDescribeResponse(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """The reply to it."""


class ShareGroupDescribeRequest(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """KIP-932's description of groups."""


class ShareGroupDescribeResponse(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """The reply to it."""


class StreamsGroupDescribeRequest(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """KIP-1071's description of groups."""


class StreamsGroupDescribeResponse(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """The reply to it."""


@dataclass(frozen=True, slots=True)
class DescribedGroup:
    """A group's description, or its own error."""

    state: str | None = None
    assignor: str | None = None
    epoch: int | None = None
    members: tuple[Member, ...] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _DescribeGroups(Question[dict[str, DescribedGroup]]):
    """State and members of groups.

    Where the reply says the same as that of `last`, the answer is the same object.
    """

    groups: Sequence[str]
    last: LastAnswer[dict[str, DescribedGroup]] = field(
        default_factory=LastAnswer, compare=False, repr=False
    )
    request_type: ClassVar[Any]
    response_type: ClassVar[Any]
    groups_field: ClassVar[str] = "group_ids"
    # the first version whose reply begins with the throttle time, as `Reply` takes it
    throttle_time: ClassVar[int] = 0

    def requests(self, version_of: VersionOf) -> list[Any]:
        """Return one request for all groups."""
        named = {self.groups_field: list(self.groups)}
        request = self.request_type(**named, include_authorized_operations=False)
        version = version_of(self.request_type)
        if version < self.throttle_time:
            return [request]
        body = request.encode(version=version)
        return [EncodedRequest(self.request_type, version, body, raw=True)]

    def read(self, replies: Sequence[Any]) -> dict[str, DescribedGroup] | Failure:
        """Read each group's description, or its error."""
        (reply,) = replies
        if not isinstance(reply, Reply):
            return self._read(reply)
        response, version = self.response_type, reply.version
        return self.last.read(
            reply, lambda body: self._read(response.decode(body, version=version))
        )

    def _read(self, reply: Any) -> dict[str, DescribedGroup]:
        return {
            group.group_id: DescribedGroup(error=error_name(group.error_code))
            if group.error_code
            else self._read_group(group)
            for group in reply.groups
        }

    def _read_group(self, group: Any) -> DescribedGroup:
        raise NotImplementedError


class DescribeClassicGroups(_DescribeGroups):
    """Of groups of the classic protocol."""

    __slots__ = ()
    request_type = DescribeGroupsRequest
    response_type = DescribeGroupsResponse
    groups_field = "groups"
    throttle_time = 1

    def _read_group(self, group: Any) -> DescribedGroup:
        # other protocol types (Connect's workers) put something else in these bytes
        is_consumer = group.protocol_type == "consumer"
        return DescribedGroup(
            state=group.group_state or None,
            assignor=group.protocol_data or None,
            members=tuple(
                Member(
                    id=member.member_id,
                    client_id=member.client_id,
                    host=member.client_host,
                    instance_id=member.group_instance_id,
                    assignment=decode_assignment(bytes(member.member_assignment))
                    if is_consumer
                    else {},
                    subscription=decode_subscription(bytes(member.member_metadata))
                    if is_consumer
                    else None,
                )
                for member in group.members
            ),
        )


class DescribeConsumerGroups(_DescribeGroups):
    """Of groups of the consumer protocol (KIP-848)."""

    __slots__ = ()
    request_type = ConsumerGroupDescribeRequest
    response_type = ConsumerGroupDescribeResponse

    def _read_group(self, group: Any) -> DescribedGroup:
        # which topics an expression matches the coordinator does not tell: those that are held
        matched: dict[str, set[str]] = {}
        for member in group.members:
            if member.subscribed_topic_regex:
                matched.setdefault(member.subscribed_topic_regex, set()).update(
                    topic.topic_name for topic in member.assignment.topic_partitions
                )
        return DescribedGroup(
            state=group.group_state or None,
            assignor=group.assignor_name or None,
            epoch=group.group_epoch,
            members=tuple(
                Member(
                    id=member.member_id,
                    client_id=member.client_id,
                    host=member.client_host,
                    instance_id=member.instance_id,
                    assignment=_named_assignment(member.assignment),
                    target=_named_assignment(member.target_assignment),
                    epoch=member.member_epoch,
                    subscription=_shared_names(
                        (
                            *(member.subscribed_topic_names or ()),
                            *matched.get(member.subscribed_topic_regex, ()),
                        )
                    ),
                )
                for member in group.members
            ),
        )


class DescribeShareGroups(_DescribeGroups):
    """Of share groups (KIP-932); members share partitions, so that several hold the same."""

    __slots__ = ()
    request_type = ShareGroupDescribeRequest
    response_type = ShareGroupDescribeResponse

    def _read_group(self, group: Any) -> DescribedGroup:
        return DescribedGroup(
            state=group.group_state or None,
            assignor=group.assignor_name or None,
            epoch=group.group_epoch,
            members=tuple(
                Member(
                    id=member.member_id,
                    client_id=member.client_id,
                    host=member.client_host,
                    assignment=_named_assignment(member.assignment),
                    epoch=member.member_epoch,
                )
                for member in group.members
            ),
        )


class DescribeStreamsGroups(_DescribeGroups):
    """Of streams groups (KIP-1071); a member holds what its active tasks read.

    Standby and warm-up tasks read changelogs only. Task n of a subtopology reads partition n of
    each of its source topics.
    """

    __slots__ = ()
    request_type = StreamsGroupDescribeRequest
    response_type = StreamsGroupDescribeResponse

    def _read_group(self, group: Any) -> DescribedGroup:
        sources = {
            subtopology.subtopology_id: [
                *subtopology.source_topics,
                *(topic.name for topic in subtopology.repartition_source_topics),
            ]
            for subtopology in (group.topology.subtopologies if group.topology else None) or ()
        }
        return DescribedGroup(
            state=group.group_state or None,
            epoch=group.group_epoch,
            members=tuple(
                Member(
                    id=member.member_id,
                    client_id=member.client_id,
                    host=member.client_host,
                    instance_id=member.instance_id,
                    assignment=_read_by(member.assignment.active_tasks, sources),
                    target=_read_by(member.target_assignment.active_tasks, sources),
                    epoch=member.member_epoch,
                )
                for member in group.members
            ),
        )


def _read_by(tasks: Iterable[Any], sources: Mapping[str, Sequence[str]]) -> Assignment:
    assignment: dict[str, set[int]] = {}
    for task in tasks:
        for topic in sources.get(task.subtopology_id, ()):
            assignment.setdefault(topic, set()).update(task.partitions)
    return {topic: tuple(sorted(partitions)) for topic, partitions in assignment.items()}


# The longest assignment that is cached: 4,096 of them take 2 MB.
CACHED_BYTES: Final = 512


def decode_assignment(data: bytes) -> Assignment:
    """Decode a classic member's assignment (ConsumerProtocolAssignment, any version).

    Malformed bytes, which a client of its own making may send, give an empty assignment. Short ones
    are cached, as they stay the same for thousands of polls; Kafka Streams puts 30 kB into a
    member's, new at every rebalance.
    """
    return _cached_assignment(data) if len(data) <= CACHED_BYTES else _decode_assignment(data)


@lru_cache(maxsize=4_096)
def _cached_assignment(data: bytes) -> Assignment:
    return _decode_assignment(data)


def _decode_assignment(data: bytes) -> Assignment:
    assignment: dict[str, tuple[int, ...]] = {}
    try:
        (topics,) = struct.unpack_from(">i", data, 2)  # after the version
        position = 6
        for _ in range(topics):
            topic, position = _name_at(data, position)
            (count,) = struct.unpack_from(">i", data, position)
            position += 4
            assignment[topic] = tuple(sorted(struct.unpack_from(f">{count}i", data, position)))
            position += 4 * count
    except (struct.error, UnicodeDecodeError):
        return {}
    return assignment


def _name_at(data: bytes, position: int) -> tuple[str, int]:
    """Return the topic's name at a position, and where it ends; raises struct.error where it is cut."""
    (length,) = struct.unpack_from(">h", data, position)
    (name,) = struct.unpack_from(f">{length}s", data, position + 2)
    return sys.intern(name.decode()), position + 2 + length


def decode_subscription(data: bytes) -> frozenset[str] | None:
    """Decode the topics of a classic member's subscription (ConsumerProtocolSubscription, any version).

    None where the bytes are malformed or there are none.
    """
    names = []
    try:
        (topics,) = struct.unpack_from(">i", data, 2)  # after the version
        position = 6
        for _ in range(topics):
            name, position = _name_at(data, position)
            names.append(name)
    except (struct.error, UnicodeDecodeError):
        return None
    return _shared_names(tuple(names))


@lru_cache(maxsize=4_096)
def _shared_names(names: tuple[str, ...]) -> frozenset[str]:
    """Return the names as a set, one object for all members that have the same."""
    return frozenset(names)


def _named_assignment(assignment: Any) -> Assignment:
    return {
        topic.topic_name: tuple(sorted(topic.partitions)) for topic in assignment.topic_partitions
    }
