"""What is published when polls, or parts of them, fail, hang or find old things only."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

import monitor.exposition.blocks
from monitor.analysis.analyst import Analyst
from monitor.analysis.measures import GroupMeasures
from monitor.answers.groups import partitions_of
from monitor.exposition.catalogue import CHOICES, FAMILIES
from monitor.exposition.families import burrow, exporter, kminion, lag_exporter, measures
from monitor.exposition.families import monitor as own
from monitor.exposition.families.exporter import BROKERS
from monitor.exposition.series import Block
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.questions import Ask
from monitor.model import (
    CLASSIC,
    Broker,
    Group,
    Offsets,
    Partition,
    Refused,
    Silent,
    Snapshot,
    Topic,
)
from monitor.poller import Poller
from monitor.web.overview import overview
from tests.support.waiting import wait_for
from tests.unit.monitor.fake_brokers import FakeBrokers

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
STALE_AFTER_S = 45


@dataclass
class Brokers(FakeBrokers):
    """Brokers whose answers to some questions the monitor can't deal with."""

    broken: set[str] = field(default_factory=set)
    hang: threading.Event | None = None

    def find_cluster(self, timeout_s: float) -> Any:
        self._break("find_cluster")
        return super().find_cluster(timeout_s)

    def ask(self, asks: Any, timeout_s: float, not_awaited: Any = ()) -> None:
        if self.hang is not None:
            self.hang.wait(30)
        for ask in asks:
            self._break(self._name(ask))
        super().ask(asks, timeout_s, not_awaited)

    def _break(self, name: str) -> None:
        if name in self.broken or "all" in self.broken:
            raise IndexError("secret-of-a-server")

    def _name(self, ask: Ask[Any]) -> str:
        return type(ask.question).__name__


