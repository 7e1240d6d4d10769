"""DescribeLogDirs: the bytes of a broker's replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kafka.protocol.admin import DescribeLogDirsRequest

from monitor.kafka.apis.error_codes import error_name
from monitor.kafka.questions import Failure, Question, VersionOf


@dataclass(frozen=True, slots=True)
class DescribeLogDirs(Question[dict[str, dict[int, int]]]):
    """The bytes of each of the broker's replicas, topic -> partition -> bytes."""

    def requests(self, version_of: VersionOf) -> list[Any]:  # noqa: ARG002  # any version will do
        """Ask for all topics."""
        return [DescribeLogDirsRequest(topics=None)]

    def read(self, replies: Sequence[Any]) -> dict[str, dict[int, int]] | Failure:
        """Read the sizes; replicas on a directory that failed are left out."""
        (reply,) = replies
        if reply.error_code:
            return Failure(f"DescribeLogDirs: {error_name(reply.error_code)}")
        sizes: dict[str, dict[int, int]] = {}
        for directory in reply.results:
            if directory.error_code:
                continue
            for topic in directory.topics:
                for partition in topic.partitions:
                    # a future replica is a copy on its way to another directory of the same broker
                    if not partition.is_future_key:
                        partitions = sizes.setdefault(topic.name, {})
                        partitions[partition.partition_index] = partition.partition_size
        # before version 3 a broker that refuses answers with no directories at all
        return sizes if reply.results else Failure("DescribeLogDirs: refused, or it has none")
