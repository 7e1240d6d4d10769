"""A service's parts on the real broker and database, with topics that no two tests share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaException, Message, Producer, TopicPartition
from pydantic import SecretStr
from sqlalchemy import Connection, text

from order_services.domain import topics
from order_services.domain.events import Event, EventType, new_id
from order_services.domain.topics import ConsumerGroup
from order_services.local.kafka import EmbeddedKafka
from order_services.local.postgres import EmbeddedPostgres
from order_services.messaging.batch import BatchProcessor, Effects
from order_services.messaging.consumer import Consumer
from order_services.messaging.dead_letters import DeadLetterLimit
from order_services.messaging.relay import Relay
from order_services.operations import topic_admin
from order_services.process.settings import ServiceSettings
from order_services.storage import schema
from order_services.storage.database import Database
from tests.conftest import Database as DatabaseOfTest


def order_created(order_id: str | None = None, **payload: Any) -> Event:
    content = {
        "customerId": "c-1",
        "items": [{"productId": "PROD-001", "quantity": 2, "unitPriceCents": 500}],
        "totalCents": 1000,
        "currency": "EUR",
        **payload,
    }
    return Event(EventType.ORDER_CREATED, order_id or new_id(), content, "gateway", "corr-1")


def order_cancelled(order_id: str) -> Event:
    content = {"reason": "customer"}
    return Event(EventType.ORDER_CANCELLED, order_id, content, "gateway", "corr-1")


_NOTE = "INSERT INTO notebook VALUES (:id, :writer) ON CONFLICT DO NOTHING"


@dataclass
class Notebook:
    """A handler that writes down what it handles, and fails when told to.

    An effect of one writer, as of one service, is none of another's.
    """

    fail: Callable[[Event], Exception | None] = lambda _event: None
    calls: list[int] = field(default_factory=list)
    writer: str = ""

    def __call__(self, events: Sequence[Event], connection: Connection) -> Effects:
        self.calls.append(len(events))
        repeated = []
        for event in events:
            noted = connection.execute(text(_NOTE), {"id": event.event_id, "writer": self.writer})
            if noted.rowcount == 0:
                repeated.append(event.event_id)
                continue
            error = self.fail(event)
            if error is not None:
                raise error
        caused = [
            event.follow(EventType.PAYMENT_PROCESSED, {"amountCents": 1}, "test")
            for event in events
            if event.event_id not in repeated
        ]
        return Effects(caused, repeated)


@dataclass
class Lab:
    """Makes parts for one test and stops them at its end."""

    settings: ServiceSettings
    database: Database
    unique: Callable[[str], str]
    # called when it is first needed: most tests of a service's rules need no broker
    start_kafka: Callable[[], EmbeddedKafka]
    _stops: list[Callable[[], object]] = field(default_factory=list)

    @property
    def kafka(self) -> EmbeddedKafka:
        return self.start_kafka()

    @property
    def kafka_settings(self) -> ServiceSettings:
        brokers = self.kafka.bootstrap_servers
        return self.settings.model_copy(update={"kafka_brokers": brokers})

    def group(self, partitions: int = 3) -> ConsumerGroup:
        group = ConsumerGroup(self.unique("group"), (self.unique("topic"),))
        admin = topic_admin.admin_client(self.kafka.bootstrap_servers)
        wanted = [
            topics.Topic(name, partitions) for name in (*group.topics, group.dead_letter_topic)
        ]
        # what the handlers of these tests cause goes to the real topic
        topic_admin.create(admin, [*wanted, topics.TOPIC_OF_NAME[topics.PAYMENTS]])
        return group

    def send(self, topic: str, events: Sequence[Event | bytes]) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers})
        for event in events:
            if isinstance(event, bytes):
                producer.produce(topic, event, b"raw", headers=[("mark", b"\xff")])
            else:
                producer.produce(topic, event.encode(), event.key(), headers=dict(event.headers()))
        assert producer.flush(20) == 0

    def processor(
        self, group: ConsumerGroup, handler: Any, *, limit: int = 10, **options: Any
    ) -> BatchProcessor:
        return BatchProcessor(
            source="test",
            group=group,
            handles=options.pop("handles", frozenset({EventType.ORDER_CREATED})),
            handle=handler,
            takes_replays=options.pop("takes_replays", False),
            database=self.database,
            limit=DeadLetterLimit(limit, 60),
        )

    def consumer(
        self, group: ConsumerGroup, handler: Any, *, limit: int = 10, **settings: Any
    ) -> Consumer:
        consumer = Consumer(
            group=group,
            settings=self.kafka_settings.model_copy(update=settings),
            processor=self.processor(group, handler, limit=limit),
            on_written=lambda: None,
        )
        consumer.start()
        self._stops.append(lambda: consumer.stop(10))
        return consumer

    def relay(self, **settings: Any) -> Relay:
        relay = Relay("test", self.kafka_settings.model_copy(update=settings), self.database)
        self._stops.append(lambda: relay.stop(0.1))
        return relay

    def committed(self, group: ConsumerGroup, partitions: int = 3) -> int:
        """Return the sum of the group's committed offsets, -1 while the broker cannot tell."""
        client = KafkaConsumer(
            {"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": group.group_id}
        )
        try:
            wanted = [TopicPartition(t, p) for t in group.topics for p in range(partitions)]
            return sum(max(0, each.offset) for each in client.committed(wanted, timeout=10))
        except KafkaException:
            return -1  # a broker that has just started is still looking for the group's coordinator
        finally:
            client.close()

    def read(self, topic: str, count: int, timeout_s: float = 20) -> list[Message]:
        """Return the first `count` messages of a topic, from all of its partitions."""
        client = KafkaConsumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": self.unique("reader"),
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        client.subscribe([topic])
        found: list[Message] = []
        deadline = time.monotonic() + timeout_s
        try:
            while len(found) < count and time.monotonic() < deadline:
                found += [m for m in client.consume(count, 0.2) if m.error() is None]
        finally:
            client.close()
        return found

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        with self.database.begin() as connection:
            return list(connection.execute(text(statement), parameters).all())

    def number(self, statement: str, **parameters: Any) -> int:
        return int(self.query(statement, **parameters)[0][0])

    def noted(self) -> int:
        return self.number("SELECT count(*) FROM notebook")

    def stop(self) -> None:
        for stop in reversed(self._stops):
            stop()


