"""The faults that alerts are tried with, and what must, may and must not be said of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from order_services.domain import topics
from tests.support import faults
from tests.support.faults import Scene
from tests.support.waiting import wait_for

Labels = Mapping[str, str]


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
    depend on timing, each with its reason. Nothing else fires. `make test` inflicts those of a round
    together, `make bench` each alone, also those of no round.
    """

    title: str
    inflict: Callable[[Scene], AbstractContextManager[None]]
    told: tuple[Alert, ...]
    fires: tuple[Alert, ...] = ()
    silent: tuple[Alert, ...] = ()
    may: Mapping[Alert, str] = field(default_factory=dict)
    round: int | None = None

    @property
    def name(self) -> str:
        """What it is called by."""
        return self.inflict.__name__

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


def together(some: Sequence[Fault]) -> Fault:
    """Return several faults as one; what one of them lets be said may be said."""

    @contextmanager
    def inflict(scene: Scene) -> Iterator[None]:
        with ExitStack() as stack:
            for fault in some:
                stack.enter_context(fault.inflict(scene))
            yield

    return Fault(
        "; ".join(fault.title for fault in some),
        inflict,
        told=tuple(alert for fault in some for alert in fault.told),
        fires=tuple(alert for fault in some for alert in fault.fires),
        silent=tuple(alert for fault in some for alert in fault.silent),
        may={alert: why for fault in some for alert, why in fault.may.items()},
    )


LATE: Final = {of("OrderLatencyBudgetBurn"): "orders that waited for the repair are shipped late"}
UNSOLD: Final = {of("OrderSuccessBudgetBurn"): "no order can be accepted"}


def behind(group: topics.ConsumerGroup, reason: str) -> dict[Alert, str]:
    """Return what may fire of a group that reads nothing, where something else is the cause."""
    names = ("Stuck", "LagHigh", "LagTimeHigh", "NotCatchingUp")
    return {of_group(f"KafkaConsumer{name}", group): reason for name in names}


def downstream_of_payment(reason: str) -> dict[Alert, str]:
    """Return what may fire when payments stop and come again in a burst."""
    groups = (topics.SHIPPING_GROUP, topics.GATEWAY_GROUP, topics.ANALYTICS_GROUP)
    return {alert: why for group in groups for alert, why in behind(group, reason).items()}


RESTARTED: Final = "it is restarted, and may miss scrapes meanwhile"
EVERYONE_BEHIND: Final = tuple(alert for group in topics.GROUPS for alert in behind(group, ""))
HELD_UP: Final = (
    *EVERYONE_BEHIND,
    of("DatabasePoolBusy"),
    of("DatabasePoolTimeouts"),
    of("DatabasePoolWaiters"),
    of("OrderServiceProcessingSlow"),
    of("OrderOutboxDelayed"),
    of("OrderOutboxWithoutRelay"),
)

