"""One real broker with many states at once, and monitors that watch two hours of it in seconds.

The monitor's two clocks are set ahead by a poll interval before each poll, so that all that time
alone does (ages, windows, silence, patience) is seen without waiting. What a state does within the
course is stamped with the monitor's time. Everything else is as it is: the broker, its records,
members that hold partitions, the wire.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from threading import Thread
from typing import Any, Final, Protocol, TypeVar

import pytest
from click.testing import CliRunner
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic
from structlog.testing import capture_logs

from monitor.analysis.causes.ranking import Explainer
from monitor.commands import main
from monitor.exposition.series import Level
from monitor.kafka.apis.metadata import ClusterMetadata
from monitor.kafka.brokers import Brokers
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.questions import Ask
from monitor.kafka.transport import KafkaWire
from monitor.model import Snapshot
from monitor.poller import Poller
from monitor.settings import KafkaSettings
from monitor.web.app import create_app
from order_services.local.kafka import EmbeddedKafka
from tests.states.model import Answer, Evidence, Samples, State, parse
from tests.support.asgi import Client
from tests.support.waiting import wait_for

T = TypeVar("T")

POLL_INTERVAL_S: Final = 60.0
COURSE_MINUTES: Final = 120
LEFT_WITHIN_S: Final = 20.0
# the broker refuses stamps more than an hour ahead of its own clock
_TOPIC_CONFIG: Final = {"message.timestamp.after.max.ms": "9223372036854775807"}


class Clocks(Protocol):
    """What a monitor takes for the time."""

    def wall(self) -> float:
        """Return Unix time."""

    def monotonic(self) -> float:
        """Return the monotonic clock."""


class Clock:
    """The monitor's clocks, `ahead` of the machine's by so many seconds."""

    ahead = 0.0

    def go_on(self, seconds: float) -> None:
        """Let time pass."""
        self.ahead += seconds

    def wall(self) -> float:
        """Return Unix time as the monitor sees it."""
        return time.time() + self.ahead

    def monotonic(self) -> float:
        """Return the monotonic clock as the monitor sees it."""
        return time.monotonic() + self.ahead

    def seen(self, moment: float, /) -> float:
        """Return a moment of the machine's monotonic clock as the monitor sees it."""
        return moment + self.ahead


class Ahead:
    """The wire, whose answers come at the monitor's time."""

    def __init__(self, brokers: Brokers, clock: Clock) -> None:
        self._brokers, self._clock = brokers, clock

    def find_cluster(self, timeout_s: float) -> ClusterMetadata:
        return self._brokers.find_cluster(timeout_s)

    def ask(
        self, asks: Sequence[Ask[Any]], timeout_s: float, not_awaited: Collection[int] = ()
    ) -> None:
        self._brokers.ask(asks, timeout_s, not_awaited)
        for ask in asks:
            if ask.answered_at:
                ask.answered_at = self._clock.seen(ask.answered_at)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._brokers, name)


