"""Kafka's own client.properties."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.client_properties import read_client_properties
from monitor.settings import SettingsError
from tests.unit.monitor.test_cli import run

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"


def read(tmp_path: Path, text: str) -> dict[str, object]:
    path = tmp_path / "client.properties"
    path.write_text(text)
    return read_client_properties(path)


def test_what_kafkas_tools_take_is_taken(tmp_path: Path) -> None:
    assert read(
        tmp_path,
        f"""\
# a comment
bootstrap.servers=a:1,b:2
security.protocol=SASL_SSL
sasl.mechanism = PLAIN
sasl.jaas.config={PLAIN} required \\
    username="alice" \\
    password="a \\"quoted\\" secret;";
ssl.truststore.type=PEM
ssl.truststore.location=/etc/ca.pem
ssl.endpoint.identification.algorithm=
request.timeout.ms=5000
""".replace('\\"', '\\\\"'),
    ) == {
        "bootstrap_servers": "a:1,b:2",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "alice",
        "sasl_password": 'a "quoted" secret;',
        "ssl_cafile": "/etc/ca.pem",
        "ssl_check_hostname": False,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ssl.truststore.location=/etc/trust.jks", "ssl.truststore.type=JKS can't be read here"),
        ("ssl.keystore.location=k\nssl.keystore.type=PKCS12", "set ssl.keystore.type=PEM"),
        ("ssl.truststore.certificates=---", "put them into a PEM file"),
        (f"sasl.jaas.config={PLAIN} required username=a;", "without password"),
        ("sasl.jaas.config=a.b.Odd required;", "the login module Odd of sasl.jaas.config"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_can(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)
    assert "client.properties" in str(caught.value)


def test_a_broken_file_shows_no_secret(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, "sasl.jaas.config=hush\\u12")
    assert "hush" not in str(caught.value)
    with pytest.raises(SettingsError, match="can't be read: No such file"):
        read_client_properties(tmp_path / "none")


@pytest.mark.parametrize("command", ["lag", "groups", "serve"])
def test_a_command_takes_it_and_options_go_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:3")
    path = tmp_path / "client.properties"
    path.write_text("bootstrap.servers=127.0.0.1:1")
    assert "127.0.0.1:1: " in run(command, "--command-config", str(path)).output
    given = run(command, "--command-config", str(path), "--bootstrap-servers", "127.0.0.1:2")
    assert "127.0.0.1:2: " in given.output
    path.write_text("security.protocol=SASL_SSL")
    refused = run(command, "--command-config", str(path))
    assert refused.exit_code == 2
    assert "SASL_SSL needs KAFKA_SASL_MECHANISM" in refused.output
