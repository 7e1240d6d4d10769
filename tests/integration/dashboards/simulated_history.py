"""An hour of the whole system as Prometheus would have stored it, made up.

What happens in it: payment stands still for five minutes and catches up, shipping restarts, one
message is poison, retention deletes some unread messages. It has every series that the dashboards
ask for, so that they can be tried before the system that exports them runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.support.declared_metrics import MONITOR_JOB, SERVICES_JOB

HISTORY_S: Final = 3600
STEP_S: Final = 15
_SERVICES: Final = {
    "gateway": ("order-status-group", {"payments": 3, "inventory": 3, "shipping": 3}),
    "payment": ("payment-service-group", {"orders": 6}),
    "inventory": ("inventory-service-group", {"orders": 6}),
    "shipping": ("shipping-service-group", {"payments": 3, "inventory": 3}),
    "analytics": (
        "analytics-service-group",
        {"orders": 6, "payments": 3, "inventory": 3, "shipping": 3},
    ),
}
_TOPICS: Final = {"orders": 6, "payments": 3, "inventory": 3, "shipping": 3}
_STATUSES: Final = ("OK", "WARN", "ERR", "STOP", "STALL", "REWIND")
_PAUSED: Final = (1500, 1800)
_CAUGHT_UP: Final = 2100
_RESTARTED: Final = 2400
_BASE_RATE: Final = 40.0


def orders_by(second: float) -> float:
    """Return how many orders were accepted until a second of the hour: 40/s, in gentle waves."""
    return _BASE_RATE * (second + 120 * math.sin(second / 400) / 3)


def _read_by(group: str, second: float) -> float:
    accepted = orders_by(second)
    if group != "payment-service-group" or not _PAUSED[0] < second < _CAUGHT_UP:
        return accepted - 3
    stood = orders_by(_PAUSED[0]) - 3
    if second < _PAUSED[1]:
        return stood
    share = (second - _PAUSED[1]) / (_CAUGHT_UP - _PAUSED[1])
    return stood + (orders_by(_CAUGHT_UP) - 3 - stood) * share


def _lag_seconds(group: str, second: float) -> float:
    read = _read_by(group, second)
    if orders_by(second) - read < 4:
        return 0.2 + 0.1 * math.sin(second / 50)
    low, high = 0.0, second
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if orders_by(middle) < read else (low, middle)
    return second - low


@dataclass
class _Page:
    """OpenMetrics text under construction; families stay together, as the format wants."""

    families: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    def add(
        self, kind: str, name: str, value: float, labels: Mapping[str, object], time: float
    ) -> None:
        family = name
        for suffix in ("_total",) if kind == "counter" else ("_bucket", "_sum", "_count"):
            if kind != "gauge":
                family = family.removesuffix(suffix)
        text = ",".join(f'{key}="{label}"' for key, label in labels.items())
        line = f"{name}{{{text}}} {value} {time}"
        self.families.setdefault(family, (kind, []))[1].append(line)

    def text(self) -> str:
        parts = []
        for family, (kind, lines) in self.families.items():
            parts += [f"# TYPE {family} {kind}", *lines]
        return "\n".join([*parts, "# EOF", ""])


@dataclass
class _Target:
    """Adds the samples of one program at one moment."""

    page: _Page
    labels: Mapping[str, object]
    time: float

    def gauge(self, name: str, value: float, **labels: object) -> None:
        self.page.add("gauge", name, value, {**self.labels, **labels}, self.time)

    def counter(self, name: str, value: float, **labels: object) -> None:
        self.page.add("counter", name, value, {**self.labels, **labels}, self.time)

    def histogram(
        self,
        name: str,
        count: float,
        mean: float,
        shares: Iterable[tuple[str, float]],
        **labels: object,
    ) -> None:
        every = {**self.labels, **labels}
        for bound, share in shares:
            bucket = {**every, "le": bound}
            self.page.add("histogram", f"{name}_bucket", round(count * share), bucket, self.time)
        self.page.add("histogram", f"{name}_sum", round(count) * mean, every, self.time)
        self.page.add("histogram", f"{name}_count", round(count), every, self.time)


_FAST: Final = (
    *(("0.001", 0.1), ("0.0025", 0.3), ("0.005", 0.6), ("0.01", 0.8), ("0.025", 0.95)),
    *(("0.05", 0.985), ("0.1", 0.995), ("0.5", 0.999), ("1.0", 1.0), ("+Inf", 1.0)),
)
_SHIPPED: Final = (
    *(("0.05", 0.02), ("0.1", 0.2), ("0.25", 0.7), ("0.5", 0.93), ("1.0", 0.98)),
    *(("2.0", 0.994), ("5.0", 0.999), ("10.0", 1.0), ("+Inf", 1.0)),
)


def history(end: float) -> str:
    """Return the hour before `end` as OpenMetrics text with time stamps."""
    page = _Page()
    start = end - HISTORY_S
    for second in range(0, HISTORY_S + 1, STEP_S):
        now = start + second
        monitor = _Target(page, {"job": MONITOR_JOB, "instance": "127.0.0.1:9308"}, now)
        _scraped(monitor, 1900)
        _monitor(monitor, second)
        _cluster(monitor, second)
        _databases(monitor, second)
        for port, service in enumerate(_SERVICES, 4000):
            labels = {"job": SERVICES_JOB, "instance": f"127.0.0.1:{port}", "service": service}
            target = _Target(page, labels, now)
            _scraped(target, 240)
            restarted = service == "shipping" and second >= _RESTARTED
            target.gauge("process_start_time_seconds", start + (_RESTARTED if restarted else -900))
            _service(target, service, second)
    return page.text()


def _scraped(target: _Target, samples: int) -> None:
    target.gauge("up", 1)
    target.gauge("scrape_duration_seconds", 0.004 + samples / 1e6)
    target.gauge("scrape_samples_scraped", samples)


def _monitor(monitor: _Target, second: int) -> None:
    cluster = {"cluster": "local"}
    monitor.gauge("process_start_time_seconds", monitor.time - second - 900)
    monitor.counter("process_cpu_seconds_total", 4 + second * 0.011)
    monitor.gauge("process_resident_memory_bytes", 61e6 + 1e4 * (second % 300))
    monitor.gauge("kafka_monitor_up", 1, **cluster)
    monitor.gauge("kafka_monitor_build_info", 1, version="0.1.0")
    monitor.gauge("kafka_monitor_poll_duration_seconds", 0.02 + 0.004 * math.sin(second), **cluster)
    for api, count in (("ListGroups", 1), ("OffsetFetch", 1), ("ListOffsets", 2), ("Metadata", 1)):
        monitor.gauge("kafka_monitor_poll_requests", count, api=api, **cluster)
    monitor.gauge("kafka_monitor_data_age_seconds", 1 + second % 60 / 15, **cluster)
    for name in ("stale_partitions", "stale_groups", "group_errors"):
        monitor.gauge(f"kafka_monitor_{name}", 0, **cluster)
    monitor.gauge("kafka_monitor_broker_up", 1, broker=1)


def _cluster(monitor: _Target, second: int) -> None:
    monitor.gauge("kafka_broker_info", 1, id=1, address="127.0.0.1:9092")
    for topic, partitions in _TOPICS.items():
        monitor.gauge("kafka_topic_partitions", partitions, topic=topic)
        for partition in range(partitions):
            place = {"topic": topic, "partition": partition}
            end = int(orders_by(second) / partitions)
            monitor.gauge("kafka_topic_partition_current_offset", end, **place)
            monitor.gauge("kafka_topic_partition_leader", 1, **place)
            monitor.gauge("kafka_topic_partition_under_replicated_partition", 0, **place)
    for group, topics in _SERVICES.values():
        _group(monitor, group, topics, second)


def _group(monitor: _Target, group: str, topics: Mapping[str, int], second: int) -> None:
    lag, read = _lag_seconds(group, second), _read_by(group, second)
    labels = {"consumergroup": group}
    monitor.gauge("kafka_consumergroup_lag_seconds_max", lag, **labels)
    monitor.gauge("kafka_consumergroup_members", 1, **labels)
    monitor.gauge("kafka_consumergroup_idle_members", 0, **labels)
    monitor.gauge("kafka_consumergroup_unassigned_partitions", 0, **labels)
    rebalances = 1 + 2 * (group.startswith("shipping") and second >= _RESTARTED)
    monitor.counter("kafka_consumergroup_rebalances_total", rebalances, **labels)
    status = "OK" if lag < 5 else "STOP" if second < _PAUSED[1] else "WARN"
    for one in _STATUSES:
        monitor.gauge("kafka_consumergroup_status", int(one == status), status=one, **labels)
    for topic, partitions in topics.items():
        behind = max(0, int(orders_by(second) - read))
        both = {**labels, "topic": topic}
        monitor.gauge("kafka_consumergroup_lag_sum", behind // partitions * partitions, **both)
        monitor.gauge("kafka_consumergroup_time_to_catch_up_seconds", lag / 2, **both)
        lost = 120 if group.startswith("analytics") and second > 3000 else 0
        monitor.counter("kafka_consumergroup_messages_lost_total", lost, **both)
        monitor.gauge("kafka_consumergroup_retention_remaining_seconds", 7200 - lag, **both)
        for number, kind in enumerate(("assignment", "production", "lag")):
            excess = (0.0, 0.08 + 0.02 * math.sin(second / 90), 0.15)[number]
            monitor.gauge("kafka_consumergroup_imbalance_ratio", excess, kind=kind, **both)
        for partition in range(partitions):
            place = {**both, "partition": partition}
            monitor.gauge(
                "kafka_consumergroup_current_offset", int((read + 1) / partitions), **place
            )
            monitor.gauge("kafka_consumergroup_lag", behind // partitions, **place)
            monitor.gauge("kafka_consumergroup_lag_seconds", lag * (1 - partition / 50), **place)


def _databases(monitor: _Target, second: int) -> None:
    busy = 2 + round(2 * abs(math.sin(second / 200)))
    for service in _SERVICES:
        application = {"datname": "ecommerce", "application_name": f"{service}-service-1"}
        states = (("active", 1), ("idle", busy), ("idle in transaction", second % 120 // 105))
        for state, count in states:
            monitor.gauge("pg_stat_activity_count", count, state=state, **application)
            longest = 0.0 if state == "idle" else 0.2 * count
            monitor.gauge("pg_stat_activity_max_tx_duration", longest, state=state, **application)
        monitor.gauge("db_pools_replicas", 1, service=service)
        monitor.gauge("db_pools_connections", 5, service=service)
        monitor.gauge("db_pools_one_more_replica_left_connections", 67, service=service)
    for limit, total in (("postgresql", 97), ("pgbouncer clients", 1000)):
        monitor.gauge("db_pools_limit_connections", total, limit=limit)
        monitor.gauge("db_pools_open_connections", 5 * (1 + busy), limit=limit)
        monitor.gauge("db_pools_committed_connections", 25, limit=limit)
    pool = {"database": "ecommerce", "user": "postgres"}
    for name, value in (
        ("client_active_connections", 5 * busy),
        ("client_waiting_connections", max(0, busy - 3)),
        ("client_maxwait_seconds", max(0, busy - 3) * 0.4),
        ("server_active_connections", busy),
        ("server_idle_connections", 4 - busy + 2),
    ):
        monitor.gauge(f"pgbouncer_pools_{name}", value, **pool)


def _service(target: _Target, service: str, second: int) -> None:
    group, topics = _SERVICES[service]
    orders = max(0.0, _read_by(group, second))
    for topic in topics:
        target.histogram("kafka_message_processing_seconds", orders, 0.006, _FAST, topic=topic)
        outcomes = (
            ("processed", orders),
            ("duplicate", 40.0 * (service == "shipping" and second >= _RESTARTED)),
            ("ignored", orders / 20),
            ("dead_letter", 1.0 * (service == "payment" and second > 2700)),
        )
        for status, count in outcomes:
            count_labels = {"topic": topic, "status": status}
            target.counter("kafka_messages_processed_total", round(count), **count_labels)
    if service == "payment":
        poisoned = int(second > 2700)
        labels = {"topic": "orders", "error": "MalformedEvent"}
        target.counter("kafka_dead_letters_total", poisoned, **labels)
        target.counter("kafka_batch_retries_total", second // 900, reason="OperationalError")
    target.histogram("kafka_batch_messages", orders / 20, 20, (("25.0", 0.7), ("+Inf", 1.0)))
    target.gauge("kafka_consumer_stopped", 0)
    _outbox(target, service, orders, second)
    _pool(target, orders, second)
    for fact, to in _TRANSITIONS.get(service, ()):
        target.counter("order_transitions_total", round(orders * _SHARES[to]), fact=fact, to=to)
    if service == "gateway":
        _gateway(target, second)
    if service == "shipping":
        target.histogram("order_accepted_to_shipped_seconds", orders * 0.97, 0.3, _SHIPPED)


_TRANSITIONS: Final = {
    "payment": (("payment", "completed"), ("payment", "failed")),
    "inventory": (("inventory", "reserved"), ("inventory", "failed")),
    "shipping": (("shipment", "created"), ("shipment", "dispatched")),
}
_SHARES: Final = {
    "completed": 0.98,
    "failed": 0.02,
    "reserved": 0.99,
    "created": 0.97,
    "dispatched": 0.97,
}


def _outbox(target: _Target, service: str, orders: float, second: int) -> None:
    piece = {"slice": service}
    target.gauge("outbox_messages", 2 + second % 5, **piece)
    target.gauge("outbox_oldest_message_seconds", 0.05 + second % 7 / 50, **piece)
    target.histogram("outbox_delay_seconds", orders, 0.02, _FAST, **piece)


def _pool(target: _Target, orders: float, second: int) -> None:
    in_use = 2 + round(2 * abs(math.sin(second / 200)))
    target.gauge("db_pool_max_connections", 5)
    target.gauge("db_pool_in_use_connections", in_use)
    target.gauge("db_pool_idle_connections", 5 - in_use)
    target.gauge("db_pool_waiting", max(0, in_use - 3))
    target.histogram("db_pool_wait_seconds", orders / 10, 0.001, _FAST)
    target.counter("db_pool_timeouts_total", int(second > 1900))


def _gateway(target: _Target, second: int) -> None:
    accepted = orders_by(second)
    target.counter("orders_accepted_total", round(accepted))
    for method, route, share in (("POST", "/api/orders", 1.0), ("GET", "/api/orders", 0.3)):
        path = {"method": method, "route": route}
        target.histogram("http_request_seconds", accepted * share, 0.004, _FAST, **path)
        for status, part in _answers(second):
            count = round(accepted * share * part)
            target.counter("http_requests_total", count, status=status, **path)


def _answers(second: int) -> Iterator[tuple[str, float]]:
    yield "201", 0.99
    yield "400", 0.009
    yield "503", 0.0004 if second > 1500 else 0.0
