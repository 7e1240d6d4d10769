from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import monitor
from monitor.kafka.apis.list_groups import ListGroups
from monitor.kafka.failures import explain
from monitor.kafka.questions import Ask
from monitor.kafka.transport import KafkaWire
from monitor.settings import KafkaSettings

KAFKA = Path("kafka")


def test_only_the_kafka_layer_knows_the_client_library() -> None:
    root = Path(monitor.__file__).parent
    users = {
        path.relative_to(root).parent
        for path in root.rglob("*.py")
        if re.search(r"^\s*(from|import) kafka\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert users == {KAFKA, KAFKA / "apis"}


@pytest.fixture
def wire() -> Iterator[KafkaWire]:
    wire = KafkaWire(KafkaSettings(bootstrap_servers=("127.0.0.1:1",)))
    yield wire
    wire.close()


def test_an_answer_that_cannot_be_read_costs_its_question_only(
    wire: KafkaWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise IndexError("what a broker said")

    monkeypatch.setattr(ListGroups, "read", fail)
    asked: Ask[Any] = Ask(1, ListGroups())
    wire._settle(asked, [])
    assert asked.answer is None
    assert asked.failure is not None
    assert asked.failure.cause.startswith("its answer was not understood: IndexError at test_wire")
    assert isinstance(asked.failure.fault, IndexError)
    assert not asked.failure.broker_down


def test_what_raises_is_the_brokers_unless_our_code_raised_it() -> None:
    try:
        ListGroups().read([None])
    except AttributeError as error:
        ours = explain(error)
    assert not ours.broker_down
    assert ours.fault is not None
    assert ours.cause.startswith("the monitor failed to ask: AttributeError at list_groups.py")
    # as a plug-in for logins may
    theirs = explain(RuntimeError("no ticket"))
    assert theirs.broker_down
    assert theirs.fault is None
