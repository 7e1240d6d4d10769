"""Two monitors of one cluster, begun at different times: once each has seen enough, they tell the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final, cast

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic
from prometheus_client.parser import text_string_to_metric_families

from monitor.analysis.status import DEFAULT_RULES
from monitor.exposition.series import Level
from monitor.kafka.brokers import Brokers
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.questions import Ask
from monitor.kafka.transport import KafkaWire
from monitor.poller import Poller
from monitor.settings import KafkaSettings
from monitor.web.app import create_app
from order_services.local.kafka import EmbeddedKafka
from tests.support import foreign
from tests.support.asgi import Client

POLL_S: Final = 15.0
# Each searches the moment of the oldest unread record for itself, and no finer than this.
TOLERANCE_S: Final = 1.0
WINDOW: Final = DEFAULT_RULES.intervals
STATUS: Final = "kafka_consumergroup_partition_status"
COMMIT_AGES: Final = (
    "kafka_consumergroup_commit_age_seconds",
    "kafka_consumergroup_partition_commit_age_seconds",
)
AT_ONCE: Final = (
    "kafka_consumergroup_current_offset",
    "kafka_consumergroup_lag",
    "kafka_consumergroup_lag_seconds",
    "kafka_consumergroup_lag_seconds_max",
    "kafka_topic_partition_current_offset",
)

Sample = tuple[str, frozenset[tuple[str, str]]]


class Clock:
    """The time of records, commits and monitors, in place of waiting; the broker is a real one."""

    def __init__(self) -> None:
        self.now = time.time() - 7_200  # records of the past, which are kept for a week

    def __call__(self) -> float:
        return self.now


class Moving:
    """Four groups with a topic each: one keeps up, one falls behind, one stands, one ends."""

    def __init__(self, kafka: EmbeddedKafka, clock: Clock, unique: Callable[[str], str]) -> None:
        self._clock = clock
        self._admin = foreign.admin_client(kafka.bootstrap_servers)
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
        self.names = {kind: unique(kind) for kind in ("keeps-up", "slows", "stands", "ends")}
        topics = [NewTopic(name, 1, 1) for name in self.names.values()]
        for created in self._admin.create_topics(topics).values():
            created.result()
        self.steps = 0
        self.has_ended = False

    def step(self) -> None:
        """Append ten records to each topic, then commit what each group has read."""
        self._clock.now += POLL_S
        self.steps += 1
        at_ms = int(self._clock.now * 1000) - 5_000
        for name in self.names.values():
            for _ in range(10):
                self._producer.produce(name, b"x", partition=0, timestamp=at_ms)
        assert self._producer.flush(30) == 0
        reached = {"keeps-up": 10 * self.steps - 3, "slows": 4 * self.steps, "stands": 5}
        if not self.has_ended:
            reached["ends"] = 10 * self.steps - 3
        for kind, offset in reached.items():
            foreign.commit(self._admin, self.names[kind], self.names[kind], offset)


class OnTheClock:
    """A real connection whose answers come at the time of the test's clock."""

    def __init__(self, wire: KafkaWire, clock: Clock) -> None:
        self._wire, self._clock = wire, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    def ask(self, asks: Sequence[Ask[Any]], *given: Any) -> None:
        """Ask as ever."""
        self._wire.ask(asks, *given)
        for ask in asks:
            ask.answered_at = self._clock()


class Monitor:
    """A monitor of these groups only."""

    def __init__(self, kafka: EmbeddedKafka, clock: Clock, moving: Moving) -> None:
        self._wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
        names = set(moving.names.values())
        collector = Collector(
            cast("Brokers", OnTheClock(self._wire, clock)),
            Intervals(metadata=60.0, start_offsets=60.0, topic_configs=60.0),
            wants_group=names.__contains__,
            wants_topic=names.__contains__,
            clock=clock,
            monotonic=clock,
        )
        self._poller = Poller(
            collector,
            stale_after_s=3 * POLL_S,
            measures_level=Level.PARTITION,
            clock=clock,
            monotonic=clock,
        )
        self._client = Client(create_app(self._poller))

    def poll(self) -> dict[Sample, float]:
        """Return what the page has about groups and topics after one more poll."""
        assert self._poller.poll().error is None
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self._client.get("/metrics").text)
            for sample in family.samples
            if sample.name.startswith("kafka_") and not sample.name.startswith("kafka_monitor_")
        }

    def close(self) -> None:
        """End its connections."""
        self._wire.close()


@pytest.mark.heavy
@pytest.mark.timeout(1_200)
def test_two_monitors_agree_once_each_has_seen_enough(
    kafka: EmbeddedKafka, unique: Callable[[str], str]
) -> None:
    clock = Clock()
    moving = Moving(kafka, clock, unique)
    with ExitStack() as stack:
        first = Monitor(kafka, clock, moving)
        stack.callback(first.close)
        for _ in range(WINDOW + 2):
            moving.step()
            first.poll()
        second = Monitor(kafka, clock, moving)
        stack.callback(second.close)
        words = set()
        for polls in range(1, 3 * WINDOW):
            moving.has_ended = polls > WINDOW
            moving.step()
            ones, others = first.poll(), second.poll()
            if polls == 1:
                # what needs no past is the same at once
                for name in AT_ONCE:
                    assert of(name, ones)
                    assert differences(of(name, ones), of(name, others)) == {}
            if polls >= WINDOW:
                # a commit that stood before the other came is as old as its first sight of it
                standing = moving.names["stands"]
                left = differences(ones, others)
                assert [key for key in left if not is_commit_age(key, standing)] == []
                words |= {dict(key[1])["status"] for key in of(STATUS, ones)}
    # what they agreed on was not one and the same all the time
    assert words >= {"WARN", "STOP"}


def is_commit_age(key: Sample, group: str) -> bool:
    """Say whether a sample is the age of a group's commits."""
    return key[0] in COMMIT_AGES and dict(key[1])["consumergroup"] == group


def of(name: str, page: Mapping[Sample, float]) -> dict[Sample, float]:
    """Return one metric of a page."""
    return {key: value for key, value in page.items() if key[0] == name}


def differences(
    ones: Mapping[Sample, float], others: Mapping[Sample, float]
) -> dict[Sample, tuple[float | None, float | None]]:
    """Return what two pages do not have alike; seconds are compared by their tolerance."""
    return {
        key: (ones.get(key), others.get(key))
        for key in ones.keys() | others.keys()
        if key not in ones
        or key not in others
        or abs(ones[key] - others[key]) > (TOLERANCE_S if "_seconds" in key[0] else 0.0)
    }
