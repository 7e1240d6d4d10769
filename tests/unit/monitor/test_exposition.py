from __future__ import annotations

import gzip
import time
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from monitor.analysis.analyst import Analyst
from monitor.analysis.status import StatusRules
from monitor.exposition.blocks import Choice, blocks
from monitor.exposition.catalogue import FAMILIES
from monitor.exposition.families import process
from monitor.exposition.families.exporter import BROKERS, LAG
from monitor.exposition.render import PLAIN_PIECE_BYTES, Renderer, label_text
from monitor.exposition.series import Block, ByPartition, Level, Samples, Series
from monitor.model import (
    ANSWERED,
    CLASSIC,
    Broker,
    Group,
    LogLook,
    Member,
    Offsets,
    Partition,
    PartitionOffsets,
    Refused,
    Silent,
    Snapshot,
    Topic,
)
from monitor.state import State

Sample = tuple[str, tuple[tuple[str, str], ...]]


def state(**changes: Any) -> State:
    snapshot = Snapshot(
        cluster_id="c",
        taken_at=100.0,
        monotonic_at=100.0,
        brokers={1: Broker(1, "one", 9092), 2: Broker(2, "two", 9092)},
        broker_errors={2: "timed out"},
        topics={"t": Topic("t", {0: Partition(1, (1, 2), (1,)), 1: Partition(None, (2,), ())})},
        start_offsets=Offsets({"t": {0: 2}}, 100.0),
        end_offsets=Offsets({"t": {0: 10, 1: 20}}, 100.0, {"t": {1: 60.0}}),
        groups={"g": Group("g", CLASSIC, members=(), commits={"t": {0: 4, 1: 30}, "gone": {0: 1}})},
    )
    snapshot = replace(snapshot, **changes)  # any field
    return State("c", 100.0, snapshot, Analyst().measure(snapshot), None, 100.0, monotonic_at=100.0)


def scrape(page: bytes) -> dict[Sample, float]:
    found: dict[Sample, float] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"duplicate series {key}"
            found[key] = sample.value
    return found


def test_a_page_has_kafka_exporters_names_with_lag_never_negative_and_nothing_unknown() -> None:
    found = scrape(Renderer().render(blocks(state(), Choice(45))).plain)

    def value(name: str, **labels: str) -> float | None:
        return found.get((name, tuple(sorted(labels.items()))))

    group = {"consumergroup": "g", "topic": "t"}
    assert value("kafka_consumergroup_lag", partition="0", **group) == 6
    # past a log end that is an earlier poll's: not known
    assert value("kafka_consumergroup_lag", partition="1", **group) is None
    assert value("kafka_consumergroup_lag_sum", **group) == 6
    assert value("kafka_consumergroup_current_offset", partition="1", **group) == 30
    assert value("kafka_consumergroup_current_offset_sum", **group) == 34
    assert value("kafka_consumergroup_members", consumergroup="g") == 0
    gone = {"consumergroup": "g", "topic": "gone", "partition": "0"}
    assert value("kafka_consumergroup_current_offset", **gone) == 1
    assert value("kafka_consumergroup_lag", **gone) is None
    assert value("kafka_brokers") == 2
    assert value("kafka_broker_info", id="1", address="one:9092") == 1
    assert value("kafka_topic_partitions", topic="t") == 2
    assert value("kafka_topic_partition_leader", topic="t", partition="0") == 1
    assert value("kafka_topic_partition_leader", topic="t", partition="1") is None
    assert value("kafka_topic_partition_oldest_offset", topic="t", partition="1") is None
    assert value("kafka_topic_partition_under_replicated_partition", topic="t", partition="0") == 1
    assert value("kafka_monitor_broker_up", broker="2") == 0
    assert value("kafka_monitor_up", cluster="c") == 1
    assert value("kafka_monitor_stale_partitions", cluster="c") == 1


