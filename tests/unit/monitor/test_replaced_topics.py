"""Topics that are deleted and created anew under their name, and what was known of the old ones."""

from __future__ import annotations

import pytest

from monitor.kafka.apis.list_offsets import EARLIEST, FoundOffsets, ListOffsets
from monitor.kafka.collector import Collector, Intervals
from monitor.model import Partition, Snapshot, Topic
from tests.unit.monitor.fake_brokers import FakeBrokers

POLL_S = 15.0


class WithStarts(FakeBrokers):
    """Tells log starts other than 0, too."""

    starts: dict[tuple[str, int], int]

    def _offsets(self, question: ListOffsets) -> FoundOffsets:
        found = super()._offsets(question)
        for topic, partitions in question.wanted.items():
            for index, at in partitions.items():
                if at == EARLIEST and (topic, index) not in self.errors:
                    found.offsets[topic][index] = self.starts.get((topic, index), 0)
        return found


class Watched:
    """Topic "t" of three partitions on broker 1, from 400 to 500 each, and a collector."""

    def __init__(self, topic_id: str | None) -> None:
        self.brokers = WithStarts()
        self.create(topic_id, 3, start=400, end=500)
        self.collector = Collector(
            self.brokers,
            Intervals(),
            clock=lambda: self.brokers.now,
            monotonic=lambda: self.brokers.now,
        )

    def create(self, topic_id: str | None, partitions: int, *, start: int = 0, end: int) -> None:
        topic = Topic("t", dict.fromkeys(range(partitions), Partition(1)), id=topic_id)
        self.brokers.topics["t"] = topic
        self.brokers.starts = {("t", index): start for index in range(partitions)}
        self.brokers.ends = {("t", index): end for index in range(partitions)}
        self.brokers.errors = {
            ("t", index): "UNKNOWN_TOPIC_OR_PARTITION" for index in range(partitions, 3)
        }

    def poll(self) -> Snapshot:
        self.brokers.now += POLL_S
        snapshot = self.collector.poll()
        starts, ends = snapshot.start_offsets, snapshot.end_offsets
        for topic, partitions in starts.values.items():
            for index, start in partitions.items():
                assert start <= ends.values[topic][index]
        return snapshot


both = pytest.mark.parametrize("ids", [("x", "y"), (None, None)], ids=["ids", "no ids"])


@both
@pytest.mark.parametrize("partitions", [1, 3])
def test_the_start_of_a_shorter_topic_is_read_at_once(
    ids: tuple[str | None, str | None], partitions: int
) -> None:
    watched = Watched(ids[0])
    watched.poll()
    watched.create(ids[1], partitions, end=3)
    snapshot = watched.poll()
    assert snapshot.start_offsets.get("t", 0) in {0, None}
    assert snapshot.end_offsets.get("t", 0) == 3
    after = watched.poll()
    assert after.start_offsets.values["t"] == dict.fromkeys(range(partitions), 0)
    assert after.end_offsets.values["t"] == dict.fromkeys(range(partitions), 3)
    assert not after.start_offsets.silent
    assert not after.end_offsets.silent


def test_the_start_of_a_topic_that_is_longer_already_is_read_with_the_metadata() -> None:
    watched = Watched("x")
    watched.poll()
    watched.create("y", 3, end=10_000)
    starts = [watched.poll().start_offsets.get("t", 0) for _ in range(5)]
    assert starts[-1] == 0


@both
def test_nothing_of_a_replaced_topic_is_kept_while_its_leader_does_not_answer(
    ids: tuple[str | None, str | None],
) -> None:
    watched = Watched(ids[0])
    watched.poll()
    watched.create(ids[1], 1, end=3)
    watched.brokers.errors[("t", 0)] = "NOT_LEADER_OR_FOLLOWER"
    watched.poll()
    snapshot = watched.poll()
    assert not snapshot.end_offsets.values.get("t")
    assert not snapshot.start_offsets.values.get("t")


@pytest.mark.parametrize("ids", [(None, "x"), ("x", None)], ids=["come", "go"])
def test_ids_that_come_and_go_with_an_upgrade_of_the_brokers_replace_no_topic(
    ids: tuple[str | None, str | None],
) -> None:
    watched = Watched(ids[0])
    before = watched.poll()
    watched.create(ids[1], 3, start=400, end=500)
    # what is told by nobody now is kept from before
    watched.brokers.errors = {("t", index): "NOT_LEADER_OR_FOLLOWER" for index in range(3)}
    watched.poll()
    after = watched.poll()
    assert after.end_offsets.values == before.end_offsets.values
    assert after.start_offsets.values == before.start_offsets.values


def test_a_start_that_passes_its_end_while_both_are_read_is_dropped_and_read_again() -> None:
    watched = Watched("x")
    watched.poll()
    watched.brokers.now += 60
    watched.brokers.starts = dict.fromkeys(watched.brokers.starts, 600)
    assert "t" not in watched.poll().start_offsets.values
    watched.brokers.ends = dict.fromkeys(watched.brokers.ends, 700)
    assert watched.poll().start_offsets.values["t"] == dict.fromkeys(range(3), 600)


def test_other_topics_keep_theirs() -> None:
    watched = Watched("x")
    watched.brokers.topics["u"] = Topic("u", {0: Partition(1)}, id="u")
    watched.brokers.ends["u", 0] = 7
    before = watched.poll()
    watched.create("y", 3, end=3)
    watched.brokers.ends["u", 0] = 7
    after = watched.poll()
    assert after.start_offsets.values["u"] == before.start_offsets.values["u"]
    assert after.end_offsets.values["u"] == {0: 7}
