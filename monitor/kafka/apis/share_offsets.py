"""DescribeShareGroupOffsets (KIP-932): where share groups stand, and their lag (KIP-1226)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kafka.protocol.api_message import ApiMessage

from monitor.kafka.apis import messages
from monitor.kafka.apis.error_codes import COORDINATOR_MOVED, error_name
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.questions import Question, VersionOf


class DescribeShareGroupOffsetsRequest(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """The request, which kafka-python lacks: declared from the broker's own schema."""


class DescribeShareGroupOffsetsResponse(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """The reply to it; found through kafka-python's registry by its API key."""


@dataclass(frozen=True, slots=True)
class FetchShareOffsets(Question[dict[str, GroupCommits]]):
    """The start offset, and the lag where the broker tells it, of each group's share-partitions."""

    groups: Sequence[str]

    def requests(self, version_of: VersionOf) -> list[Any]:  # noqa: ARG002  # any version will do
        """Ask for all topics of all groups."""
        named = DescribeShareGroupOffsetsRequest.DescribeShareGroupOffsetsRequestGroup
        return [
            DescribeShareGroupOffsetsRequest(
                groups=[named(group_id=group, topics=None) for group in self.groups]
            )
        ]

    def read(self, replies: Sequence[Any]) -> dict[str, GroupCommits]:
        """Read the offsets; -1 is a partition that nobody has fetched yet."""
        (reply,) = replies
        return {group.group_id: _group(group) for group in reply.groups}


def _group(group: Any) -> GroupCommits:
    if group.error_code:
        moved = group.error_code in COORDINATOR_MOVED
        return GroupCommits(error=error_name(group.error_code), moved=moved)
    offsets: dict[str, dict[int, int]] = {}
    lags: dict[str, dict[int, int]] = {}
    error = None
    for topic in group.topics:
        for partition in topic.partitions:
            index = partition.partition_index
            if partition.error_code:
                error = f"{topic.topic_name}-{index}: {error_name(partition.error_code)}"
                continue
            if partition.start_offset >= 0:
                offsets.setdefault(topic.topic_name, {})[index] = partition.start_offset
            if (partition.lag if partition.lag is not None else -1) >= 0:
                lags.setdefault(topic.topic_name, {})[index] = partition.lag
    return GroupCommits(offsets, lags, error)
