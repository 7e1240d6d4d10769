"""Schemathesis holds the running server to its own OpenAPI document."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from monitor.web.server import WebServer
from tests.unit.monitor.watched_cluster import WatchedCluster

MAX_SECONDS = 15
# a 503 says that something is not known now, so that a scaler changes nothing: where the document has it
CONFIG = """\
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503]
"""


def test_schemathesis_finds_no_answer_that_the_document_does_not_have(tmp_path: Path) -> None:
    watched = WatchedCluster()
    cluster = watched.cluster
    for name in ("orders", "pay/ments", "ü"):
        cluster.create(name, 3)
        cluster.append_to_all(name, 10)
        cluster.commit(f"{name}-group", name, 4, None, 10)
        cluster.join(f"{name}-group", name)
    cluster.commit("", "orders", 10, 10, 10)
    watched.poll(12)
    cluster.errors["orders", 0] = "KAFKA_STORAGE_ERROR"
    watched.poll()
    server = WebServer(watched.app, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.bind()}/api/v1/openapi.json"
    server.start()
    try:
        (tmp_path / "schemathesis.toml").write_text(CONFIG)
        program = Path(sys.executable).with_name("schemathesis")
        options = (
            "--phases",
            "examples,coverage,fuzzing",
            "--max-time",
            str(MAX_SECONDS),
            "--seed",
            "1",
        )
        found = subprocess.run(
            [program, "run", url, *options, "--no-color"],
            capture_output=True, text=True, check=False, cwd=tmp_path, timeout=10 * MAX_SECONDS,
        )  # fmt: skip
    finally:
        server.stop()
    assert found.returncode == 0, found.stdout + found.stderr
