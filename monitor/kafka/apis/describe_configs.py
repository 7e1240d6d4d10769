"""DescribeConfigs: how long a topic's records are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from kafka.protocol.admin import DescribeConfigsRequest

from monitor.kafka.questions import Question, VersionOf
from monitor.model import TopicConfig

_TOPIC: Final = 2  # the type of resource
_RETENTION_MS: Final = "retention.ms"
_RETENTION_BYTES: Final = "retention.bytes"
_CLEANUP_POLICY: Final = "cleanup.policy"


@dataclass(frozen=True, slots=True)
class DescribeTopicConfigs(Question[dict[str, TopicConfig]]):
    """The settings of topics; any broker knows them. Those that can't be read are absent."""

    topics: Sequence[str]

    def requests(self, version_of: VersionOf) -> list[Any]:  # noqa: ARG002  # any version will do
        """Ask for the few settings that are needed."""
        resource = DescribeConfigsRequest.DescribeConfigsResource
        return [
            DescribeConfigsRequest(
                resources=[
                    resource(
                        resource_type=_TOPIC,
                        resource_name=topic,
                        configuration_keys=[_RETENTION_MS, _RETENTION_BYTES, _CLEANUP_POLICY],
                    )
                    for topic in self.topics
                ],
                include_synonyms=False,
                include_documentation=False,
            )
        ]

    def read(self, replies: Sequence[Any]) -> dict[str, TopicConfig]:
        """Read the settings; topics with an error are left out."""
        (reply,) = replies
        found = {}
        for result in reply.results:
            if not result.error_code and result.resource_type == _TOPIC:
                values = {config.name: config.value for config in result.configs}
                found[result.resource_name] = _topic_config(
                    values.get(_RETENTION_MS),
                    values.get(_RETENTION_BYTES),
                    values.get(_CLEANUP_POLICY),
                )
        return found


@lru_cache(maxsize=1_000)
def _topic_config(
    retention_ms: str | None, retention_bytes: str | None, policies: str | None
) -> TopicConfig:
    """Return one object for all topics that are set alike."""
    return TopicConfig(
        _int_or_none(retention_ms),
        _int_or_none(retention_bytes),
        None
        if policies is None
        else frozenset(policy.strip() for policy in policies.split(",") if policy.strip()),
    )


def _int_or_none(value: str | None) -> int | None:
    return None if value is None else int(value)
