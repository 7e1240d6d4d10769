from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from order_services.cli import cli
from order_services.domain.events import Event
from order_services.domain.topics import ConsumerGroup
from order_services.messaging.dead_letters import dead_letter
from order_services.messaging.messages import ReceivedMessage
from order_services.operations import redrive, topic_admin
from order_services.operations.redrive import Redriven, Selection
from order_services.storage.outbox import decode_headers, encode_headers
from tests.integration.order_services.conftest import Lab, Notebook, order_created
from tests.support.waiting import wait_for


def run(lab: Lab, *arguments: str) -> Result:
    return CliRunner().invoke(
        cli, ["dead-letters", *arguments, "--kafka", lab.kafka.bootstrap_servers]
    )


def bury(lab: Lab, group: ConsumerGroup, messages: list[Event | bytes], error: str = "no") -> None:
    """Write dead letters as the consume loop does, without a consumer."""
    producer = Producer({"bootstrap.servers": lab.kafka.bootstrap_servers})
    for offset, each in enumerate(messages):
        origin = (group.topics[0], 2, offset)
        if isinstance(each, bytes):
            received = ReceivedMessage(*origin, None, each, [])
        else:
            received = ReceivedMessage(*origin, each.key(), each.encode(), each.headers())
        message = dead_letter(received, group, ValueError(error), 3)
        headers = decode_headers(encode_headers(message.headers).decode())
        producer.produce(message.topic, message.value, message.key, partition=0, headers=headers)
    assert producer.flush(20) == 0


@pytest.fixture
def silent_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_repaired_group_takes_its_dead_letters_back_and_others_recognise_them(lab: Lab) -> None:
    group = lab.group()
    other = ConsumerGroup(lab.unique("other"), group.topics)
    events = [order_created() for _ in range(6)]
    poison = {events[1].event_id, events[4].event_id}
    broken = Notebook(lambda e: ValueError("bad deploy") if e.event_id in poison else None)
    consumer = lab.consumer(group, broken)
    seen_by_other = Notebook(writer="other")
    lab.consumer(other, seen_by_other)
    relay = lab.relay()
    relay.start()
    lab.send(group.topics[0], events)
    wait_for("all noted", lambda: lab.noted() == 4 + 6)
    wait_for("all handled", lambda: lab.committed(group) == lab.committed(other) == 6)
    dead = lab.read(group.dead_letter_topic, 2)
    assert {json.loads(m.value() or b"")["eventId"] for m in dead} == poison
    assert consumer.stop(10)

    lab.consumer(group, Notebook())
    redriven = run(lab, "redrive", "--group", group.group_id, "--all")
    assert redriven.exit_code == 0, redriven.output
    assert "2 sent back, 0 passed over" in redriven.output
    wait_for("the two again", lambda: lab.committed(group) == lab.committed(other) == 8)
    # six by the group, six by the other: the redriven ones were not for it
    assert lab.noted() == 12
    meant = ("dead-letter-for", group.group_id.encode())
    back = [m for m in lab.read(group.topics[0], 8) if meant in list(m.headers() or [])]
    assert {json.loads(m.value() or b"")["eventId"] for m in back} == poison
    originals = {event.event_id: event for event in events}
    for message in back:
        event = originals[json.loads(message.value() or b"")["eventId"]]
        assert message.value() == event.encode()
        assert message.key() == event.key()
        assert message.headers() == [*event.headers(), meant]

    assert "0 sent back" in run(lab, "redrive", "--group", group.group_id, "--all").output
    again = run(lab, "redrive", "--group", group.group_id, "--all", "--again")
    assert "2 sent back, 0 passed over" in again.output
    wait_for("duplicates", lambda: lab.committed(group) == 10)
    assert lab.noted() == 12


def test_a_letter_that_comes_back_is_for_its_group_alone_however_long_ago_it_was(lab: Lab) -> None:
    group = lab.group()
    others = [ConsumerGroup(lab.unique("other"), group.topics) for _ in range(2)]
    event = order_created()
    # a letter that is still malformed, and one that all the others have handled long ago
    bury(lab, group, [b"no json", event])
    handled = [Notebook() for _ in others]
    consumers = [lab.consumer(other, each) for other, each in zip(others, handled, strict=True)]
    own = Notebook()
    lab.consumer(group, own)
    assert "2 sent back" in run(lab, "redrive", "--group", group.group_id, "--all").output
    wait_for("all offsets", lambda: [lab.committed(g) for g in (group, *others)] == [2] * 3)
    assert [each.calls for each in (own, *handled)] == [[1], [], []]
    assert all(each.not_ready() is None for each in consumers)
    # one letter again, not one of each group
    assert lab.query("SELECT topic FROM outbox WHERE topic LIKE '%dead-letters'") == [
        (group.dead_letter_topic,)
    ]


