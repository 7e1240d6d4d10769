"""Every topic and consumer group, declared once with what the promises rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

ORDERS: Final = "orders"
PAYMENTS: Final = "payments"
INVENTORY: Final = "inventory"
SHIPPING: Final = "shipping"
ORDERS_REPLAY: Final = "orders-replay"

DEAD_LETTER_SUFFIX: Final = ".dead-letters"
DATA_RETENTION_DAYS: Final = 7
DEAD_LETTER_RETENTION_DAYS: Final = 30
# Kafka's default, declared so that no broker's own default stands in for it.
MESSAGE_BYTES: Final = 1_048_588
# The largest message of a topic, and the headers that say why it is here.
DEAD_LETTER_MESSAGE_BYTES: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that the services need."""

    name: str
    partitions: int
    retention_days: int = DATA_RETENTION_DAYS
    max_message_bytes: int = MESSAGE_BYTES

    def settings(self, replication_factor: int) -> dict[str, str]:
        """Return the settings that are declared for it with so many replicas, as Kafka names them."""
        return {
            "cleanup.policy": "delete",
            "max.message.bytes": str(self.max_message_bytes),
            # an acknowledged message is on two brokers, wherever there are two
            "min.insync.replicas": "1" if replication_factor == 1 else "2",
            "retention.ms": str(self.retention_days * 24 * 3600 * 1000),
        }


@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """A consumer group and the topics that its members read."""

    group_id: str
    topics: tuple[str, ...]

    @property
    def dead_letter_topic(self) -> str:
        """Where messages go that members of this group cannot process."""
        return self.group_id + DEAD_LETTER_SUFFIX


GATEWAY_GROUP: Final = ConsumerGroup("order-status-group", (PAYMENTS, INVENTORY, SHIPPING))
PAYMENT_GROUP: Final = ConsumerGroup("payment-service-group", (ORDERS,))
INVENTORY_GROUP: Final = ConsumerGroup("inventory-service-group", (ORDERS,))
SHIPPING_GROUP: Final = ConsumerGroup("shipping-service-group", (PAYMENTS, INVENTORY))
ANALYTICS_GROUP: Final = ConsumerGroup(
    "analytics-service-group", (ORDERS, PAYMENTS, INVENTORY, SHIPPING, ORDERS_REPLAY)
)
GROUP_OF: Final[Mapping[str, ConsumerGroup]] = {
    "gateway": GATEWAY_GROUP,
    "payment": PAYMENT_GROUP,
    "inventory": INVENTORY_GROUP,
    "shipping": SHIPPING_GROUP,
    "analytics": ANALYTICS_GROUP,
}
"""The group that a service's replicas are members of."""
GROUPS: Final = tuple(GROUP_OF.values())

TOPICS: Final = (
    Topic(ORDERS, 6),
    Topic(PAYMENTS, 3),
    Topic(INVENTORY, 3),
    Topic(SHIPPING, 3),
    Topic(ORDERS_REPLAY, 3),
    *(
        Topic(
            group.dead_letter_topic,
            1,
            DEAD_LETTER_RETENTION_DAYS,
            DEAD_LETTER_MESSAGE_BYTES,
        )
        for group in GROUPS
    ),
)
TOPIC_OF_NAME: Final = {topic.name: topic for topic in TOPICS}
