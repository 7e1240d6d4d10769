"""Every topic and consumer group, declared once, and the operations on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from order_services.runtime.kafka_settings import KafkaSettings, kafka_settings

ORDERS: Final = "orders"
PAYMENTS: Final = "payments"
INVENTORY: Final = "inventory"
SHIPPING: Final = "shipping"
ORDERS_REPLAY: Final = "orders-replay"

DEAD_LETTER_SUFFIX: Final = ".dead-letters"
DATA_RETENTION_DAYS: Final = 7
DEAD_LETTER_RETENTION_DAYS: Final = 30
REQUEST_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that the services need, with the settings that differ from the broker's."""

    name: str
    partitions: int
    settings: Mapping[str, str] = field(default_factory=dict)


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
GROUPS: Final = (GATEWAY_GROUP, PAYMENT_GROUP, INVENTORY_GROUP, SHIPPING_GROUP, ANALYTICS_GROUP)

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
            {"retention.ms": str(DEAD_LETTER_RETENTION_DAYS * 24 * 3600 * 1000)},
        )
        for group in GROUPS
    ),
)
TOPIC_OF_NAME: Final = {topic.name: topic for topic in TOPICS}


class TopicError(Exception):
    """An operation on topics failed; the text says which topic and why."""


@dataclass(frozen=True, slots=True)
class PartitionDescription:
    """One partition as the broker reports it; `leader` is None while it has none."""

    partition: int
    leader: int | None
    replicas: tuple[int, ...]
    in_sync_replicas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as the broker reports it."""

    name: str
    partitions: tuple[PartitionDescription, ...]


def admin_client(kafka: KafkaSettings | str) -> AdminClient:
    """Return a client for the operations below; connects when it is first used.

    A text is the brokers' addresses; the rest is then read from the environment.
    """
    return AdminClient({**kafka_settings(kafka), "socket.timeout.ms": 10_000, "log_level": 3})


def create(
    admin: AdminClient, topics: Sequence[Topic] = TOPICS, *, replication_factor: int = -1
) -> list[str]:
    """Create the topics that are missing and return their names; changes no existing one.

    A `replication_factor` of -1 takes the broker's default. Raises `TopicError`.
    """
    missing = [topic for topic in topics if topic.name not in list_names(admin)]
    if not missing:
        return []
    futures = admin.create_topics(
        [
            NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=replication_factor,
                config=dict(topic.settings),
            )
            for topic in missing
        ],
        request_timeout=REQUEST_TIMEOUT_SECONDS,
    )
    created = []
    for name, future in futures.items():
        try:
            future.result()
        except KafkaException as error:
            # many services start at once: another one was first
            if _code(error) == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            raise TopicError(f"cannot create topic {name}: {_reason(error)}") from error
        created.append(name)
    return created


def alter(admin: AdminClient, name: str, partitions: int) -> bool:
    """Grow a topic to `partitions`; return False when it has that many already.

    Raises `TopicError` when the topic is unknown, or has more: Kafka cannot remove partitions.
    """
    current = len(describe(admin, [name])[0].partitions)
    if partitions < current:
        raise TopicError(
            f"cannot shrink topic {name} from {current} to {partitions} partitions: "
            "Kafka has no way to remove a partition without losing its messages; "
            f"ask for {current} or more"
        )
    if partitions == current:
        return False
    futures = admin.create_partitions(
        [NewPartitions(name, partitions)], request_timeout=REQUEST_TIMEOUT_SECONDS
    )
    try:
        futures[name].result()
    except KafkaException as error:
        raise TopicError(
            f"cannot grow topic {name} from {current} to {partitions} partitions: {_reason(error)}"
        ) from error
    return True


def list_names(admin: AdminClient) -> list[str]:
    """Return the names of all topics on the broker, without Kafka's internal ones."""
    return sorted(_metadata(admin))


def describe(admin: AdminClient, names: Iterable[str] | None = None) -> list[TopicDescription]:
    """Describe these topics, or all; raises `TopicError` for one that the broker lacks."""
    known = _metadata(admin)
    wanted = sorted(known) if names is None else list(names)
    for name in wanted:
        if name not in known:
            raise TopicError(f"topic {name} does not exist")
    return [known[name] for name in wanted]


def _metadata(admin: AdminClient) -> dict[str, TopicDescription]:
    try:
        topics = admin.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics
    except KafkaException as error:
        raise TopicError(f"cannot reach Kafka: {_reason(error)}") from error
    return {
        name: TopicDescription(
            name,
            tuple(
                PartitionDescription(
                    number,
                    None if partition.leader < 0 else partition.leader,
                    tuple(partition.replicas),
                    tuple(partition.isrs),
                )
                for number, partition in sorted(topic.partitions.items())
            ),
        )
        for name, topic in topics.items()
        if not name.startswith("__")
    }


def _code(error: KafkaException) -> int:
    return int(error.args[0].code())


def _reason(error: KafkaException) -> str:
    return str(error.args[0].str())
