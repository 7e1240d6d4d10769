"""What the override files run: a real broker with TLS and SASL, two real PgBouncers on one port."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from order_services.domain import topics
from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import LOOPBACK, free_port
from tests.unit.deploy import compose

SCRIPT = compose.REPOSITORY / "deploy" / "kafka" / "make-certificates.sh"


class ComposedKafka(EmbeddedKafka):
    """A broker with the listeners, certificates and users of the override file."""

    def __init__(self, folder: Path, certificates: Path, variables: Mapping[str, str]) -> None:
        data = folder / "kafka"
        data.mkdir(parents=True)
        super().__init__(data)
        self.secure_port = free_port()
        controller = self._controller_port()
        settings = {
            # the image's own rule
            name.removeprefix("KAFKA_").lower().replace("_", "."): value
            for name, value in variables.items()
            if name.startswith(("KAFKA_SSL_", "KAFKA_SASL_", "KAFKA_LISTENER_NAME_SECURE"))
        }
        assert settings["ssl.keystore.location"] == "/etc/kafka/secrets/broker.pem"
        self._overrides |= {
            **settings,
            "ssl.keystore.location": str(certificates / "broker.pem"),
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{LOOPBACK}:{controller},"
            f"SECURE://{LOOPBACK}:{self.secure_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers},"
            f"SECURE://localhost:{self.secure_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
        }


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates") / "secrets"
    subprocess.run([str(SCRIPT), str(folder)], check=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def secure(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposedKafka]:
    definition = compose.overlaid("docker-compose.yml", compose.SECURE)["kafka"]
    folder = tmp_path_factory.mktemp("secure")
    broker = ComposedKafka(folder, certificates, compose.environment(definition))
    broker.start()
    yield broker
    broker.stop()


def run(
    service: str, secure: ComposedKafka, certificates: Path, *command: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with the variables that the override gives a service."""
    address = f"localhost:{secure.secure_port}"
    variables = {
        name: value
        for name, value in compose.environment(
            compose.overlaid("docker-compose.yml", compose.SECURE)[service]
        ).items()
        if name.startswith("KAFKA_")
    }
    variables |= {"KAFKA_BROKERS": address, "KAFKA_SSL_CAFILE": str(certificates / "ca.pem")}
    if "KAFKA_BOOTSTRAP_SERVERS" in variables:
        variables["KAFKA_BOOTSTRAP_SERVERS"] = address
    return subprocess.run(
        [sys.executable, "-m", *command],
        env={"PATH": os.environ["PATH"], **variables, **changes},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_services_and_monitor_reach_the_broker_that_the_override_sets_up(
    secure: ComposedKafka, certificates: Path
) -> None:
    created = run("topics", secure, certificates, "order_services", "topics", "create")
    assert created.returncode == 0, created.stderr
    listed = run("payment-service", secure, certificates, "order_services", "topics", "list")
    assert set(listed.stdout.split()) == set(topics.TOPIC_OF_NAME)
    seen = run("monitor", secure, certificates, "monitor", "groups")
    assert seen.returncode == 0, seen.stdout + seen.stderr


def test_a_wrong_password_and_clear_text_are_refused(
    secure: ComposedKafka, certificates: Path
) -> None:
    command = ("order_services", "topics", "list")
    wrong = run("topics", secure, certificates, *command, KAFKA_SASL_PASSWORD="not-this-one")
    assert wrong.returncode == 2
    assert "not-this-one" not in wrong.stdout + wrong.stderr
    plain = subprocess.run(
        [sys.executable, "-m", *command, "--kafka", f"localhost:{secure.secure_port}"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert plain.returncode == 2


def test_certificates_that_are_there_are_left_alone(certificates: Path) -> None:
    before = (certificates / "broker.pem").read_bytes()
    again = subprocess.run(
        [str(SCRIPT), str(certificates)], capture_output=True, check=False, timeout=120
    )
    assert again.returncode == 2
    assert (certificates / "broker.pem").read_bytes() == before
