"""Partitions that are revoked, lost, assigned or in trouble: what becomes of their messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import psycopg2
import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from order_services.domain.events import Event
from order_services.domain.topics import ConsumerGroup
from order_services.messaging import consumer as consumer_module
from order_services.messaging import half_way
from order_services.messaging.batch import BatchProcessor
from order_services.messaging.client_settings import consumer_settings
from order_services.messaging.commits import OffsetCommits
from order_services.messaging.consumer import Consumer
from order_services.messaging.dead_letters import DeadLetterLimit
from order_services.process import instrumentation
from order_services.process.faults import FaultInjector, Faults
from order_services.process.settings import DatabasePauseMode, GroupProtocol
from order_services.storage.database import Database
from tests.integration.order_services.conftest import Lab, Notebook, order_created
from tests.support.waiting import wait_for

# the least that the settings allow, so that what it bounds is soon seen
SHORT_POLL = {"max_poll_interval_seconds": 10, "session_timeout_seconds": 6}
QUICK_RETRIES = {"retry_first_seconds": 0.01, "retry_max_seconds": 0.05}


class Watched(Consumer):
    """Writes down its rebalances, and what it had to commit, and committed, when it lost partitions."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.changes: list[tuple[str, set[int]]] = []
        self.pending_at_loss: dict[tuple[str, int], int] = {}
        self.commits_at_loss: list[None] = []

    def _rebalanced(self, kind: str, partitions: list[TopicPartition]) -> None:  # type: ignore[override]  # narrower
        self.changes.append((kind, {each.partition for each in partitions}))
        super()._rebalanced(kind, partitions)

    def _on_lost(self, kafka: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        self.pending_at_loss = dict(self._commits.pending)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self._commits, "send_now", lambda _: self.commits_at_loss.append(None))
            super()._on_lost(kafka, partitions)

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.changes]

    def owns(self, count: int) -> bool:
        return len(self._assigned) == count


class LosingClient(KafkaConsumer):
    """A Kafka client of which the first one loses all commits: none is ever answered."""

    losers: ClassVar[list[KafkaConsumer]]

    def commit(self, **arguments: Any) -> Any:
        if not self.losers:
            self.losers.append(self)
        return None if self in self.losers else super().commit(**arguments)


