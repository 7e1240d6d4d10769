"""A client that was written for Burrow, Telegraf's plugin, reads the monitor in its place."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from monitor.web.server import WebServer
from tests.support.programs import program
from tests.unit.monitor.watched_cluster import WatchedCluster

CLIENT: Final = Path(__file__).parents[2] / "support" / "burrow_client"


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """Build it; its modules are fetched once by Go's own client."""
    go = program("go", "golang-go")
    built = tmp_path / "client"
    subprocess.run(
        [go, "build", "-o", built, "."],
        cwd=CLIENT,
        check=True,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"},
    )
    return built


@pytest.mark.heavy
@pytest.mark.timeout(1_800)
def test_telegraf_finds_groups_partitions_and_topics(client: Path) -> None:
    watched = WatchedCluster()
    cluster = watched.cluster
    cluster.create("orders", 2)
    cluster.append_to_all("orders", 10)
    cluster.commit("g", "orders", 0, 4)
    cluster.join("g", "orders")
    watched.poll()
    for number in range(1, 14):  # it goes on with 0, more than a poll behind, and stands on 1
        cluster.append_to_all("orders", 10)
        cluster.commit("g", "orders", 10 * number - 5, 4)
        watched.poll()
    server = WebServer(watched.app, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.bind()}"
    server.start()
    try:
        output = subprocess.run([client, url], check=True, capture_output=True).stdout
    finally:
        server.stop()
    found: list[dict[str, Any]] = json.loads(output)
    (group,) = [each for each in found if each["Measurement"] == "burrow_group"]
    assert group["Tags"] == {"cluster": "model", "group": "g"}
    assert group["Fields"]["status"] == "ERR"
    assert (group["Fields"]["lag"], group["Fields"]["total_lag"]) == (136, 151)
    assert group["Fields"]["timestamp"] == int(watched.clock.wall() * 1000)
    partitions = {
        each["Tags"]["partition"]: each["Fields"]
        for each in found
        if each["Measurement"] == "burrow_partition"
    }
    assert {p: (f["status"], f["lag"], f["offset"]) for p, f in partitions.items()} == {
        "0": ("WARN", 15, 125),
        "1": ("STOP", 136, 4),
    }
    ends = {
        each["Tags"]["partition"]: each["Fields"]["offset"]
        for each in found
        if each["Measurement"] == "burrow_topic" and each["Tags"]["topic"] == "orders"
    }
    assert ends == {"0": 140, "1": 140}
