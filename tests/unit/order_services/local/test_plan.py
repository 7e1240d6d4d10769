import socket

import pytest

from order_services.local.plan import DatabaseAddress, Plan, PortTakenError, parse_replicas
from order_services.local.ports import LOOPBACK, free_port


def plan(**changes: object) -> Plan:
    values: dict[str, object] = {
        "replicas": {},
        "base_port": 4000,
        "monitor_port": 9308,
        "kafka_port": 9092,
        "postgres_port": 5432,
    }
    return Plan(**{**values, **changes})  # type: ignore[arg-type]  # a keyword bag of a test


def test_every_service_has_the_guides_port_and_replicas_take_ten_more() -> None:
    ports = {
        replica.name: replica.port
        for replica in plan(replicas={"payment": 3, "inventory": 2}).services()
    }
    assert ports == {
        "gateway-1": 4000,
        "payment-1": 4001,
        "payment-2": 4011,
        "payment-3": 4021,
        "inventory-1": 4002,
        "inventory-2": 4012,
        "shipping-1": 4003,
        "analytics-1": 4004,
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("pay=2", "'pay' is no service; there are gateway, payment"),
        ("payment", "say payment=N with N from 1 to 9"),
        ("payment=0", "say payment=N"),
        ("payment=-1", "say payment=N"),
        ("payment=10", "say payment=N"),
        ("payment=2,shipping=x", "say shipping=N"),
    ],
)
def test_a_wrong_replica_list_is_refused_with_what_is_allowed(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("[", r"\[")):
        parse_replicas(text)


def test_a_replica_list_may_have_spaces_and_be_empty() -> None:
    assert parse_replicas("") == {}
    assert parse_replicas(" payment=3, inventory=2 ") == {"payment": 3, "inventory": 2}


def test_a_taken_port_is_named_with_the_setting_that_changes_it() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        wanted = plan(
            kafka_port=port, postgres_port=None, monitor_port=free_port(), base_port=48_000
        )
        with pytest.raises(PortTakenError, match=rf"port {port} \(Kafka\) is taken.*--kafka-port"):
            wanted.check_ports()


def test_a_replica_gets_the_environment_that_the_design_lists() -> None:
    chosen = plan(replicas={"payment": 2})
    database = DatabaseAddress("db", 5432, "ecommerce", "postgres", "secret")
    replica = next(replica for replica in chosen.services() if replica.name == "payment-2")
    environment = chosen.environment(replica, "broker:9092", database)
    assert environment["PORT"] == "4011"
    assert environment["KAFKA_BROKERS"] == "broker:9092"
    assert environment["KAFKA_CLIENT_ID"] == "payment-service-2"
    assert environment["INSTANCE_ID"] == "2"
    assert environment["DB_HOST"] == "db"
    assert "secret" not in repr(database)
