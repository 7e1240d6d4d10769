"""Every way to log in, on a real broker; tokens come from an endpoint of the test's own.

The broker takes signed tokens only, and looks up the keys of who signs them (JWKS).
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from monitor.commands import main
from monitor.kafka.apis.list_groups import ListGroups
from monitor.kafka.questions import Ask
from monitor.kafka.transport import KafkaWire
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import LOOPBACK
from tests.support import listeners
from tests.support.cluster import bounded
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.listeners import Certificates, Listener

SECRET = "hush: ü"
PLAIN = f"{listeners.PLAIN_MODULE} required"
SCRAM = f"{listeners.SCRAM_MODULE} required"
OAUTH = f"{listeners.OAUTH_MODULE} required"
VALIDATOR = "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler"


class Endpoint:
    """A token endpoint that knows one client; `fetched` has the scopes that were asked for."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.fetched: list[str] = []
        self.refused = 0
        self.lifetime_s = 60.0
        self.delay_s = 0.0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                time.sleep(endpoint.delay_s)
                right = base64.b64encode(f"watcher:{SECRET}".encode()).decode()
                if self.headers["Authorization"] != f"Basic {right}":
                    endpoint.refused += 1
                    self._send(
                        401, {"error": "invalid_client", "error_description": "Unknown client"}
                    )
                    return
                assert form["grant_type"] == ["client_credentials"]
                endpoint.fetched.append(form.get("scope", [""])[0])
                self._send(200, endpoint.answer())

            def _send(self, status: int, told: Mapping[str, Any]) -> None:
                body = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server.server_port}/token"

    def answer(self) -> Mapping[str, Any]:
        """Return a token and how long it is good."""
        token = self.issuer.token(self.lifetime_s)
        return {"access_token": token, "expires_in": self.lifetime_s}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture
