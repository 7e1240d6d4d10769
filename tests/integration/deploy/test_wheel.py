"""The built wheel, in an environment with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from order_services.local.kafka import EmbeddedKafka


def run(
    *command: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command,
        env={**clean, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.mark.heavy
def test_the_wheel_alone_shows_the_lag_of_a_broker(
    kafka: EmbeddedKafka, repository: Path, tmp_path: Path
) -> None:
    built = run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--wheel-dir", str(tmp_path), str(repository),
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    programs = tmp_path / "empty" / "bin"
    installed = run(str(programs / "pip"), "install", "--quiet", str(wheel))
    assert installed.returncode == 0, installed.stderr
    names = run(str(programs / "pip"), "list", "--format=freeze").stdout
    assert "confluent-kafka" not in names
    shown = run(
        str(programs / "monitor"), "lag", environment={"KAFKA_BROKERS": kafka.bootstrap_servers}
    )
    assert (shown.returncode, shown.stderr) == (0, "The cluster has no consumer groups.\n")
    refused = run(str(programs / "order-services"), "topics", "check")
    assert refused.returncode == 2
    assert "kafka-lag-monitor[services]" in refused.stderr