def test_each_refusal_of_a_partition_is_told_and_that_of_a_look_apart() -> None:
    refused = state(
        end_offsets=Offsets({"t": {0: 10}}, 100.0, refused={"t": {1: "no leader"}}),
        unreadable={"t": {0: "TOPIC_AUTHORIZATION_FAILED"}},
    )
    found = scrape(Renderer().render(blocks(refused, Choice(45))).plain)
    told = {
        (labels["partition"], labels["error"]): value
        for (name, of), value in found.items()
        if name == "kafka_topic_partition_error"
        for labels in (dict(of),)
    }
    assert told == {("1", "no leader"): 1, ("0", "Fetch: TOPIC_AUTHORIZATION_FAILED"): 1}
    # it makes no number less exact
    assert (
        "kafka_consumergroup_lag",
        (("consumergroup", "g"), ("partition", "0"), ("topic", "t")),
    ) in found


def test_a_value_that_is_stale_for_too_long_is_absent() -> None:
    series = ("kafka_topic_partition_current_offset", (("partition", "1"), ("topic", "t")))
    assert series in scrape(Renderer().render(blocks(state(), Choice(45))).plain)
    assert series not in scrape(Renderer().render(blocks(state(), Choice(30))).plain)
    old = Group("g", commits={"t": {0: 4}}, answer=Silent(10.0))
    found = scrape(Renderer().render(blocks(state(groups={"g": old}), Choice(45))).plain)
    assert not any("consumergroup" in name for name, _ in found)


def test_before_the_first_poll_only_the_monitor_speaks() -> None:
    found = scrape(Renderer().render(blocks(State("c", 1.0, error="refused"), Choice(45))).plain)
    assert found["kafka_monitor_up", (("cluster", "c"),)] == 0
    assert {name for name, _ in found} == {
        "kafka_monitor_up", "kafka_monitor_build_info", "kafka_monitor_poll_failed"
    }  # fmt: skip


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", 'all"\\\n', "ünï", "{}=,"])
def test_label_values_are_escaped_so_that_a_parser_reads_them_back(text: str) -> None:
    group = Group(text, members=())
    found = scrape(Renderer().render(blocks(state(groups={text: group}), Choice(45))).plain)
    assert found["kafka_consumergroup_members", (("consumergroup", text),)] == 0


def test_labels_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        label_text(("a", "b"), ("1",))


def test_a_metric_in_two_blocks_is_refused_as_its_series_could_be_twice() -> None:
    twice = [Block((), lambda: {BROKERS: {(): 1}})] * 2
    with pytest.raises(ValueError, match="kafka_brokers is in two blocks"):
        Renderer().render(twice)


def test_dead_series_leave_the_page_and_the_cache() -> None:
    renderer = Renderer()
    labels = LAG.labels

    def lag_of(start: int) -> list[Block]:
        series: Series = {("g", "t", str(n)): 1.0 for n in range(start, start + 500)}
        return [Block((), lambda: {LAG: series})]

    renderer.render(lag_of(0))
    page = renderer.render(lag_of(500)).plain
    assert b'partition="1"' not in page
    assert len(renderer._labels[labels]) == 500


def test_a_block_with_the_same_source_is_not_made_again() -> None:
    made = []
    source = object()

    def samples() -> Samples:
        made.append(1)
        return {BROKERS: {(): len(made)}}

    renderer = Renderer()
    first = renderer.render([Block((source,), samples)])
    assert renderer.render([Block((source,), samples)]).plain == first.plain
    assert renderer.render([Block((object(),), samples)]).plain != first.plain


def test_families_can_be_chosen_and_the_compressed_page_is_the_same() -> None:
    page = Renderer().render(blocks(state(), Choice(45, families=())))
    assert b"kafka_monitor_up" in page.plain
    assert b"kafka_consumergroup" not in page.plain
    assert gzip.decompress(page.gzipped) == page.plain


def test_what_did_not_change_is_kept_and_the_compressed_page_is_still_right() -> None:
    renderer = Renderer()
    lags = ByPartition({("g", "t"): dict.fromkeys(range(50_000), 1)})
    rendered = []

    def samples() -> Samples:
        rendered.append(lags)
        return {LAG: lags}

    def page_of(brokers: int) -> list[Block]:
        return [Block((), lambda: {BROKERS: {(): brokers}}), Block((lags,), samples)]

    first, second = renderer.render(page_of(1)), renderer.render(page_of(2))
    assert rendered == [lags]
    for page in (first, second):
        assert gzip.decompress(page.gzipped) == page.plain
        assert page.length == len(page.plain) > 2 * PLAIN_PIECE_BYTES
        assert max(map(len, page.pieces())) <= PLAIN_PIECE_BYTES
    assert b"kafka_brokers 2" in second.plain


