"""The faults that alerts are tried with, and what must, may and must not be said of each."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from confluent_kafka import Consumer, Producer, TopicPartition

from order_services import topics
from tests.crash.shop import DATABASE
from tests.support.waiting import wait_for
from tests.support.watched_shop import ADMIN_TOKEN, WatchedShop

Labels = Mapping[str, str]

POISON_PER_SECOND: Final = 2
HOT_PER_SECOND: Final = 400
# twice as many readers as the gateway has connections
READERS: Final = 10
READ_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert, and the labels that say which one."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    def is_of(self, labels: Mapping[str, str]) -> bool:
        """Say whether these are labels of this alert."""
        return labels["alertname"] == self.name and set(self.labels) <= labels.items()

    def __str__(self) -> str:
        inner = ", ".join(f"{name}={value}" for name, value in self.labels)
        return f"{self.name}{{{inner}}}" if inner else self.name


def of(name: str, **labels: str) -> Alert:
    """Return the alert of that name with these labels."""
    return Alert(name, tuple(labels.items()))


def of_group(name: str, group: topics.ConsumerGroup) -> Alert:
    """Return the alert of that name about a consumer group."""
    return of(name, consumergroup=group.group_id)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is broken inside `inflict`'s block and repaired at its end.

    `told` reach the webhook. `fires` fire too, told or not: what speaks for them may come later.
    `silent` are never told, fire or not: another alert speaks for them. `may` are consequences that
    depend on timing, each with its reason. Nothing else fires. Faults that are not quick are left to
    `make bench`.
    """

    title: str
    inflict: Callable[[WatchedShop], AbstractContextManager[None]]
    told: tuple[Alert, ...]
    fires: tuple[Alert, ...] = ()
    silent: tuple[Alert, ...] = ()
    may: Mapping[Alert, str] = field(default_factory=dict)
    is_quick: bool = True

    @property
    def fired(self) -> tuple[Alert, ...]:
        """All that must fire in Prometheus."""
        return self.told + self.fires

    def expects(self, labels: Mapping[str, str]) -> bool:
        """Say whether an alert with these labels may fire."""
        return any(alert.is_of(labels) for alert in (*self.fired, *self.silent, *self.may))

    def lets_tell(self, labels: Mapping[str, str]) -> bool:
        """Say whether an alert with these labels may be told."""
        is_silent = any(alert.is_of(labels) for alert in self.silent)
        return self.expects(labels) and not is_silent


@contextmanager
def paused(system: WatchedShop) -> Iterator[None]:
    system.replica("analytics").pause()
    try:
        yield
    finally:
        system.replica("analytics").resume()


@contextmanager
def killed(system: WatchedShop) -> Iterator[None]:
    system.replica("payment").kill()
    try:
        yield
    finally:
        system.start_again("payment")


@contextmanager
def poisoned(system: WatchedShop) -> Iterator[None]:
    producer = Producer({"bootstrap.servers": system.shop.broker.bootstrap_servers, "log_level": 0})

    def poison() -> None:
        producer.produce(topics.SHIPPING, b"no event", key=b"poison")
        producer.flush(10)

    with _repeated(poison, POISON_PER_SECOND):
        yield


@contextmanager
def bad_release(system: WatchedShop) -> Iterator[None]:
    url = f"{system.url('analytics')}/admin/faults"
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
    body = json.dumps({"poisonRate": 1}).encode()
    with urllib.request.urlopen(
        urllib.request.Request(url, body, headers, method="PUT"), timeout=10
    ):
        pass
    try:
        yield
    finally:
        # a restart is what the runbook asks for; it switches the fault off too
        system.replica("analytics").stop()
        system.start_again("analytics")


