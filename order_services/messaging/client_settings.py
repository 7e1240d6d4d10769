"""How the services' Kafka clients are set up, and which failure each setting prevents."""

from __future__ import annotations

from typing import Any, Final

from order_services.domain.topics import ConsumerGroup
from order_services.process.kafka_settings import kafka_settings
from order_services.process.logs import KafkaLog
from order_services.process.settings import GroupProtocol, ServiceSettings

# How long librdkafka asks for no more once messages are at hand, before it looks again.
FETCH_BACKOFF_MS: Final = 25
# How long a fetch may wait for the first message. Each is work for the broker, and it begins again only
# when it was answered: partitions that are assigned meanwhile wait for that.
FETCH_WAIT_MS: Final = 500
# How long librdkafka may take to notice a topic that was created after the start.
METADATA_REFRESH_MS: Final = 10_000
# A dead letter is its message and more: the broker's default would refuse the largest.
MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024


def consumer_settings(group: ConsumerGroup, settings: ServiceSettings) -> dict[str, Any]:
    """Return the Kafka client's settings for a member of `group`."""
    config: dict[str, Any] = {
        **kafka_settings(settings),
        "client.id": settings.kafka_client_id,
        "group.id": group.group_id,
        # the client would commit what was handed out, not what was processed
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # "earliest" would skip what retention has taken without a word: see `log_starts`
        "auto.offset.reset": "error",
        "max.poll.interval.ms": int(settings.max_poll_interval_seconds * 1000),
        "topic.metadata.refresh.interval.ms": METADATA_REFRESH_MS,
        # what there is comes at once: this is how often is asked while there is nothing
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        # nothing is asked for while something waits: a fetch brings a megabyte of each partition at once
        "queued.min.messages": 1,
        # by default a second, in which a consumer that catches up has long used it up
        "fetch.queue.backoff.ms": FETCH_BACKOFF_MS,
        "log_level": 4,
        "logger": KafkaLog(),
    }
    if settings.group_protocol is GroupProtocol.CONSUMER:
        config["group.protocol"] = "consumer"
    else:
        config["partition.assignment.strategy"] = "cooperative-sticky"
        config["session.timeout.ms"] = int(settings.session_timeout_seconds * 1000)
    if settings.group_instance_id is not None:
        config["group.instance.id"] = settings.group_instance_id
    return config


def producer_settings(settings: ServiceSettings) -> dict[str, Any]:
    """Return the Kafka client's settings for a producer that neither loses nor reorders."""
    return {
        **kafka_settings(settings),
        "client.id": settings.kafka_client_id,
        "enable.idempotence": True,
        "acks": "all",
        # the Java client's: the same key goes to the same partition whoever publishes
        "partitioner": "murmur2_random",
        "delivery.timeout.ms": int(settings.relay_delivery_timeout_seconds * 1000),
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "linger.ms": 5,
        "compression.type": "lz4",
        "log_level": 4,
        "logger": KafkaLog(),
    }
