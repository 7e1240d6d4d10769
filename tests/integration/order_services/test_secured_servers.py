"""Kafka behind TLS and SASL, PostgreSQL behind TLS: every client of ours takes the same settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from order_services.cli import cli
from order_services.domain import topics
from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import LOOPBACK, free_port
from order_services.local.postgres import EmbeddedPostgres
from order_services.operations import topic_admin
from order_services.process.kafka_settings import kafka_settings
from order_services.process.settings import ServiceSettings
from order_services.storage.database import Database
from tests.integration.order_services.conftest import Lab, Notebook, order_created
from tests.support.pgbouncer import INSTALL_HINT, EmbeddedPgBouncer, find_pgbouncer
from tests.support.waiting import wait_for

USER, SECRET = "orders", "s3cret-of-this-test"
TLS = Path(__file__).resolve().parents[2] / "support" / "tls"
TRUSTED, STRANGER = TLS / "one.pem", TLS / "two.pem"
PLAIN_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule"


class SecuredKafka(EmbeddedKafka):
    """A broker with a listener for TLS and one for TLS and SASL beside its own."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        data_dir.mkdir(parents=True, exist_ok=True)
        controller = self._controller_port()
        self.tls, self.sasl = (f"{LOOPBACK}:{free_port()}" for _ in range(2))
        self._overrides |= {
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{LOOPBACK}:{controller},"
            f"SSL://{self.tls},SASL_SSL://{self.sasl}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers},"
            f"SSL://{self.tls},SASL_SSL://{self.sasl}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
            "SSL:SSL,SASL_SSL:SASL_SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(TRUSTED),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(TRUSTED),
            # the TLS listener asks for a certificate, the other for a password
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{PLAIN_LOGIN} required "
            f'user_{USER}="{SECRET}";',
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{SCRAM_LOGIN} required;",
        }


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    broker = SecuredKafka(tmp_path_factory.mktemp("secured-kafka"))
    broker.start()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    wanted = UserScramCredentialUpsertion(USER, credential, SECRET.encode())
    admin.alter_user_scram_credentials([wanted])[USER].result()
    yield broker
    broker.stop()