class Stage:
    """The broker as states use it; all that they start ends with it."""

    def __init__(self, kafka: EmbeddedKafka, clock: Clock | None = None) -> None:
        self.kafka = kafka
        self.clock = clock or Clock()
        self.admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 0})
        self._open: list[Producer] = []
        self._commits: list[tuple[ConsumerGroupTopicPartitions, Any]] = []
        self._members: list[tuple[Consumer, int]] = []
        self._leaving: list[Thread] = []
        self.steps: list[Callable[[int], None]] = []
        self._topics: list[str] = []

    def close(self) -> None:
        """End what states left running, and their topics."""
        for producer in self._open:
            producer.abort_transaction(30)
        for consumer, _ in self._members:
            self.leave_soon(consumer)
        deadline = time.monotonic() + LEFT_WITHIN_S
        for leaving in self._leaving:
            leaving.join(max(0.0, deadline - time.monotonic()))
        if self._topics:
            for future in self.admin.delete_topics(self._topics).values():
                future.exception(30)

    # -- topics -----------------------------------------------------------------------------------

    def leave_topics(self) -> None:
        """Have topics not be deleted at the end."""
        self._topics.clear()

    def topic(
        self, name: str, partitions: int = 1, leaders: Sequence[int] = (), **config: str
    ) -> str:
        """Create a topic, led as said; options are its settings, with _ for the dots."""
        given = {option.replace("_", "."): value for option, value in config.items()}
        placed: dict[str, Any] = {"replication_factor": 1}
        if leaders:
            placed = {"replica_assignment": [[broker] for broker in leaders]}
        topic = NewTopic(
            name, len(leaders) or partitions, config={**_TOPIC_CONFIG, **given}, **placed
        )
        self.admin.create_topics([topic])[name].result(30)
        if name not in self._topics:
            self._topics.append(name)
        return name

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until it is gone."""
        self.finish()
        self.admin.delete_topics([name])[name].result(30)
        wait_for("deletion", lambda: name not in self.admin.list_topics(timeout=10).topics)

    def recreate(self, name: str, partitions: int = 1) -> None:
        """Delete a topic and create another under its name."""
        self.delete_topic(name)

        def created() -> bool:
            topic = NewTopic(name, partitions, 1, config=dict(_TOPIC_CONFIG))
            return self.admin.create_topics([topic])[name].exception(30) is None

        wait_for("new topic", created)

    def produce(
        self,
        topic: str,
        count: int,
        partition: int = 0,
        *,
        age: float = 0.0,
        key: str | None = None,
    ) -> None:
        """Append records of this age in seconds."""
        at = int((self.clock.wall() - age) * 1000)

        def append() -> None:
            self._producer.produce(
                topic, b"x", key=key, partition=partition, timestamp=at, on_delivery=delivered
            )

        def delivered(error: KafkaError | None, _message: object) -> None:
            # a topic that was just created anew may be refused for a moment
            if error is not None:
                append()

        for _ in range(count):
            append()
            self._producer.poll(0)

    def finish(self) -> None:
        """Wait until all that was sent and committed is on the broker."""
        assert self._producer.flush(60) == 0
        while self._commits:
            tried, self._commits = self._commits, []
            for request, future in tried:
                # the coordinator of a new broker is not there at once
                try:
                    told = future.result(20)
                except (TimeoutError, KafkaException):
                    self._commit(request)
                    continue
                if any(of.error for of in told.topic_partitions):
                    self._commit(request)

    def delete_records(self, topic: str, before: int, partition: int = 0) -> None:
        """Delete what is before an offset, as retention does."""
        self.finish()
        wanted = [TopicPartition(topic, partition, before)]
        for future in self.admin.delete_records(wanted).values():
            future.result(30)

    def transactional(self, name: str) -> Producer:
        """Return a producer of transactions."""
        producer = Producer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "transactional.id": name,
                "transaction.timeout.ms": 900_000,
            }
        )
        producer.init_transactions(60)
        return producer

    def transaction(
        self,
        producer: Producer,
        topic: str,
        count: int,
        end: str = "commit",
        partitions: Sequence[int] = (0,),
    ) -> None:
        """Append records in a transaction that is committed, aborted, or left "open"."""
        self.finish()
        producer.begin_transaction()
        at = int(self.clock.wall() * 1000)
        for partition in partitions:
            for _ in range(count):
                producer.produce(topic, b"x", partition=partition, timestamp=at)
        assert producer.flush(30) == 0
        if end == "commit":
            producer.commit_transaction(30)
        elif end == "abort":
            producer.abort_transaction(30)
        else:
            self._open.append(producer)

    # -- groups -----------------------------------------------------------------------------------

    def commit(self, group: str, topic: str, *offsets: int | None, metadata: str = "") -> None:
        """Commit as one without membership does: offsets by partition, None for no commit."""
        wanted = [
            TopicPartition(topic, index, offset, metadata)
            for index, offset in enumerate(offsets) if offset is not None
        ]  # fmt: skip
        self._commit(ConsumerGroupTopicPartitions(group, wanted))

    def _commit(self, request: ConsumerGroupTopicPartitions) -> None:
        (future,) = self.admin.alter_consumer_group_offsets([request]).values()
        self._commits.append((request, future))

    def member(self, group: str, *topics: str, partitions: int = 1, **options: Any) -> Consumer:
        """Add a member that gets this many partitions and reads nothing by itself."""
        self.finish()  # offsets of a group with members can't be altered from outside
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 300_000,
                **options,
            }
            if options.get("group.protocol") != "consumer"
            else {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": group,
                "enable.auto.commit": False,
                **options,
            }
        )
        consumer.subscribe(list(topics))
        self._members.append((consumer, partitions))
        return consumer

    def leave(self, member: Consumer) -> None:
        """Have a member leave its group."""
        self.leave_soon(member).join(LEFT_WITHIN_S)

    def leave_soon(self, member: Consumer) -> Thread:
        """Have a member leave its group, which the coordinator hears of a little later."""
        self._members = [(one, held) for one, held in self._members if one is not member]
        member.poll(0)
        # close() never returns where it meets a rebalance that the member was not told of: it has left then
        leaving = Thread(target=member.close, daemon=True)
        leaving.start()
        self._leaving.append(leaving)
        return leaving

    def each_poll(self, do: Callable[[float], None]) -> None:
        """Have something done before each poll of the course; it is told the minute."""
        self.steps.append(lambda poll: do(poll * POLL_INTERVAL_S / 60))

    def at(self, minute: float, do: Callable[[], None]) -> None:
        """Have something done before the poll of this minute."""
        when = round(minute * 60 / POLL_INTERVAL_S)
        self.steps.append(lambda poll: do() if poll == when else None)

    def settle(self) -> None:
        """Wait until all is on the broker and members hold their partitions; they fetch nothing."""
        self.finish()

        def assigned() -> bool:
            done = True
            for consumer, partitions in self._members:
                consumer.poll(0)
                held = consumer.assignment()
                if held:
                    consumer.pause(held)
                done &= len(held) == partitions
            return done

        wait_for("assignment of all members", assigned)


def committed_by(consumer: Consumer, topic: str, *offsets: int | None) -> None:
    """Commit as a member: offsets by partition, None for no commit."""
    wanted = [
        TopicPartition(topic, i, offset) for i, offset in enumerate(offsets) if offset is not None
    ]
    consumer.commit(offsets=wanted, asynchronous=False)


# -- the monitor ----------------------------------------------------------------------------------


@dataclass
class Watch:
    """A monitor as `serve` builds it with some settings, and what its surfaces said."""

    poller: Poller
    pages: list[Samples] = field(default_factory=list)
    causes: list[dict[str, str]] = field(default_factory=list)

    def look(self) -> None:
        """Keep what is said now."""
        self.pages.append(self.page())
        state = self.poller.current()
        explainer = Explainer(state.snapshot or Snapshot(None, 0, 0), state.groups, state.findings)
        self.causes.append({group: explainer.explain(group).cause for group in state.groups})

    def page(self) -> Samples:
        """Return what `/metrics` says."""
        return parse(self.poller.page().plain)


def watching(
    brokers: Brokers,
    clock: Clocks,
    groups: Collection[str] | None,
    settings: Mapping[str, Any],
    wants_topic: Callable[[str], bool] | None = None,
) -> Watch:
    """Return a monitor of these groups (all if None), with settings as of MONITOR_... in lower case."""
    chosen = dict(settings)
    collector = Collector(
        brokers,
        # as in serve: read anew every fourth poll
        Intervals(
            metadata=4 * POLL_INTERVAL_S,
            start_offsets=4 * POLL_INTERVAL_S,
            topic_configs=20 * POLL_INTERVAL_S,
            log_sizes=POLL_INTERVAL_S if chosen.pop("log_sizes", False) else None,
            rights=4 * POLL_INTERVAL_S,
        ),
        wants_group=None if groups is None else frozenset(groups).__contains__,
        wants_topic=wants_topic,
        read_committed=chosen.pop("read_committed", False),
        clock=clock.wall,
        monotonic=clock.monotonic,
    )
    poller = Poller(
        collector,
        stale_after_s=3 * POLL_INTERVAL_S,
        level=Level(chosen.pop("level", "partition")),
        clock=clock.wall,
        monotonic=clock.monotonic,
        **chosen,
    )
    # as its start() does
    poller._choice = replace(poller._choice, poll_interval_s=POLL_INTERVAL_S)
    return Watch(poller)


def page_of(poller: Poller) -> str:
    """Return the status page."""
    answer = Client(create_app(poller)).get("/")
    assert answer.status_code == HTTPStatus.OK
    return str(answer.text)


def readiness(poller: Poller) -> tuple[bool, str]:
    """Return whether `/ready` says so, and its reason if not."""
    answer = Client(create_app(poller)).get("/ready")
    return answer.status_code == HTTPStatus.OK, answer.json().get("reason", "")


def command(*arguments: str, **environment: str) -> Answer:
    """Run the monitor's command line; a traceback of its own is an answer too."""
    known = {name: None for name in os.environ if name.startswith(("MONITOR_", "KAFKA_"))}
    with capture_logs():  # the program has them without traces; see monitor/logs.py
        done = CliRunner().invoke(main, list(arguments), env={**known, **environment})
    trace = ""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        trace = f"Traceback: {type(done.exception).__name__}: {done.exception}\n"
    return Answer(done.exit_code, done.stdout, done.stderr + trace)