@contextmanager
def hot_partition(system: WatchedShop) -> Iterator[None]:
    """Deliver one order's event again and again: consumers know it, only its partition is hot."""
    servers = {"bootstrap.servers": system.shop.broker.bootstrap_servers, "log_level": 0}
    consumer = Consumer({**servers, "group.id": "no-group", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topics.ORDERS, 0, 0)])
    message = wait_for("message of the first partition", lambda: consumer.poll(1))
    consumer.close()
    producer = Producer(servers)

    def deliver() -> None:
        for _ in range(HOT_PER_SECOND // 10):
            producer.produce(
                topics.ORDERS,
                message.value(),
                key=message.key(),
                headers=message.headers(),
                partition=0,
            )
        producer.flush(10)

    with _repeated(deliver, 10):
        yield


@contextmanager
def exhausted_pool(system: WatchedShop) -> Iterator[None]:
    """Lock a table that requests of the gateway read, and the consumer of analytics writes to."""
    lock = system.shop.postgres.connect(DATABASE)
    with lock.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE analytics_daily IN ACCESS EXCLUSIVE MODE")

    def read() -> None:
        request = f"{system.url('gateway')}/api/analytics"
        with urllib.request.urlopen(request, timeout=READ_TIMEOUT_S):
            pass

    # the lock goes first: readers end when they are served
    with _repeated(read, 10, threads=READERS), closing(lock):
        yield


@contextmanager
def broker_gone(system: WatchedShop) -> Iterator[None]:
    # in good order: after a crash it recovers its logs first, which a busy machine takes a minute for
    system.shop.broker.stop()
    try:
        yield
    finally:
        system.shop.revive()


@contextmanager
def database_gone(system: WatchedShop) -> Iterator[None]:
    system.shop.postgres.stop()
    try:
        yield
    finally:
        system.shop.postgres.start()


@contextmanager
def monitor_gone(system: WatchedShop) -> Iterator[None]:
    system.monitor.kill()
    try:
        yield
    finally:
        system.monitor.start()


@contextmanager
def _repeated(action: Callable[[], None], per_second: float, threads: int = 1) -> Iterator[None]:
    """Do something again and again, whatever becomes of it, until the block ends."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(1 / per_second):
            try:
                action()
            except OSError:
                continue  # being refused is what some faults are about

    workers = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        ended.set()
        for worker in workers:
            worker.join(READ_TIMEOUT_S)


LATE: Final = {of("OrderLatencyBudgetBurn"): "orders that waited for the repair are shipped late"}


def behind(group: topics.ConsumerGroup, reason: str) -> dict[Alert, str]:
    """Return what may fire of a group that reads nothing, where something else is the cause."""
    names = ("Stuck", "LagHigh", "LagTimeHigh", "NotCatchingUp")
    return {of_group(f"KafkaConsumer{name}", group): reason for name in names}


RESTARTED: Final = "the repair restarts it, and it may miss scrapes meanwhile"
EVERYONE_BEHIND: Final = tuple(alert for group in topics.GROUPS for alert in behind(group, ""))

FAULTS: Final = (
    Fault(
        "a consumer is paused (SIGSTOP)",
        paused,
        told=(of("OrderServiceDown", service="analytics"),),
        fires=(of_group("KafkaConsumerGroupWithoutMembers", topics.ANALYTICS_GROUP),),
        silent=(of_group("KafkaConsumerGroupWithoutMembers", topics.ANALYTICS_GROUP),),
        may=behind(topics.ANALYTICS_GROUP, "it reads nothing"),
    ),
    Fault(
        "a topic is poisoned with what is no event",
        poisoned,
        told=tuple(
            of(name, service=service, topic=topics.SHIPPING)
            for name in ("OrderServiceDeadLetters", "OrderServiceErrorRateHigh")
            for service in ("gateway", "analytics")
        ),
    ),
    Fault(
        "a release of a service fails on every message",
        bad_release,
        is_quick=False,
        told=(of("OrderServiceConsumerStopped", service="analytics"),),
        may={
            of("OrderServiceDeadLetters", service="analytics"): "until it stops",
            of("OrderServiceErrorRateHigh", service="analytics"): "until it stops",
            **behind(topics.ANALYTICS_GROUP, "it reads no more"),
            of_group("KafkaConsumerGroupWithoutMembers", topics.ANALYTICS_GROUP): RESTARTED,
            of("OrderServiceDown", service="analytics"): RESTARTED,
        },
    ),
    Fault(
        "production is unbalanced: one partition gets most messages",
        hot_partition,
        told=tuple(
            of(
                "KafkaConsumerGroupImbalanced",
                consumergroup=group.group_id,
                topic=topics.ORDERS,
                kind="production",
            )
            for group in topics.GROUPS
            if topics.ORDERS in group.topics
        ),
    ),
    Fault(
        "a pool is exhausted: a locked table holds up requests, and a consumer",
        exhausted_pool,
        told=(
            of("DatabasePoolTimeouts", service="gateway"),
            of("OrderSuccessBudgetBurn", severity="critical"),
            of_group("KafkaConsumerStuck", topics.ANALYTICS_GROUP),
        ),
        fires=(
            of("DatabasePoolWaiters", service="gateway"),
            of("DatabasePoolBusy", service="gateway"),
        ),
        may={
            **LATE,
            **behind(topics.ANALYTICS_GROUP, "its batch waits for the lock"),
            **behind(topics.GATEWAY_GROUP, "it finds no connection"),
            of("OrderServiceProcessingSlow", service="analytics"): "its batch waited for the lock",
            of(
                "OrderServiceProcessingSlow", service="gateway"
            ): "its batch waited for a connection",
        },
    ),
    Fault(
        "a service is killed (SIGKILL)",
        killed,
        told=(of("OrderServiceDown", service="payment"),),
        fires=(of_group("KafkaConsumerGroupWithoutMembers", topics.PAYMENT_GROUP),),
        silent=(of_group("KafkaConsumerGroupWithoutMembers", topics.PAYMENT_GROUP),),
        may={**LATE, **behind(topics.PAYMENT_GROUP, "nobody reads")},
    ),
    Fault(
        "the monitor is killed",
        monitor_gone,
        is_quick=False,
        told=(of("KafkaMonitorDown"),),
        silent=(of("KafkaMonitorAbsent"),),
        may=LATE,
    ),
    Fault(
        "the database is stopped",
        database_gone,
        is_quick=False,
        told=(of("PostgresDown"),),
        silent=EVERYONE_BEHIND,
        may={
            **LATE,
            of("OrderSuccessBudgetBurn"): "no order can be accepted",
            of("OrderServiceProcessingSlow"): "batches waited for the repair",
        },
    ),
    Fault(
        "the broker is stopped",
        broker_gone,
        # in one of two runs a consumer whose commit was under way did not come back, and its group's
        # alerts went on: docs/decisions.md, "A commit may wait for ever"
        is_quick=False,
        told=(of("KafkaClusterUnreachable"),),
        silent=(*EVERYONE_BEHIND, of("KafkaBrokerDown"), of("OrderOutboxDelayed")),
        may=LATE,
    ),
)

# What a machine does that is busy with other work beside: it is slow in truth, and thresholds in seconds
# do not shrink with the rules' times.
BUSY_MACHINE: Final = (of("OrderLatencyBudgetBurn"), of("DatabasePoolWaiters"))
# Rules that look back over days: shortened as all are, they still remember longer than a test.
LONG_MEMORIES: Final = ("1d", "3d")
TIMEOUT_S: Final = 90.0


def fired_since(system: WatchedShop, started: float) -> list[Labels]:
    """Return the labels of what fired in Prometheus since a time of the monotonic clock."""
    window = math.ceil(time.monotonic() - started)
    found = system.alerting.query(f'max_over_time(ALERTS{{alertstate="firing"}}[{window}s])')
    return [sample["metric"] for sample in found if not _remembers_long(sample["metric"])]


def check(system: WatchedShop, fault: Fault, tolerated: Sequence[Alert] = ()) -> Counter[str]:
    """Inflict and repair a fault; return how often which alert was told.

    Raises AssertionError where what must be told, fire or clear does not within `TIMEOUT_S`, or anything
    else fires or is told; `tolerated` may.
    """
    alerting = system.alerting
    heard = len(alerting.webhook.notices())
    started = time.monotonic()
    with fault.inflict(system):
        for alert in fault.told:
            alerting.wait_until_told(alert.name, TIMEOUT_S, **dict(alert.labels))
        for alert in fault.fires:
            wait_for(f"{alert} that fires", partial(_has_fired, system, alert, started), TIMEOUT_S)
    for alert in fault.told:
        if alert not in tolerated:
            alerting.wait_until_resolved(alert.name, TIMEOUT_S, **dict(alert.labels))
    wait_for("end of all alerts", partial(_nothing_fires, system, tolerated), TIMEOUT_S)

    def is_tolerated(labels: Labels) -> bool:
        return any(alert.is_of(labels) for alert in tolerated)

    fired = [labels for labels in fired_since(system, started) if not is_tolerated(labels)]
    unexpected = [labels for labels in fired if not fault.expects(labels)]
    assert not unexpected, f"{unexpected} fired; {alerting.describe()}"
    told = [
        notice
        for notice in alerting.webhook.notices()[heard:]
        if notice.status == "firing" and not _remembers_long(notice.labels)
    ]
    uncalled = [
        str(notice)
        for notice in told
        if not is_tolerated(notice.labels) and not fault.lets_tell(notice.labels)
    ]
    assert not uncalled, f"{uncalled} were told; {alerting.describe()}"
    return Counter(notice.name for notice in told)


def _remembers_long(labels: Labels) -> bool:
    return labels.get("long_window") in LONG_MEMORIES


def _has_fired(system: WatchedShop, alert: Alert, started: float) -> bool:
    return any(alert.is_of(labels) for labels in fired_since(system, started))


def _nothing_fires(system: WatchedShop, tolerated: Sequence[Alert]) -> bool:
    return not any(
        alert["state"] == "firing"
        and not _remembers_long(alert["labels"])
        and not any(one.is_of(alert["labels"]) for one in tolerated)
        for alert in system.alerting.active()
    )
