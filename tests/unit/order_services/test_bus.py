from __future__ import annotations

import sys

import pytest

from order_services.analytics.settings import AnalyticsSettings
from order_services.local.ports import free_port
from order_services.process.settings import SettingsError, load
from order_services.web.bus import MAX_WAITING, LocalBus, RedisBus, make_bus


def test_without_an_address_the_bus_is_the_process_itself() -> None:
    assert isinstance(make_bus(""), LocalBus)


def test_an_address_without_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:6379/0")
    with pytest.raises(SettingsError, match="REDIS_URL: needs the package redis"):
        load(AnalyticsSettings)


@pytest.mark.parametrize("url", ["localhost", "http://h:1", "redis://", "redis://h/x y"])
def test_a_wrong_address_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError, match="REDIS_URL: must be redis://") as refused:
        load(AnalyticsSettings)
    assert "x y" not in str(refused.value)


def test_a_redis_that_is_away_holds_nobody_up_and_fills_no_memory() -> None:
    bus = RedisBus(f"redis://127.0.0.1:{free_port()}/0")
    heard: list[str] = []
    bus.subscribe(heard.extend)
    try:
        for n in range(MAX_WAITING + 50):
            bus.publish([str(n)])
        assert len(heard) == MAX_WAITING + 50
        assert bus._waiting.qsize() <= MAX_WAITING
    finally:
        bus.close()
