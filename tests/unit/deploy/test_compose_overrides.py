"""The compose files that go on top of others: brokers with TLS and SASL, two PgBouncers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from monitor.configuration import read_configuration
from order_services.process.kafka_settings import KafkaSettings, kafka_settings
from tests.unit.deploy import compose

CLIENTS = (
    *("topics", "api-gateway", "payment-service", "inventory-service", "shipping-service"),
    *("analytics-service", "monitor"),
)
DEFAULT = re.compile(r"\$\{[A-Z_]+PASSWORD:-demo-only-change-me\}")

on_each_file = pytest.mark.parametrize("name", compose.FILES)


@pytest.mark.parametrize("override", compose.OVERRIDES)
@on_each_file
def test_what_comes_of_it_is_valid_by_the_compose_specification(name: str, override: str) -> None:
    schema: Any = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(compose.raw(override))
    validator.validate({"services": compose.overlaid(name, override)})


@pytest.mark.parametrize("override", compose.OVERRIDES)
@on_each_file
def test_it_changes_only_what_the_file_below_it_has(name: str, override: str) -> None:
    added = set(compose.overlaid(name, override)) - set(compose.services(name))
    assert added == ({"pgbouncer-2"} if override == compose.TWO_POOLERS else set())


@on_each_file
@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_comes_by_tls_and_with_a_password(
    name: str, client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = compose.overlaid(name, compose.SECURE)[client]
    variables = compose.environment(definition)
    mounted = {target: source for source, target, _ in compose.mounts(definition)}
    assert mounted[variables["KAFKA_SSL_CAFILE"]] == "./deploy/kafka/secrets/ca.pem"
    authority = tmp_path / "ca.pem"
    authority.touch()
    for variable, value in (variables | {"KAFKA_SSL_CAFILE": str(authority)}).items():
        monkeypatch.setenv(variable, value)
    if client == "monitor":
        kafka, _ = read_configuration().one()
        assert kafka.bootstrap_servers == ("kafka:29094",)
        assert variables["KAFKA_SASL_USERNAME"] == "monitor"
        return
    settings = kafka_settings(KafkaSettings())
    assert settings["bootstrap.servers"] == "kafka:29094"
    assert settings["security.protocol"] == "SASL_SSL"
    assert settings["sasl.username"] == "orders"


@on_each_file
def test_nobody_reaches_the_broker_in_clear_text(name: str) -> None:
    definitions = compose.overlaid(name, compose.SECURE)
    kafka = compose.environment(definitions["kafka"])
    protocols = dict(
        part.split(":") for part in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
    )
    for listener in kafka["KAFKA_LISTENERS"].split(","):
        called, address = listener.split("://")
        assert protocols[called] == "SASL_SSL" or address.startswith("localhost:"), listener
    # the image would want Java keystores for listeners of these names
    assert "SSL://" not in kafka["KAFKA_ADVERTISED_LISTENERS"]
    for service, definition in definitions.items():
        if service != "kafka":
            assert "29092" not in json.dumps(definition), service


def test_every_password_comes_from_the_environment() -> None:
    text = (compose.REPOSITORY / compose.SECURE).read_text()
    found = [line for line in text.splitlines() if re.search(r"SASL_PASSWORD:|user_[a-z]+=", line)]
    assert len(found) == 4
    assert all(DEFAULT.search(line) for line in found)


@on_each_file
def test_two_poolers_share_a_port_and_the_limits_of_one(name: str) -> None:
    one = compose.environment(compose.services(name)["pgbouncer"])
    definitions = compose.overlaid(name, compose.TWO_POOLERS)
    poolers = [definitions["pgbouncer"], definitions["pgbouncer-2"]]
    for limit in ("MAX_CLIENT_CONN", "DEFAULT_POOL_SIZE"):
        assert sum(int(compose.environment(each)[limit]) for each in poolers) == int(one[limit])
    assert {compose.environment(each)["SO_REUSEPORT"] for each in poolers} == {"1"}
    second = definitions["pgbouncer-2"]
    assert second["network_mode"] == "service:pgbouncer"
    assert not second.get("ports")
    assert "MONITOR_PGBOUNCER_URL" in compose.environment(compose.services(name)["monitor"])
    assert "MONITOR_PGBOUNCER_URL" not in compose.environment(definitions["monitor"])