class Clock:
    """The one clock of brokers and monitor."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers

    @property
    def now(self) -> float:
        return self._brokers.now

    @now.setter
    def now(self, now: float) -> None:
        self._brokers.now = now

    def __call__(self) -> float:
        return self.now


def make(**options: Any) -> tuple[Brokers, Poller, Clock]:
    """A cluster of two brokers; group g has lag 6 and 5 on the partitions that they lead."""
    brokers = Brokers(
        groups={1: [ListedGroup("g", CLASSIC, "Empty", "consumer")]},
        commits={"g": GroupCommits({"t": {0: 4, 1: 15}})},
        log_dirs={1: {"t": {0: 100}}, 2: {"t": {1: 100}}},
    )
    clock = Clock(brokers)
    intervals = Intervals(metadata=60, topic_configs=30, log_sizes=30)
    collector = Collector(brokers, intervals, clock=clock, monotonic=clock)
    poller = Poller(collector, stale_after_s=STALE_AFTER_S, clock=clock, monotonic=clock, **options)
    return brokers, poller, clock


def scrape(poller: Poller) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(poller.page().plain.decode()):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def lag(found: Samples, partition: int = 0) -> float | None:
    where = {"consumergroup": "g", "topic": "t", "partition": str(partition)}
    return value(found, "kafka_consumergroup_lag", **where)


def causes(found: Samples) -> list[str]:
    return [dict(labels)["error"] for name, labels in found if name == "kafka_monitor_poll_failed"]


def internal_errors(found: Samples) -> set[tuple[str, str]]:
    return {
        (dict(labels)["step"], dict(labels)["subject"])
        for name, labels in found
        if name == "kafka_monitor_internal_errors"
    }


def poll_on(poller: Poller, clock: Clock, seconds: float = 15) -> Samples:
    clock.now += seconds
    poller.poll()
    return scrape(poller)


# -- a poll that fails as a whole -------------------------------------------------------------


def test_a_poll_that_fails_is_published_and_what_is_old_leaves_the_page() -> None:
    brokers, poller, clock = make()
    poller.poll()
    brokers.broken = {"all"}
    found = poll_on(poller, clock)
    assert value(found, "kafka_monitor_up", cluster="cluster") == 0
    (cause,) = causes(found)
    assert cause.startswith("the monitor failed: IndexError at ")
    assert "secret" not in cause
    found = poll_on(poller, clock, 46)
    assert lag(found) is None
    assert not any("consumergroup" in name or "topic" in name for name, _ in found)
    assert value(found, "kafka_monitor_broker_up", broker="1") is None
    assert value(found, "kafka_brokers") is None
    assert value(found, "kafka_monitor_data_age_seconds", cluster="cluster") is None
    reason = poller.unready_reason()
    assert reason is not None
    assert cause in reason
    assert overview(poller.shown()).groups == ()
    brokers.broken = set()
    found = poll_on(poller, clock)
    assert (lag(found), causes(found)) == (6, [])
    assert value(found, "kafka_monitor_up", cluster="cluster") == 1
    assert poller.unready_reason() is None


@pytest.mark.parametrize(
    ("step", "told"),
    [("Metadata", {"metadata"}), ("ListGroups", {"groups"}), ("ListOffsets", {"log_ends"})],
)
def test_a_step_that_fails_costs_its_figures_only_and_what_is_old_of_them_leaves_the_page(
    step: str, told: set[str]
) -> None:
    brokers, poller, clock = make()
    poller.poll()
    brokers.broken = {step}
    found = poll_on(poller, clock, 61)  # metadata and log starts are due
    assert value(found, "kafka_monitor_up", cluster="cluster") == 1
    assert causes(found) == []
    assert {of for of, _ in internal_errors(found)} >= told
    assert (lag(found) is None) == (step != "Metadata")
    assert value(found, "kafka_topic_partitions", topic="t") == 2
    brokers.broken = set()
    found = poll_on(poller, clock)
    assert (lag(found), internal_errors(found)) == (6, set())


@pytest.mark.parametrize("step", ["find_cluster", "all"])
def test_a_first_poll_that_fails_says_why(step: str) -> None:
    brokers, poller, _ = make()
    brokers.broken = {step}
    poller.poll()
    found = scrape(poller)
    (cause,) = causes(found)
    assert "IndexError" in cause
    assert value(found, "kafka_monitor_up", cluster="unknown") == 0
    assert poller.unready_reason() == cause


def test_brokers_that_answered_before_are_not_told_to_have_wrong_addresses() -> None:
    brokers, poller, clock = make()
    poller.poll()
    brokers.down = {1, 2}
    (cause,) = causes(poll_on(poller, clock))
    assert cause.startswith("no broker answers: ")
    assert "advertised" not in cause


def test_the_log_tells_of_a_failing_poll_once() -> None:
    brokers, poller, clock = make()
    poller.poll()
    brokers.broken = {"all"}
    with capture_logs() as logs:
        for _ in range(5):
            poll_on(poller, clock, 61)
    told = [line["event"] for line in logs if line["log_level"] == "error"]
    steps = [line["step"] for line in logs if line.get("event") == "a part failed"]
    assert len(steps) == len(set(steps)) > 3
    assert [event for event in told if event != "a part failed"] == [
        "a fault of the monitor's own",
        "polls fail",
    ]


def test_an_analysis_that_fails_as_a_whole_is_a_failed_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, poller, clock = make()
    poller.poll()

    def fail(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr(Analyst, "measure", fail)
    found = poll_on(poller, clock)
    assert "IndexError at test_poller.py" in causes(found)[0]
    assert lag(found) == 6  # 15 s old: not yet too old
    assert value(found, "kafka_monitor_data_age_seconds", cluster="cluster") == 15


def test_data_age_rises_by_the_clock_when_nothing_is_rendered() -> None:
    _, poller, clock = make()
    poller.poll()
    assert value(scrape(poller), "kafka_monitor_data_age_seconds", cluster="cluster") == 0
    clock.now += 12.5
    assert value(scrape(poller), "kafka_monitor_data_age_seconds", cluster="cluster") == 12.5


def test_a_poll_that_hangs_is_published_while_it_hangs() -> None:
    brokers, poller, clock = make()
    poller.poll()
    brokers.hang = threading.Event()
    try:
        poller.start(0.05)
        wait_for("a poll that hangs", lambda: poller._every._skips)
        assert lag(scrape(poller)) == 6
        clock.now += 46
        wait_for("a page without old lag", lambda: lag(scrape(poller)) is None)
        found = scrape(poller)
        assert causes(found) == ["a poll has begun and does not end"]
        assert value(found, "kafka_monitor_up", cluster="cluster") == 0
        assert "does not end" in (poller.unready_reason() or "")
    finally:
        brokers.hang.set()
        wait_for("a page as of now", lambda: lag(scrape(poller)) == 6)
        poller.stop()


# -- parts that fail --------------------------------------------------------------------------


def test_times_that_cannot_be_asked_for_cost_the_seconds_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr(Collector, "offsets_for_times", fail)
    _, poller, clock = make()
    poller.poll()
    with capture_logs() as logs:
        found = poll_on(poller, clock)
    assert lag(found) == 6
    assert causes(found) == []
    assert internal_errors(found) == {("times", "")}
    assert logs == []  # told at the poll before


@pytest.mark.parametrize("module", [kminion, lag_exporter, burrow])
def test_a_family_that_fails_costs_that_family(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = module.FAMILY

    def fail(*_: object) -> None:
        raise IndexError

    whole = make(families=CHOICES)[1]
    whole.poll()
    broken = replace(family, cluster=fail, samples=fail, ages=None)
    families = tuple(broken if each is family else each for each in FAMILIES)
    monkeypatch.setattr(monitor.exposition.blocks, "FAMILIES", families)
    _, poller, _ = make(families=CHOICES)
    poller.poll()
    found = scrape(poller)
    assert internal_errors(found) == {("exposition", family.name), ("exposition", "g")}
    names = {metric.name for metric in family.metrics}
    lost = {name for name, _ in scrape(whole)} - {name for name, _ in found}
    assert lost
    assert lost <= names
    assert lag(found) == 6


@pytest.mark.parametrize(
    ("module", "function", "part", "missing"),
    [
        (exporter, "_topics", "topics", "kafka_topic_partitions"),
        (exporter, "_brokers", "brokers", "kafka_broker_info"),
        (own, "_brokers", "brokers", "kafka_monitor_broker_up"),
        (measures, "_identity", "g", "kafka_consumergroup_info"),
        (measures, "_losses", "g", "kafka_consumergroup_advice"),
        (measures, "_retention", "g", "kafka_consumergroup_commit_age_seconds"),
        (measures, "_partitions", "partitions", "kafka_topic_partition_error"),
    ],
)
def test_a_part_of_the_page_that_fails_costs_that_part(
    module: Any, function: str, part: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise IndexError

    monkeypatch.setattr(module, function, fail)
    _, poller, _ = make()
    poller.poll()
    found = scrape(poller)
    shown = {name for name, _ in found}
    assert ("exposition", part) in internal_errors(found)
    assert missing not in shown
    assert len({"kafka_topic_partitions", "kafka_brokers", "kafka_monitor_up"} & shown) >= 2


def test_a_group_that_cannot_be_rendered_costs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    brokers, poller, clock = make()
    brokers.groups[1].append(ListedGroup("bad", CLASSIC, "Empty", "consumer"))
    brokers.commits["bad"] = GroupCommits({"t": {0: 1}})
    right = measures._identity

    def fail(found: GroupMeasures, add: Any) -> None:
        if found.group.id == "bad":
            raise IndexError
        right(found, add)

    monkeypatch.setattr(measures, "_identity", fail)
    poller.poll()
    found = poll_on(poller, clock)
    assert internal_errors(found) == {("exposition", "bad")}
    assert lag(found) == 6
    of_bad = {name for name, labels in found if ("consumergroup", "bad") in labels}
    # what does not come from there stands: ages, and the other family
    theirs = {metric.name for metric in exporter.FAMILY.metrics}
    ages = {"commit_age_seconds", "lag_seconds", "lag_seconds_max"}
    assert of_bad - theirs <= {f"kafka_consumergroup_{name}" for name in ages}


def test_a_page_that_cannot_be_made_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = Block((), lambda: {BROKERS: {(): 1}})
    _, poller, _ = make()
    monkeypatch.setattr(monitor.poller, "faults", lambda *_: twice)
    poller.poll()
    found = scrape(poller)
    assert "failed to make its page: ValueError" in causes(found)[0]
    assert value(found, "kafka_monitor_up", cluster="cluster") == 0


# -- what is too old --------------------------------------------------------------------------


def test_lag_to_a_log_end_that_is_withdrawn_goes_with_it_in_every_family() -> None:
    brokers, poller, clock = make(families=CHOICES)
    poller.poll()
    brokers.down = {2}
    found = poll_on(poller, clock)
    assert (lag(found, 0), lag(found, 1)) == (6, 5)
    for _ in range(3):
        found = poll_on(poller, clock)
    assert (lag(found, 0), lag(found, 1)) == (6, None)
    assert value(found, "kafka_consumergroup_lag_sum", consumergroup="g", topic="t") == 6
    of_partition_1 = {
        name for name, labels in found if {("partition", "1"), ("partition_id", "1")} & set(labels)
    }
    # what the metadata and the coordinator say, who answer
    assert of_partition_1 <= {
        "kafka_topic_partition_leader",
        "kafka_topic_partition_replicas",
        "kafka_topic_partition_in_sync_replica",
        "kafka_topic_partition_leader_is_preferred",
        "kafka_topic_partition_under_replicated_partition",
        "kafka_consumergroup_current_offset",
        "burrow_kafka_consumer_current_offset",
        "kafka_consumergroup_group_offset",
    }
    totals = {
        "kminion_kafka_consumer_group_topic_lag": 6,
        "burrow_kafka_consumer_lag_total": 6,
        "kafka_consumergroup_group_sum_lag": 6,
        "kafka_consumergroup_group_max_lag": 6,
        "kminion_kafka_topic_high_water_mark_sum": 10,
    }
    assert {name: v for (name, _), v in found.items() if name in totals} == totals
    assert value(found, "kafka_monitor_stale_partitions", cluster="cluster") == 1
    assert value(found, "kafka_monitor_data_age_seconds", cluster="cluster") == 0
    shown = poller.shown()
    assert shown.snapshot is not None
    rows = partitions_of(shown.snapshot, shown.snapshot.groups["g"], shown.groups["g"])
    assert {row.partition: row.lag for row in rows} == {0: 6, 1: None}
    brokers.down = set()
    assert lag(poll_on(poller, clock), 1) == 5


def test_a_whole_cluster_that_is_silent_leaves_nothing_but_that() -> None:
    brokers, poller, clock = make()
    poller.poll()
    brokers.down = {1, 2}
    for _ in range(4):
        found = poll_on(poller, clock)
    assert not any("consumergroup" in name or "topic" in name for name, _ in found)
    assert value(found, "kafka_monitor_broker_up", broker="1") == 0
    assert value(found, "kafka_monitor_stale_groups", cluster="cluster") == 1
    assert value(found, "kafka_monitor_data_age_seconds", cluster="cluster") is None
    assert causes(found)


class Told:
    """A source that says what a test tells it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.changes: dict[str, Any] = {}

    def poll(self) -> Snapshot:
        now = self._clock()
        told = {
            "brokers": {1: Broker(1, "one", 9092)},
            "topics": {
                "t": Topic("t", {0: Partition(1, (1,), (1,)), 1: Partition(None, (1,), ())})
            },
            "end_offsets": Offsets({"t": {0: 10}}, now),
            "groups": {"g": Group("g", commits={"t": {0: 4}}, members=())},
            **self.changes,
        }
        return Snapshot("cluster", now, now, **told)

    def offsets_for_times(self, wanted: Any) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def look_at_logs(self, wanted: Any) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def take_request_counts(self) -> dict[str, int]:
        return {}


