"""Addresses and settings: what is taken, what is refused, and that no password is shown."""

from pathlib import Path

import pytest

from monitor.configuration import read_configuration
from monitor.pools.address import Address
from monitor.pools.metrics import METRICS
from monitor.pools.pgbouncer import read_pgbouncer
from monitor.pools.services import ServiceTarget
from monitor.pools.session import Row, Session
from monitor.settings import SettingsError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:secret@db:5433/shop", "db:5433/shop"),
        ("postgresql+psycopg2://u:secret@db/shop", "db:5432/shop"),
        ("postgres://u:secret@[::1]:5432/shop", "::1:5432/shop"),
        ("host=db port=6000 user=u password=secret dbname=shop", "db:6000/shop"),
        ("postgresql://u:sec?ret@db/shop", "db:5432/shop"),
        ("postgresql:///shop?host=/run/postgresql&password=secret", "/run/postgresql:5432/shop"),
        ("postgresql://u:secret@a:1,b:2/shop", "a,b:1,2/shop"),
    ],
)
def test_an_address_is_shown_without_user_and_password(text: str, shown: str) -> None:
    address = Address.parse(text)
    assert address.shown == shown
    assert "secret" not in repr(address)
    assert address.parameters["dbname"] == "shop"


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        "",
        "mysql://u:secret@db/shop",
        "postgresql://u:sec@ret@db/shop",
        "postgresql://u:sec/ret@db/shop",
        "postgresql://u:12/secret@db/shop",
        "postgresql://u:secret@db:port/shop",
        "postgresql://u:secret@db/shop?nonsense=secret",
        "host=db password=two secret words",
    ],
)
def test_what_cannot_be_an_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="say postgresql://USER:PASSWORD@HOST:PORT/DATABASE") as e:
        Address.parse(text)
    assert "ret" not in str(e.value)
    if text:
        with pytest.raises(SettingsError) as refused:
            read_configuration(database_url=text)
        assert str(refused.value).startswith("MONITOR_DATABASE_URL: say postgresql://")
        assert "ret" not in str(refused.value)


def test_a_message_is_cleared_of_the_password_only_where_it_is_a_secret() -> None:
    address = Address.parse("postgresql://postgres:hunter22@db/shop")
    assert address.without_secrets("FATAL:\n  no hunter22 here") == "FATAL: no *** here"
    same = Address.parse("postgresql://postgres:postgres@db/shop")
    assert same.without_secrets('user "postgres" is unknown') == 'user "postgres" is unknown'


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONITOR_DATABASE_URL", "postgresql://u:secret@db/shop")
    monkeypatch.setenv("MONITOR_PGBOUNCER_URL", "postgresql://u:secret@bouncer:6432/shop")
    monkeypatch.setenv("MONITOR_SERVICE_URLS", "payment=http://a:4001, http://b:4002/m")
    settings = read_configuration(pool_max=7).databases
    assert settings.postgres_address is not None
    assert settings.postgres_address.shown == "db:5432/shop"
    assert settings.pgbouncer_address is not None
    assert settings.pgbouncer_address.shown == "bouncer:6432/pgbouncer"
    assert settings.service_urls == ("payment=http://a:4001", "http://b:4002/m")
    assert settings.pool_max == 7
    assert not settings.is_empty
    assert "secret" not in repr(settings)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "PGBOUNCER_URL", "SERVICE_URLS"):
        monkeypatch.setenv(f"MONITOR_{name}", "")
    assert read_configuration().databases.is_empty


@pytest.mark.parametrize(
    ("text", "name", "shown"),
    [
        ("http://a:4001", None, "http://a:4001/metrics"),
        ("http://a:4001/", None, "http://a:4001/metrics"),
        ("payment=http://a/prom", "payment", "http://a:80/prom"),
        ("https://a", None, "https://a:443/metrics"),
        # a replica's name: as a service of its own it would be counted twice
        ("payment-12=http://a:4001", "payment", "http://a:4001/metrics"),
        ("payment-service-1=http://a:4001", "payment-service", "http://a:4001/metrics"),
    ],
)
def test_a_service_is_a_url_with_or_without_a_name(text: str, name: str | None, shown: str) -> None:
    target = ServiceTarget.parse(text)
    assert (target.name, target.shown) == (name, shown)


@pytest.mark.parametrize(
    "text", ["a:4001", "http://", "ftp://a", "http://u:secret@a:1", "http://a:port", "=http://a"]
)
def test_a_service_url_with_a_fault_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(SettingsError, match=r"MONITOR_SERVICE_URLS: say \[NAME=\]http://") as e:
        read_configuration(service_urls=text)
    assert "secret" not in str(e.value)


class _Console(Session):
    """Answers as another version of PgBouncer would."""

    def __init__(self, answers: dict[str, list[Row]]) -> None:
        super().__init__(Address.parse("postgresql://u@bouncer/pgbouncer"))
        self._answers = answers

    def ask(self, sql: str, deadline: float) -> list[Row]:
        assert deadline > 0
        return self._answers[sql.removeprefix("SHOW ")]


def test_columns_that_a_version_lacks_or_renamed_are_unknown_or_found() -> None:
    old = _Console({
        "VERSION": [{"version": "PgBouncer 1.8"}],
        "CONFIG": [{"key": "max_client_conn", "value": "100", "changeable": "yes"}],
        "POOLS": [{"database": "shop", "user": "app", "cl_active": "3", "maxwait": 2}],
        "DATABASES": [{"name": "shop", "database": "shop", "pool_size": 5, "reserve_pool_size": 2}],
        "STATS": [{"database": "shop", "total_query_count": "7", "avg_query": 1, "total_new": None}],
        "CLIENTS": [{"database": "shop"}],
        "SERVERS": [{"database": "shop"}],
    })  # fmt: skip
    figures = read_pgbouncer(old, 1.0)
    assert (figures.max_client_conn, figures.default_pool_size) == (100, None)
    (pool,) = figures.pools
    assert (pool.client_active, pool.client_waiting, pool.maxwait_seconds) == (3, None, 2)
    assert figures.databases[0].reserve_pool == 2
    assert figures.databases[0].host == ""
    assert figures.stats == {"shop": {"total_query_count": 7.0}}
    assert figures.clients is None
    assert figures.server_pids == frozenset()


def test_every_metric_is_declared_once_with_help_in_one_manner() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert metric.help.endswith("."), metric.name
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name


def test_analysis_and_model_do_no_io(repository: Path) -> None:
    for file in (
        "advice",
        "analysis",
        "bouncer_pools",
        "limits",
        "model",
        "report",
        "service_pools",
    ):
        text = (repository / "monitor" / "pools" / f"{file}.py").read_text()
        for module in ("psycopg2", "http", "socket", "monitor.pools.session", "click"):
            assert f"import {module}" not in text
            assert f"from {module}" not in text