GROUPS: Final = 4
MEMBER: Final = Member("m", "client", "/host", {"t0": (0,)})
# what happens to one group before a poll, or to a topic's log
CHANGES: Final = st.tuples(
    st.integers(0, GROUPS - 1),
    st.sampled_from(
        [
            "record",
            "marker",
            "open",
            "commit",
            "delete",
            "recreate",
            {"type": "consumer"},
            {"state": "Dead"},
            {"assignor": "range"},
            {"coordinator": None},
            {"coordinator": 2},
            {"members": None},
            {"members": ()},
            {"members": (MEMBER,)},
            {"members": (MEMBER,), "state": "Stable"},
            {"lags": {"t0": {0: 3}}},
            {"answer": Silent(40.0)},
            {"answer": Refused("GROUP_AUTHORIZATION_FAILED")},
            {"answer": ANSWERED},
            {"commits": {}},
            {"commits": {"t0": {0: 10, 1: 11}}},
            {"commits": {"t0": {0: 4, 1: 10}, "t1": {0: 10}}},
            {"commits": {"t0": {0: 5, 1: 10}}},
            {"commits": {"t1": {0: 4, 1: 3}}},
            {"commits": {"gone": {0: 1}}},
        ]
    ),
    st.sampled_from([0, 0, 1, 5]),  # polls afterwards in which nothing happens
    st.sampled_from([15.0, 15.0, 900.0]),  # and how far they are apart
)


@dataclass
class World:
    """The logs of two topics; what is appended to "t0" is readable, a marker or held back."""

    ends: dict[str, dict[int, int]]
    starts: dict[str, dict[int, int]]
    readable: set[int] = field(default_factory=lambda: set(range(10)))
    open_from: int | None = None

    def change(self, what: str) -> None:
        end = self.ends["t0"][0]
        if what == "delete":
            self._set_start(min(end, self.starts["t0"][0] + 5))
        elif what == "recreate":
            self.readable, self.open_from = {0, 1}, None
            self._set_end(2)
            self._set_start(0)
        elif what == "commit":
            self.readable |= set(range(self.open_from or end, end))
            self.open_from = None
        else:
            if what == "open" and self.open_from is None:
                self.open_from = end
            elif what == "record" and self.open_from is None:
                self.readable |= {end}
            self._set_end(end + 1)

    def _set_end(self, end: int) -> None:
        self.ends = {**self.ends, "t0": {**self.ends["t0"], 0: end}}

    def _set_start(self, start: int) -> None:
        self.starts = {**self.starts, "t0": {**self.starts["t0"], 0: start}}

    def look(self, wanted: PartitionOffsets) -> dict[str, dict[int, LogLook]]:
        found: dict[str, dict[int, LogLook]] = {}
        for topic, partitions in wanted.items():
            for partition, offset in partitions.items():
                end = self.ends[topic][partition]
                is_plain = (topic, partition) != ("t0", 0)
                stable = end if is_plain or self.open_from is None else self.open_from
                at = next(
                    (o for o in range(offset, stable) if is_plain or o in self.readable), None
                )
                look = LogLook(at, max(offset, stable) if at is None else at, stable)
                found.setdefault(topic, {})[partition] = look
        return found