def on_real_broker(kafka: EmbeddedKafka, states: Sequence[State]) -> dict[str, Evidence]:
    """Set up all states on one broker, watch their course, and return what was said of each."""
    stage = Stage(kafka)
    try:
        for state in states:
            state.setup(Scene(stage, state.group_id))
        stage.settle()
        return _course(stage, states)
    finally:
        stage.close()


@dataclass(frozen=True)
class Scene:
    """The stage for one state, with the name of its group and first topic."""

    stage: Stage
    name: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stage, name)


def _course(stage: Stage, states: Sequence[State]) -> dict[str, Evidence]:
    ids = [state.group_id for state in states]
    server = ("--bootstrap-servers", stage.kafka.bootstrap_servers)
    chosen = [argument for one in ids for argument in ("--group", one)]
    only = {"MONITOR_GROUPS_ALLOW": "|".join(map(re.escape, ids))}
    lag = command("lag", *server, *chosen)
    lag_json = command("lag", *server, *chosen, "--output", "json")
    groups = command("groups", *server, "--limit", "10000", **only)
    of_kind: defaultdict[str, list[str]] = defaultdict(list)
    for state in states:
        of_kind[_kind(state)].append(state.group_id)
    found: dict[str, Evidence] = {}
    with ExitStack() as stack:
        wire = KafkaWire(KafkaSettings(bootstrap_servers=(stage.kafka.bootstrap_servers,)))
        stack.callback(wire.close)
        watches = {
            kind: watching(
                Ahead(wire, stage.clock),
                stage.clock,
                of_kind[kind],
                json.loads(kind),
                # each monitor more is a poll and a page more of every topic
                wants_topic=None if kind == "{}" else partial(_begins_with, tuple(of_kind[kind])),
            )
            for kind in of_kind
        }
        run(stage.clock.go_on, [*stage.steps, lambda _: stage.finish()], watches.values())
        for kind, watch in watches.items():
            html, ready = page_of(watch.poller), readiness(watch.poller)
            evidence = Evidence(watch.pages, html, ready, lag, lag_json, groups, watch.causes)
            for state in states:
                if _kind(state) == kind:
                    found[state.id] = evidence
    return found


