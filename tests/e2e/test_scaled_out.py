"""The system with replicas behind nginx and PgBouncer.

What the doctor says of it, and what users see when a part is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer

from order_services.domain import topics
from order_services.domain.catalogue import PRODUCTS
from order_services.domain.topics import ConsumerGroup
from order_services.local.process import ManagedProcess
from order_services.local.summary import is_ready
from tests.support.nginx import Balancer, balancer
from tests.support.waiting import wait_for
from tests.support.watched_system import WatchedSystem, watched

# a system of a dozen programs that lose parts again and again: minutes
pytestmark = pytest.mark.heavy

VIA_PGBOUNCER = {**os.environ, "DB_VIA_PGBOUNCER": "true"}
DOCTOR = (sys.executable, "-m", "order_services", "doctor")
REPLICAS = {"gateway": 2, "payment": 2, "inventory": 2, "shipping": 2}
# what an order may be answered while something is away; each says to repeat it with its key
AGAIN = {502, 503, 504}


@dataclass(frozen=True, slots=True)
class Scene:
    system: WatchedSystem
    nginx: Balancer

    @property
    def doctor_options(self) -> list[str]:
        urls: dict[str, list[str]] = {}
        for service, url in self.system.service_urls:
            urls.setdefault(service, []).append(url)
        pooler = self.system.pgbouncer
        return [
            *("--kafka", self.system.shop.broker.bootstrap_servers),
            *("--database", pooler.url(self.system.shop.directly.name)),
            *("--pgbouncer", pooler.url()),
            *("--balancer", self.nginx.url, "--monitor", self.system.monitor.url),
            *(f"--replicas={service}={','.join(of_it)}" for service, of_it in urls.items()),
        ]

    def doctor(self, *options: str) -> tuple[int, list[Mapping[str, str]]]:
        """Return the exit code and the findings."""
        done = subprocess.run(
            [*DOCTOR, "--output", "json", *self.doctor_options, *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=VIA_PGBOUNCER,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout)

    def wait_until_well(self) -> None:
        last: list[Any] = []

        def is_well() -> bool:
            code, last[:] = self.doctor("--skip", "failover")
            return code == 0

        try:
            wait_for("healthy system", is_well, 180)
        except AssertionError:
            raise AssertionError([each for each in last if each["verdict"] != "well"]) from None

    def place(self) -> tuple[list[int], str]:
        """Order once, repeating it with its key until it is accepted; return all answers and the id."""
        key, answers = str(uuid.uuid4()), []

        def accepted() -> str | None:
            try:
                answer = httpx.post(
                    f"{self.nginx.url}/api/orders",
                    json={
                        "customerId": "c-1",
                        "items": [{"productId": PRODUCTS[0].product_id, "quantity": 1}],
                    },
                    headers={"Idempotency-Key": key},
                    timeout=60,
                )
            except httpx.HTTPError:
                return None
            answers.append(answer.status_code)
            return str(answer.json()["orderId"]) if answer.status_code == 202 else None

        return answers, wait_for("accepted order", accepted, 120)

    def status(self, order_id: str) -> str:
        answer = httpx.get(f"{self.nginx.url}/api/orders/{order_id}", timeout=60)
        return str(answer.json().get("status", "")) if answer.status_code == 200 else ""

    def wait_until_shipped(self, orders: list[str]) -> None:
        left = set(orders)

        def none_left() -> bool:
            left.difference_update(
                [each for each in left if self.status(each) in ("shipped", "delivered")]
            )
            return not left

        wait_for("shipped orders", none_left, 180)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("scaled")
    with watched(folder, 2, replicas=REPLICAS) as system:
        gateways = [spec.port for spec in system.shop.gateways]
        with balancer(folder, gateways) as nginx:
            scene = Scene(system, nginx)
            scene.wait_until_well()
            yield scene


def start(process: ManagedProcess) -> None:
    if not process.running:
        process.start()


def wait_until_all_are_ready(scene: Scene) -> None:
    urls = [url for _, url in scene.system.service_urls]
    wait_for("ready replicas", lambda: all(is_ready(url)[0] for url in urls), 180)


def test_the_doctor_finds_a_healthy_system_well(scene: Scene) -> None:
    code, found = scene.doctor("--skip", "failover")
    assert code == 0, found
    assert {each["check"] for each in found} == {
        *("topics", "partitions", "groups", "pools", "balancer", "health", "lag"),
    }
    assert {each["verdict"] for each in found} == {"well"}


def test_the_doctor_sees_a_failover_that_is_tried(scene: Scene) -> None:
    process = subprocess.Popen(
        [*DOCTOR, *scene.doctor_options, "--try-failover", "payment", "--for", "180"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=VIA_PGBOUNCER,
    )
    victim = scene.system.replica("payment", 2)
    try:
        assert process.stderr is not None
        assert (
            process.stderr.readline() == "==> stop or kill one of the 2 replicas of payment now\n"
        )
        victim.kill()
        output, _ = process.communicate(timeout=400)
    finally:
        process.kill()
        scene.system.start_again("payment", 2)
    assert process.returncode == 0, output
    assert "payment-service-2 left payment-service-group" in output
    scene.wait_until_well()


@contextmanager
def more_members(scene: Scene, group: ConsumerGroup, count: int) -> Iterator[None]:
    """Have members beside a service's replicas that are in its group and do nothing."""
    stop = threading.Event()

    def be_a_member() -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": scene.system.shop.broker.bootstrap_servers,
                "group.id": group.group_id,
                "partition.assignment.strategy": "cooperative-sticky",
                "enable.auto.commit": False,
            }
        )
        consumer.subscribe(list(group.topics))
        while not stop.is_set():
            consumer.poll(0.2)
        consumer.close()

    threads = [threading.Thread(target=be_a_member) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def test_the_doctor_tells_what_is_wrongly_sized(scene: Scene) -> None:
    system = scene.system
    console = system.pgbouncer.connect("pgbouncer")

    def wrong() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for each in scene.doctor("--skip", "failover")[1]:
            if each["verdict"] == "wrong":
                found.setdefault(each["check"], []).append(each["what"])
        return found

    def all_three() -> dict[str, list[str]] | None:
        found = wrong()
        return found if {"partitions", "pools", "lag"} <= found.keys() else None

    try:
        with console.cursor() as cursor:
            cursor.execute("SET max_client_conn = 40")
        system.monitor.kill()
        # payments and inventory have 3 partitions each
        with more_members(scene, topics.SHIPPING_GROUP, 5):
            found = wait_for("verdicts", all_three, 180)
    finally:
        with console.cursor() as cursor:
            cursor.execute("SET max_client_conn = 1000")
        console.close()
        system.monitor.start()
    assert "1 of 7 members of shipping-service-group hold no partition" in found["partitions"]
    assert any("45 connections, and PgBouncer takes 40" in each for each in found["pools"])
    assert any("no lag monitor answers" in each for each in found["lag"])
    scene.wait_until_well()


Kill = Callable[[Scene], list[ManagedProcess]]


def _broker(scene: Scene) -> list[ManagedProcess]:
    process = scene.system.shop.broker.process
    assert process is not None
    return [process]


def _postgres(scene: Scene) -> list[ManagedProcess]:
    process = scene.system.shop.postgres.process
    assert process is not None
    return [process]


def _pgbouncer(scene: Scene) -> list[ManagedProcess]:
    process = scene.system.pgbouncer.process
    assert process is not None
    return [process]


def _replica(service: str) -> Kill:
    return lambda scene: [scene.system.replica(service, 2)]


def _all_gateways(scene: Scene) -> list[ManagedProcess]:
    return [scene.system.replica("gateway", 1), scene.system.replica("gateway", 2)]


@pytest.mark.parametrize(
    ("victims", "accepts"),
    [
        pytest.param(_replica("payment"), True, id="a replica of payment"),
        pytest.param(_broker, True, id="the broker"),
        pytest.param(_replica("gateway"), True, id="a gateway"),
        pytest.param(_postgres, False, id="PostgreSQL"),
        pytest.param(_pgbouncer, False, id="PgBouncer"),
        pytest.param(_all_gateways, False, id="every gateway"),
    ],
)
def test_what_users_see_when_it_is_killed(scene: Scene, victims: Kill, accepts: object) -> None:
    """Orders are accepted meanwhile or refused in words, and whatever was accepted is shipped."""
    before = [scene.place()[1] for _ in range(3)]
    processes = victims(scene)
    for process in processes:
        process.kill()
    try:
        meanwhile: list[str] = []
        if accepts:
            for _ in range(5):
                answers, order_id = scene.place()
                assert set(answers) <= {202, *AGAIN}
                meanwhile.append(order_id)
        else:
            answer = httpx.post(
                f"{scene.nginx.url}/api/orders",
                json={
                    "customerId": "c-1",
                    "items": [{"productId": PRODUCTS[0].product_id, "quantity": 1}],
                },
                timeout=60,
            )
            assert answer.status_code in AGAIN
            assert "Traceback" not in answer.text
    finally:
        for process in processes:
            start(process)
    answers, after = scene.place()
    assert set(answers) <= {202, *AGAIN}
    wait_until_all_are_ready(scene)
    scene.wait_until_shipped([*before, *meanwhile, after])
    scene.wait_until_well()