@example([(1, {"lags": {"t0": {0: 3}}}, 5, 15.0), (0, "recreate", 0, 15.0)], Level.PARTITION)
@settings(max_examples=100, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=6), st.sampled_from(Level))
def test_a_page_rendered_poll_by_poll_is_the_same_as_one_rendered_from_nothing(
    changes: list[tuple[int, str | dict[str, Any], int, float]], level: Level
) -> None:
    full = {f"t{number}": {0: 10, 1: 10} for number in range(2)}
    world = World(full, {topic: dict.fromkeys(of, 0) for topic, of in full.items()})
    analyst = Analyst(look_at_logs=world.look, rules=StatusRules(intervals=2))
    thorough = Analyst(look_at_logs=world.look, rules=StatusRules(intervals=2))
    renderer, choice = Renderer(), Choice(45, level)
    groups = {
        f"g{number}": Group(f"g{number}", state="Empty", members=(), coordinator=1,
                            commits={f"t{number % 2}": {0: 10, 1: 10}})
        for number in range(GROUPS)
    }  # fmt: skip
    quiet: tuple[int, str | dict[str, Any], float] = (0, {"id": "g0"}, 15.0)
    # at first all groups come to rest
    steps = [quiet] * 8
    for index, change, pause, apart in changes:
        steps += [(index, change, apart), *[(0, {"id": "g0"}, apart)] * pause]
    now = 100.0
    for number, (index, change, apart) in enumerate([*steps, quiet]):
        name = f"g{index}"
        if isinstance(change, str):
            world.change(change)
        else:
            groups = {**groups, name: replace(groups[name], **change)}
        now += apart
        snapshot = Snapshot(
            "c", now, now,
            topics={
                t: Topic(t, dict.fromkeys((0, 1), Partition(1, (1,), (1,)))) for t in world.ends
            },
            start_offsets=Offsets({t: dict(found) for t, found in world.starts.items()}, now),
            end_offsets=Offsets({t: dict(found) for t, found in world.ends.items()}, now),
            groups={
                name: replace(group, commits={t: dict(c) for t, c in group.commits.items()})
                for name, group in groups.items()
            },
        )  # fmt: skip
        measured = analyst.measure(snapshot)
        seen = State("c", now, snapshot, measured, monotonic_at=now, findings=analyst.findings)
        # to one that is never told the same assignor twice, something happens to each group at each
        # poll: it measures all anew
        restless = {
            name: replace(group, assignor=f"{group.assignor}-{number}")
            for name, group in snapshot.groups.items()
        }
        anew = thorough.measure(replace(snapshot, groups=restless))
        assert {name: replace(found, group=groups[name]) for name, found in measured.items()} == {
            name: replace(found, group=groups[name]) for name, found in anew.items()
        }
        # courses are of what happened, and to the other one something happens at each poll
        assert replace(analyst.findings, courses={}) == replace(thorough.findings, courses={})
        assert analyst.findings.failures == {}
        page = renderer.render(blocks(seen, choice))
        assert page.plain == Renderer().render(blocks(seen, choice)).plain
        assert gzip.decompress(page.gzipped) == page.plain
        if number == 7:
            assert all(m.measured_at < seen.findings.resting_since for m in measured.values())


def test_labels_and_partitions_make_the_same_text_either_way() -> None:
    flat: Series = {("g", 't"', str(p)): p for p in range(3)}
    nested = ByPartition({("g", 't"'): {p: p for p in range(3)}})
    pages = [
        Renderer().render([Block((), lambda s=s: {LAG: s})]).plain  # type: ignore[misc]  # a default binds
        for s in (flat, nested)
    ]
    assert pages[0] == pages[1]


def test_every_metric_is_declared_once_with_help_and_base_units() -> None:
    names = [metric.name for family in FAMILIES for metric in family.metrics]
    assert len(names) == len(set(names))
    for family in FAMILIES:
        for metric in family.metrics:
            assert metric.help.endswith(".")
            # Burrow names a gauge like a counter
            is_total = metric.name.endswith("_total") and family.name != "burrow"
            assert (metric.kind == "counter") == is_total, metric.name
            if family.name != "database":  # names of other exporters
                assert (metric.unit == "seconds") == ("_seconds" in metric.name)


def test_the_page_tells_what_the_monitors_own_process_uses() -> None:
    found = scrape(Renderer().render([process.block()]).plain)
    assert {name for name, _ in found} == {metric.name for metric in process.METRICS}
    assert 1e6 < found["process_resident_memory_bytes", ()] < 1e10
    assert 0 < found["process_cpu_seconds_total", ()] < 1e4
    assert 3 <= found["process_open_fds", ()] < found["process_max_fds", ()]
    assert abs(found["process_start_time_seconds", ()] - time.time()) < 3_600