@pytest.fixture
def told() -> tuple[Told, Poller, Clock]:
    clock = Clock(Brokers())
    source = Told(clock)
    return source, Poller(source, stale_after_s=45, clock=clock, monotonic=clock), clock


def test_what_is_refused_is_not_old(told: tuple[Told, Poller, Clock]) -> None:
    source, poller, clock = told
    poller.poll()
    source.changes = {
        "groups": {
            "g": Group(
                "g", state="Stable", members=(), answer=Refused("GROUP_AUTHORIZATION_FAILED")
            )
        },
        "end_offsets": Offsets({"t": {0: 10}}, clock(), refused={"t": {1: "no leader"}}),
    }
    for _ in range(10):
        source.changes["end_offsets"] = Offsets(
            {"t": {0: 10}}, clock() + 15, refused={"t": {1: "no leader"}}
        )
        found = poll_on(poller, clock)
    assert value(found, "kafka_monitor_data_age_seconds", cluster="cluster") == 0
    assert value(found, "kafka_consumergroup_members", consumergroup="g") == 0
    assert value(found, "kafka_consumergroup_state", consumergroup="g", state="Stable") == 1
    assert value(found, "kafka_monitor_group_errors", cluster="cluster") == 1
    assert value(found, "kafka_monitor_stale_groups", cluster="cluster") == 0