def endpoint(issuer: Issuer) -> Iterator[Endpoint]:
    endpoint = Endpoint(issuer)
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def door(certificates: Certificates, issuer: Issuer) -> Listener:
    return Listener(
        "SASL_SSL",
        {
            **certificates.listener(certificates.issue(LOOPBACK)),
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "plain.sasl.jaas.config": f'{PLAIN} user_watcher="hush";',
            "scram-sha-256.sasl.jaas.config": f"{SCRAM};",
            "scram-sha-512.sasl.jaas.config": f"{SCRAM};",
            # its own login, which a broker makes in any case, goes nowhere
            "oauthbearer.sasl.jaas.config": f'{OAUTH} unsecuredLoginStringClaim_sub="broker";',
            "oauthbearer.sasl.server.callback.handler.class": VALIDATOR,
            "sasl.oauthbearer.jwks.endpoint.url": issuer.jwks_url,
            "sasl.oauthbearer.expected.audience": AUDIENCE,
            # KIP-368: whoever is connected for longer logs in anew
            "oauthbearer.connections.max.reauth.ms": "4000",
        },
    )


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, door: Listener, issuer: Issuer
) -> Iterator[EmbeddedKafka]:
    broker = listeners.start(
        tmp_path_factory.mktemp("kafka"),
        {"LOGIN": door},
        users={"watcher": "hush"},
        jvm_options=[f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={issuer.jwks_url}"],
    )
    yield broker
    broker.stop()


@pytest.fixture
def environment(
    door: Listener, certificates: Certificates, broker: EmbeddedKafka
) -> dict[str, str]:
    return {
        "KAFKA_BROKERS": door.address,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SSL_CAFILE": str(certificates.authority),
    }


def assert_reached(environment: Mapping[str, str], *arguments: str) -> None:
    result = CliRunner().invoke(main, ["lag", *arguments], env=dict(environment))
    assert (result.exit_code, result.output) == (0, "The cluster has no consumer groups.\n")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_user_with_a_password_logs_in(mechanism: str, environment: dict[str, str]) -> None:
    assert_reached(
        {
            **environment,
            "KAFKA_SASL_MECHANISM": mechanism,
            "KAFKA_SASL_USERNAME": "watcher",
            "KAFKA_SASL_PASSWORD": "hush",
        }
    )


def oauth(endpoint: Endpoint) -> dict[str, str]:
    return {
        "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": endpoint.url,
        "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": "watcher",
        "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": SECRET,
        "KAFKA_SASL_OAUTHBEARER_SCOPE": "kafka",
    }


def test_a_client_with_a_secret_logs_in_with_a_token_from_an_endpoint(
    endpoint: Endpoint, environment: dict[str, str]
) -> None:
    assert_reached({**environment, **oauth(endpoint)})
    assert endpoint.fetched == ["kafka"]  # for bootstrap server and broker together


def test_a_token_in_a_file_logs_in(
    endpoint: Endpoint, environment: dict[str, str], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(f"{endpoint.answer()['access_token']}\n")
    assert_reached(
        {
            **environment,
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_SASL_OAUTH_TOKEN_FILE": str(token),
        }
    )


@pytest.mark.parametrize("wrong", ["key", "audience"])
def test_a_token_that_the_broker_does_not_take_is_refused_with_what_to_look_at(
    wrong: str, issuer: Issuer, environment: dict[str, str], tmp_path: Path
) -> None:
    stranger = Issuer()
    stranger.close()
    token = tmp_path / "token"
    token.write_text(
        stranger.token(60) if wrong == "key" else issuer.token(60, aud="another-service")
    )
    result = CliRunner().invoke(
        main,
        ["lag"],
        env={
            **environment,
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_SASL_OAUTH_TOKEN_FILE": str(token),
        },
    )
    assert result.exit_code == 2
    assert "the login was refused" in result.output
    assert "see KAFKA_SASL_MECHANISM" in result.output
    assert token.read_text() not in result.output


@pytest.mark.parametrize("style", ["since 4.1", "before 4.1", "file"])
def test_kafkas_own_properties_log_in(
    style: str, endpoint: Endpoint, environment: dict[str, str], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(str(endpoint.answer()["access_token"]))
    login = {
        "since 4.1": f"""
sasl.oauthbearer.token.endpoint.url={endpoint.url}
sasl.oauthbearer.client.credentials.client.id=watcher
sasl.oauthbearer.client.credentials.client.secret={SECRET}
sasl.oauthbearer.scope=kafka
""",
        "before 4.1": f"""
sasl.oauthbearer.token.endpoint.url={endpoint.url}
sasl.jaas.config={OAUTH} clientId="watcher" clientSecret="{SECRET}" scope="kafka" \\
  extension_logicalCluster="lkc-1";
""",
        "file": f"sasl.oauthbearer.token.endpoint.url=file://{token}\n",
    }[style]
    properties = tmp_path / "client.properties"
    properties.write_text(
        f"""security.protocol=SASL_SSL
ssl.truststore.type=PEM
ssl.truststore.location={environment["KAFKA_SSL_CAFILE"]}
sasl.mechanism=OAUTHBEARER
{login}"""
    )
    assert_reached(
        {"KAFKA_BROKERS": environment["KAFKA_BROKERS"]}, "--command-config", str(properties)
    )
    assert endpoint.fetched == ([] if style == "file" else ["kafka"])


def wire_of(endpoint: Endpoint, environment: Mapping[str, str], secret: str = SECRET) -> KafkaWire:
    return KafkaWire(
        KafkaSettings(
            bootstrap_servers=(environment["KAFKA_BROKERS"],),
            security_protocol="SASL_SSL",
            ssl_cafile=Path(environment["KAFKA_SSL_CAFILE"]),
            sasl_mechanism="OAUTHBEARER",
            sasl_oauthbearer_token_endpoint_url=endpoint.url,
            sasl_oauthbearer_client_id="watcher",
            sasl_oauthbearer_client_secret=SecretStr(secret),
        )
    )


def test_a_token_is_renewed_before_it_ends_and_a_broker_that_asks_anew_gets_it(
    endpoint: Endpoint, environment: dict[str, str]
) -> None:
    endpoint.lifetime_s = 6.0

    def goes_on_unbroken() -> bool:
        endpoint.fetched.clear()
        wire = wire_of(endpoint, environment)
        try:
            (node,) = wire.find_cluster(20).brokers
            while len(endpoint.fetched) < 3:
                wire.ask([ask := Ask(node, ListGroups())], 20)
                if ask.failure is not None:
                    return False
                time.sleep(0.1)
        finally:
            wire.close()
        return True

    # a machine that stands still for a second may be late for the end of a session, but not each time
    assert any(goes_on_unbroken() for _ in range(5))


def test_an_endpoint_that_refuses_is_the_cause_and_is_not_asked_by_every_question(
    endpoint: Endpoint, environment: dict[str, str]
) -> None:
    result = CliRunner().invoke(
        main,
        ["lag"],
        env={
            **environment,
            **oauth(endpoint),
            "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": "wrong-secret",
        },
    )
    assert result.exit_code == 2
    told = f"the token endpoint {endpoint.url} gave no token (401 Unauthorized, invalid_client"
    assert told in result.output
    assert "KAFKA_SASL_OAUTHBEARER_CLIENT_ID" in result.output
    assert "wrong-secret" not in result.output
    assert endpoint.refused == 1


def test_an_endpoint_that_hangs_costs_only_the_time_of_a_question(
    endpoint: Endpoint, environment: dict[str, str]
) -> None:
    endpoint.delay_s = 30.0
    wire = wire_of(endpoint, environment)
    try:
        with bounded(10), pytest.raises(Exception, match="it takes too long"):
            wire.find_cluster(2)
    finally:
        wire.close()


def test_a_token_that_has_ended_when_it_comes_is_told(
    endpoint: Endpoint, environment: dict[str, str]
) -> None:
    endpoint.lifetime_s = -100.0
    result = CliRunner().invoke(main, ["lag"], env={**environment, **oauth(endpoint)})
    assert result.exit_code == 2
    assert "has ended already: compare the clocks" in result.output
