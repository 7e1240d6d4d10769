"""Creates, checks, grows and describes topics on the brokers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from order_services.domain.topics import TOPIC_OF_NAME, TOPICS, Topic
from order_services.process.kafka_settings import KafkaSettings, kafka_settings

REQUEST_TIMEOUT_SECONDS: Final = 10.0


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

    @property
    def replication_factor(self) -> int:
        """How many replicas the partition with the fewest has."""
        return min(len(each.replicas) for each in self.partitions)


@dataclass(frozen=True, slots=True)
class Difference:
    """How a topic differs from its declaration, and the command that mends it."""

    topic: str
    what: str
    remedy: str


def admin_client(kafka: KafkaSettings | str) -> AdminClient:
    """Return a client for the operations below; connects when it is first used.

    A text is the brokers' addresses; the rest is then read from the environment.
    """
    return AdminClient({**kafka_settings(kafka), "socket.timeout.ms": 10_000, "log_level": 3})


def create(
    admin: AdminClient, topics: Sequence[Topic] = TOPICS, *, replication_factor: int | None = None
) -> list[str]:
    """Create the topics that are missing and return their names; changes no existing one.

    Without a `replication_factor` it is the broker's default. Raises `TopicError`.
    """
    missing = [topic for topic in topics if topic.name not in list_names(admin)]
    if not missing:
        return []
    replicas = replication_factor or _default_replication_factor(admin)
    futures = admin.create_topics(
        [
            NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=replicas,
                config=topic.settings(replicas),
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


def check(admin: AdminClient, topics: Sequence[Topic] = TOPICS) -> list[Difference]:
    """Compare what exists with the declaration; more partitions than declared are no difference.

    Raises `TopicError`.
    """
    known = _metadata(admin)
    found = _settings(admin, [topic.name for topic in topics if topic.name in known])
    differences = []
    for topic in topics:
        name = topic.name
        if name not in known:
            differences.append(Difference(name, "does not exist", "topics create"))
            continue
        count = len(known[name].partitions)
        if count < topic.partitions:
            what = f"has {count} partitions, declared {topic.partitions}"
            remedy = f"topics alter {name} --partitions {topic.partitions}"
            differences.append(Difference(name, what, remedy))
        for setting, declared in topic.settings(known[name].replication_factor).items():
            value = found[name].get(setting)
            if value != declared:
                what = f"{setting} is {value}, declared {declared}"
                differences.append(Difference(name, what, f"topics alter {name} --settings"))
    return differences


def apply_settings(admin: AdminClient, name: str) -> None:
    """Give a declared topic its declared settings; raises `TopicError`."""
    topic = TOPIC_OF_NAME.get(name)
    if topic is None:
        raise TopicError(f"topic {name} is none of those that are declared")
    declared = topic.settings(describe(admin, [name])[0].replication_factor)
    entries = [
        ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
        for setting, value in declared.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    futures = admin.incremental_alter_configs([resource], request_timeout=REQUEST_TIMEOUT_SECONDS)
    try:
        futures[resource].result()
    except KafkaException as error:
        raise TopicError(f"cannot change the settings of topic {name}: {_reason(error)}") from error


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


def _settings(admin: AdminClient, names: Sequence[str]) -> dict[str, Mapping[str, str | None]]:
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    return {
        resource.name: values
        for resource, values in zip(resources, _configs(admin, resources), strict=True)
    }


def _default_replication_factor(admin: AdminClient) -> int:
    try:
        brokers = admin.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).brokers
    except KafkaException as error:
        raise TopicError(f"cannot reach Kafka: {_reason(error)}") from error
    broker = ConfigResource(ResourceType.BROKER, str(min(brokers)))
    [values] = _configs(admin, [broker])
    return int(values.get("default.replication.factor") or 1)


def _configs(
    admin: AdminClient, resources: Sequence[ConfigResource]
) -> list[dict[str, str | None]]:
    if not resources:
        return []
    futures = admin.describe_configs(list(resources), request_timeout=REQUEST_TIMEOUT_SECONDS)
    answers = []
    for resource in resources:
        try:
            entries: Mapping[str, Any] = futures[resource].result()
        except KafkaException as error:
            raise TopicError(
                f"cannot read the settings of {resource.name}: {_reason(error)}"
            ) from error
        answers.append({name: entry.value for name, entry in entries.items()})
    return answers


def _code(error: KafkaException) -> int:
    return int(error.args[0].code())


def _reason(error: KafkaException) -> str:
    return str(error.args[0].str())
