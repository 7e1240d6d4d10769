from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from order_services.cli import cli
from order_services.domain import topics
from order_services.local.kafka import EmbeddedKafka
from order_services.operations import topic_admin
from tests.support.waiting import wait_for


def run(*arguments: str, brokers: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(arguments), env={"KAFKA_BROKERS": brokers})


@pytest.fixture
def silent_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_creating_topics_twice_changes_nothing(kafka: EmbeddedKafka) -> None:
    assert run("topics", "create", brokers=kafka.bootstrap_servers).exit_code == 0
    again = run("topics", "create", "--kafka", kafka.bootstrap_servers)
    assert again.exit_code == 0
    assert again.output == f"0 created, {len(topics.TOPICS)} were there\n"
    listed = run("topics", "list", "--kafka", kafka.bootstrap_servers).output.split()
    assert {topic.name for topic in topics.TOPICS} <= set(listed)
    assert not any(name.startswith("__") for name in listed)
    described = run("topics", "describe", "orders", "--kafka", kafka.bootstrap_servers)
    lines = described.output.splitlines()
    assert lines[0].split() == ["TOPIC", "PARTITION", "LEADER", "REPLICAS", "IN-SYNC"]
    assert [line.split()[:2] for line in lines[1:]] == [["orders", str(n)] for n in range(6)]


def test_topics_are_compared_with_their_declaration(
    kafka: EmbeddedKafka, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = topics.Topic(unique("topic"), 1)
    topic_admin.create(topic_admin.admin_client(kafka.bootstrap_servers), [there])

    def check(*wanted: topics.Topic) -> Result:
        monkeypatch.setattr(topics, "TOPICS", wanted)
        monkeypatch.setattr(topic_admin.check, "__defaults__", (wanted,))
        return run("topics", "check", "--kafka", kafka.bootstrap_servers)

    wait_for("the topic", lambda: check(there).exit_code == 0)
    assert check(there).output == "all 1 topics are as declared\n"
    other = topics.Topic(there.name, 1, retention_days=9)
    told = check(other)
    assert told.exit_code == 1
    assert told.output == (
        f"{there.name}: retention.ms is 604800000, declared 777600000\n"
        f"    order-services topics alter {there.name} --settings\n"
    )


def test_partitions_grow_and_do_not_shrink(
    kafka: EmbeddedKafka, unique: Callable[[str], str]
) -> None:
    # of its own: other tests on this broker expect the declared ones as they are declared
    name = unique("topic")
    admin = topic_admin.admin_client(kafka.bootstrap_servers)
    topic_admin.create(admin, [topics.Topic(name, 3)])
    wait_for("the topic", lambda: name in topic_admin.list_names(admin))

    def alter(partitions: int) -> Result:
        arguments = ("topics", "alter", name, "--partitions", str(partitions))
        return run(*arguments, "--kafka", kafka.bootstrap_servers)

    assert alter(4).exit_code == 0
    wait_for("four partitions", lambda: "had 4" in alter(4).output)
    refused = alter(3)
    assert refused.exit_code == 2
    assert f"cannot shrink topic {name} from 4 to 3 partitions" in refused.output


def test_an_unknown_topic_is_named(kafka: EmbeddedKafka) -> None:
    answer = run("topics", "describe", "nothing-here", "--kafka", kafka.bootstrap_servers)
    assert answer.exit_code == 2
    assert "topic nothing-here does not exist" in answer.output


@pytest.mark.parametrize("command", [("create",), ("list",), ("describe",)])
def test_an_unreachable_broker_is_one_line_with_address_and_cause(command: tuple[str]) -> None:
    started = time.monotonic()
    answer = run("topics", *command, "--kafka", "127.0.0.1:1")
    assert time.monotonic() - started < 10
    assert answer.exit_code == 2
    assert answer.output == (
        "order-services: cannot reach Kafka at 127.0.0.1:1: connection refused\n"
    )


def test_a_broker_that_does_not_speak_is_one_line(silent_port: int) -> None:
    # as a process: what librdkafka itself prints counts too
    command = [sys.executable, "-m", "order_services", "topics", "list"]
    answer = subprocess.run(
        [*command, "--kafka", f"127.0.0.1:{silent_port}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr == (
        f"order-services: cannot reach Kafka at 127.0.0.1:{silent_port}: no answer within 5 s\n"
    )
