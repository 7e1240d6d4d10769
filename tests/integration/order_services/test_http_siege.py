"""A gateway under siege, and all programs under nonsense: orders and reads go on, and logs stay quiet."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from order_services.local.ports import free_port
from order_services.operations import topic_admin
from tests.integration.order_services.conftest import Lab
from tests.integration.order_services.test_service import environment
from tests.support.waiting import wait_for

DESCRIPTORS = 128
ORDER = {"customerId": "c-1", "items": [{"productId": "PROD-002", "quantity": 3}]}


@contextmanager
def gateway(lab: Lab, log: Path) -> Iterator[tuple[int, psutil.Process]]:
    topic_admin.create(topic_admin.admin_client(lab.kafka.bootstrap_servers))
    port = free_port()
    limited = f"ulimit -n {DESCRIPTORS}; exec {sys.executable} -m order_services.gateway"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["sh", "-c", limited], env=environment(lab, PORT=port), stderr=out
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                wait_for("readiness", lambda: is_ready(client), timeout_s=60)
            yield port, psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait()


def is_ready(client: httpx.Client) -> bool:
    try:
        return bool(client.get("/ready").json()["status"] == "ready")
    except httpx.HTTPError:
        return False


class Customers:
    """Do what customers and operators do, on new connections, and note what took how long."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._context = httpx.create_ssl_context(verify=False)
        self.failed: list[str] = []
        self.answered = 0
        self.slowest = 0.0

    def round(self) -> None:
        for method, path in (
            ("POST", "/api/orders"),
            ("GET", "/api/orders?limit=1"),
            ("GET", "/health"),
            ("GET", "/metrics"),
        ):
            began = time.monotonic()
            try:
                with httpx.Client(verify=self._context, timeout=10, trust_env=False) as client:
                    body = ORDER if method == "POST" else None
                    answer = client.request(method, self._url + path, json=body)
                if not answer.is_success:
                    self.failed.append(f"{path}: {answer.status_code} {answer.text}")
            except httpx.HTTPError as error:
                self.failed.append(f"{path}: {type(error).__name__}")
            self.answered += 1
            self.slowest = max(self.slowest, time.monotonic() - began)


@contextmanager
def besieged(port: int) -> Iterator[None]:
    besiegers = subprocess.Popen([sys.executable, "-m", "tests.support.besiegers", str(port)])
    try:
        time.sleep(3)
        yield
        assert besiegers.poll() is None
    finally:
        besiegers.kill()
        besiegers.wait()


@pytest.mark.heavy
def test_under_siege_orders_reads_and_probes_go_on(lab: Lab, tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    with gateway(lab, log) as (port, process):
        customers = Customers(port)
        memory = process.memory_info().rss
        with besieged(port):
            cpu, began = sum(process.cpu_times()[:2]), time.monotonic()
            while time.monotonic() - began < 20:
                customers.round()
            cpu = (sum(process.cpu_times()[:2]) - cpu) / (time.monotonic() - began)
        print(
            f"{customers.answered} answers, slowest {customers.slowest:.2f} s, {cpu:.2f} of a core"
        )
        assert customers.failed == []
        assert customers.answered >= 80
        assert customers.slowest < 10
        assert process.num_fds() < DESCRIPTORS
        assert process.memory_info().rss - memory < 200_000_000
        # recovery: soon nothing is left of them
        wait_for(
            "the besiegers' connections gone",
            lambda: (
                sum(
                    c.status == "ESTABLISHED" and c.laddr.port == port
                    for c in process.net_connections()
                )
                == 0
            ),
            timeout_s=10,
        )
        customers.round()
        assert customers.failed == []
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) < 50, lines[:50]
    assert not [line for line in lines if line["level"] in ("error", "critical")]
