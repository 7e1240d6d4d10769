"""What a service makes of its parts: who gates its readiness, and how all of them end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from importlib import import_module
from typing import Any

import httpx
import pytest
from confluent_kafka import KafkaError

from order_services.domain.events import EventType
from order_services.domain.services import SERVICES
from order_services.local.ports import free_port
from order_services.messaging.publishing import Publisher
from order_services.operations import topic_admin
from order_services.process.settings import ServiceSettings
from order_services.service.run import run_until
from order_services.service.service import Runtime, Service
from order_services.service.worker import Worker
from tests.integration.order_services.conftest import Lab, Notebook, order_created
from tests.integration.order_services.test_analytics_service import is_ready
from tests.support.fatal import raise_fatal
from tests.support.waiting import wait_for

BUDGET_S = 3.0


class Running:
    """A service on a thread of this process."""

    def __init__(self, service: Service) -> None:
        self.runtime = service.runtime
        self.stop = threading.Event()
        self.code: int | None = None
        self._begun = threading.Event()
        self._service = replace(service, api=self._begin)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _begin(self, _app: object) -> None:
        self._begun.set()

    def _run(self) -> None:
        self.code = run_until(self.stop, self._service)

    def ready(self) -> list[str]:
        return self.runtime.health.ready() if self._begun.is_set() else ["not begun"]

    def degraded(self) -> str:
        return " ".join(self.runtime.health.degraded())

    def end(self) -> float:
        started = time.monotonic()
        self.stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return time.monotonic() - started


Run = Callable[..., Running]


@pytest.fixture
def run(lab: Lab) -> Iterator[Run]:
    started: list[Running] = []

    def begin(handler: Any = None, *, settings: ServiceSettings, **parts: Any) -> Running:
        service = Service(
            Runtime("test", settings),
            parts.pop("group", None) or lab.group(),
            frozenset({EventType.ORDER_CREATED}),
            handler or Notebook(),
            **parts,
        )
        started.append(Running(service))
        return started[-1]

    yield begin
    for each in started:
        each.end()


def settings_of(lab: Lab, **changes: Any) -> ServiceSettings:
    changes = {"port": free_port(), "shutdown_timeout_seconds": BUDGET_S, **changes}
    return lab.kafka_settings.model_copy(update=changes)


@pytest.mark.parametrize("needed", [True, False])
def test_a_service_says_whether_requests_need_its_consumer(
    lab: Lab, run: Run, *, needed: bool
) -> None:
    away = settings_of(lab, kafka_brokers=f"127.0.0.1:{free_port()}")
    running = run(settings=away, requests_need_consumer=needed)
    expected = [] if not needed else ["consumer: not a member"]
    wait_for("its readiness", lambda: [each[:22] for each in running.ready()] == expected)
    assert ("not a member" in running.degraded()) is not needed


@pytest.mark.parametrize("needed", [True, False])
def test_a_fenced_consumer_ends_only_a_service_that_needs_it(
    lab: Lab, run: Run, *, needed: bool
) -> None:
    group = lab.group()
    settings = settings_of(lab, instance_id="3")
    running = run(settings=settings, group=group, requests_need_consumer=needed)
    wait_for("a member", lambda: running.ready() == [] and running.degraded() == "")
    other = lab.consumer(group, Notebook(), instance_id="3")
    wait_for("the other one", lambda: other.not_ready() is None)
    if needed:
        wait_for("the end", lambda: running.code == 1)
    else:
        wait_for("the reason", lambda: "INSTANCE_ID '3'" in running.degraded())
        assert running.ready() == []
        assert running.code is None


def test_everything_that_hangs_at_once_still_ends_within_the_budget(lab: Lab, run: Run) -> None:
    hang, closed = threading.Event(), threading.Event()
    group = lab.group(1)

    def stuck(*_arguments: Any) -> Any:
        hang.wait(60)
        raise AssertionError("never mind")

    def close(seconds: float) -> None:
        assert 0 < seconds <= BUDGET_S
        closed.set()
        hang.wait(60)

    running = run(
        stuck,
        settings=settings_of(lab),
        group=group,
        close=close,
        workers=[Worker(name, 1, stuck) for name in ("one", "two", "three")],
    )
    wait_for("a member", lambda: running.ready() == [])
    lab.send(group.topics[0], [order_created()])
    time.sleep(1)  # until the handler has it
    took = running.end()
    hang.set()
    assert closed.is_set()
    assert took < BUDGET_S + 2


def test_a_service_whose_producer_and_consumer_met_a_fatal_error_is_well_again(
    lab: Lab, run: Run
) -> None:
    group = lab.group(1)
    running = run(settings=settings_of(lab), group=group)
    wait_for("a member", lambda: running.ready() == [])
    lab.send(group.topics[0], [order_created()])
    wait_for("the outcome", lambda: lab.noted() == 1 and _waiting(lab) == 0)
    publisher = running.runtime.relay._publisher
    assert publisher is not None
    raise_fatal(publisher._producer, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    lab.send(group.topics[0], [order_created()])
    wait_for("the outcome", lambda: lab.noted() == 2 and _waiting(lab) == 0)
    assert running.ready() == []
    assert running.code is None
    assert running.end() < BUDGET_S + 2
    assert running.code == 0


def _waiting(lab: Lab) -> int:
    return lab.number("SELECT count(*) FROM outbox")


@pytest.mark.parametrize("name", SERVICES)
def test_whatever_a_service_has_started_ends_with_it(lab: Lab, name: str) -> None:
    topic_admin.create(topic_admin.admin_client(lab.kafka.bootstrap_servers))
    [model] = [
        each
        for each in vars(import_module(f"order_services.{name}.settings")).values()
        if isinstance(each, type) and each.__name__ == f"{name.capitalize()}Settings"
    ]
    given = lab.kafka_settings.model_dump(exclude={"port", "kafka_client_id"})
    token = "a-token-for-this-test"
    settings = model(**given | {"port": free_port(), "admin_token": token})
    before = set(threading.enumerate())
    service = import_module(f"order_services.{name}.service").build(settings)
    stop = threading.Event()
    code: list[int] = []
    thread = threading.Thread(target=lambda: code.append(run_until(stop, service)))
    thread.start()
    url = f"http://127.0.0.1:{settings.port}"
    wait_for("readiness", lambda: is_ready(f"127.0.0.1:{settings.port}"))
    if name == "gateway":
        # published at once, the replay of this order waits for analytics, which does not run
        order = {"customerId": "c-1", "items": [{"productId": "PROD-002", "quantity": 3}]}
        assert httpx.post(f"{url}/api/orders", json=order).status_code == HTTPStatus.ACCEPTED
        begun = httpx.post(
            f"{url}/api/orders/replay",
            json={"days": 1},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert begun.status_code == HTTPStatus.ACCEPTED
        httpx.get(f"{url}/api/services/status")
        assert "replay" in [each.name for each in threading.enumerate()]
    stop.set()
    thread.join(30)
    assert code == [0]
    # those that are told to end and not waited for
    wait_for("the end of all threads", lambda: not set(threading.enumerate()) - before, 5)


@pytest.mark.parametrize("needed", [True, False])
def test_fatal_producers_in_a_row_end_only_a_service_whose_requests_need_kafka(
    lab: Lab, run: Run, monkeypatch: pytest.MonkeyPatch, *, needed: bool
) -> None:
    """Restarted, the gateway would take no orders meanwhile; it can take them without Kafka."""

    def new(settings: ServiceSettings) -> Publisher:
        publisher = Publisher(settings)
        raise_fatal(publisher._producer, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
        return publisher

    monkeypatch.setattr("order_services.messaging.relay.Publisher", new)
    group = lab.group(1)
    settings = settings_of(lab, retry_first_seconds=0.01, retry_max_seconds=0.01)
    running = run(settings=settings, group=group, requests_need_consumer=needed)
    wait_for("a member", lambda: running.ready() == [])
    lab.send(group.topics[0], [order_created()])
    if needed:
        wait_for("the end", lambda: running.code == 1)
    else:
        wait_for("the reason", lambda: "Kafka clients in a row" in running.degraded())
        assert running.ready() == []
        assert running.code is None
