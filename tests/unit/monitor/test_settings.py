from __future__ import annotations

import os
from pathlib import Path

import pytest

from monitor.commands.options import refuse_misspelt
from monitor.configuration import read_configuration
from monitor.pools.settings import DatabaseSettings
from monitor.settings import (
    KafkaSettings,
    MonitorSettings,
    SettingsError,
    split_address,
)
from scripts.configuration import document


def refused(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        read_configuration().one()
    return str(caught.value)


def test_options_go_before_the_environment_and_defaults_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_BROKERS", "a:1,b:2")
    monkeypatch.setenv("MONITOR_PORT", "9999")
    kafka, monitor = read_configuration(port=9400, poll_interval=None).one()
    assert kafka.bootstrap_servers == ("a:1", "b:2")
    assert (monitor.port, monitor.poll_interval, monitor.stale_after_seconds) == (9400, 15, 45)
    assert read_configuration(bootstrap_servers="c:3").one()[0].bootstrap_servers == ("c:3",)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"KAFKA_BROKERS": "nowhere"}, "'nowhere' is not HOST:PORT"),
        ({"KAFKA_BROKERS": "http://a:1"}, "is not HOST:PORT"),
        ({"KAFKA_BROKERS": "a:70000"}, "a port is 1 to 65535"),
        ({"KAFKA_BROKERS": ","}, "at least one HOST:PORT"),
        ({"KAFKA_SASL_MECHANISM": "PLAIN"}, "needs KAFKA_SECURITY_PROTOCOL"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "needs KAFKA_SASL_MECHANISM"),
        ({"KAFKA_SSL_CAFILE": "/no/such/file"}, "there is no file"),
        ({"MONITOR_POLL_INTERVAL": "0"}, "MONITOR_POLL_INTERVAL"),
        ({"MONITOR_POLL_INTERVAL": "60", "MONITOR_STALE_AFTER": "30"}, "must be longer"),
        ({"MONITOR_PORT": "70000"}, "MONITOR_PORT"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], reason: str
) -> None:
    assert reason in refused(monkeypatch, **environment)


def test_a_password_in_clear_text_is_refused_but_not_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
    monkeypatch.setenv("KAFKA_SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "user")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hush")
    assert read_configuration(bootstrap_servers="127.0.0.1:9092").one()[0].sasl_username == "user"
    message = refused(monkeypatch, KAFKA_BROKERS="kafka.example:9092")
    assert "clear text" in message
    assert "hush" not in message
    monkeypatch.setenv("KAFKA_ALLOW_CLEARTEXT_PASSWORD", "true")
    kafka, _ = read_configuration().one()
    assert "hush" not in repr(kafka)


def test_a_certificate_that_is_none_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from monitor.kafka.connecting import OptionsError, connection_options  # noqa: PLC0415

    (tmp_path / "ca.pem").write_text("no certificate")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SSL")
    monkeypatch.setenv("KAFKA_SSL_CAFILE", str(tmp_path / "ca.pem"))
    with pytest.raises(OptionsError, match="holds no certificate"):
        connection_options(read_configuration().one()[0])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("kafka:9092", ("kafka", 9092)),
        ("[::1]:9092", ("::1", 9092)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
    ],
)
def test_addresses_are_split(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


def test_deny_goes_before_allow_and_both_must_match_the_whole_name() -> None:
    settings = MonitorSettings(
        groups_allow="payment-.*",  # type: ignore[arg-type]  # as from the environment
        groups_deny=".*-test",  # type: ignore[arg-type]
    )
    wants = settings.wants_group()
    assert wants is not None
    assert wants("payment-service")
    assert not wants("payment-test")
    assert not wants("my-payment-service")
    assert settings.wants_topic() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("families", "kminion,nonsense"), ("level", "cluster"), ("groups_allow", "(")],
)
def test_choices_that_there_are_not_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"MONITOR_{name.upper()}"):
        read_configuration(**{name: value}).one()


def test_the_table_of_settings_is_the_declarations() -> None:
    committed = Path(__file__).parents[3] / "docs" / "configuration.md"
    assert document() == committed.read_text(), "run `make docs`"


def test_every_setting_says_what_it_is() -> None:
    for model in (KafkaSettings, MonitorSettings, DatabaseSettings):
        assert all(field.description for field in model.model_fields.values())


def test_a_secret_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hush\n")
    monkeypatch.setenv("MONITOR_USERNAME", "prometheus")
    monkeypatch.setenv("MONITOR_PASSWORD_FILE", str(secret))
    (tmp_path / "url").write_text("postgresql://u:hush@h/d\n")
    monkeypatch.setenv("MONITOR_DATABASE_URL_FILE", str(tmp_path / "url"))
    assert read_configuration().one()[1].login == ("prometheus", "hush")
    refuse_misspelt(os.environ)
    monkeypatch.setenv("MONITOR_PASSWORD", "louder")
    assert read_configuration().one()[1].login == ("prometheus", "louder")


def test_a_file_that_holds_no_secret_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    message = refused(monkeypatch, KAFKA_SASL_PASSWORD_FILE=str(tmp_path / "none"))
    assert (
        message
        == f"KAFKA_SASL_PASSWORD_FILE={tmp_path}/none can't be read: No such file or directory"
    )
    (tmp_path / "none").touch()
    assert "is empty" in refused(monkeypatch)
    monkeypatch.delenv("KAFKA_SASL_PASSWORD_FILE")
    monkeypatch.setenv("MONITOR_DATABASE_URL_FILE", str(tmp_path))
    with pytest.raises(SettingsError, match=r"MONITOR_DATABASE_URL_FILE=.* Is a directory"):
        read_configuration()
