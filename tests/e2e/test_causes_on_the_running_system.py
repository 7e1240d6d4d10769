"""Why a group is behind, on the running order system: nothing while it is well, and then the true cause.

The monitor is the one that people run, with its own patience: who is behind has been so for a minute.
What is brought about is brought about at once, each for another group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition

from monitor.analysis.causes.finding import Cause
from order_services.domain import topics
from order_services.local.process import ManagedProcess
from tests.crash.shop import DATABASE
from tests.support import foreign
from tests.support.faults import service_faults
from tests.support.health import ORDERS_PER_SECOND, causes, told_in_health
from tests.support.waiting import wait_for
from tests.support.watched_system import MONITOR, WatchedSystem, watched

# a system of eight programs, and a minute until somebody is behind
pytestmark = pytest.mark.heavy

HEALTHY_SECONDS = 45.0
# a third of what comes: a batch, and what it is delayed by
BATCH_MAX_MESSAGES = 10
BATCH_DELAY_SECONDS = 2.0
# what is read again is to last until the others are a minute behind
REPLAY_DELAY_SECONDS = 5.0
NAMED_WITHIN_SECONDS = 240.0


def wait_for_causes(system: WatchedSystem, true: Mapping[str, Cause]) -> None:
    """Wait until the cause of each group is named."""
    told: Mapping[str, Cause] = {}

    def are_named() -> bool:
        nonlocal told
        told = causes(system)
        return true.items() <= told.items()

    try:
        wait_for("true causes", are_named, NAMED_WITHIN_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}: {told} is told, {true} is so") from None


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedSystem]:
    settings = {
        "BATCH_MAX_MESSAGES": str(BATCH_MAX_MESSAGES),
        # a busy machine is not to take a member for dead: that would be a true cause
        "SESSION_TIMEOUT_SECONDS": "30",
    }
    directory = tmp_path_factory.mktemp("causes")
    with watched(
        directory, ORDERS_PER_SECOND, settings=settings, monitor_program=MONITOR
    ) as running:
        yield running


@contextmanager
def open_transaction(system: WatchedSystem, topic: str) -> Iterator[None]:
    """Leave a transaction open inside the block."""
    producer = Producer(
        {
            "bootstrap.servers": system.shop.broker.bootstrap_servers,
            "transactional.id": "left-open",
            "transaction.timeout.ms": 800_000,
            "log_level": 0,
        }
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    for partition in range(topics.TOPIC_OF_NAME[topic].partitions):
        producer.produce(topic, b"never to be read", partition=partition)
    producer.flush(60)
    try:
        yield
    finally:
        producer.abort_transaction(60)


def rewind(system: WatchedSystem, replica: ManagedProcess, group: str, topic: str) -> None:
    """Have a service read a topic from the beginning, slowly."""
    replica.stop()
    beginning = [TopicPartition(topic, p, 0) for p in range(topics.TOPIC_OF_NAME[topic].partitions)]
    request = ConsumerGroupTopicPartitions(group, beginning)
    admin = foreign.admin_client(system.shop.broker.bootstrap_servers)

    def is_rewound() -> bool:
        # the coordinator may still have the member that has left
        answer = admin.alter_consumer_group_offsets([request])[group].result()
        return not any(partition.error for partition in answer.topic_partitions)

    wait_for(f"rewind of {group}", is_rewound)
    delay = {"FAULT_BATCH_DELAY_SECONDS": str(REPLAY_DELAY_SECONDS)}
    replica.environment = {**(replica.environment or {}), **delay}
    replica.start()


@contextmanager
def paused_database(system: WatchedSystem) -> Iterator[None]:
    """Have PgBouncer give nobody a connection inside the block: all wait."""
    with closing(system.pgbouncer.connect("pgbouncer")) as console, console.cursor() as cursor:
        cursor.execute(f"PAUSE {DATABASE}")
        try:
            yield
        finally:
            cursor.execute(f"RESUME {DATABASE}")


def test_nobody_is_blamed_while_all_is_well_and_the_true_causes_are_named_after(
    system: WatchedSystem,
) -> None:
    told = told_in_health(system, HEALTHY_SECONDS)
    assert all(of.is_well and of.looks for of in told.values()), told

    with (
        service_faults(system, "inventory", batchDelaySeconds=BATCH_DELAY_SECONDS),
        open_transaction(system, topics.SHIPPING),
    ):
        system.replica("payment").kill()
        rewind(system, system.replica("shipping"), topics.SHIPPING_GROUP.group_id, topics.PAYMENTS)
        wait_for_causes(
            system,
            {
                topics.PAYMENT_GROUP.group_id: Cause.NO_MEMBERS,
                topics.SHIPPING_GROUP.group_id: Cause.REWOUND,
                topics.INVENTORY_GROUP.group_id: Cause.SLOW_PROCESSING,
                topics.GATEWAY_GROUP.group_id: Cause.OPEN_TRANSACTION,
                topics.ANALYTICS_GROUP.group_id: Cause.OPEN_TRANSACTION,
            },
        )
        # whoever is slow already waits for the database now
        with paused_database(system):
            wait_for_causes(system, {topics.INVENTORY_GROUP.group_id: Cause.DATABASE_EXHAUSTED})