def _begins_with(names: tuple[str, ...], topic: str) -> bool:
    return topic.startswith(names)


def _kind(state: State) -> str:
    return json.dumps(dict(state.settings), sort_keys=True)


def run(
    pass_time: Callable[[float], None],
    steps: Sequence[Callable[[int], None]],
    watches: Collection[Watch],
    minutes: int = COURSE_MINUTES,
) -> None:
    """Poll through a course; each minute's page is kept. The first look is at what was set up."""
    per_minute = round(60 / POLL_INTERVAL_S)
    for poll in range(minutes * per_minute + 1):
        for step in steps if poll else ():
            step(poll)
        for watch in watches:
            watch.poller.poll()
            if poll % per_minute == 0:
                watch.look()
        pass_time(POLL_INTERVAL_S)


def selected(request: pytest.FixtureRequest, states: Sequence[State]) -> list[State]:
    """Return the states whose tests were chosen: `pytest -k w4` sets up only those."""
    return selected_by_id(request, {state.id: state for state in states})


def selected_by_id(request: pytest.FixtureRequest, by_id: Mapping[str, T]) -> list[T]:
    """Return those whose tests were chosen, by the names of the parameters."""
    names = {
        item.callspec.id
        for item in request.session.items
        if hasattr(item, "callspec") and item.path == request.path
    }
    return [one for name, one in by_id.items() if name in names]
