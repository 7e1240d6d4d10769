"""What is told of a cluster that refuses us, or leads us astray: the plain cause, and what to do."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client.parser import text_string_to_metric_families

from monitor.commands import main
from monitor.commands.options import Source
from monitor.commands.watching import collector_of
from monitor.poller import Poller
from monitor.web.app import create_app
from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import LOOPBACK, free_port
from tests.support import foreign, listeners
from tests.support.asgi import Client
from tests.support.cluster import SecondBroker
from tests.support.listeners import Certificates, Listener
from tests.support.slow_link import SlowLink
from tests.support.waiting import wait_for

AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
USERS = "".join(f' user_{name}="hush-right"' for name in ("watcher", "stranger"))


@dataclass(frozen=True)
class Told:
    """What somebody learns in each place; `metrics` are the errors on /metrics."""

    command: str
    exit_code: int
    ready: str
    page: str
    metrics: tuple[str, ...]

    def everywhere(self) -> tuple[str, ...]:
        """Return all four texts."""
        return self.command, self.ready, self.page, "\n".join(self.metrics)


def told(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> Told:
    """Run the command, and two polls of a monitor that waits for the cluster."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(main, ["lag"])
    kafka, settings = Source(None, None, {}).one()
    with collector_of(kafka, settings, connect=False) as collector:
        poller = Poller(collector, stale_after_s=settings.stale_after_seconds)
        for _ in range(2):
            poller.poll()
        client = Client(create_app(poller))
        ready = client.get("/ready")
        page = client.get("/metrics").text
    errors = tuple(
        sample.labels["error"]
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name in {"kafka_monitor_poll_failed", "kafka_monitor_poll_errors"}
    )
    assert "Traceback" not in result.output
    return Told(
        result.output,
        result.exit_code,
        str(ready.json().get("reason", "ready")),
        html.unescape(client.get("/").text),
        errors,
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def doors(certificates: Certificates) -> Mapping[str, Listener]:
    own = certificates.issue(LOOPBACK)
    jaas = f"{listeners.PLAIN_MODULE} required{USERS};"
    return {
        "TLS": Listener("SSL", certificates.listener(own)),
        "EXPIRED": Listener(
            "SSL", certificates.listener(certificates.issue(LOOPBACK, expired=True))
        ),
        "OTHER": Listener("SSL", certificates.listener(certificates.issue("kafka.example.com"))),
        "MUTUAL": Listener("SSL", certificates.listener(own, clients="required")),
        "LOGIN": Listener(
            "SASL_PLAINTEXT",
            {"sasl.enabled.mechanisms": "PLAIN", "plain.sasl.jaas.config": jaas},
        ),
        "FAR": Listener(advertised=f"{LOOPBACK}:{free_port()}"),
        "NOWHERE": Listener(advertised="kafka-1.invalid:9092"),
    }


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, doors: Mapping[str, Listener]
) -> Iterator[EmbeddedKafka]:
    broker = listeners.start(
        tmp_path_factory.mktemp("kafka"),
        doors,
        {"authorizer.class.name": AUTHORIZER, "super.users": "User:ANONYMOUS;User:watcher"},
    )
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic("t", 1, 1)])["t"].result()
    foreign.commit(admin, "g", "t", 0)
    yield broker
    broker.stop()


Environment = Callable[[Mapping[str, Listener], Certificates], Mapping[str, str]]


def over_tls(name: str, **more: str) -> Environment:
    return lambda doors, certificates: {
        "KAFKA_BROKERS": doors[name].address,
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CAFILE": str(certificates.authority),
        **more,
    }


def in_plain_text(name: str, **more: str) -> Environment:
    return lambda doors, _: {"KAFKA_BROKERS": doors[name].address, **more}


def logged_in(user: str, password: str, mechanism: str = "PLAIN") -> Environment:
    return in_plain_text(
        "LOGIN",
        KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT",
        KAFKA_SASL_MECHANISM=mechanism,
        KAFKA_SASL_USERNAME=user,
        KAFKA_SASL_PASSWORD=password,
    )


def with_a_stranger(doors: Mapping[str, Listener], certificates: Certificates) -> Mapping[str, str]:
    stranger = Certificates(certificates.authority.parent / "stranger").issue("client")
    return {**over_tls("MUTUAL")(doors, certificates), "KAFKA_SSL_CERTFILE": str(stranger)}


