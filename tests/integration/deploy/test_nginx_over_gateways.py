"""Each way of balancing on the real nginx, over real gateways started by their env files as the guide says."""

from __future__ import annotations

import json
import os
import shlex
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from order_services.domain.catalogue import PRODUCTS
from order_services.local.kafka import EmbeddedKafka
from order_services.local.migrating import migrate
from order_services.local.plan import DatabaseAddress
from order_services.local.ports import LOOPBACK, free_port
from order_services.local.postgres import EmbeddedPostgres
from order_services.local.process import ManagedProcess
from order_services.local.summary import is_ready
from order_services.operations import topic_admin
from tests.support.nginx import BALANCING, SERVED_BY, Balancer, balancer
from tests.support.waiting import wait_for

REPLICAS = 3
NAME = "balanced"


@dataclass(frozen=True, slots=True)
class Replica:
    port: int
    process: ManagedProcess

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        self.process.start()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process.running, self.process.log_tail()
            return is_ready(f"http://{self.address}")[0]

        wait_for(f"{self.process.name} that is ready", ready, 120)


def from_env_file(
    folder: Path, service: str, number: int, environment: Mapping[str, str]
) -> Replica:
    """Return a replica that is started by the guide's line; only the port is this test's."""
    port = free_port()
    line = (
        f"exec env $(cat deploy/env/{service}-instance-{number}.env | xargs) PORT={port} "
        f"{shlex.quote(sys.executable)} -m order_services run {service}"
    )
    name = f"{service}-{number}"
    command = ["sh", "-c", line]
    return Replica(port, ManagedProcess(name, command, folder / f"{name}.log", environment))


@pytest.fixture(scope="module")
def environment(kafka: EmbeddedKafka, postgres: EmbeddedPostgres) -> dict[str, str]:
    postgres.create_database(NAME)
    address = DatabaseAddress(postgres.host, postgres.port, NAME, postgres.user, postgres.password)
    migrate(address)
    topic_admin.create(topic_admin.admin_client(kafka.bootstrap_servers))
    return {
        **os.environ,
        "KAFKA_BROKERS": kafka.bootstrap_servers,
        "DB_HOST": address.host,
        "DB_PORT": str(address.port),
        "DB_NAME": address.name,
        "DB_USER": address.user,
        "DB_PASSWORD": address.password,
    }


@pytest.fixture(scope="module")
def gateways(
    environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Replica]]:
    folder = tmp_path_factory.mktemp("gateways")
    replicas = [
        from_env_file(folder, "gateway", number, environment) for number in range(1, REPLICAS + 1)
    ]
    try:
        for replica in replicas:
            replica.process.start()
        for replica in replicas:
            replica.wait_until_ready()
        yield replicas
    finally:
        for replica in replicas:
            replica.process.stop(timeout_s=30)


@pytest.fixture(params=BALANCING)
def nginx(
    request: pytest.FixtureRequest, gateways: list[Replica], tmp_path: Path
) -> Iterator[Balancer]:
    ports = [replica.port for replica in gateways]
    with balancer(tmp_path, ports, balancing=request.param) as running:
        yield running


def client(nginx: Balancer, number: int = 0) -> httpx.Client:
    """Return a client whose address is in a network of its own."""
    transport = httpx.HTTPTransport(local_address=f"127.0.{number}.1")
    return httpx.Client(base_url=nginx.url, transport=transport, timeout=60)


def order() -> dict[str, object]:
    return {
        "customerId": "customer-1",
        "items": [{"productId": PRODUCTS[0].product_id, "quantity": 1}],
    }


def place(customer: httpx.Client, key: str) -> httpx.Response:
    return customer.post("/api/orders", json=order(), headers={"Idempotency-Key": key})


@pytest.mark.parametrize("nginx", ["round-robin", "least-conn"], indirect=True)
def test_one_clients_orders_are_spread_over_all_gateways(
    nginx: Balancer, gateways: list[Replica]
) -> None:
    with client(nginx) as customer:
        answers = [place(customer, str(uuid.uuid4())) for _ in range(4 * REPLICAS)]
    assert {answer.status_code for answer in answers} == {202}
    shares = Counter(answer.headers[SERVED_BY] for answer in answers)
    # one at a time: all have equally few open requests, and each has its turn
    assert set(shares) == {replica.address for replica in gateways}


@pytest.mark.parametrize("nginx", ["ip-hash"], indirect=True)
def test_a_client_stays_with_its_gateway_and_others_have_others(
    nginx: Balancer, gateways: list[Replica]
) -> None:
    chosen = []
    for number in range(24):
        with client(nginx, number) as customer:
            answers = [customer.get("/api/orders?limit=1") for _ in range(3)]
        assert {answer.status_code for answer in answers} == {200}
        (one,) = {answer.headers[SERVED_BY] for answer in answers}
        chosen.append(one)
    assert set(chosen) == {replica.address for replica in gateways}


def test_a_killed_gateway_costs_no_order_and_is_used_again_when_it_is_back(
    nginx: Balancer, gateways: list[Replica]
) -> None:
    """A customer whose order was under way repeats it with its key, as the API says, and gets one."""
    keys = [str(uuid.uuid4()) for _ in range(24)]
    victim = gateways[1]
    accepted: dict[str, str] = {}
    with client(nginx) as customer:
        for number, key in enumerate(keys):
            if number == 8:
                victim.process.kill()

            def answered(key: str = key) -> httpx.Response | None:
                answer = place(customer, key)
                return answer if answer.status_code == 202 else None

            accepted[key] = wait_for("order that is accepted", answered).json()["orderId"]
        again = [place(customer, key).json()["orderId"] for key in keys]
    assert again == list(accepted.values())
    assert len(set(again)) == len(keys)
    victim.start()

    def is_used() -> bool:
        used = set()
        for number in range(24):
            with client(nginx, number) as each:
                used.add(each.get("/api/orders?limit=1").headers[SERVED_BY])
        return victim.address in used

    wait_for("requests to the gateway that came back", is_used)


def test_a_live_pages_websocket_passes_nginx(
    environment: Mapping[str, str], gateways: list[Replica], tmp_path: Path
) -> None:
    analytics = from_env_file(tmp_path, "analytics", 1, environment)
    ports = [replica.port for replica in gateways]
    try:
        analytics.start()
        with (
            balancer(tmp_path, ports, analytics=[analytics.port]) as nginx,
            connect(f"ws://{LOOPBACK}:{nginx.analytics_port}/ws", open_timeout=60) as socket,
            client(nginx) as customer,
        ):
            assert json.loads(socket.recv(60))["type"] == "CONNECTED"
            placed = place(customer, str(uuid.uuid4())).json()["orderId"]

            def told() -> bool:
                frame = json.loads(socket.recv(60))
                return bool(frame["type"] == "EVENT" and frame["event"]["orderId"] == placed)

            wait_for("event of the order", told)
    finally:
        analytics.process.stop(timeout_s=30)
