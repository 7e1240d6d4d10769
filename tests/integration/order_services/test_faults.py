"""Faults switched on in running services: what they do, and that they end."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from order_services.local.ports import free_port
from order_services.messaging.relay import Relay
from order_services.operations import topic_admin
from order_services.storage.outbox import write
from tests.integration.order_services.conftest import Lab, order_created
from tests.integration.order_services.test_service import environment, get, running
from tests.support.waiting import wait_for

TOKEN = "a-token-that-is-long-enough"


def ask(port: int, method: str, body: object = None, token: str = TOKEN) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/admin/faults",
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def order(lab: Lab, count: int) -> list[str]:
    """Publish orders and return their ids."""
    topic_admin.create(topic_admin.admin_client(lab.kafka.bootstrap_servers))
    events = [order_created() for _ in range(count)]
    with lab.database.begin() as connection:
        write(connection, "gateway", events)
    relay = Relay("gateway", lab.kafka_settings, lab.database)
    wait_for("the orders published", lambda: relay.publish_once() == 0)
    return [event.order_id for event in events]


def outcomes(lab: Lab, order_ids: list[str]) -> set[str]:
    rows = lab.query(
        "SELECT order_id::text, fact::text FROM payments WHERE order_id::text = ANY(:ids)",
        ids=order_ids,
    )
    return {row[1] for row in rows} if len(rows) == len(order_ids) else set()


def test_past_the_limit_of_dead_letters_a_service_stops_turns_unready_and_says_why(
    lab: Lab, tmp_path: Path
) -> None:
    port = free_port()
    changes = {"PORT": port, "FAULT_POISON_RATE": 1, "DEAD_LETTER_LIMIT": 0}
    order_ids = order(lab, 10)
    with running("payment", tmp_path, environment(lab, **changes)):
        wait_for("a stop", lambda: "consumer: stopped" in get(port, "/ready")[1])
        status, body = get(port, "/ready")
        assert status == 503
        assert "more than 0 messages failed within 300 s" in body
        # a restart would not repair a bad deploy
        assert get(port, "/health")[0] == 200
        metrics = get(port, "/metrics")[1]
        assert "kafka_consumer_stopped 1.0" in metrics
        assert 'faults_active{kind="poison"} 1.0' in metrics
        assert lab.number("SELECT count(*) FROM outbox WHERE slice = 'payment'") == 0
    # the next deploy finds all of them
    port = free_port()
    with running("payment", tmp_path, environment(lab, PORT=port)):
        wait_for("the payments", lambda: outcomes(lab, order_ids) == {"processed"})


def test_faults_are_switched_on_and_off_in_a_running_service(lab: Lab, tmp_path: Path) -> None:
    topic_admin.create(topic_admin.admin_client(lab.kafka.bootstrap_servers))
    port = free_port()
    with running("payment", tmp_path, environment(lab, PORT=port, ADMIN_TOKEN=TOKEN)):
        wait_for("readiness", lambda: get(port, "/ready")[0] == 200)
        assert ask(port, "PUT", {"poisonRate": 1}, token="wrong-but-long-enough")[0] == 403
        assert ask(port, "PUT", {"paymentRefusalRate": 1})[0] == 200
        refused = order(lab, 5)
        wait_for("refusals", lambda: outcomes(lab, refused) == {"failed"})
        metrics = get(port, "/metrics")[1]
        counted = re.search(r'faults_injected_total{kind="payment_refusal"} (\S+)', metrics)
        assert counted is not None
        # more where the topic held orders of before
        assert float(counted[1]) >= 5
        assert 'faults_active{kind="payment_refusal"} 1.0' in metrics
        assert (
            ask(port, "PUT", {"databasePauseSeconds": 600, "databasePauseMode": "deny"})[0] == 200
        )
        wait_for("an unready service", lambda: "database" in get(port, "/ready")[1])
        held = order(lab, 5)
        assert ask(port, "GET")[1]["active"]["database_pause"] is True
        assert outcomes(lab, held) == set()
        assert ask(port, "DELETE")[0] == 200
        wait_for("the payments", lambda: outcomes(lab, held) == {"processed"})
        wait_for("readiness", lambda: get(port, "/ready")[0] == 200)
    log = (tmp_path / "payment.log").read_text()
    assert "faults are injected" in log
    assert TOKEN not in log


def test_exemplars_and_logs_have_the_correlation_id(lab: Lab, tmp_path: Path) -> None:
    port = free_port()
    order_ids = order(lab, 5)
    with running("payment", tmp_path, environment(lab, PORT=port, LOG_LEVEL="DEBUG")):
        wait_for("the payments", lambda: outcomes(lab, order_ids) == {"processed"})
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=accept)

        def exemplars() -> list[str]:
            with urllib.request.urlopen(request, timeout=10) as answer:
                text = answer.read().decode()
            return [
                line
                for line in text.splitlines()
                if line.startswith("kafka_message_processing_seconds_bucket") and " # {" in line
            ]

        found = wait_for("an exemplar", exemplars)
        assert 'correlation_id="corr-1"' in found[0]
    lines = [json.loads(line) for line in (tmp_path / "payment.log").read_text().splitlines()]
    handled = [line for line in lines if line["event"] == "event handled"]
    assert {line["order_id"] for line in handled} >= set(order_ids)
    assert {line["correlation_id"] for line in handled if line["order_id"] in order_ids} == {
        "corr-1"
    }
