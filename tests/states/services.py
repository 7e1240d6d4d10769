"""Services that speak Kafka's protocol and are not Kafka, as models: what each knows of it, and what it says otherwise.

A question is put as the wire puts it, in the version that kafka-python chooses of those that the service told by
ApiVersions; what such a version cannot say is missing from the answer, and what the service does not know is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kafka.errors import IncompatibleBrokerVersion
from kafka.protocol.admin import ListGroupsRequest
from kafka.protocol.broker_version_data import BrokerVersionData
from kafka.protocol.metadata import MetadataRequest

from monitor.kafka.apis.describe_groups import DescribedGroup
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.metadata import ClusterMetadata
from monitor.kafka.encoded import EncodedRequest
from monitor.kafka.failures import explain
from monitor.kafka.questions import Ask, Failure
from tests.unit.monitor.model_cluster import Clock, ModelCluster

# The numbers of the APIs that a monitor uses.
FETCH, LIST_OFFSETS, METADATA, OFFSET_FETCH, FIND_COORDINATOR = 1, 2, 3, 9, 10
DESCRIBE_GROUPS, LIST_GROUPS, DESCRIBE_CONFIGS, DESCRIBE_LOG_DIRS = 15, 16, 32, 35
# The first version that tells a group's state, and a topic's id.
WITH_STATE: Final = 4
WITH_TOPIC_ID: Final = 10


@dataclass(frozen=True, slots=True)
class Service:
    """What a service knows: number of an API -> first and last version.

    `tells_coordinators` says whether `__consumer_offsets` is in its metadata, `forgets_stopped` that a group
    without members is not listed, and described as Dead, though its commits are there.
    """

    versions: Mapping[int, tuple[int, int]]
    hashes_as_kafka: bool = True
    tells_coordinators: bool = True
    forgets_stopped: bool = False


# The handlers of redpanda-data/redpanda, src/v/kafka/server/handlers/*.h before DescribeCluster (2025) and
# ConsumerGroupDescribe (2026) came. coordinator_ntp_mapper.h places groups by xxhash and a jump hash (issue 386,
# pull request 26865: rpk needs a mapper of its own).
REDPANDA: Final = Service(
    {
        FETCH: (4, 11), LIST_OFFSETS: (0, 4), METADATA: (0, 8), OFFSET_FETCH: (1, 7), FIND_COORDINATOR: (0, 3),
        DESCRIBE_GROUPS: (0, 4), LIST_GROUPS: (0, 3), DESCRIBE_CONFIGS: (0, 2), DESCRIBE_LOG_DIRS: (0, 1),
    },
    hashes_as_kafka=False,
)  # fmt: skip
# As clients recorded them: Azure/azure-event-hubs-for-kafka issue 69 (2019). Stopped groups: issues 100, 125
# and 143; deviceinsight/kafkactl issue 217 (Dead at once, never Empty).
EVENT_HUBS_2019: Final = Service(
    {
        FETCH: (4, 6), LIST_OFFSETS: (0, 2), METADATA: (0, 5), OFFSET_FETCH: (0, 3), FIND_COORDINATOR: (0, 1),
        DESCRIBE_GROUPS: (0, 1), LIST_GROUPS: (0, 1),
    },
    tells_coordinators=False,
    forgets_stopped=True,
)  # fmt: skip
# The same, issue 209 (2022: DescribeConfigs, no DescribeLogDirs) and oliveigah/klife issue 13 (2024).
EVENT_HUBS: Final = replace(
    EVENT_HUBS_2019,
    versions={
        **EVENT_HUBS_2019.versions,
        LIST_OFFSETS: (0, 8),
        OFFSET_FETCH: (0, 8),
        FIND_COORDINATOR: (0, 4),
        DESCRIBE_CONFIGS: (0, 2),
    },
)


class ServedBy(ModelCluster):
    """A model of a cluster that is such a service; `loading` brokers say so beside their lists of groups."""

    def __init__(self, clock: Clock, service: Service) -> None:
        super().__init__(clock, hides_coordinators=not service.tells_coordinators)
        self._service = service
        self._known = BrokerVersionData(api_versions=dict(service.versions))
        self.tells_ids = self._known.api_version(MetadataRequest) >= WITH_TOPIC_ID
        self.loading: set[int] = set()

    def coordinator(self, group: str) -> int | None:
        """Return the broker that coordinates a group; by another hash it is the other one."""
        found = super().coordinator(group)
        return found if found is None or self._service.hashes_as_kafka else 3 - found

    def find_cluster(self, timeout_s: float) -> ClusterMetadata:
        """Answer as the bootstrap servers do."""
        self._known.api_version(MetadataRequest)
        return super().find_cluster(timeout_s)

    def ask(
        self, asks: Sequence[Ask[Any]], timeout_s: float, not_awaited: Collection[int] = ()
    ) -> None:
        """Answer what can be asked; the rest fails as it does on the wire, without a request."""
        put = []
        for ask in asks:
            try:
                for request in ask.question.requests(self._known.api_version):
                    if not isinstance(request, EncodedRequest):
                        request.encode(version=self._known.api_version(request))
                put.append(ask)
            except IncompatibleBrokerVersion as error:
                ask.failure = explain(error)
        super().ask(put, timeout_s, not_awaited)
        for ask in put:
            if type(ask.question).__name__ == "ListGroups" and ask.broker in self.loading:
                # the reply's error counts, not the groups that are beside it
                ask.answer, ask.failure = None, Failure("ListGroups: COORDINATOR_LOAD_IN_PROGRESS")

    def _listed(self, broker: int) -> list[ListedGroup]:
        has_state = self._known.api_version(ListGroupsRequest) >= WITH_STATE
        return [
            each if has_state else replace(each, state=None)
            for each in super()._listed(broker)
            if self.groups[each.id].members or not self._service.forgets_stopped
        ]

    def _described(self, broker: int, name: str) -> DescribedGroup:
        found = super()._described(broker, name)
        if self._service.forgets_stopped and not found.members and found.error is None:
            return DescribedGroup(state="Dead", members=())
        return found
