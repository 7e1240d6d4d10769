from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from order_services.local.ports import free_port
from order_services.messaging.relay import Relay
from order_services.operations import topic_admin
from order_services.storage.outbox import write
from tests.integration.order_services.conftest import Lab, order_created
from tests.support.waiting import wait_for


def environment(lab: Lab, **changes: Any) -> dict[str, str]:
    settings = lab.kafka_settings
    given = {
        "KAFKA_BROKERS": settings.kafka_brokers,
        "DB_HOST": settings.db_host,
        "DB_PORT": settings.db_port,
        "DB_NAME": settings.db_name,
        "DB_USER": settings.db_user,
        "DB_PASSWORD": settings.db_password.get_secret_value(),
        # they are killed at the end, and the next test's must not wait 45 s for their partitions
        "SESSION_TIMEOUT_SECONDS": 6,
        **changes,
    }
    return {**os.environ, **{name: str(value) for name, value in given.items()}}


@contextmanager
def running(
    name: str, directory: Path, variables: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"order_services.{name}"], env=variables, stderr=log
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_a_service_charges_and_ends_in_good_order(lab: Lab, tmp_path: Path) -> None:
    topic_admin.create(topic_admin.admin_client(lab.kafka.bootstrap_servers))
    with lab.database.begin() as connection:
        write(connection, "gateway", [order_created() for _ in range(10)])
    relay = Relay("gateway", lab.kafka_settings, lab.database)
    wait_for("the orders published", lambda: relay.publish_once() == 0)
    port = free_port()
    with running("payment", tmp_path, environment(lab, PORT=port)) as process:
        wait_for("the payments", lambda: lab.number("SELECT count(*) FROM payments") >= 10)
        wait_for("readiness", lambda: get(port, "/ready")[0] == 200)
        wait_for("an empty outbox", lambda: lab.number("SELECT count(*) FROM outbox") == 0)
        metrics = get(port, "/metrics")[1]
        assert 'kafka_messages_processed_total{status="processed",topic="orders"}' in metrics
        for bucket in ("0.1", "0.5", "1.0", "2.0", "5.0"):
            assert (
                f'kafka_message_processing_seconds_bucket{{le="{bucket}",topic="orders"}}'
                in metrics
            )
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert '"in_time": true' in (tmp_path / "payment.log").read_text()


def test_without_its_database_a_service_lives_says_why_it_waits_and_still_ends(
    lab: Lab, tmp_path: Path
) -> None:
    port = free_port()
    with running("payment", tmp_path, environment(lab, PORT=port, DB_PORT=free_port())) as process:
        wait_for("an answer", lambda: get(port, "/health")[0] == 200)
        status, body = get(port, "/ready")
        assert status == 503
        assert "database" in body
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_port_that_is_taken_and_a_bad_setting_end_with_code_2(lab: Lab) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for changes, expected in (({"PORT": port}, str(port)), ({"PORT": "x"}, "PORT")):
            ended = subprocess.run(
                [sys.executable, "-m", "order_services.payment"],
                env=environment(lab, **changes),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ended.returncode == 2
            assert expected in ended.stderr
            assert "Traceback" not in ended.stderr
