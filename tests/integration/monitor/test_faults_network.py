"""Names that resolve slowly, and quotas: neither may be taken for a dead broker, or hold up others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka.admin import NewTopic

from monitor.kafka.apis.list_groups import ListGroups
from monitor.kafka.brokers import UnreachableError
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.connecting import CLIENT_ID
from monitor.kafka.questions import Ask, Failure
from monitor.kafka.transport import KafkaWire
from monitor.model import Broker
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from tests.support import foreign
from tests.support.cluster import bounded
from tests.support.waiting import wait_for

SLOW_NAME = "slow-name.invalid"
TIMEOUT_S = 2.0


@contextmanager
def connected(*servers: str) -> Iterator[KafkaWire]:
    wire = KafkaWire(KafkaSettings(bootstrap_servers=servers))
    try:
        yield wire
    finally:
        wire.close()


@pytest.fixture
def name_server_hangs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    released = threading.Event()
    ask = socket.getaddrinfo

    def hang(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == SLOW_NAME:
            released.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "temporary failure")
        return ask(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield
    released.set()


@pytest.mark.usefixtures("name_server_hangs")
def test_a_name_that_does_not_resolve_holds_up_no_other_broker(kafka: EmbeddedKafka) -> None:
    with connected(f"{SLOW_NAME}:9092", kafka.bootstrap_servers) as wire:
        with bounded(3 * TIMEOUT_S):
            metadata = wire.find_cluster(TIMEOUT_S)
        # a second broker of that name appears in the cluster
        (known,) = metadata.brokers.values()
        add_broker(wire, Broker(99, SLOW_NAME, 9092))
        asks = [Ask(99, ListGroups()), Ask(known.id, ListGroups())]
        with bounded(3 * TIMEOUT_S):
            wire.ask(asks, TIMEOUT_S)
        assert asks[0].failure is not None
        assert asks[0].failure.cause == "its name was not resolved in time"
        assert asks[0].failure.broker_down
        assert asks[1].answer is not None


@pytest.mark.usefixtures("name_server_hangs")
def test_only_slow_names_are_told_as_such() -> None:
    with (
        connected(f"{SLOW_NAME}:9092", "127.0.0.1:1") as wire,
        pytest.raises(UnreachableError) as caught,
    ):
        wire.find_cluster(TIMEOUT_S)
    assert caught.value.causes == {
        f"{SLOW_NAME}:9092": "its name was not resolved in time",
        "127.0.0.1:1": "connection refused",
    }


def test_a_broker_that_throttles_us_is_answering_and_not_dead(
    kafka: EmbeddedKafka, unique: Callable[[str], str]
) -> None:
    # a pause is a second at most: of a cluster without topics a poll asks one thing, and waits less
    name = unique("throttled")
    admin = foreign.admin_client(kafka.bootstrap_servers)
    admin.create_topics([NewTopic(name, 1, 1)])[name].result()

    def quota(change: str, value: str) -> None:
        kafka.run_tool(
            "kafka.admin.ConfigCommand",
            "--bootstrap-server", kafka.bootstrap_servers, "--alter",
            "--entity-type", "clients", "--entity-name", CLIENT_ID, change, value,
        )  # fmt: skip

    with connected(kafka.bootstrap_servers) as wire:
        collector = Collector(wire, Intervals(request_timeout=30))
        (broker,) = collector.poll().brokers
        quota("--add-config", "request_percentage=0.01")
        try:

            def throttled() -> bool:
                snapshot = collector.poll()
                assert snapshot.broker_errors == {}
                assert snapshot.errors == ()
                assert not snapshot.end_offsets.silent
                # each answer was followed by a pause
                return snapshot.duration_seconds > 1

            assert wait_for("throttled poll", throttled)

            # where the pause is longer than the time limit, the cause is told
            def refusal() -> Failure | None:
                asks: list[Ask[Any]] = [Ask(broker, ListGroups()) for _ in range(2)]
                wire.ask(asks[:1], 30)
                wire.ask(asks[1:], 0.2)
                return asks[1].failure

            failure = wait_for("refusal", refusal)
            assert failure == Failure("it throttles this client: its quota is used up")
        finally:
            quota("--delete-config", "request_percentage")


def add_broker(wire: KafkaWire, broker: Broker) -> None:
    """Have the wire learn an address as if a broker's metadata had named it."""
    cluster = wire._manager.cluster
    (one,) = cluster.brokers()
    reply = cluster._brokers | {
        broker.id: type(one)(node_id=broker.id, host=broker.host, port=broker.port, rack=None)
    }
    cluster._brokers = reply
