"""A fake client: the broker that leads a partition cannot be brought to be silent for a moment."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from order_services.messaging.log_starts import LogStarts
from order_services.process import instrumentation


class Client:
    """Knows the first and the last offset of each partition, and notes where it is to begin."""

    def __init__(self, **bounds: tuple[int, int]) -> None:
        self.bounds = bounds
        self.begun: dict[str, int] = {}

    def get_watermark_offsets(self, partition: Any, timeout: float) -> tuple[int, int]:
        assert timeout <= 1
        if partition.topic not in self.bounds:
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
        return self.bounds[partition.topic]

    def incremental_unassign(self, partitions: list[Any]) -> None:
        pass

    def incremental_assign(self, partitions: list[Any]) -> None:
        self.begun |= {each.topic: each.offset for each in partitions}


def settle(starts: LogStarts, client: Client, busy: Any = ()) -> dict[tuple[str, int], int]:
    return starts.settle(client, busy)  # type: ignore[arg-type]  # a fake


def lost(topic: str) -> float:
    return float(instrumentation.RECORDS_LOST.labels(topic)._value.get())


def test_a_partition_whose_leader_is_silent_is_asked_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts, client = LogStarts("g"), Client()
    starts.need("silent", 0, 5)
    assert settle(starts, client) == {}
    client.bounds["silent"] = (9, 20)
    # not at once: each time costs the others a second
    assert settle(starts, client) == {}
    monkeypatch.setattr(starts, "_due_at", 0.0)
    before = lost("silent")
    assert settle(starts, client) == {("silent", 0): 9}
    assert (client.begun, lost("silent") - before) == ({"silent": 9}, 4)
    assert settle(starts, client) == {}


def test_a_group_without_an_offset_begins_at_the_start_and_has_lost_nothing() -> None:
    starts, client = LogStarts("g"), Client(new=(7, 20))
    starts.need("new", 0, None)
    before = lost("new")
    assert settle(starts, client) == {}
    assert (client.begun, lost("new") - before) == ({"new": 7}, 0)


def test_a_log_that_ends_before_what_was_read_is_read_again_and_nothing_is_lost() -> None:
    starts, client = LogStarts("g"), Client(cut=(0, 3))
    starts.need("cut", 0, 10)
    before = lost("cut")
    assert settle(starts, client) == {("cut", 0): 0}
    assert (client.begun, lost("cut") - before) == ({"cut": 0}, 0)


def test_a_partition_whose_messages_wait_is_not_committed_past_them() -> None:
    starts, client = LogStarts("g"), Client(busy=(9, 20), other=(2, 4))
    starts.need("busy", 0, 5)
    starts.need("other", 0, 1)
    assert settle(starts, client, {("busy", 0)}) == {("other", 0): 2}
    assert settle(starts, client) == {("busy", 0): 9}


def test_a_partition_that_was_given_up_is_left_alone() -> None:
    starts, client = LogStarts("g"), Client(gone=(9, 20))
    starts.need("gone", 0, 5)
    starts.forget([("gone", 0)])
    assert settle(starts, client) == {}
    assert client.begun == {}