class RefusedClient(KafkaConsumer):
    """A Kafka client whose first commit is refused, as by a coordinator in a rebalance."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._answered = config["on_commit"]
        self.refused = False

    def commit(self, **arguments: Any) -> Any:
        if self.refused:
            return super().commit(**arguments)
        self.refused = True
        return self._answered(KafkaError(KafkaError.ILLEGAL_GENERATION), arguments["offsets"])


Start = Callable[..., Watched]


@pytest.fixture
def losers(monkeypatch: pytest.MonkeyPatch) -> list[KafkaConsumer]:
    """Have members use a client that loses its commits, and wait for those for a second only."""

    class OfThisTest(LosingClient):
        losers: ClassVar[list[KafkaConsumer]] = []

    monkeypatch.setattr(consumer_module, "KafkaConsumer", OfThisTest)
    patience = 1 - SHORT_POLL["session_timeout_seconds"]
    monkeypatch.setattr(consumer_module, "PATIENCE_SECONDS", patience)
    return OfThisTest.losers


@pytest.fixture
def start(lab: Lab) -> Iterator[Start]:
    """Start members as the service does; all of them end with the test."""
    started: list[Watched] = []

    def begin(
        group: ConsumerGroup,
        handler: Any,
        *,
        faults: FaultInjector | None = None,
        on_written: Callable[[], None] = lambda: None,
        **changes: Any,
    ) -> Watched:
        settings = lab.kafka_settings.model_copy(update=changes)
        processor = BatchProcessor(
            source="test",
            group=group,
            handles=frozenset({order_created().event_type}),
            handle=handler,
            takes_replays=False,
            database=Database(settings, faults) if faults is not None else lab.database,
            limit=DeadLetterLimit(10, 60),
            timeout_seconds=settings.revoke_budget_seconds / 2,
        )
        member = Watched(group=group, settings=settings, processor=processor, on_written=on_written)
        member.start()
        started.append(member)
        return member

    yield begin
    for member in started:
        member.stop(20)


def send(lab: Lab, group: ConsumerGroup, partition: int, count: int = 1) -> list[Event]:
    events = [order_created() for _ in range(count)]
    producer = Producer({"bootstrap.servers": lab.kafka.bootstrap_servers})
    for event in events:
        producer.produce(group.topics[0], event.encode(), event.key(), partition=partition)
    assert producer.flush(20) == 0
    return events


def offset(lab: Lab, group: ConsumerGroup, partition: int) -> int:
    client = KafkaConsumer(
        {"bootstrap.servers": lab.kafka.bootstrap_servers, "group.id": group.group_id}
    )
    try:
        wanted = [TopicPartition(group.topics[0], partition)]
        return client.committed(wanted, timeout=10)[0].offset
    except KafkaException:
        return -1  # a broker that has just started is still looking for the group's coordinator
    finally:
        client.close()


def instances_of(lab: Lab, group: ConsumerGroup) -> set[str]:
    """Return the INSTANCE_ID of each member."""
    admin = AdminClient({"bootstrap.servers": lab.kafka.bootstrap_servers})
    described = admin.describe_consumer_groups([group.group_id])[group.group_id].result()
    return {str(each.group_instance_id).rpartition("-")[2] for each in described.members}


def noted(lab: Lab, events: Sequence[Event]) -> int:
    ids = [event.event_id for event in events]
    return lab.number("SELECT count(*) FROM notebook WHERE event_id::text = ANY(:ids)", ids=ids)


def away() -> OperationalError:
    """Return a transient error; the database itself is there."""
    return OperationalError("statement", None, psycopg2.OperationalError("gone"))


def test_one_partition_in_trouble_does_not_hold_up_the_others(lab: Lab, start: Start) -> None:
    group = lab.group(3)
    stuck = {event.event_id for event in send(lab, group, 0, 2)}
    in_trouble = threading.Event()
    in_trouble.set()

    def fail(event: Event) -> Exception | None:
        return away() if in_trouble.is_set() and event.event_id in stuck else None

    healthy = [*send(lab, group, 1, 5), *send(lab, group, 2, 5)]
    member = start(group, Notebook(fail), **QUICK_RETRIES)
    wait_for("the other partitions", lambda: noted(lab, healthy) == 10)
    # also what comes later, in any partition
    later = [*send(lab, group, 1, 5), *send(lab, group, 0, 3)]
    wait_for("what came later", lambda: noted(lab, later[:5]) == 5)
    assert noted(lab, later[5:]) == 0
    assert offset(lab, group, 0) < 0
    assert member.kinds == ["assigned"]
    in_trouble.clear()
    wait_for("all offsets", lambda: lab.committed(group) == 20)
    assert lab.noted() == 20
    assert instrumentation.PARKED_PARTITIONS._value.get() == 0


def test_an_outage_pauses_all_costs_no_partition_and_is_left_by_itself(
    lab: Lab, start: Start
) -> None:
    faults = FaultInjector("test", Faults(), max_delay_seconds=1, max_hold_seconds=0.1)
    group = lab.group(2)
    member = start(group, Notebook(), faults=faults, **SHORT_POLL, **QUICK_RETRIES)
    wait_for("an assignment", lambda: member.owns(2))
    faults.set(Faults(database_pause_seconds=3600, database_pause_mode=DatabasePauseMode.DENY))
    events = send(lab, group, 0, 3)
    # longer than a member that does not poll is kept in its group
    outage = threading.Event()
    retried = instrumentation.RETRIES.labels("OperationalError")._value
    before = retried.get()
    wait_for("a paused consumer", lambda: member._paused and retried.get() > before + 3)
    assert not outage.wait(12)
    events += send(lab, group, 1, 3)
    assert member.not_alive() is None
    assert (lab.noted(), member.kinds) == (0, ["assigned"])
    faults.clear()
    wait_for("all offsets", lambda: lab.committed(group, 2) == 6)
    assert noted(lab, events) == 6
    assert member.kinds == ["assigned"]


def test_a_refused_commit_is_made_good_without_waiting_for_another_message(
    lab: Lab, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = lab.group(1)
    monkeypatch.setattr(consumer_module, "KafkaConsumer", RefusedClient)
    member = start(group, Notebook())
    send(lab, group, 0, 3)
    wait_for("the offsets of a quiet topic", lambda: offset(lab, group, 0) == 3)
    assert isinstance(member._kafka, RefusedClient)
    assert member._kafka.refused
    wait_for("nothing left to commit", lambda: not member._commits.pending)


@pytest.mark.parametrize("protocol", list(GroupProtocol))
def test_what_was_handled_is_committed_before_its_partition_goes(
    lab: Lab, start: Start, monkeypatch: pytest.MonkeyPatch, protocol: GroupProtocol
) -> None:
    # as if all commits but the last were still under way
    monkeypatch.setattr(OffsetCommits, "send", lambda _self, _kafka: None)
    group = lab.group(2)
    first = start(group, Notebook(), group_protocol=protocol)
    events = [*send(lab, group, 0, 3), *send(lab, group, 1, 3)]
    wait_for("the events", lambda: noted(lab, events) == 6)
    successor = Notebook()
    second = start(group, successor, group_protocol=protocol)
    wait_for("one partition each", lambda: first.owns(1) and second.owns(1))
    [(_, moved)] = second._assigned
    assert offset(lab, group, moved) == 3
    send(lab, group, moved, 1)
    wait_for("an event", lambda: successor.calls)
    # and so none came twice
    assert successor.calls == [1]


@pytest.mark.parametrize("protocol", list(GroupProtocol))
def test_a_client_that_loses_a_commit_is_left_behind_for_another(
    lab: Lab, start: Start, losers: list[KafkaConsumer], protocol: GroupProtocol
) -> None:
    group = lab.group(2)
    before = instrumentation.CLIENTS_LEFT_BEHIND._value.get()
    member = start(group, Notebook(), group_protocol=protocol, **SHORT_POLL)
    events = send(lab, group, 0, 3)
    wait_for("a lost commit", lambda: losers)
    events += send(lab, group, 1, 3)
    wait_for("its successor's commits", lambda: [offset(lab, group, p) for p in (0, 1)] == [3, 3])
    assert instrumentation.CLIENTS_LEFT_BEHIND._value.get() == before + 1
    assert member._kafka not in losers
    # the first one has left the group: what it did on its way has cost its successor nothing
    assert member.owns(2)
    assert member.not_ready() is None
    assert lab.noted() == noted(lab, events) == 6


def test_a_member_that_is_thought_dead_loses_its_partitions_and_commits_nothing_more(
    lab: Lab, start: Start
) -> None:
    group = lab.group(1)
    asleep, wake = threading.Event(), threading.Event()

    def sleep() -> None:
        # its transaction is committed, its offsets are not
        asleep.set()
        assert wake.wait(60)

    first = start(group, Notebook(), on_written=sleep, **SHORT_POLL)
    events = send(lab, group, 0, 3)
    assert asleep.wait(30)
    second = start(group, Notebook(), **SHORT_POLL)
    wait_for("a new owner", lambda: second.owns(1))
    events += send(lab, group, 0, 3)
    wait_for("its commit", lambda: offset(lab, group, 0) == 6)
    wake.set()
    wait_for("the loss", lambda: "lost" in first.kinds)
    # there was something to commit, and it is the new owner's to do so
    assert first.pending_at_loss
    assert first.commits_at_loss == []
    assert "revoked" not in first.kinds
    wait_for("a member again", lambda: first.not_ready() is None)
    events += send(lab, group, 0, 3)
    wait_for("all offsets", lambda: offset(lab, group, 0) == 9)
    assert lab.noted() == noted(lab, events) == 9


@pytest.mark.parametrize("protocol", list(GroupProtocol))
def test_a_batch_that_waits_for_a_retry_is_given_up_when_its_partition_is_revoked(
    lab: Lab, start: Start, protocol: GroupProtocol
) -> None:
    group = lab.group(2)
    settings = {"group_protocol": protocol, **QUICK_RETRIES}
    trying = Notebook(lambda _event: away())
    first = start(group, trying, **settings)
    events = [*send(lab, group, 0, 3), *send(lab, group, 1, 3)]
    wait_for("retries", lambda: len(trying.calls) > 3)
    assert lab.noted() == 0
    second = start(group, Notebook(), **settings)
    wait_for("a shared topic", lambda: first.owns(1) and second.owns(1))
    wait_for("the new owner's commit", lambda: lab.committed(group, 2) == 3)
    assert lab.noted() == 3
    assert first.changes[1] == ("revoked", {key[1] for key in second._assigned})
    first.stop(20)
    wait_for("all offsets", lambda: lab.committed(group, 2) == 6)
    assert lab.noted() == noted(lab, events) == 6


def test_a_slow_transaction_is_undone_within_the_budget_and_does_not_hold_up_a_rebalance(
    lab: Lab, start: Start
) -> None:
    group = lab.group(2)
    seen: list[int] = []

    def crawl(events: Sequence[Event], connection: Connection) -> Sequence[Event]:
        seen.append(len(events))
        connection.execute(text("SELECT pg_sleep(3600)"))
        raise AssertionError("never gets here")

    first = start(group, crawl, **SHORT_POLL)
    events = [*send(lab, group, 0, 3), *send(lab, group, 1, 3)]
    wait_for("a slow batch", lambda: len(seen) > 0)
    second = start(group, Notebook(), **SHORT_POLL)
    # revoked in good order: neither lost, nor kept for as long as the transaction would last
    wait_for("a shared topic", lambda: first.owns(1) and second.owns(1))
    assert "lost" not in first.kinds
    wait_for("the new owner's commit", lambda: lab.committed(group, 2) == 3)
    first.stop(20)
    wait_for("all offsets", lambda: lab.committed(group, 2) == 6)
    assert lab.noted() == noted(lab, events) == 6


@pytest.mark.parametrize("protocol", list(GroupProtocol))
def test_a_static_member_that_restarts_in_time_causes_no_rebalance(
    lab: Lab, start: Start, protocol: GroupProtocol
) -> None:
    group = lab.group(2)

    def member(instance_id: str) -> Watched:
        return start(
            group,
            Notebook(),
            instance_id=instance_id,
            group_protocol=protocol,
            session_timeout_seconds=30,
        )

    members = [member("0"), member("1")]
    wait_for("a shared topic", lambda: all(each.owns(1) for each in members))
    changes = [list(each.changes) for each in members]
    owned = set(members[1]._assigned)
    assert members[1].stop(20)
    again = member("1")
    wait_for("the same partitions", lambda: again._assigned == owned)
    send(lab, group, 0)
    send(lab, group, 1)
    wait_for("all offsets", lambda: lab.committed(group, 2) == 2)
    assert members[0].changes == changes[0]
    assert again.kinds == ["assigned"]


@pytest.fixture
def half_way_group(
    lab: Lab, start: Start, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ConsumerGroup, list[Watched]]]:
    """A stable group whose rebalance for a second member has ended after its first round.

    The first member has given a partition up, and never joins again to have it given to the second:
    as it does when it is killed there, and comes back as the static member that it was.
    """
    monkeypatch.setattr(half_way, "LOOK_AFTER_SECONDS", 1.0)
    group = lab.group(2)
    settings = lab.kafka_settings.model_copy(update={"instance_id": "0", **SHORT_POLL})
    client = KafkaConsumer(consumer_settings(group, settings))
    owned, given_up, over = threading.Event(), threading.Event(), threading.Event()

    def die(*_: object) -> None:
        given_up.set()
        over.wait()

    def live() -> None:
        while not given_up.is_set():
            client.poll(0.1)

    def own(kafka: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        kafka.incremental_assign(partitions)
        owned.set()

    client.subscribe(list(group.topics), on_assign=own, on_revoke=die)
    thread = threading.Thread(target=live)
    thread.start()
    try:
        assert owned.wait(60)
        second = start(group, Notebook(), instance_id="1", **SHORT_POLL)
        assert given_up.wait(60)
        first = start(group, Notebook(), instance_id="0", **SHORT_POLL)
        wait_for("both members", lambda: "assigned" in first.kinds and "assigned" in second.kinds)
        yield group, [first, second]
    finally:
        over.set()
        thread.join(60)
        client.close()


def test_a_partition_that_a_half_way_rebalance_left_to_nobody_is_found_and_read(
    lab: Lab, half_way_group: tuple[ConsumerGroup, list[Watched]]
) -> None:
    group, members = half_way_group
    events = [*send(lab, group, 0, 3), *send(lab, group, 1, 3)]
    wait_for("all offsets", lambda: lab.committed(group, 2) == 6)
    # the one that leaves and joins anew leaves all to the other for a moment
    wait_for("one partition each", lambda: all(each.owns(1) for each in members))
    assert lab.noted() == noted(lab, events) == 6


def test_a_static_member_that_ends_for_good_leaves_its_partitions_to_others_at_once(
    lab: Lab, start: Start
) -> None:
    group = lab.group(2)

    def member(instance_id: str) -> Watched:
        # nobody here waits for as long
        return start(group, Notebook(), instance_id=instance_id, session_timeout_seconds=250)

    members = [member("0"), member("1")]
    wait_for("a shared topic", lambda: all(each.owns(1) for each in members))
    events = [*send(lab, group, 0, 3), *send(lab, group, 1, 3)]
    wait_for("the events", lambda: noted(lab, events) == 6)
    members[1].leave_at_stop()
    assert members[1].stop(20)
    wait_for("all partitions", lambda: members[0].owns(2))
    # it has committed before it left: none came twice
    assert offset(lab, group, 0) + offset(lab, group, 1) == 6


@pytest.mark.parametrize("joining", [False, True])
def test_a_static_member_that_ends_for_good_leaves_without_partitions_too(
    lab: Lab, start: Start, *, joining: bool
) -> None:
    group = lab.group(1)

    def member(instance_id: str) -> Watched:
        # nobody here waits for as long
        return start(group, Notebook(), instance_id=instance_id, session_timeout_seconds=250)

    first = member("0")
    wait_for("its partition", lambda: first.owns(1))
    idle = member("1")
    wait_for("both members", lambda: instances_of(lab, group) == {"0", "1"})
    if not joining:
        wait_for("nothing", lambda: ("assigned", set()) in idle.changes)
    idle.leave_at_stop()
    assert idle.stop(20)
    wait_for("the first alone", lambda: instances_of(lab, group) == {"0"})


def test_what_waits_behind_a_parked_partition_keeps_its_order(lab: Lab, start: Start) -> None:
    group = lab.group(1)
    handled: list[str] = []
    failures = iter([True, True, True])

    def fail(event: Event) -> Exception | None:
        if next(failures, False):
            return away()
        handled.append(event.event_id)
        return None

    events = send(lab, group, 0, 30)
    start(group, Notebook(fail), batch_max_messages=4, **QUICK_RETRIES)
    wait_for("all offsets", lambda: offset(lab, group, 0) == 30)
    assert handled == [event.event_id for event in events]