FAULTS: Final = (
    # -- the first round of `make test`: what does not touch the services' work
    Fault(
        "a topic is poisoned with what is no event",
        faults.poisoned,
        told=tuple(
            of(name, service=service, topic=topics.SHIPPING)
            for name in ("OrderServiceDeadLetters", "OrderServiceErrorRateHigh")
            for service in ("gateway", "analytics")
        ),
        round=1,
    ),
    Fault(
        "production is unbalanced: one partition gets most messages",
        faults.hot_partition,
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
        round=1,
    ),
    Fault(
        "a group reads more slowly than it would have to",
        faults.slow_reader,
        told=tuple(
            of(f"KafkaConsumer{name}", consumergroup=faults.SLOW)
            for name in ("LagHigh", "LagTimeHigh", "NotCatchingUp")
        ),
        round=1,
    ),
    Fault(
        "a group's offset is reset to messages that will be deleted soon",
        faults.rewound,
        told=tuple(
            of(name, consumergroup=faults.OLD)
            for name in (
                "KafkaConsumerGroupRewound",
                "KafkaConsumerLagTimeCritical",
                "KafkaConsumerRetentionRisk",
            )
        ),
        silent=tuple(
            of(f"KafkaConsumer{name}", consumergroup=faults.OLD)
            for name in ("LagHigh", "LagTimeHigh", "NotCatchingUp")
        ),
        round=1,
    ),
    Fault(
        "messages are deleted that a group has not read",
        faults.cut,
        told=(of("KafkaConsumerMessagesLost", consumergroup=faults.CUT),),
        may={
            of(f"KafkaConsumer{name}", consumergroup=faults.CUT): "what is left grows older"
            for name in ("NotCatchingUp", "LagTimeHigh")
        },
        round=1,
    ),
    Fault(
        "a topic is grown, of which its readers do not hear",
        faults.grown,
        told=(of("KafkaConsumerGroupUnassignedPartitions", consumergroup=faults.GROWN),),
        round=1,
    ),
    Fault(
        "a member joins and leaves all the time",
        faults.flapping,
        told=(of("KafkaConsumerGroupRebalanceStorm", consumergroup=faults.FLAPPING),),
        round=1,
    ),
    Fault(
        "a group commits what its topic does not have",
        faults.past_end,
        told=(of("KafkaConsumerCommitPastEnd", consumergroup=faults.TRUNCATED),),
        round=1,
    ),
    Fault(
        "a group has unread messages, and nobody ever read for it",
        faults.never_read,
        told=(of("KafkaConsumerGroupsNeverActive", severity="info"),),
        round=1,
    ),
    Fault(
        "a program leaves its connections to PostgreSQL open",
        faults.many_connections,
        told=(of("PostgresConnectionsHigh"),),
        round=1,
    ),
    Fault(
        "a client of PgBouncer waits for a paused database",
        faults.waiting_client,
        told=(of("PgBouncerClientsWaiting", database="postgres"),),
        round=1,
    ),
    Fault(
        "a service is not among the targets",
        faults.service_not_scraped,
        told=(of("OrderServiceAbsent", service="shipping"),),
        round=1,
    ),
    # -- the second round
    Fault(
        "a consumer is paused (SIGSTOP)",
        faults.paused,
        told=(of("OrderServiceDown", service="analytics"),),
        fires=(of_group("KafkaConsumerGroupWithoutMembers", topics.ANALYTICS_GROUP),),
        silent=(of_group("KafkaConsumerGroupWithoutMembers", topics.ANALYTICS_GROUP),),
        may=behind(topics.ANALYTICS_GROUP, "it reads nothing"),
        round=2,
    ),
    Fault(
        "a service is slow: a batch takes it six seconds",
        faults.slow,
        told=(
            of("OrderServiceProcessingSlow", service="inventory", topic=topics.ORDERS),
            of("OrderLatencyBudgetBurn", severity="critical"),
        ),
        may=behind(topics.INVENTORY_GROUP, "it reads more slowly than orders come in"),
        round=2,
    ),
    # -- the third round
    Fault(
        "a pool is exhausted: a locked table holds up requests, and a consumer",
        faults.exhausted_pool,
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
            of("OrderOutboxDelayed", slice="gateway"): "its relay finds no connection",
            of("OrderServiceProcessingSlow", service="analytics"): "its batch waited for the lock",
            of(
                "OrderServiceProcessingSlow", service="gateway"
            ): "its batch waited for a connection",
        },
        round=3,
    ),
    Fault(
        "a service is killed (SIGKILL)",
        faults.killed,
        told=(of("OrderServiceDown", service="payment"),),
        fires=(of_group("KafkaConsumerGroupWithoutMembers", topics.PAYMENT_GROUP),),
        silent=(of_group("KafkaConsumerGroupWithoutMembers", topics.PAYMENT_GROUP),),
        may={
            **LATE,
            of("OrderOutboxDelayed", slice="payment"): "what it had written waits for its return",
            **behind(topics.PAYMENT_GROUP, "nobody reads"),
            **downstream_of_payment("payments come in a burst after the repair"),
        },
        round=3,
    ),
    # -- left to the bench
    Fault(
        "a consumer that reads without membership ends",
        faults.committer_gone,
        told=(of("KafkaConsumerCommitsStopped", consumergroup=faults.ASSIGNED),),
    ),
    Fault(
        "a producer leaves a transaction open",
        faults.hanging_transaction,
        told=(of("KafkaOpenTransaction", topic=faults.HANGING),),
    ),
    Fault(
        "one of two brokers of another cluster is killed",
        faults.one_of_two_brokers_gone,
        told=(of("KafkaBrokerDown", broker="2"),),
        fires=(
            of("KafkaPartitionsUnderReplicated", topic="replicated"),
            of("KafkaLagSeriesAbsent", cluster="second"),
        ),
        silent=(of("KafkaPartitionsUnderReplicated"), of("KafkaLagSeriesAbsent")),
        may={of("KafkaConsumerGroupUnassignedPartitions", cluster="second"): "no leader"},
    ),
    Fault(
        "no relay gets at a slice of the outbox: something else holds its lock",
        faults.relay_locked_out,
        told=(of("OrderOutboxWithoutRelay", slice="payment"),),
        may={**LATE, **downstream_of_payment("payments come in a burst after the repair")},
    ),
    Fault(
        "a forgotten transaction holds rows of the outbox",
        faults.outbox_rows_held,
        told=(of("OrderOutboxDelayed", slice="payment"),),
        may={
            **LATE,
            **downstream_of_payment("payments come in a burst after the repair"),
            of("DatabasePoolWaiters", service="payment"): "the relay waits with its connection",
        },
    ),
    Fault(
        "a topic refuses messages: its size limit was set too low",
        faults.narrow_topic,
        told=(of("OrderOutboxRefused", slice="shipping"),),
        may={
            **behind(topics.GATEWAY_GROUP, "what was refused comes in a burst after the repair"),
            **behind(topics.ANALYTICS_GROUP, "what was refused comes in a burst after the repair"),
        },
    ),
    Fault(
        "PgBouncer is killed",
        faults.pgbouncer_gone,
        told=(of("PgBouncerDown"),),
        silent=HELD_UP,
        may={**LATE, **UNSOLD},
    ),
    Fault(
        "the monitor is not among the targets",
        faults.monitor_not_scraped,
        told=(of("KafkaMonitorAbsent"),),
    ),
    Fault(
        "a service runs with its relay switched off",
        faults.without_relay,
        told=(of("OrderOutboxWithoutRelay", slice="payment"),),
        may={
            **LATE,
            **behind(topics.PAYMENT_GROUP, RESTARTED),
            **downstream_of_payment("payments come in a burst after the repair"),
            of_group("KafkaConsumerGroupWithoutMembers", topics.PAYMENT_GROUP): RESTARTED,
            of("OrderServiceDown", service="payment"): RESTARTED,
        },
    ),
    Fault(
        "the broker is stopped",
        faults.broker_gone,
        told=(of("KafkaClusterUnreachable"),),
        # a minute without a poll is not shortened: the last of them to fire
        fires=(of("KafkaBrokerDown"), of("KafkaMonitorDataStale")),
        silent=(
            *EVERYONE_BEHIND,
            of("KafkaBrokerDown"),
            of("KafkaMonitorDataStale"),
            of("OrderOutboxDelayed"),
            of("OrderOutboxWithoutRelay"),
        ),
        may=LATE,
    ),
    Fault(
        "the database is stopped",
        faults.database_gone,
        told=(of("PostgresDown"),),
        silent=(*HELD_UP, of("PgBouncerClientsWaiting")),
        may={**LATE, **UNSOLD, of("PgBouncerDown"): "its console waits for the database as well"},
    ),
    Fault(
        "the monitor is killed",
        faults.monitor_gone,
        told=(of("KafkaMonitorDown"),),
        silent=(of("KafkaMonitorAbsent"),),
        may=LATE,
    ),
    Fault(
        "a release of a service fails on every message",
        faults.bad_release,
        told=(of("OrderServiceConsumerStopped", service="analytics"),),
        may={
            of("OrderServiceDeadLetters", service="analytics"): "until it stops",
            of("OrderServiceErrorRateHigh", service="analytics"): "until it stops",
            **behind(topics.ANALYTICS_GROUP, "it reads no more"),
            of_group("KafkaConsumerGroupWithoutMembers", topics.ANALYTICS_GROUP): RESTARTED,
            of("OrderServiceDown", service="analytics"): RESTARTED,
        },
    ),
)

