"""DescribeCluster: what this login may do (KIP-430, KIP-700)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kafka.protocol.admin import DescribeClusterRequest

from monitor.kafka.apis.error_codes import error_name
from monitor.kafka.questions import Failure, Question, VersionOf


@dataclass(frozen=True, slots=True)
class DescribeOwnRights(Question[bool]):
    """Whether this login may describe the cluster, and so all of its groups."""

    def requests(self, version_of: VersionOf) -> list[Any]:  # noqa: ARG002  # any version will do
        """Ask for what is allowed; brokers before 2.8 do not know the request."""
        return [DescribeClusterRequest(include_cluster_authorized_operations=True)]

    def read(self, replies: Sequence[Any]) -> bool | Failure:
        """Read the rights; who may not describe the cluster is told none."""
        (reply,) = replies
        if reply.error_code:
            return Failure(f"DescribeCluster: {error_name(reply.error_code)}")
        return bool(reply.authorized_operations)
