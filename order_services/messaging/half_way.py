"""Finds out when a rebalance has ended half-way, with partitions that belong to nobody.

In a cooperative rebalance who gives partitions up joins once more, and only then are they given to
others. If that member dies in between, or the broker does, a static member that comes back gets its part
of the first round again, and no second one follows: the group is stable, nobody reads those partitions,
and all members wait. Only one that leaves and joins anew brings the second round about.
"""

from __future__ import annotations

import math
import random
import threading
import time
from typing import Final

import structlog
from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from order_services.domain.topics import ConsumerGroup
from order_services.messaging.commits import Partition
from order_services.process.kafka_settings import kafka_settings
from order_services.process.settings import GroupProtocol, ServiceSettings

# A second round takes a second or two, and longer only while a member's batch is at work: two looks
# in a row that find the same are none of that.
LOOK_AFTER_SECONDS: Final = 15.0
TIMEOUT_SECONDS: Final = 5.0

_log = structlog.get_logger(__name__)


class HalfWayRebalances:
    """Looks at a member's group after each rebalance, until all of its partitions have an owner.

    Each look is on a thread of its own: a coordinator that doesn't answer must not hold up the consumer.
    """

    def __init__(self, group: ConsumerGroup, settings: ServiceSettings) -> None:
        self._group = group
        self._settings = settings
        # others join anew: they do so with all that has changed, or are told of it by the broker
        self._is_exposed = (
            settings.group_protocol is GroupProtocol.CLASSIC
            and settings.group_instance_id is not None
        )
        self._looks: list[set[Partition]] = []
        self._due_at = math.inf

    def rebalanced(self) -> None:
        """Look anew, in a while."""
        # not cleared: a look that is under way tells of the time before
        self._looks = []
        if self._is_exposed:
            self._due_at = _later()

    def found(self) -> bool:
        """Say, once, that partitions have had no owner at two looks; begins a look when it is time."""
        if self._looks and not self._looks[-1]:
            self._due_at = math.inf
        elif len(self._looks) > 1 and (unowned := self._looks[-1] & self._looks[-2]):
            names = sorted(f"{topic}-{partition}" for topic, partition in unowned)
            _log.warning("nobody owns partitions", group=self._group.group_id, partitions=names)
            self.rebalanced()
            return True
        elif time.monotonic() >= self._due_at:
            self._due_at = _later()
            threading.Thread(target=self._look, args=(self._looks,), daemon=True).start()
        return False

    def _look(self, looks: list[set[Partition]]) -> None:
        try:
            unowned = unowned_partitions(self._group, self._settings)
        except KafkaException as error:
            _log.info("group not described", group=self._group.group_id, error=str(error))
        else:
            if unowned is not None:
                looks.append(unowned)


def unowned_partitions(group: ConsumerGroup, settings: ServiceSettings) -> set[Partition] | None:
    """Ask the brokers for the partitions of the group's topics without an owner.

    None while a rebalance is under way. Raises KafkaException when they don't answer in time.
    """
    # what ails the connection is told by the consumer's own client
    admin = AdminClient({**kafka_settings(settings), "log_level": 0})
    future = admin.describe_consumer_groups([group.group_id], request_timeout=TIMEOUT_SECONDS)
    described = future[group.group_id].result()
    if described.state is not ConsumerGroupState.STABLE:
        return None
    partitions = {
        (topic, partition)
        for topic in group.topics
        for partition in admin.list_topics(topic, timeout=TIMEOUT_SECONDS).topics[topic].partitions
    }
    owned = {
        (each.topic, each.partition)
        for member in described.members
        for each in member.assignment.topic_partitions
    }
    return partitions - owned


def _later() -> float:
    # at different times, so that one member joins anew and the others see it
    return time.monotonic() + LOOK_AFTER_SECONDS * random.uniform(1, 2)  # noqa: S311  # no secret
