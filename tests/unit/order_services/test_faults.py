from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from order_services.domain.events import Event, EventType, new_id
from order_services.payment.settings import PaymentSettings
from order_services.process import instrumentation
from order_services.process.faults import (
    DATABASE_PAUSE,
    KINDS,
    POISON,
    SLOW,
    FaultInjector,
    Faults,
    InjectedPoisonError,
    from_settings,
)
from order_services.process.settings import DatabasePauseMode, SettingsError, load
from order_services.service.admin import add_admin_routes
from order_services.service.health import Health
from order_services.storage.database import is_transient
from order_services.web.app import ServiceApp
from tests.support.serving import serving
from tests.support.waiting import wait_for

TOKEN = "a-token-that-is-long-enough"
OFF = Faults()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def injector(clock: Clock | None = None, **faults: Any) -> FaultInjector:
    return FaultInjector(
        "test",
        Faults.model_validate(faults),
        max_delay_seconds=20,
        max_hold_seconds=0.01,
        clock=clock or Clock(),
    )


def injected(kind: str) -> float:
    return float(instrumentation.FAULTS_INJECTED.labels(kind)._value.get())


def event() -> Event:
    return Event(EventType.ORDER_CREATED, new_id(), {}, "test", "corr")


def test_nothing_happens_unless_it_is_switched_on() -> None:
    before = {kind: injected(kind) for kind in KINDS}
    faults = injector()
    faults.delay_batch(500)
    faults.raise_if_poison([event()])
    faults.before_transaction()
    assert not faults.refuses_payment(new_id())
    assert from_settings(load(PaymentSettings)) == OFF
    assert before == {kind: injected(kind) for kind in KINDS}
    assert not any(OFF.active().values())


def test_a_share_of_orders_is_refused_and_the_same_ones_each_time() -> None:
    ids = [new_id() for _ in range(4000)]
    faults = injector(payment_refusal_rate=0.25)
    refused = {order_id for order_id in ids if faults.refuses_payment(order_id)}
    assert 800 < len(refused) < 1200
    assert refused == {order_id for order_id in ids if faults.refuses_payment(order_id)}
    assert all(injector(payment_refusal_rate=1).refuses_payment(order_id) for order_id in ids)


def test_poison_fails_until_it_is_switched_off() -> None:
    faults, before = injector(poison_rate=1), injected(POISON)
    for _ in range(2):
        with pytest.raises(InjectedPoisonError):
            faults.raise_if_poison([event()])
    assert injected(POISON) == before + 2
    assert instrumentation.FAULTS_ACTIVE.labels(POISON)._value.get() == 1
    faults.clear()
    faults.raise_if_poison([event()])
    assert instrumentation.FAULTS_ACTIVE.labels(POISON)._value.get() == 0


@pytest.mark.parametrize("end", ["clear", "close"])
def test_a_slow_batch_goes_on_at_once_when_slowness_or_the_process_ends(end: str) -> None:
    faults, before = injector(batch_delay_seconds=5, message_delay_seconds=1), injected(SLOW)
    slow = threading.Thread(target=faults.delay_batch, args=(10,))
    slow.start()
    wait_for("a held-up batch", lambda: injected(SLOW) == before + 1)
    assert slow.is_alive()
    getattr(faults, end)()
    slow.join(4)
    assert not slow.is_alive()


def test_a_database_pause_denies_transactions_until_it_is_over() -> None:
    clock, before = Clock(), injected(DATABASE_PAUSE)
    deny = DatabasePauseMode.DENY
    faults = injector(clock, database_pause_seconds=10, database_pause_mode=deny)
    for clock.now in (0.0, 9.9):
        with pytest.raises(OperationalError) as denied:
            faults.before_transaction()
        assert is_transient(denied.value)
    clock.now = 10.0
    faults.before_transaction()
    assert injected(DATABASE_PAUSE) == before + 2


def test_a_database_pause_that_holds_fails_as_an_exhausted_pool_does() -> None:
    with pytest.raises(PoolTimeoutError) as held:
        injector(database_pause_seconds=10).before_transaction()
    assert is_transient(held.value)