def test_filters_leave_the_others_waiting(lab: Lab) -> None:
    group = lab.group()
    created = [order_created() for _ in range(4)]
    bury(lab, group, [*created[:2], b"not json", *created[2:]])
    name = ("--group", group.group_id)
    assert "1 sent back" in run(lab, "redrive", *name, "--offset", "3").output
    first = run(lab, "redrive", *name, "--event-type", "ORDER_CREATED", "--limit", "2")
    assert "2 sent back" in first.output
    rest = run(lab, "redrive", *name, "--event-type", "ORDER_CREATED")
    assert "1 sent back, 1 passed over" in rest.output
    assert "1 sent back" in run(lab, "redrive", *name, "--all").output
    assert "0 sent back" in run(lab, "redrive", *name, "--all").output
    values = sorted(m.value() or b"" for m in lab.read(group.topics[0], 6, timeout_s=5))
    assert values == sorted([b"not json", *(event.encode() for event in created)])
    # without a key it goes to the very partition that it came from
    [raw] = [m for m in lab.read(group.topics[0], 5) if m.value() == b"not json"]
    assert raw.partition() == 2


def test_list_counts_by_group_topic_and_error(lab: Lab) -> None:
    group, empty = lab.group(), lab.group()
    bury(lab, group, [order_created(), order_created(), b"not json"])
    run(lab, "redrive", "--group", group.group_id, "--limit", "1")
    heaps = json.loads(run(lab, "list", "--output", "json").output)
    [heap] = [each for each in heaps if each["group_id"] == group.group_id]
    assert (heap["topic"], heap["count"], heap["waiting"]) == (group.topics[0], 3, 2)
    assert heap["errors"] == {"ValueError": 3}
    assert heap["oldest"] <= heap["newest"]
    text = run(lab, "list").output
    assert f"{group.group_id}: 3 from {group.topics[0]}, 2 not sent back yet" in text
    assert f"{empty.group_id}: none" in text


def test_show_tells_all_in_80_columns_or_as_json(lab: Lab) -> None:
    group = lab.group()
    event = order_created(note="x" * 300)
    bury(lab, group, [event, b"\x1b[31m\xff"], error="why " * 80)
    shown = run(lab, "show", group.group_id, "0")
    assert shown.exit_code == 0
    assert all(len(line) <= 80 for line in shown.output.splitlines())
    for part in (
        f"{group.topics[0]}, partition 2, offset 0",
        "ValueError",
        event.order_id,
        "attempts    3",
    ):
        assert part in shown.output
    assert "\x1b" not in run(lab, "show", group.group_id, "1").output
    body = json.loads(run(lab, "show", group.group_id, "0", "--output", "json").output)
    assert body["value"] == event.encode().decode()
    assert body["origin_offset"] == 0
    assert ["event-type", "ORDER_CREATED"] in body["headers"]
    missing = run(lab, "show", group.group_id, "2")
    assert missing.exit_code == 2
    assert "no dead letter at offset 2; they go from 0 to 1" in missing.output


def test_what_does_not_say_where_it_came_from_is_left(lab: Lab) -> None:
    group = lab.group()
    lab.send(group.dead_letter_topic, [b"thrown in by hand"])
    answer = run(lab, "redrive", "--group", group.group_id, "--all")
    assert answer.exit_code == 0
    assert "1 left" in answer.output


def test_an_unknown_group_is_told_which_there_are(lab: Lab) -> None:
    group = lab.group()
    for arguments in (["redrive", "--group", "nobody", "--all"], ["show", "nobody", "0"]):
        answer = run(lab, *arguments)
        assert answer.exit_code == 2
        assert "group nobody has no dead-letter topic" in answer.output
        assert group.group_id in answer.output
    names = topic_admin.list_names(topic_admin.admin_client(lab.kafka.bootstrap_servers))
    assert "nobody.dead-letters" not in names


def test_an_unreachable_broker_is_named_in_time(silent_port: int) -> None:
    address = f"127.0.0.1:{silent_port}"
    for arguments in (["list"], ["show", "g", "0"], ["redrive", "--group", "g", "--all"]):
        started = time.monotonic()
        answer = CliRunner().invoke(cli, ["dead-letters", *arguments, "--kafka", address])
        assert answer.exit_code == 2
        assert f"cannot reach Kafka at {address}" in answer.output
        assert time.monotonic() - started < 10


def test_a_redrive_that_is_stopped_has_noted_what_it_sent(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrive, "CHUNK", 2)
    group = lab.group()
    events = [order_created() for _ in range(9)]
    bury(lab, group, list(events))
    seen: list[int] = []

    def note(redriven: Redriven) -> None:
        seen.append(redriven.sent)

    brokers = lab.kafka.bootstrap_servers
    first = redrive.redrive(
        brokers, group.group_id, Selection(), on_progress=note, stopping=lambda: len(seen) >= 2
    )
    second = redrive.redrive(brokers, group.group_id, Selection())
    assert (first.sent, second.sent) == (4, 5)
    ids = [json.loads(m.value() or b"")["eventId"] for m in lab.read(group.topics[0], 9)]
    assert sorted(ids) == sorted(event.event_id for event in events)


def test_ctrl_c_ends_a_redrive_without_a_trace_of_python(lab: Lab) -> None:
    group = lab.group()
    bury(lab, group, [order_created() for _ in range(5)])
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "order_services", "dead-letters", "redrive", "--all"),
            *("--group", group.group_id, "--kafka", lab.kafka.bootstrap_servers),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    process.stderr.readline()  # the first progress line: its handler is in place
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert "Traceback" not in out + err
    assert process.returncode in (0, 130)