@pytest.mark.parametrize("since", [None, 900.0])
def test_data_age_is_of_what_is_shown(
    since: float | None, told: tuple[Told, Poller, Clock]
) -> None:
    source, poller, _ = told
    source.changes = {
        "groups": {
            "old": Group("old", commits={"t": {0: 4}}, answer=Silent(since, "away")),
            "g": Group("g", commits={"t": {0: 4}}, members=()),
        }
    }
    poller.poll()
    found = scrape(poller)
    assert value(found, "kafka_monitor_data_age_seconds", cluster="cluster") == 0
    assert value(found, "kafka_monitor_stale_groups", cluster="cluster") == 1
    assert not any(("consumergroup", "old") in labels for _, labels in found)


def test_a_cluster_of_which_no_group_is_known_though_there_may_be_some_is_not_ready(
    told: tuple[Told, Poller, Clock],
) -> None:
    source, poller, clock = told
    source.changes = {"groups": {}, "groups_complete": False}
    poller.poll()
    assert "may be starting" in (poller.unready_reason() or "")
    source.changes = {"groups": {}, "groups_complete": True}
    poller.poll()
    assert poller.unready_reason() is None
    away = Group("g", commits={"t": {0: 4}}, answer=Silent(clock() - 46, "away"))
    source.changes = {"groups": {"g": away}, "groups_complete": False}
    poller.poll()
    assert poller.unready_reason() is not None