def test_a_database_pause_can_come_again_and_again() -> None:
    clock = Clock()
    faults = injector(
        clock,
        database_pause_seconds=2,
        database_pause_every_seconds=10,
        database_pause_mode=DatabasePauseMode.DENY,
    )
    paused = []
    for clock.now in range(25):
        try:
            faults.before_transaction()
        except OperationalError:
            paused.append(clock.now)
    assert paused == [8, 9, 18, 19]


def test_the_environment_switches_faults_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT_POISON_RATE", "0.5")
    monkeypatch.setenv("FAULT_DATABASE_PAUSE_SECONDS", "2")
    monkeypatch.setenv("FAULT_DATABASE_PAUSE_EVERY_SECONDS", "60")
    monkeypatch.setenv("FAULT_DATABASE_PAUSE_MODE", "deny")
    faults = from_settings(load(PaymentSettings))
    assert (faults.poison_rate, faults.database_pause_seconds) == (0.5, 2)
    assert faults.database_pause_mode is DatabasePauseMode.DENY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FAULT_POISON_RATE", "2"),
        ("FAULT_BATCH_DELAY_SECONDS", "-1"),
        ("FAULT_DATABASE_PAUSE_SECONDS", "5"),  # for ever: no time until the next one is given
        ("FAULT_DATABASE_PAUSE_MODE", "sometimes"),
        ("ADMIN_TOKEN", "short"),
    ],
)
def test_bad_settings_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as refused:
        load(PaymentSettings)
    assert "short" not in str(refused.value)


@pytest.fixture
def faults() -> Iterator[FaultInjector]:
    faults = injector()
    yield faults
    faults.clear()


@contextmanager
def client(faults: FaultInjector, token: str = TOKEN) -> Iterator[httpx.Client]:
    app = ServiceApp("test", Health(), registry=CollectorRegistry())
    add_admin_routes(app, token, faults)
    with serving(app) as client:
        yield client


AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


def test_faults_are_changed_shown_and_cleared_at_run_time(faults: FaultInjector) -> None:
    with client(faults) as http:
        answer = http.put("/admin/faults", json={"poisonRate": 0.1}, headers=AUTHORISED)
        assert (answer.status_code, faults.faults.poison_rate) == (200, 0.1)
        shown = http.get("/admin/faults", headers=AUTHORISED).json()
        assert shown["faults"]["poisonRate"] == 0.1
        assert shown["active"] == {kind: kind == POISON for kind in KINDS}
        assert http.delete("/admin/faults", headers=AUTHORISED).status_code == 200
        assert faults.faults == OFF


@pytest.mark.parametrize(
    ("token", "given", "status"),
    [
        (TOKEN, None, 401),
        (TOKEN, TOKEN, 401),
        (TOKEN, "Bearer", 401),
        (TOKEN, "Basic abc", 401),
        (TOKEN, "Bearer x", 403),
        (TOKEN, f"Bearer {TOKEN}x", 403),
        ("", f"Bearer {TOKEN}", 403),
        ("", None, 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_without_the_token_nothing_is_shown_or_changed(
    faults: FaultInjector, method: str, token: str, given: str | None, status: int
) -> None:
    headers = {} if given is None else {"Authorization": given}
    with client(faults, token) as http:
        answer = http.request(method, "/admin/faults", json={"poisonRate": 1}, headers=headers)
    assert answer.status_code == status
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert TOKEN not in answer.text
    assert faults.faults == OFF


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"poisonRate": 2}, "poisonRate"),
        ({"poisonRate": "x"}, "poisonRate"),
        ({"batchDelaySeconds": 1e9}, "batchDelaySeconds"),
        ({"chaos": 1}, "chaos"),
        ({"databasePauseMode": "x"}, "databasePauseMode"),
        ({"databasePauseSeconds": 5, "databasePauseEverySeconds": 5}, "body"),
        ([], "body"),
    ],
)
def test_bad_faults_are_refused_by_field(faults: FaultInjector, body: object, field: str) -> None:
    with client(faults) as http:
        answer = http.put("/admin/faults", json=body, headers=AUTHORISED)
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == field
    assert faults.faults == OFF
