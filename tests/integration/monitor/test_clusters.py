"""`monitor serve` with many clusters, and its settings read again while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import free_port
from tests.support.waiting import wait_for


class Served:
    """A monitor that runs by a settings file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "monitor.yml"
        self.log = folder / "log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, **addresses: str) -> None:
        clusters = "".join(
            f"  - {{name: {name}, kafka: {{bootstrap_servers: {address}}}}}\n"
            for name, address in addresses.items()
        )
        self.file.write_text(
            f"port: {self.port}\npoll_interval: 1\nreload_by_http: true\nclusters:\n{clusters}"
        )

    def start(self) -> None:
        known = {n: v for n, v in os.environ.items() if not n.startswith(("MONITOR_", "KAFKA_"))}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "monitor", "serve", "--config", str(self.file)],
                stdout=subprocess.DEVNULL, stderr=log, env=known,
            )  # fmt: skip

    def get(self, path: str, method: str = "GET") -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def up(self) -> dict[str, float]:
        """Return what the page says of each cluster, nothing while it is not served."""
        try:
            text = self.get("/metrics")
        except OSError:
            return {}
        return {
            sample.labels["cluster"]: sample.value
            for family in text_string_to_metric_families(text)
            if family.name == "kafka_monitor_up"
            for sample in family.samples
        }


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    if served.process is not None:
        served.process.terminate()
        assert served.process.wait(20) == 0


def test_a_cluster_that_is_away_costs_itself_and_settings_are_read_again_on_request(
    served: Served, kafka: EmbeddedKafka
) -> None:
    away = f"127.0.0.1:{free_port()}"
    served.write(east=kafka.bootstrap_servers, west=away)
    served.start()
    wait_for("both on the page", lambda: served.up() == {"east": 1, "west": 0})
    assert "ready" in served.get("/ready")
    assert 'cluster="west"' not in served.get("/probe?target=east")

    assert served.process is not None
    served.write(east=kafka.bootstrap_servers, north=kafka.bootstrap_servers)
    served.process.send_signal(signal.SIGHUP)
    wait_for("the new one", lambda: served.up() == {"east": 1, "north": 1})

    served.file.write_text("clusters: 5\n")
    with pytest.raises(urllib.error.HTTPError) as refused:
        served.get("/-/reload", "POST")
    assert refused.value.code == 500
    assert "1: clusters is a list" in refused.value.read().decode()
    served.process.send_signal(signal.SIGHUP)
    wait_for("the log", lambda: served.log.read_text().count("those before stay in force") == 2)
    assert served.up() == {"east": 1, "north": 1}
    assert "kafka_monitor_config_last_reload_successful 0" in served.get("/metrics")

    served.write(east=kafka.bootstrap_servers)
    assert "reloaded" in served.get("/-/reload", "POST")
    assert served.up() == {"east": 1}
    assert "kafka_monitor_config_last_reload_successful 1" in served.get("/metrics")