@pytest.mark.parametrize(
    ("environment", "cause", "remedy"),
    [
        pytest.param(
            over_tls("EXPIRED"), "its certificate has expired", "renew it", id="expired certificate"
        ),
        pytest.param(
            over_tls("OTHER"),
            "its certificate is for other names",
            "connect to one that is in it",
            id="certificate of another name",
        ),
        pytest.param(
            lambda doors, _: {
                "KAFKA_BROKERS": doors["TLS"].address,
                "KAFKA_SECURITY_PROTOCOL": "SSL",
            },
            "of an authority that is not known here",
            "KAFKA_SSL_CAFILE",
            id="unknown authority",
        ),
        pytest.param(
            over_tls("MUTUAL"),
            "it asks for a client certificate",
            "set KAFKA_SSL_CERTFILE",
            id="no client certificate",
        ),
        pytest.param(
            with_a_stranger,
            "it refuses the client certificate",
            "KAFKA_SSL_CERTFILE",
            id="client certificate of a stranger",
        ),
        pytest.param(
            in_plain_text("TLS"),
            "it speaks TLS",
            "set KAFKA_SECURITY_PROTOCOL to SSL",
            id="TLS not asked for",
        ),
        pytest.param(
            over_tls("LOGIN"),
            "it does not speak TLS",
            "set KAFKA_SECURITY_PROTOCOL to SASL_PLAINTEXT",
            id="TLS asked for",
        ),
        pytest.param(
            in_plain_text("LOGIN"),
            "it asks for a login",
            "KAFKA_SASL_MECHANISM to one of PLAIN",
            id="no login",
        ),
        pytest.param(
            logged_in("watcher", "wrong"),
            "the login was refused (Authentication failed: Invalid username or password)",
            "see KAFKA_SASL_MECHANISM",
            id="wrong password",
        ),
        pytest.param(
            logged_in("watcher", "hush-right", "SCRAM-SHA-512"),
            "it does not offer the SASL mechanism",
            "but PLAIN",
            id="mechanism that is not offered",
        ),
        pytest.param(
            lambda doors, _: {
                **logged_in("watcher", "hush-right")(doors, _),
                "KAFKA_BROKERS": doors["FAR"].address,
            },
            "it asks for no login on this port",
            "set KAFKA_SECURITY_PROTOCOL to PLAINTEXT",
            id="login not asked for",
        ),
        pytest.param(
            lambda *_: {"KAFKA_BROKERS": f"{LOOPBACK}:{free_port()}"},
            "connection refused",
            "",
            id="nobody listens",
        ),
        pytest.param(
            lambda *_: {"KAFKA_BROKERS": "kafka.invalid:9092"},
            "the name does not resolve",
            "kafka.invalid:9092",
            id="no such name",
        ),
    ],
)
def test_who_is_refused_is_told_why_and_what_to_do(  # noqa: PLR0917  # fixtures
    environment: Environment,
    cause: str,
    remedy: str,
    broker: EmbeddedKafka,
    doors: Mapping[str, Listener],
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = told(monkeypatch, environment(doors, certificates))
    assert found.exit_code == 2
    for text in found.everywhere():
        assert cause in text
        assert remedy in text
        assert "hush-right" not in text  # no secret


@pytest.mark.parametrize(
    ("door", "cause"), [("FAR", "connection refused"), ("NOWHERE", "the name does not resolve")]
)
def test_an_address_that_is_advertised_and_cannot_be_reached_is_named_with_what_advertises_it(
    door: str,
    cause: str,
    broker: EmbeddedKafka,
    doors: Mapping[str, Listener],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = told(monkeypatch, {"KAFKA_BROKERS": doors[door].address})
    assert found.exit_code == 2
    for text in found.everywhere():
        for part in (cause, "advertised.listeners", str(doors[door].advertised)):
            assert part in text


def test_a_login_without_rights_does_not_see_an_empty_cluster(
    broker: EmbeddedKafka,
    doors: Mapping[str, Listener],
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = told(monkeypatch, logged_in("stranger", "hush-right")(doors, certificates))
    assert found.exit_code == 1
    assert "has no consumer groups" not in found.command
    for text in found.everywhere():
        assert "this login may not describe the cluster" in text
        assert "DESCRIBE the cluster, the topics and the groups" in text
    # another login, which may
    found = told(monkeypatch, logged_in("watcher", "hush-right")(doors, certificates))
    assert (found.exit_code, found.ready, found.metrics) == (0, "ready", ())


@pytest.mark.heavy
def test_a_proxy_with_one_address_for_all_brokers_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied, other, other_inside = Listener(), free_port(), free_port()
    with SlowLink(proxied.port, 0.0, other) as proxy:
        address = f"{LOOPBACK}:{proxy.port}"
        first = listeners.start(
            tmp_path / "first",
            {"PROXIED": Listener(advertised=address, port=proxied.port)},
        )
        inside = f"PLAINTEXT://{LOOPBACK}:{other_inside}"
        second = SecondBroker(
            tmp_path / "second",
            first,
            more={
                "listeners": f"{inside},PROXIED://{LOOPBACK}:{other}",
                "advertised.listeners": f"{inside},PROXIED://{address}",
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
                "PROXIED:PLAINTEXT",
            },
        )
        second.bootstrap_servers = f"{LOOPBACK}:{other_inside}"
        second.start()
        try:
            admin = AdminClient({"bootstrap.servers": first.bootstrap_servers, "log_level": 0})
            wait_for("second broker", lambda: len(admin.list_topics(timeout=5).brokers) == 2)
            found = told(monkeypatch, {"KAFKA_BROKERS": address})
        finally:
            second.stop()
            first.stop()
    assert found.exit_code == 1
    for text in (found.command, found.page, "\n".join(found.metrics)):
        assert f"brokers 1, 2 are all said to be at {address}" in text
        assert "advertised.listeners" in text
