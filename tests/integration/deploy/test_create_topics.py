"""scripts/create-topics.sh on the real broker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from order_services.domain import topics
from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import LOOPBACK, free_port
from tests.unit.deploy.compose import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "create-topics.sh"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments],
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_it_creates_what_is_missing_and_lists_what_is_there(kafka: EmbeddedKafka) -> None:
    first = run(kafka.bootstrap_servers, "1")
    assert first.returncode == 0, first.stderr
    assert set(first.stdout.splitlines()) >= {topic.name for topic in topics.TOPICS}
    again = run(kafka.bootstrap_servers)
    assert again.returncode == 0, again.stderr
    assert f"0 created, {len(topics.TOPICS)} were there" in again.stdout


def test_it_says_in_a_line_what_is_wrong() -> None:
    away = run(f"{LOOPBACK}:{free_port()}")
    assert away.returncode == 2
    assert "cannot reach Kafka" in away.stderr
    assert away.stderr.count("\n") == 1
    assert run("a:1", "3", "more").returncode == 2
