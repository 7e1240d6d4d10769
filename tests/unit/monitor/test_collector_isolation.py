"""A fault of our own in any step of a poll costs what that step would have told, and nothing else.

Not the steps are listed here but all functions of the kafka layer that a poll runs, as the profiler
sees them: each is made to raise in its turn. What is then told must be right, or as it was and silent,
or absent; and what no step that failed is responsible for must be exactly right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

import monitor.kafka
from monitor.commands.watching import what_is_missing
from monitor.kafka.apis.describe_groups import DescribedGroup
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.questions import Failure
from monitor.kafka.steps import Step
from monitor.model import (
    CLASSIC,
    CONSUMER,
    SHARE,
    STREAMS,
    Group,
    Member,
    Offsets,
    Partition,
    Refused,
    Silent,
    Snapshot,
    Topic,
    TopicConfig,
)
from monitor.poller import Poller
from tests.support.breaking import Functions, broken
from tests.unit.monitor.fake_brokers import FakeBrokers

PACKAGE: Final = str(Path(monitor.kafka.__file__).parent)
OFFSETS: Final = frozenset({"start_offsets", "end_offsets", "stable_offsets"})
METADATA: Final = frozenset({"brokers", "topics", "controller", "missing_brokers", "cluster_id"})
# What of a snapshot may be other than it would be, for a fault in a step.
COSTS: Final[Mapping[Step, frozenset[str]]] = {
    Step.RECOVERED: frozenset(),
    # without newer metadata, leaders and coordinators may be wrong
    Step.METADATA: METADATA | OFFSETS | {"groups", "groups_complete", "topic_configs", "log_sizes"},
    Step.LOG_STARTS: frozenset({"start_offsets"}),
    Step.GROUPS: frozenset({"groups", "groups_complete"}),
    Step.COMMITS: frozenset({"groups", "groups_complete"}),
    Step.MEMBERS: frozenset({"groups", "groups_complete"}),
    Step.GROUP: frozenset({"groups", "groups_complete"}),
    Step.ABSENCE: frozenset({"groups_complete"}),
    Step.RIGHTS: frozenset({"errors"}),
    Step.LOG_ENDS: frozenset({"end_offsets", "stable_offsets"}),  # they are asked for together
    Step.STABLE_OFFSETS: frozenset({"stable_offsets"}),
    Step.SAME_LOGS: frozenset({"start_offsets"}),
    Step.TOPIC_CONFIGS: frozenset({"topic_configs"}),
    Step.LOG_SIZES: frozenset({"log_sizes"}),
    Step.NEWER_METADATA: frozenset(),
    Step.CAUSES: frozenset({"broker_errors", "errors", "unreadable"}),
    Step.REQUESTS: frozenset(),
    Step.ANSWER: OFFSETS
    | METADATA
    | {"groups", "groups_complete", "topic_configs", "log_sizes", "errors"},
}
# Requests are other where a step is left out; times are compared with the values.
NOT_COMPARED: Final = frozenset({"requests", "failures", "duration_seconds"})
# Without these nothing is asked at all, or nothing is put together: the poll fails, and says so.
NOT_ISOLATED: Final = frozenset(
    {
        "Collector.poll",
        "Collector._exchange_of",
        "Collector._read",
        "Collector._refresh_metadata",
        "Collector._take_failures",
        "Collector._ask_rarely",
        "Exchange.__init__",
        "Exchange.ask",
        "Steps.start_poll",
        "Steps.failed",
    }
)


class Scene:
    """A cluster to which something happens before each poll, and a collector that asks for all."""

    def __init__(self) -> None:
        member = Member("m", "c", "/h", {"t": (1,)})
        self.now = 1_000.0
        self.brokers = brokers = FakeBrokers(
            groups={
                1: [
                    ListedGroup("a", CLASSIC, "Empty", "consumer"),
                    ListedGroup("new", CONSUMER, "Stable", "consumer"),
                    ListedGroup("share", SHARE, "Stable", "share"),
                    ListedGroup("twice", CLASSIC, "Stable", "consumer"),
                ],
                2: [
                    ListedGroup("b", CLASSIC, "Stable", "consumer"),
                    ListedGroup("streams", STREAMS, "Stable", "streams"),
                    ListedGroup("moves", CLASSIC, "Stable", "consumer"),
                    ListedGroup("twice", CLASSIC, "Empty", "consumer"),
                    ListedGroup("goes", CLASSIC, "Empty", "consumer"),
                ],
            },
            described={
                name: DescribedGroup("Stable", members=(member,))
                for name in ("b", "new", "share", "streams", "moves", "twice")
            },
            configs={"t": TopicConfig(1_000, -1, frozenset({"delete"}))},
            log_dirs={1: {"t": {0: 100}}, 2: {"t": {1: 200}}},
            stable={("t", 0): 9, ("t", 1): 19, ("u", 0): 5},
            coordinators={"twice": 1},
        )
        brokers.topics["u"] = Topic("u", {0: Partition(1, (1, 3), (1,)), 1: Partition(None, (3,))})
        brokers.ends["u", 0] = 5
        self.commit(4)
        self.collector = Collector(
            brokers,
            Intervals(metadata=0.0, start_offsets=0.0, topic_configs=0.001, log_sizes=0.001),
            wants_group=lambda _: True,
            wants_topic=lambda _: True,
            read_committed=True,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    def commit(self, offset: int) -> None:
        names = ("a", "b", "new", "share", "streams", "moves", "twice")
        self.brokers.commits = {name: GroupCommits({"t": {0: offset, 1: offset}}) for name in names}

    def poll(self, number: int) -> Snapshot:
        self.now = self.brokers.now = 1_000.0 + 15 * number
        for partition in (("t", 0), ("t", 1), ("u", 0)):
            self.brokers.ends[partition] += 3
            self.brokers.stable[partition] += 3
        self.commit(4 + number)
        if number == 2:
            self.brokers.groups[2] = [g for g in self.brokers.groups[2] if g.id != "goes"]
            self.brokers.coordinators["moves"] = 1
        if number == 3:
            self.brokers.topics["v"] = Topic("v", {0: Partition(2, (2, 1), (2, 1))})
            self.brokers.ends["v", 0] = self.brokers.stable["v", 0] = 0
        return self.collector.poll()


def functions(*, first_poll: bool) -> dict[str, FunctionType]:
    """Return the functions of the layer that polls run, by name; those of the first, or of later ones."""
    found = Functions(PACKAGE)
    scene = Scene()
    for number in range(1, 4):
        with found.seen() if first_poll == (number == 1) else nullcontext():
            scene.poll(number)
    return found.by_name()


def truth() -> dict[int, Snapshot]:
    """Return what polls tell when nothing is broken."""
    scene = Scene()
    return {number: scene.poll(number) for number in range(1, 7)}


AT_FIRST: Final = functions(first_poll=True)
FUNCTIONS: Final = functions(first_poll=False)
TRUTH: Final = truth()


def test_all_functions_are_tried() -> None:
    assert len(FUNCTIONS) > 60
    assert {"GroupCollector.collect", "read_lists", "join", "LogDirs.read"} <= FUNCTIONS.keys()


def test_each_step_has_its_costs() -> None:
    assert COSTS.keys() == set(Step)


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - NOT_ISOLATED))
def test_a_fault_costs_what_its_step_would_have_told(name: str) -> None:
    scene = Scene()
    before = scene.poll(1)
    failed: set[tuple[str, str]] = set()
    with broken(FUNCTIONS[name]), capture_logs() as lines:
        for number in (2, 3):
            told = scene.poll(number)
            if not told.failures:  # it did not run
                assert replace(told, requests={}) == replace(TRUTH[number], requests={})
            assert all(cause.startswith("ZeroDivisionError at") for cause in told.failures.values())
            failed |= told.failures.keys()
            check(told, TRUTH[number], before)
            before = told
    assert failed, "nobody says that it failed"
    errors = [(line["step"], line["subject"]) for line in lines if line["log_level"] == "error"]
    assert sorted(errors) == sorted(failed)  # at the first time, not at each poll
    # a deleted group may be asked for once more
    for number in (4, 5, 6):
        told = scene.poll(number)
    assert not told.failures
    assert replace(told, requests={}) == replace(TRUTH[6], requests={})


@pytest.mark.parametrize("name", sorted(AT_FIRST))
def test_a_fault_from_the_first_poll_on_misleads_nobody(name: str) -> None:
    scene = Scene()
    with broken(AT_FIRST[name]), capture_logs():
        try:
            told = scene.poll(1)
        except ZeroDivisionError:
            return  # without metadata there is nothing to tell
    check(told, TRUTH[1], Snapshot(None, 0.0, 0.0))


def check(told: Snapshot, truth: Snapshot, before: Snapshot) -> None:
    costs = frozenset[str]().union(*(COSTS[Step(step)] for step, _ in told.failures))
    for field in told.__slots__:
        if field not in costs | NOT_COMPARED:
            assert getattr(told, field) == getattr(truth, field), field
    for field in OFFSETS:
        check_offsets(getattr(told, field), getattr(truth, field), getattr(before, field))
    for group_id, group in truth.groups.items():
        check_group(told.groups.get(group_id), group, before.groups.get(group_id), told)
    for group_id in told.groups.keys() - truth.groups.keys():
        assert told.groups[group_id].is_silent
    assert not told.groups_complete or told.groups.keys() == truth.groups.keys()
    assert told.broker_errors.keys() == truth.broker_errors.keys()
    assert told.topics in (truth.topics, before.topics)
    for name, config in told.topic_configs.items():
        assert config == truth.topic_configs[name]
    for broker, sizes in told.log_sizes.items():
        assert sizes in (truth.log_sizes[broker], before.log_sizes.get(broker))


def check_offsets(told: Offsets, truth: Offsets, before: Offsets) -> None:
    for topic, partitions in told.values.items():
        for index, offset in partitions.items():
            if told.is_silent(topic, index):
                assert offset == before.get(topic, index)
                assert told.time_of(topic, index) == before.time_of(topic, index)
            else:
                assert offset == truth.get(topic, index)
                assert told.time_of(topic, index) == truth.time_of(topic, index)


def check_group(told: Group | None, truth: Group, before: Group | None, snapshot: Snapshot) -> None:
    if told is None:
        assert before is None, "it was concluded that it is gone"
        assert not snapshot.groups_complete
    elif isinstance(told.answer, Silent):
        if before is not None:
            assert (told.commits, told.members) == (before.commits, before.members)
            since = before.silent_since if before.is_silent else snapshot.monotonic_at - 15
            assert told.answer.since in (since, snapshot.monotonic_at)
    elif isinstance(told.answer, Refused):
        assert told.commits == truth.commits
        assert told.members in (None, truth.members)
    else:
        assert told == truth


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() & NOT_ISOLATED))
def test_a_fault_that_leaves_nothing_fails_the_poll_or_is_one_of_its_step(name: str) -> None:
    scene = Scene()
    scene.poll(1)
    with broken(FUNCTIONS[name]), pytest.raises(ZeroDivisionError):
        scene.poll(2)
    assert not scene.poll(3).failures


def test_an_answer_that_was_not_understood_is_a_fault_of_its_question_only() -> None:
    for kind, costs in WHAT_A_QUESTION_TELLS.items():
        scene, truth = Scene(), TRUTH[2]
        before = scene.poll(1)
        with not_understood(scene.brokers, kind):
            told = scene.poll(2)
        assert {step for step, _ in told.failures} == {Step.ANSWER}, kind
        assert {subject.split()[0] for _, subject in told.failures} == {kind}
        assert not told.broker_errors
        for field in told.__slots__:
            if field not in costs | NOT_COMPARED | {"errors"}:
                assert getattr(told, field) == getattr(truth, field), (kind, field)
        check(told, truth, before)


GROUPS: Final = frozenset({"groups", "groups_complete"})
WHAT_A_QUESTION_TELLS: Final[Mapping[str, frozenset[str]]] = {
    "Metadata": METADATA | GROUPS,
    "ListGroups": GROUPS,
    "FetchCommits": GROUPS,
    "FetchShareOffsets": GROUPS,
    "DescribeClassicGroups": GROUPS,
    "DescribeConsumerGroups": GROUPS,
    "DescribeShareGroups": GROUPS,
    "DescribeStreamsGroups": GROUPS,
    "ListOffsets": OFFSETS,
    "DescribeTopicConfigs": frozenset({"topic_configs"}),
    "DescribeLogDirs": frozenset({"log_sizes"}),
}


@contextmanager
def not_understood(brokers: FakeBrokers, kind: str) -> Iterator[None]:
    answer: Callable[[int, Any], Any] = brokers.answer_or_failure

    def wrong(broker: int, question: Any) -> Any:
        if type(question).__name__ == kind:
            return Failure("its answer was not understood", fault=ZeroDivisionError())
        return answer(broker, question)

    brokers.answer_or_failure = wrong  # type: ignore[method-assign]  # a fake's
    try:
        yield
    finally:
        brokers.answer_or_failure = answer  # type: ignore[method-assign,assignment]  # as above


def test_metrics_and_commands_name_the_step_and_the_poll_has_not_failed() -> None:
    scene = Scene()
    poller = Poller(
        scene.collector, stale_after_s=60.0, clock=lambda: 1e9, monotonic=lambda: scene.now
    )
    with broken(FUNCTIONS["LogDirs.read"]), capture_logs():
        poller.poll()
    page = poller.page().plain.decode()
    assert 'kafka_monitor_internal_errors{cluster="cluster",step="log_sizes",subject=""} 1' in page
    assert 'kafka_monitor_up{cluster="cluster"} 1' in page
    snapshot = poller.latest.state.snapshot
    assert snapshot is not None
    missing = what_is_missing(snapshot)
    assert any(
        line.startswith("step log_sizes: the monitor failed (ZeroDivisionError")
        for line in missing.lines
    )
    assert missing.exit_code == 1