def environment(secured: SecuredKafka, mechanism: str) -> dict[str, str]:
    if mechanism == "certificate":
        return {
            "KAFKA_BROKERS": secured.tls,
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CAFILE": str(TRUSTED),
            "KAFKA_SSL_CERTFILE": str(TRUSTED),
        }
    return {
        "KAFKA_BROKERS": secured.sasl,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SSL_CAFILE": str(TRUSTED),
        "KAFKA_SASL_MECHANISM": mechanism,
        "KAFKA_SASL_USERNAME": USER,
        "KAFKA_SASL_PASSWORD": SECRET,
    }


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.mark.parametrize("mechanism", ["certificate", "PLAIN", "SCRAM-SHA-512"])
def test_events_come_and_go_and_commands_work_on_a_secured_broker(
    lab: Lab, secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    variables = environment(secured, mechanism)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    base = lab.settings.model_dump(include=set(type(lab.settings).model_fields), exclude_unset=True)
    lab.settings = ServiceSettings(**base)
    lab.start_kafka = lambda: secured
    assert lab.settings.kafka_brokers == variables["KAFKA_BROKERS"]
    assert command("topics", "create").exit_code == 0
    group = topics.ConsumerGroup(lab.unique("group"), (lab.unique("topic"),))
    admin = topic_admin.admin_client(lab.settings)
    wanted = [topics.Topic(name, 1) for name in (*group.topics, group.dead_letter_topic)]
    topic_admin.create(admin, wanted)

    event = order_created()
    producer = Producer(kafka_settings(lab.settings))
    producer.produce(group.topics[0], event.encode(), event.key(), headers=dict(event.headers()))
    assert producer.flush(20) == 0
    # as `Lab.consumer` and `Lab.relay` do it, on the listener that the settings name
    monkeypatch.setattr(type(lab), "kafka_settings", property(lambda self: self.settings))
    lab.consumer(group, Notebook())
    wait_for("the event", lambda: lab.noted() == 1)
    relay = lab.relay()
    wait_for(
        "the outbox", lambda: relay.publish_once() or not lab.number("SELECT count(*) FROM outbox")
    )
    assert lab.number("SELECT count(*) FROM outbox") == 0
    # the topic has what the test's other turns sent, too
    sent = lab.read(topics.PAYMENTS, 3, timeout_s=3)
    assert event.key() in [message.key() for message in sent]
    listed = command("dead-letters", "list")
    assert (listed.exit_code, "payment-service-group: none" in listed.output) == (0, True)


@pytest.mark.parametrize(
    "change",
    [
        {"KAFKA_SASL_PASSWORD": "wr0ng-secret"},
        {"KAFKA_SSL_CAFILE": str(STRANGER)},
        {
            "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            "KAFKA_SASL_MECHANISM": None,
            "KAFKA_SSL_CAFILE": None,
        },
    ],
    ids=["wrong password", "a stranger's certificate", "no TLS"],
)
def test_a_broker_that_refuses_is_an_error_without_secrets(
    secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch, change: dict[str, str | None]
) -> None:
    for name, value in (environment(secured, "SCRAM-SHA-512") | change).items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    answer = command("topics", "list")
    assert answer.exit_code == 2
    assert f"cannot reach Kafka at {secured.sasl}" in answer.output
    assert not any(secret in answer.output for secret in (SECRET, "wr0ng-secret"))
    assert "Traceback" not in answer.output


def test_settings_that_do_not_fit_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", SECRET)
    answer = command("topics", "list")
    assert (answer.exit_code, SECRET in answer.output) == (2, False)
    assert "KAFKA_SASL_MECHANISM" in answer.output


@pytest.fixture
def bouncer(postgres: EmbeddedPostgres, tmp_path: Path) -> Iterator[EmbeddedPgBouncer]:
    """The embedded PostgreSQL is built without TLS: PgBouncer, which speaks it, stands before it."""
    if find_pgbouncer() is None:
        pytest.skip(INSTALL_HINT)
    with TemporaryDirectory() as folder:
        # PgBouncer is an ordinary user, to whom our own temporary folder is closed
        Path(folder).chmod(0o755)
        pem = Path(folder) / "server.pem"
        pem.write_text(TRUSTED.read_text())
        pem.chmod(0o644)
        tls = {
            "client_tls_sslmode": "allow",
            "client_tls_cert_file": str(pem),
            "client_tls_key_file": str(pem),
        }
        server = EmbeddedPgBouncer(tmp_path / "bouncer", postgres.port, overrides=tls)
        server.start()
        yield server
        server.stop()


def database_of(address: EmbeddedPostgres | EmbeddedPgBouncer, **changes: Any) -> Database:
    return Database(
        ServiceSettings(
            port=0,
            kafka_client_id="tls",
            db_host=address.host,
            db_port=address.port,
            db_name="postgres",
            db_user=address.user,
            db_via_pgbouncer=True,
            **changes,
        )
    )


@pytest.mark.parametrize(
    ("changes", "encrypted"),
    [
        ({"db_sslmode": "disable"}, False),
        ({"db_sslmode": "require"}, True),
        ({"db_sslmode": "verify-full", "db_sslrootcert": TRUSTED}, True),
    ],
)
def test_the_database_is_spoken_to_by_tls(
    bouncer: EmbeddedPgBouncer, changes: dict[str, Any], *, encrypted: bool
) -> None:
    database = database_of(bouncer, **changes)
    with database.begin() as connection:
        driver: Any = connection.connection.driver_connection
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
        assert driver.info.ssl_in_use is encrypted
    database.close()


def test_a_database_with_a_strangers_certificate_is_not_spoken_to(
    bouncer: EmbeddedPgBouncer,
) -> None:
    database = database_of(bouncer, db_sslmode="verify-full", db_sslrootcert=STRANGER)
    reason = database.unreachable()
    database.close()
    assert reason == "database: not reachable (OperationalError)"


def test_a_server_without_tls_is_not_spoken_to_where_it_is_required(
    postgres: EmbeddedPostgres,
) -> None:
    database = database_of(postgres, db_sslmode="require")
    with pytest.raises(OperationalError, match="does not support SSL"):
        database.engine.connect()
    database.close()
