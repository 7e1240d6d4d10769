from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import monitor
from monitor.kafka import transport as client
from monitor.kafka.apis import tables as apis
from monitor.kafka.questions import Ask, ListGroups
from monitor.settings import KafkaSettings

KAFKA = Path("kafka")


def test_only_the_wire_knows_the_client_library() -> None:
    root = Path(monitor.__file__).parent
    users = {
        path.relative_to(root).parent
        for path in root.rglob("*.py")
        if re.search(r"^\s*(from|import) kafka\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert users == {KAFKA, KAFKA / "apis"}


def test_an_answer_that_cannot_be_read_costs_its_question_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise IndexError("what a broker said")

    wire = client.KafkaWire(KafkaSettings(bootstrap_servers=("127.0.0.1:1",)))
    try:
        monkeypatch.setitem(apis.ANSWERS, ListGroups, fail)
        asked: Ask[Any] = Ask(1, ListGroups())
        wire._settle(asked, [])
    finally:
        wire.close()
    assert asked.answer is None
    assert asked.failure is not None
    assert asked.failure.cause.startswith("its answer was not understood: IndexError at test_wire")
    assert not asked.failure.broker_down