# What a machine does that is busy with other work beside: it is slow in truth, and thresholds in seconds
# do not shrink with the rules' times.
BUSY_MACHINE: Final = (of("OrderLatencyBudgetBurn"), of("DatabasePoolWaiters"))
# Rules that look back over hours and days: shortened as all are, they still remember the faults before.
LONG_MEMORIES: Final = ("6h", "1d", "3d")
ROUNDS: Final = tuple(
    together([fault for fault in FAULTS if fault.round == number])
    for number in sorted({fault.round for fault in FAULTS if fault.round is not None})
)
TIMEOUT_S: Final = 150.0
# What no state of a cluster brings about: a fault of the monitor's own, that nobody knows yet, and a mistake
# in its settings. Their metrics are told to a real Prometheus in `test_alerting`.
NOT_INFLICTED: Final = frozenset({"KafkaMonitorInternalError", "KafkaMonitorConfigReloadFailed"})


def fired_since(scene: Scene, started: float) -> list[Labels]:
    """Return the labels of what fired in Prometheus since a time of the monotonic clock."""
    window = max(1, int(time.monotonic() - started))
    found = scene.alerting.query(f'max_over_time(ALERTS{{alertstate="firing"}}[{window}s])')
    return [sample["metric"] for sample in found if not _remembers_long(sample["metric"])]


