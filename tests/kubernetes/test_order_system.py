"""The order system under real Deployments, Jobs, Services, HPA and KEDA: its pods are processes here."""

from __future__ import annotations

import contextlib
import re
import uuid
from itertools import pairwise
from typing import Any

import httpx
import pytest

from order_services.domain.catalogue import PRODUCTS
from order_services.domain.topics import ORDERS, TOPICS
from order_services.gateway.status import OrderStatus
from order_services.local.ports import LOOPBACK
from tests.crash.customers import Customers
from tests.crash.reconcile import reconcile, wait_until_quiet
from tests.kubernetes.system import DATABASE, HASTY_MONITOR, System
from tests.support.waiting import wait_for
from tests.unit.deploy.test_compose import SETTINGS

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(6000)]

ORDERS_BEFORE_AND_AFTER = 40
QUIET_TIMEOUT_S = 600.0
SCALING_TIMEOUT_S = 600.0
LEAST = 2  # minReplicaCount
GOAL_SECONDS = float(HASTY_MONITOR["MONITOR_SCALING_GOAL"])
POOL_MAX = 5
[ORDERS_PARTITIONS] = [topic.partitions for topic in TOPICS if topic.name == ORDERS]


def order(system: System) -> str:
    """Order something, and return the order's id once it is delivered."""
    url = f"http://{LOOPBACK}:{system.ports['api-gateway']}/api/orders"
    body = {"customerId": "ada", "items": [{"productId": PRODUCTS[0].product_id, "quantity": 1}]}
    key = {"Idempotency-Key": str(uuid.uuid4())}

    def accepted() -> str | None:
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.post(url, json=body, headers=key, timeout=30, trust_env=False)
            return str(answer.json()["orderId"]) if answer.is_success else None
        return None

    order_id = wait_for("an order that is taken", accepted, 300)

    def is_delivered() -> bool:
        found = system.ask("api-gateway", f"/api/orders/{order_id}")
        return (
            found is not None
            and found.is_success
            and found.json()["status"] == OrderStatus.DELIVERED
        )

    wait_for(f"delivery of {order_id}", is_delivered, 300)
    return order_id


def account_for(system: System, customers: Customers) -> None:
    """Count every order of the customers, once all are done."""
    brokers = system.kafka.bootstrap_servers
    assert wait_until_quiet(system.address, brokers, QUIET_TIMEOUT_S)
    verdict = reconcile(customers.ledger, system.address, brokers)
    assert verdict.clean, str(verdict)
    print(verdict)


def test_an_order_flows(system: System) -> None:
    assert order(system)


def test_the_gateway_reaches_every_service_by_its_name(system: System) -> None:
    def all_answer() -> bool:
        found = system.ask("api-gateway", "/api/services/status")
        return found is not None and all(
            name in found.text for name in ("payment", "inventory", "shipping", "analytics")
        )

    wait_for("answer of every service", all_answer, 120)


def test_a_rolling_update_under_load_loses_and_doubles_nothing(system: System) -> None:
    before = {name: set(system.pods(name)) for name in SETTINGS}
    customers = system.customers(rate=4, seed=1)
    accepted = customers.ledger.accepted
    customers.start()
    try:
        wait_for("orders", lambda: len(accepted) >= ORDERS_BEFORE_AND_AFTER, 300)
        system.api.run("rollout", "restart", "deployment", "--namespace", system.api.namespace)
        for name in SETTINGS:
            wait_for(
                f"other pods of {name}",
                lambda name=name: (
                    system.is_ready(name) and not before[name] & set(system.pods(name))
                ),  # type: ignore[misc]
                600,
            )
        enough = len(accepted) + ORDERS_BEFORE_AND_AFTER
        wait_for("orders afterwards", lambda: len(accepted) >= enough, 300)
    finally:
        customers.stop()
    account_for(system, customers)


def test_a_pods_process_that_dies_is_started_again(system: System) -> None:
    # of a Deployment that KEDA does not scale: it would take the pod that is not ready first
    system.wait_for_deployment("api-gateway")
    [pod, *_] = system.kubelet.of("api-gateway")
    pod.process.kill()

    def is_back() -> bool:
        [status] = system.pods("api-gateway")[pod.name]["status"]["containerStatuses"]
        return bool(status["restartCount"] >= 1 and status["ready"])

    wait_for(f"{pod.name} that is back", is_back, 300)
    system.wait_for_deployment("api-gateway")
    assert order(system)