@pytest.fixture(scope="session")
def migrated(postgres: EmbeddedPostgres) -> str:
    """Name a database with the schema: to copy it takes half the time of a migration."""
    name = "migrated"
    postgres.create_database(name)
    made = Database(
        ServiceSettings(port=0, kafka_client_id="lab", db_port=postgres.port, db_name=name)
    )
    schema.migrate(made.engine)
    made.close()
    return name


@pytest.fixture
def database(
    postgres: EmbeddedPostgres, migrated: str, unique: Callable[[str], str]
) -> Iterator[DatabaseOfTest]:
    """Yield a database of one test, with the schema."""
    name = unique("orders").replace("-", "_")
    connection = postgres.connect("postgres")
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {migrated}")
    connection.close()
    yield DatabaseOfTest(postgres.host, postgres.port, name, postgres.user, postgres.password)
    postgres.drop_database(name)


@pytest.fixture
def lab_settings(database: DatabaseOfTest) -> ServiceSettings:
    return ServiceSettings(
        port=0,
        kafka_client_id="lab",
        db_host=database.host,
        db_port=database.port,
        db_name=database.name,
        db_user=database.user,
        db_password=SecretStr(database.password),
        retry_max_seconds=0.5,
        session_timeout_seconds=10,
    )


@pytest.fixture
def lab(
    request: pytest.FixtureRequest, lab_settings: ServiceSettings, unique: Callable[[str], str]
) -> Iterator[Lab]:
    connected = Database(lab_settings)
    with connected.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE notebook (event_id uuid, writer text, PRIMARY KEY (event_id, writer))"
            )
        )
    lab = Lab(lab_settings, connected, unique, lambda: request.getfixturevalue("kafka"))
    yield lab
    lab.stop()
    connected.close()
