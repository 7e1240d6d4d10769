from __future__ import annotations

from pathlib import Path

import pytest

from order_services.payment.settings import PaymentSettings
from order_services.process.settings import SettingsError, load


def test_the_environment_configures_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "4011")
    monkeypatch.setenv("KAFKA_CLIENT_ID", "payment-service-2")
    monkeypatch.setenv("INSTANCE_ID", "2")
    settings = load(PaymentSettings)
    assert (settings.port, settings.host) == (4011, "127.0.0.1")
    assert settings.group_instance_id == "payment-service-2-2"


def test_the_defaults_are_those_of_the_guide() -> None:
    settings = load(PaymentSettings)
    assert settings.port == 4001
    assert (settings.db_pool_min, settings.db_pool_max) == (1, 5)
    assert (settings.db_pool_idle_seconds, settings.db_pool_timeout_seconds) == (30, 5)
    assert settings.group_instance_id is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "x"),
        ("DB_POOL_MAX", "1"),
        ("DB_POOL_MIN", "6"),
        ("BATCH_MAX_MESSAGES", "0"),
        ("MAX_POLL_INTERVAL_SECONDS", "20"),
        ("DB_IDLE_TRANSACTION_TIMEOUT_SECONDS", "5"),
        ("RETRY_FIRST_SECONDS", "60"),
        ("KAFKA_CLIENT_ID", "two words"),
        ("PAYMENT_REFUSAL_RATE", "2"),
        ("GROUP_PROTOCOL", "eager"),
    ],
)
def test_a_bad_or_unsafe_setting_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable):
        load(PaymentSettings)


def test_a_password_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    settings = load(PaymentSettings)
    assert "hunter2" not in repr(settings) + str(settings.database_url)
    assert settings.database_url.password == "hunter2"
    monkeypatch.setenv("PORT", "x")
    with pytest.raises(SettingsError) as refused:
        load(PaymentSettings)
    assert "hunter2" not in str(refused.value)


def test_a_host_may_be_the_directory_of_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_HOST", "/run/postgresql")
    url = load(PaymentSettings).database_url
    assert url.host is None
    assert url.query["host"] == "/run/postgresql"


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HOST": "0.0.0.0"}, "DB_PASSWORD is the default one"),
        ({"DB_HOST": "db.example"}, "DB_PASSWORD is the default one"),
        ({"DB_SSLMODE": "verify-full"}, "needs DB_SSLROOTCERT"),
        ({"DB_SSLMODE": "maybe"}, "DB_SSLMODE"),
        ({"DB_SSLROOTCERT": "/nowhere"}, "DB_SSLROOTCERT: there is no file /nowhere"),
        ({"KAFKA_SSL_CAFILE": "/nowhere"}, "KAFKA_SSL_CAFILE: there is no file /nowhere"),
        ({"KAFKA_SASL_MECHANISM": "PLAIN"}, "KAFKA_SECURITY_PROTOCOL"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "needs KAFKA_SASL_MECHANISM"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "PLAIN"},
            "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
        ),
        (
            {
                "KAFKA_BROKERS": "127.0.0.1:1,broker.example:9092",
                "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
                "KAFKA_SASL_MECHANISM": "PLAIN",
                "KAFKA_SASL_USERNAME": "u",
                "KAFKA_SASL_PASSWORD": "hunter2",
            },
            "clear text",
        ),
    ],
)
def test_what_is_unsafe_beyond_this_machine_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], reason: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load(PaymentSettings)
    assert reason in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_password_of_ones_own_is_taken_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("DB_HOST", "db.example")
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    assert load(PaymentSettings).host == "0.0.0.0"


def test_every_client_takes_its_settings_from_one_place(repository: Path) -> None:
    """One that names the brokers by itself would not speak TLS; the embedded broker has none."""
    source = repository / "order_services"
    named = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if '"bootstrap.servers"' in path.read_text()
    }
    assert named == {"process/kafka_settings.py", "local/kafka.py"}