def test_a_pod_that_is_deleted_is_replaced(system: System) -> None:
    system.wait_until_at_rest("shipping-service")
    [name, *_] = system.pods("shipping-service")
    system.api.delete(system.api.path("Pod", name))
    wait_for("end of the pod", lambda: name not in system.pods("shipping-service"), 300)
    system.wait_for_deployment("shipping-service")
    assert order(system)


def pools(system: System) -> dict[tuple[str, str], int]:
    """Return the monitor's figures of pools: by metric and what it is of."""
    page = system.ask("monitor", "/metrics")
    found = re.findall(
        r'^db_pools_(\w+){\w+="(.+?)"} (\d+)', page.text if page else "", re.MULTILINE
    )
    return {(metric, of): int(value) for metric, of, value in found}


def pools_of_every_pod(system: System) -> dict[tuple[str, str], int]:
    """Return the monitor's figures once it counts as many replicas as there are pods, and none beside."""

    def all_counted() -> dict[tuple[str, str], int] | None:
        seen = pools(system)
        counted = {of: value for (metric, of), value in seen.items() if metric == "replicas"}
        pods = {name: len(system.pods(name)) for name in SETTINGS}
        return seen if counted == pods else None

    return wait_for("replicas as there are pods", all_counted, 300)


def test_the_monitor_counts_every_pods_pool(system: System) -> None:
    seen = pools_of_every_pod(system)
    for name in SETTINGS:
        assert seen["connections", name] == POOL_MAX * seen["replicas", name]


def test_keda_scales_payment_as_the_monitor_advises_within_partitions_and_pools(
    system: System,
) -> None:
    seen = []

    def replicas() -> int:
        seen.append(system.replicas("payment-service"))
        return seen[-1]

    def advice() -> dict[str, Any]:
        answer = system.ask("monitor", "/api/v1/scaling/payment-service-group")
        found: dict[str, Any] = answer.json() if answer is not None and answer.is_success else {}
        return found

    def is_held_by_the_pools() -> bool:
        found = advice()
        return (
            replicas() == found.get("replicas") == found.get("limit") == LEAST + 1
            and DATABASE in found["limited_by"]
            and (found["max_lag_seconds"] or 0) > GOAL_SECONDS
        )

    for name in ("payment-service", "inventory-service", "shipping-service"):
        system.wait_until_at_rest(name)
    committed = pools_of_every_pod(system)["committed_connections", "PostgreSQL"]
    # one replica more, and not a second one
    system.limit_connections(committed + POOL_MAX + POOL_MAX // 2)
    wait_for("advice that is limited", lambda: advice().get("limit") == LEAST + 1, 300)
    del seen[:]
    customers = system.customers(rate=24, seed=2)
    customers.start()
    try:
        wait_for("lag, and a scaling that the pools hold", is_held_by_the_pools, SCALING_TIMEOUT_S)
        assert max(seen) == LEAST + 1
        system.limit_connections(-1)
        wait_for("more replicas", lambda: replicas() > LEAST + 1, SCALING_TIMEOUT_S)
    finally:
        customers.stop()
    wait_for("end of the lag", lambda: advice().get("unread") == 0, SCALING_TIMEOUT_S)
    wait_for("replicas that go back", lambda: replicas() == LEAST, SCALING_TIMEOUT_S)
    assert max(seen) <= ORDERS_PARTITIONS
    account_for(system, customers)
    print("replicas", [seen[0], *(now for before, now in pairwise(seen) if now != before)])


def test_no_pod_uses_more_memory_than_its_limit(system: System) -> None:
    """After the load of the tests above, where they were run: nothing here enforces a limit."""
    system.wait_until_ready()
    # a Job has no probe, with which it would be looked at
    used = {app: memory for app, memory in system.kubelet.memory.items() if memory.most}
    assert used.keys() == {*SETTINGS, "monitor"}
    for app, memory in used.items():
        print(app, memory)
        assert memory.most <= memory.limit, app
