"""Account for every order of the ledger in database, stock, analytics and topics."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import psycopg2
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from order_services.domain import events, topics
from order_services.local.plan import DatabaseAddress
from tests.crash.customers import Ledger

EVENT_TOPICS = (topics.ORDERS, topics.PAYMENTS, topics.INVENTORY, topics.SHIPPING)
QUIET_TIMEOUT_S = 180.0
# What may happen to an order once only: a second event of the same type is a second deed.
ONCE = (
    *("ORDER_CREATED", "ORDER_CANCELLED"),
    *("PAYMENT_PROCESSED", "PAYMENT_FAILED", "PAYMENT_REFUNDED"),
    *("INVENTORY_RESERVED", "INVENTORY_FAILED", "INVENTORY_RELEASED"),
    *("SHIPMENT_CREATED", "SHIPMENT_DISPATCHED", "SHIPMENT_DELIVERED"),
)


@dataclass
class Verdict:
    """What the count found; each list names orders, or figures that disagree."""

    orders: int = 0
    fulfilled: int = 0
    cancelled: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.duplicated or self.unfinished or self.wrong)

    def __str__(self) -> str:
        lines = [
            "  ".join(
                (
                    f"orders {self.orders}",
                    f"fulfilled {self.fulfilled}",
                    f"cancelled {self.cancelled}",
                    f"lost {len(self.lost)}",
                    f"duplicated {len(self.duplicated)}",
                    f"unfinished {len(self.unfinished)}",
                    f"wrong {len(self.wrong)}",
                )
            )
        ]
        for name in ("lost", "duplicated", "unfinished", "wrong"):
            lines += [f"  {name}: {line}" for line in getattr(self, name)[:5]]
        return "\n".join(lines)


@dataclass(frozen=True)
class Row:
    """One order as all tables have it."""

    order_id: str
    total_cents: int
    items: list[dict[str, object]]
    decision: str | None
    payment: str | None
    net_cents: int
    charged_cents: int
    stock: str | None
    shipment: str | None

    @property
    def fulfilled(self) -> bool:
        return (
            self.decision == "dispatched"
            and self.payment == "processed"
            and self.charged_cents == self.net_cents == self.total_cents
            and self.stock == "reserved"
            and self.shipment in ("dispatched", "delivered")
        )

    @property
    def cancelled(self) -> bool:
        return (
            self.decision == "cancelled"
            and self.payment in ("failed", "refunded")
            and self.net_cents == 0
            and self.stock in ("failed", "released")
            and self.shipment not in ("dispatched", "delivered")
        )


_ROWS = """
SELECT o.order_id::text, o.total_cents, o.items, d.decision::text, p.fact::text,
       coalesce(p.charged_cents - p.refunded_cents, 0), coalesce(p.charged_cents, 0),
       r.fact::text, s.fact::text
FROM orders o LEFT JOIN order_decisions d USING (order_id) LEFT JOIN payments p USING (order_id)
     LEFT JOIN reservations r USING (order_id) LEFT JOIN shipments s USING (order_id)
"""
_BUSY = "SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM shipments WHERE due_at IS NOT NULL)"


def query(address: DatabaseAddress, sql: str) -> list[tuple[object, ...]]:
    """Run one query on a connection of its own."""
    with (
        closing(
            psycopg2.connect(
                host=address.host,
                port=address.port,
                dbname=address.name,
                user=address.user,
                password=address.password,
                connect_timeout=5,
            )
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)
        return cursor.fetchall()


def wait_until_quiet(
    address: DatabaseAddress, brokers: str, timeout_s: float = QUIET_TIMEOUT_S
) -> bool:
    """Wait until nothing is under way: no outbox row, no shipment due, no unread message.

    Return whether that came about within the time limit.
    """
    calm = 0

    def quiet() -> bool:
        nonlocal calm
        try:
            busy = query(address, _BUSY)[0]
            unread = sum(lag for _, lag in _lags(brokers))
        except psycopg2.Error:
            busy, unread = (1, 1), 1
        calm = calm + 1 if busy == (0, 0) and unread == 0 else 0
        # twice: between two looks a message may be neither in the outbox nor in a topic's end
        return calm >= 3

    deadline = time.monotonic() + timeout_s
    while not quiet():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.3)
    return True


def _lags(brokers: str) -> Iterator[tuple[str, int]]:
    for group in topics.GROUPS:
        consumer = Consumer(
            {"bootstrap.servers": brokers, "group.id": group.group_id, "log_level": 0}
        )
        try:
            metadata = consumer.list_topics(timeout=10).topics
            partitions = [
                TopicPartition(topic, number)
                for topic in group.topics
                for number in metadata[topic].partitions
            ]
            for partition in consumer.committed(partitions, timeout=10):
                _, end = consumer.get_watermark_offsets(
                    TopicPartition(partition.topic, partition.partition), timeout=10
                )
                yield group.group_id, end - max(partition.offset, 0)
        finally:
            consumer.close()


def read_events(brokers: str) -> Iterator[events.Event]:
    """Yield every event of every topic, as often as it was published."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "reconcile",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
            "log_level": 0,
        }
    )
    try:
        metadata = consumer.list_topics(timeout=10).topics
        ends: dict[tuple[str, int], int] = {}
        for name in EVENT_TOPICS:
            for number in metadata[name].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(name, number), timeout=10)
                if high > low:
                    ends[name, number] = high
        consumer.assign([TopicPartition(name, n, OFFSET_BEGINNING) for name, n in ends])
        while ends:
            for message in consumer.consume(1000, timeout=5):
                if message.error() is not None:
                    continue
                topic, number, offset = message.topic(), message.partition(), message.offset()
                assert topic is not None
                assert number is not None
                assert offset is not None
                yield events.decode(message.value())
                if offset + 1 >= ends.get((topic, number), 0):
                    ends.pop((topic, number), None)
    finally:
        consumer.close()


