"""The whole system as `order-services up` runs it, for end-to-end tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from order_services.domain.services import SERVICES
from order_services.local.plan import REPLICA_STEP
from order_services.local.ports import LOOPBACK, free_base_port, free_port
from tests.support.waiting import wait_for

MAX_TEST_REPLICAS = 6
START_TIMEOUT_S = 120.0


def services_base_port() -> int:
    """Find a base port whose whole range of service ports is free."""
    return free_base_port(
        index + REPLICA_STEP * number
        for index in range(len(SERVICES))
        for number in range(MAX_TEST_REPLICAS)
    )


@dataclass
class RunningSystem:
    """`order-services up` on free ports with a data directory of its own."""

    data_dir: Path
    arguments: tuple[str, ...] = ()
    base_port: int = field(default_factory=services_base_port)
    monitor_port: int = field(default_factory=free_port)
    kafka_port: int = field(default_factory=free_port)
    postgres_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def _out(self) -> Path:
        # of this start only: what an earlier one in the same directory printed must not count
        return self.data_dir / f"up-{id(self)}.out"

    @property
    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "order_services", "up"),
            *("--data-dir", str(self.data_dir), "--base-port", str(self.base_port)),
            *("--monitor-port", str(self.monitor_port), "--kafka-port", str(self.kafka_port)),
            *("--postgres-port", str(self.postgres_port), *self.arguments),
        ]

    def start(self) -> RunningSystem:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=subprocess.STDOUT)
        return self

    def wait_until_up(self) -> RunningSystem:
        wait_for("system that is up", self._is_up, START_TIMEOUT_S)
        return self

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output()
        return "Ctrl-C stops everything" in self.output()

    def output(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 60) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill_supervisor()
            raise

    def service_url(self, service: str, replica: int = 1) -> str:
        port = self.base_port + SERVICES.index(service) + 10 * (replica - 1)
        return f"http://{LOOPBACK}:{port}"

    @property
    def monitor_url(self) -> str:
        return f"http://{LOOPBACK}:{self.monitor_port}"

    @property
    def bootstrap_servers(self) -> str:
        return f"{LOOPBACK}:{self.kafka_port}"

    def places(self) -> dict[str, Any]:
        """Return what another start needs to take over this one's data and ports."""
        return {
            "data_dir": self.data_dir,
            "base_port": self.base_port,
            "monitor_port": self.monitor_port,
            "kafka_port": self.kafka_port,
            "postgres_port": self.postgres_port,
        }

    def programs(self) -> dict[str, int]:
        """Return the process id of each program that the supervisor remembers."""
        entries = json.loads((self.data_dir / "run.json").read_text())
        return {entry["name"]: entry["pid"] for entry in entries}

    def kill_supervisor(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def get_text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def get_json(url: str) -> Any:
    return json.loads(get_text(url))


def post_json(url: str, body: object, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Post and return status and JSON, also for 4xx and 5xx."""
    request = urllib.request.Request(
        url,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **(headers or {})},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
