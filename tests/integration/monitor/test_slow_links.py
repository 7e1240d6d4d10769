"""How the wire takes brokers that are slow, one of many bootstrap servers, and refused logins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from monitor.kafka.apis.list_groups import ListGroups
from monitor.kafka.brokers import UnreachableError
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.questions import Ask
from monitor.kafka.transport import KafkaWire
from monitor.model import Broker
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import LOOPBACK, free_port
from tests.integration.monitor.test_faults_network import add_broker, connected
from tests.support.cluster import bounded
from tests.support.slow_link import SlowLink
from tests.support.waiting import wait_for

TIMEOUT_S = 20.0
FAR = 99


def test_an_answer_that_nobody_waited_for_tells_that_its_broker_is_back(
    kafka: EmbeddedKafka,
) -> None:
    with connected(kafka.bootstrap_servers) as wire, SlowLink(kafka.port, 0.5) as link:
        (near,) = wire.find_cluster(TIMEOUT_S).brokers
        add_broker(wire, Broker(FAR, LOOPBACK, link.port))
        asks = [Ask(near, ListGroups()), Ask(FAR, ListGroups())]
        wire.ask(asks, TIMEOUT_S, not_awaited={FAR})
        assert asks[0].answer is not None
        assert asks[1].failure is not None
        assert asks[1].failure.broker_down
        assert wire.take_recovered() <= {FAR}
        wire.ask([again := Ask(FAR, ListGroups())], TIMEOUT_S)
        assert again.answer is not None
        wire.ask(asks := [Ask(near, ListGroups()), Ask(FAR, ListGroups())], TIMEOUT_S)
        assert all(ask.answer is not None for ask in asks)


def test_a_late_answer_is_told_once(kafka: EmbeddedKafka) -> None:
    with connected(kafka.bootstrap_servers) as wire, SlowLink(kafka.port, 1.0) as link:
        (near,) = wire.find_cluster(TIMEOUT_S).brokers
        add_broker(wire, Broker(FAR, LOOPBACK, link.port))
        wire.ask([Ask(near, ListGroups()), Ask(FAR, ListGroups())], TIMEOUT_S, not_awaited={FAR})
        assert wait_for("late answer", wire.take_recovered) == {FAR}
        assert wire.take_recovered() == frozenset()


def test_a_bootstrap_server_that_hangs_or_refuses_costs_nothing_when_another_answers(
    kafka: EmbeddedKafka,
) -> None:
    with (
        SlowLink(kafka.port, 10 * TIMEOUT_S) as hanging,
        connected(
            f"{LOOPBACK}:{hanging.port}", f"{LOOPBACK}:{free_port()}", kafka.bootstrap_servers
        ) as wire,
        bounded(TIMEOUT_S),
    ):
        found = wire.find_cluster(2 * TIMEOUT_S)
        assert found.bootstrap == kafka.bootstrap_servers
        collector = Collector(wire, Intervals(request_timeout=2 * TIMEOUT_S))
        collector.connect(2 * TIMEOUT_S)
        wire.take_request_counts()
        assert "Metadata" not in collector.poll().requests


@dataclass(frozen=True)
class Guarded:
    """A broker that asks for a login on a port of its own, where "right" is the password."""

    broker: EmbeddedKafka
    port: int


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    inside, login, controller = free_port(), free_port(), free_port()
    (folder / "controller.port").write_text(str(controller))
    listeners = f"PLAINTEXT://{LOOPBACK}:{inside},SASL_PLAINTEXT://{LOOPBACK}:{login}"
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    broker = EmbeddedKafka(
        folder,
        inside,
        overrides={
            "listeners": f"{listeners},CONTROLLER://{LOOPBACK}:{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
            "SASL_PLAINTEXT:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{module} required user_m="right";',
        },
        heap_mb=256,
    )
    broker.start()
    yield Guarded(broker, login)
    broker.stop()


def logging_in(port: int, password: str) -> KafkaWire:
    return KafkaWire(
        KafkaSettings(
            bootstrap_servers=(f"{LOOPBACK}:{port}",),
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username="m",
            sasl_password=SecretStr(password),
        )
    )


def test_a_login_that_is_refused_is_not_repeated_by_every_poll(guarded: Guarded) -> None:
    with SlowLink(guarded.port) as link:
        wire = logging_in(link.port, "wrong")
        try:
            collector = Collector(wire, Intervals(request_timeout=TIMEOUT_S))
            for _ in range(5):
                with pytest.raises(UnreachableError, match="the login was refused"):
                    collector.poll()
            assert link.accepted == 1
        finally:
            wire.close()


def test_a_login_that_a_broker_refuses_later_is_its_cause_in_every_poll(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = logging_in(guarded.port, "right")
    try:
        collector = Collector(wire, Intervals(request_timeout=TIMEOUT_S, metadata=0.0))
        (broker,) = collector.poll().brokers
        with SlowLink(guarded.port) as link:
            # the broker moves, to where another password is right
            moved = Broker(broker, LOOPBACK, link.port)
            monkeypatch.setitem(wire._manager.config, "sasl_plain_password", "wrong")
            wire._manager.run(wire._manager.close, broker)
            add_broker(wire, moved)
            for _ in range(3):
                wire.ask(asks := [Ask(broker, ListGroups()) for _ in range(4)], TIMEOUT_S)
                assert all(ask.failure and ask.failure.broker_down for ask in asks)
                assert {
                    "the login was refused" in ask.failure.cause for ask in asks if ask.failure
                } == {True}
            assert link.accepted == 1
    finally:
        wire.close()
