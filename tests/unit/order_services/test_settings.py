from __future__ import annotations

import pytest

from order_services.payment.settings import PaymentSettings
from order_services.runtime.settings import SettingsError, load


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