def reconcile(ledger: Ledger, address: DatabaseAddress, brokers: str) -> Verdict:
    """Count; call it when all is quiet."""
    rows = {row.order_id: row for row in (Row(*values) for values in query(address, _ROWS))}  # type: ignore[arg-type]  # the query gives them in this order
    verdict = Verdict(orders=len(rows))
    verdict.wrong += ledger.broken_promises
    for order_id in ledger.accepted.values():
        if order_id not in rows:
            verdict.lost.append(f"{order_id} was accepted and is in no table")
    if len(set(ledger.accepted.values())) != len(ledger.accepted):
        verdict.duplicated.append("two idempotency keys gave one order")
    taken: Counter[str] = Counter()
    for row in rows.values():
        _judge(row, ledger, verdict)
        if row.stock == "reserved":
            for item in row.items:
                taken[str(item["productId"])] += int(str(item["quantity"]))
    for product, in_table in query(address, "SELECT product_id, taken FROM inventory"):
        if taken[str(product)] != in_table:
            verdict.wrong.append(
                f"stock of {product}: {in_table} taken, orders hold {taken[str(product)]}"
            )
    _check_events(rows, address, brokers, verdict)
    return verdict


def _judge(row: Row, ledger: Ledger, verdict: Verdict) -> None:
    if row.fulfilled:
        verdict.fulfilled += 1
        if row.order_id in ledger.cancelled:
            verdict.wrong.append(f"{row.order_id} was shipped after its cancel was granted")
    elif row.cancelled:
        verdict.cancelled += 1
        if row.order_id in ledger.refused_cancels:
            verdict.wrong.append(f"{row.order_id} was cancelled after its cancel was refused")
    else:
        verdict.unfinished.append(str(row))
    promised = ledger.totals.get(row.order_id)
    if promised is not None and promised != row.total_cents:
        verdict.wrong.append(
            f"{row.order_id} costs {row.total_cents}, the catalogue says {promised}"
        )
    if row.charged_cents not in (0, row.total_cents):
        verdict.duplicated.append(f"{row.order_id} was charged {row.charged_cents}")


def _check_events(
    rows: dict[str, Row], address: DatabaseAddress, brokers: str, verdict: Verdict
) -> None:
    types: dict[str, str] = {}
    of_order: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for event in read_events(brokers):
        types[event.event_id] = event.event_type
        of_order[event.order_id, event.event_type].add(event.event_id)
    for (order_id, event_type), ids in of_order.items():
        if len(ids) > 1 and event_type in ONCE:
            verdict.duplicated.append(f"{order_id} has {len(ids)} {event_type} events")
    for row in rows.values():
        wanted = {"ORDER_CREATED": True, "SHIPMENT_DISPATCHED": row.fulfilled}
        for name, expected in wanted.items():
            if ((row.order_id, name) in of_order) != expected:
                verdict.lost.append(f"{row.order_id}: {name} published is not {expected}")
    history = Counter(
        str(event_id) for (event_id,) in query(address, "SELECT event_id::text FROM order_events")
    )
    missing = types.keys() - history.keys()
    if missing:
        verdict.lost.append(f"{len(missing)} published events are missing from the orders' history")
    unpublished = history.keys() - types.keys()
    if unpublished:
        verdict.lost.append(f"{len(unpublished)} events of the history were never published")
    published = Counter(types.values())
    counted = {
        str(event_type): int(str(count))
        for event_type, count in query(
            address, "SELECT event_type, sum(events) FROM analytics_daily GROUP BY event_type"
        )
    }
    for event_type in published.keys() | counted.keys():
        difference = counted.get(event_type, 0) - published[event_type]
        if difference > 0:
            verdict.duplicated.append(f"analytics counted {difference} {event_type} too many")
        elif difference < 0:
            verdict.lost.append(f"analytics missed {-difference} {event_type}")