class Outcome(NamedTuple):
    """How many alerts of which name were told, and the time until all were told, and until none fired."""

    told: Counter[str]
    told_s: float
    cleared_s: float


def check(scene: Scene, fault: Fault, tolerated: Sequence[Alert] = ()) -> Outcome:
    """Inflict and repair a fault; return what was told, and when.

    Raises AssertionError where what must be told, fire or clear does not within `TIMEOUT_S`, or anything
    else fires or is told; `tolerated` may.
    """
    alerting = scene.alerting
    wait_for("quiet before the fault", partial(_nothing_fires, scene, tolerated), TIMEOUT_S)
    heard = len(alerting.webhook.notices())
    started = time.monotonic()
    with fault.inflict(scene):
        for alert in fault.told:
            # some end by themselves while the others are waited for
            told_once = partial(_was_told, scene, alert, heard)
            wait_for(f"message that {alert} fires", told_once, TIMEOUT_S)
        for alert in fault.fires:
            wait_for(f"{alert} that fires", partial(_has_fired, scene, alert, started), TIMEOUT_S)
        told_at = time.monotonic()
    for alert in fault.told:
        if alert not in tolerated:
            alerting.wait_until_resolved(alert.name, TIMEOUT_S, **dict(alert.labels))
    wait_for("end of all alerts", partial(_nothing_fires, scene, tolerated), TIMEOUT_S)
    cleared_at = time.monotonic()

    def is_tolerated(labels: Labels) -> bool:
        return any(alert.is_of(labels) for alert in tolerated)

    fired = [labels for labels in fired_since(scene, started) if not is_tolerated(labels)]
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
    # one that others of its group join is told again with them
    distinct = {tuple(sorted(notice.labels.items())): notice.name for notice in told}
    counted = Counter(distinct.values())
    return Outcome(counted, told_at - started, cleared_at - told_at)


def _remembers_long(labels: Labels) -> bool:
    return labels.get("long_window") in LONG_MEMORIES


def _was_told(scene: Scene, alert: Alert, heard: int) -> bool:
    notices = scene.alerting.webhook.notices()[heard:]
    return any(one.status == "firing" and alert.is_of(one.labels) for one in notices)


def _has_fired(scene: Scene, alert: Alert, started: float) -> bool:
    return any(alert.is_of(labels) for labels in fired_since(scene, started))


def _nothing_fires(scene: Scene, tolerated: Sequence[Alert]) -> bool:
    return not any(
        alert["state"] == "firing"
        and not _remembers_long(alert["labels"])
        and not any(one.is_of(alert["labels"]) for one in tolerated)
        for alert in scene.alerting.active()
    )