# -- names ------------------------------------------------------------------------------------


def test_every_series_has_the_name_of_the_cluster_where_it_is_set() -> None:
    _, poller, clock = make(cluster='the "west"', families=CHOICES)
    poller.poll()
    found = poll_on(poller, clock)
    assert all(("cluster", 'the "west"') in labels for _, labels in found)
    assert {"kafka_brokers", "kminion_exporter_up"} <= {n for n, _ in found}
    where = {"consumergroup": "g", "topic": "t", "partition": "0", "cluster": 'the "west"'}
    assert value(found, "kafka_consumergroup_lag", **where) == 6


def test_without_a_name_only_the_monitors_own_series_have_the_clusters_id() -> None:
    _, poller, _ = make()
    poller.poll()
    with_cluster = {
        name.removeprefix("kafka_monitor_")
        for name, labels in scrape(poller)
        if "cluster" in dict(labels)
    }
    assert {"up", "data_age_seconds", "poll_requests"} <= with_cluster
    assert lag(scrape(poller)) == 6


def test_the_page_tells_the_poll_interval_and_the_same_bytes_either_way() -> None:
    _, poller, clock = make()
    poller.start(15.0)
    try:
        wait_for("a poll", lambda: lag(scrape(poller)) == 6)
    finally:
        poller.stop()
    assert value(scrape(poller), "kafka_monitor_poll_interval_seconds", cluster="cluster") == 15
    clock.now += 3
    page = poller.page()
    assert gzip.decompress(page.gzipped) == page.plain
    assert page.length == len(page.plain)
