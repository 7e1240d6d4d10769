"""Whatever the order of arrival, every order ends fulfilled or cancelled, and nothing in between.

Hypothesis writes scripts of what may happen: orders, cancels, deliveries in any order across topics
(within a topic and key the order is kept, as Kafka does), deliveries again, crashes before and after
a commit, replays, groups that read all of it again. The real handlers, timers and gateway routes play them
on the real database, each script in one transaction that is rolled back at its end.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from random import Random
from typing import Any, cast

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from order_services.domain.events import Event, EventType, decode, new_id
from order_services.domain.facts import InventoryFact, PaymentFact, ShipmentFact
from order_services.domain.topics import (
    GATEWAY_GROUP,
    INVENTORY_GROUP,
    ORDERS,
    PAYMENT_GROUP,
    SHIPPING_GROUP,
    ConsumerGroup,
)
from order_services.gateway import following, reading
from order_services.gateway.accepting import OrderWriter
from order_services.gateway.fleet import Fleet
from order_services.gateway.routes import add_routes
from order_services.gateway.status import OrderStatus
from order_services.inventory import handler as inventory
from order_services.messaging.batch import BatchProcessor, Handle
from order_services.messaging.dead_letters import DeadLetterLimit
from order_services.messaging.messages import ReceivedMessage
from order_services.payment import handler as payment
from order_services.payment.rules import Rules
from order_services.service.health import Health
from order_services.shipping import handler as shipping
from order_services.shipping import timers as shipping_timers
from order_services.storage import decisions
from order_services.storage.database import Database
from order_services.web.app import ServiceApp
from tests.integration.order_services.conftest import Lab, order_cancelled, order_created
from tests.support.serving import ask

CHEAP, SCARCE, DEAR = "PROD-008", "PROD-005", "PROD-001"
SCARCE_PIECES = 3
# a laptop is beyond it, anything else is not: refusals are the script's choice
LIMIT_CENTS = 100_000

_KINDS: dict[str, type[StrEnum]] = {
    "payment": PaymentFact,
    "inventory": InventoryFact,
    "shipment": ShipmentFact,
}
# each fact of each order as its place in the order in which the fact moves forward
_FACTS = """
    SELECT name, order_id::text, rank FROM (
        SELECT 'payment', order_id, array_position(enum_range(NULL::payment_fact), fact)
            FROM payments
        UNION ALL SELECT 'stock', order_id, array_position(enum_range(NULL::inventory_fact), fact)
            FROM reservations
        UNION ALL SELECT 'shipment', order_id, array_position(enum_range(NULL::shipment_fact), fact)
            FROM shipments
    ) AS facts(name, order_id, rank)
"""


class OneTransaction:
    """Stands in for `Database`: its transactions are savepoints of one that is rolled back."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @contextmanager
    def begin(self, _timeout_seconds: float | None = None) -> Iterator[Connection]:
        with self.connection.begin_nested():
            yield self.connection


@dataclass
class Member:
    """A consumer group: its processor, and how far it is in each topic and key."""

    group: ConsumerGroup
    processor: BatchProcessor
    offsets: Counter[tuple[str, str]] = field(default_factory=Counter)


class Shop:
    """The order system in one thread: topics are lists, processes are steps."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.database = cast(Database, OneTransaction(connection))
        self._begin()
        rules = Rules(limit_cents=LIMIT_CENTS)
        self.members = [
            self._member(
                PAYMENT_GROUP, payment.SOURCE, payment.HANDLES, payment.PaymentHandler(rules)
            ),
            self._member(
                INVENTORY_GROUP, inventory.SOURCE, inventory.HANDLES, inventory.InventoryHandler()
            ),
            self._member(
                SHIPPING_GROUP, shipping.SOURCE, shipping.HANDLES, shipping.ShippingHandler(0)
            ),
            self._member(GATEWAY_GROUP, "gateway", following.HANDLES, following.follow),
        ]
        self.timers = shipping_timers.Timers(
            self.database, delivery_delay_seconds=0, batch=2, on_written=lambda: None
        )
        self.app = ServiceApp("gateway", Health())
        self.writer = writer = OrderWriter(
            self.database, on_committed=lambda: None, max_orders=10, timeout_seconds=20
        )
        writer.start()
        add_routes(
            self.app,
            database=self.database,
            writer=writer,
            fleet=Fleet({}),
            wake_relay=lambda: None,
        )

    def _begin(self) -> None:
        self.topics: defaultdict[tuple[str, str], list[Event]] = defaultdict(list)
        self.orders: list[str] = []
        self.granted: set[str] = set()
        self.refused: set[str] = set()
        self.furthest: dict[tuple[str, str], int] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        """Begin anew, with little of one product; nothing of it remains."""
        transaction = self.connection.begin()
        try:
            self._begin()
            for member in self.members:
                member.offsets.clear()
            self.connection.execute(
                text("UPDATE inventory SET stocked = :pieces WHERE product_id = :id"),
                {"pieces": SCARCE_PIECES, "id": SCARCE},
            )
            yield
        finally:
            transaction.rollback()

    def _member(
        self, group: ConsumerGroup, source: str, handles: frozenset[EventType], handle: Handle
    ) -> Member:
        processor = BatchProcessor(
            source=source,
            group=group,
            handles=handles,
            handle=handle,
            takes_replays=False,
            database=self.database,
            limit=DeadLetterLimit(0, 60),
        )
        return Member(group, processor)

    # what the script can do

    def accept(self, items: dict[str, int]) -> None:
        body = [{"productId": product, "quantity": count} for product, count in items.items()]
        answer = ask(self.app, "POST", "/api/orders", {"customerId": "c", "items": body})
        assert answer.status_code == 202, answer.text
        self.orders.append(answer.json()["orderId"])

    def cancel(self, which: int) -> None:
        if self.orders:
            order_id = self.orders[which % len(self.orders)]
            answer = ask(self.app, "POST", f"/api/orders/{order_id}/cancel", {})
            assert answer.status_code in (200, 409), answer.text
            (self.granted if answer.status_code == 200 else self.refused).add(order_id)

    def publish(self, *, forget: bool = False) -> bool:
        """Relay the outbox; a relay that dies before deleting publishes it all again."""
        rows = self.connection.execute(
            text("SELECT topic, value, headers FROM outbox ORDER BY slice, id")
        ).all()
        for topic, value, headers in rows:
            pairs = [(name, each.encode()) for name, each in orjson.loads(headers).items()]
            event = decode(bytes(value), pairs)
            self.topics[topic, event.order_id].append(event)
        if not forget:
            self.connection.execute(text("DELETE FROM outbox"))
        return bool(rows)

    def replay(self, which: int) -> None:
        """Publish an order's events of the past again, marked as such."""
        for (topic, _), events in list(self.topics.items()):
            if topic == ORDERS and events:
                past = events[which % len(events)]
                events.append(
                    replace(past, event_id=new_id(), payload={**past.payload, "isReplay": True})
                )

    def deliver(self, which: int, choices: Sequence[int], end: str = "commit") -> bool:
        """Give a member a batch from several topics and keys; False when there was none."""
        member = self.members[which % len(self.members)]
        new = dict(member.offsets)
        batch: list[ReceivedMessage] = []
        for choice in choices:
            waiting = [
                key
                for key, events in self.topics.items()
                if key[0] in member.group.topics and new.get(key, 0) < len(events)
            ]
            if not waiting:
                break
            key = waiting[choice % len(waiting)]
            offset = new.get(key, 0)
            event = self.topics[key][offset]
            batch.append(
                ReceivedMessage(
                    key[0], 0, offset, event.key(), event.encode(), list(event.headers())
                )
            )
            new[key] = offset + 1
        if not batch:
            return False
        process = self.connection.begin_nested()
        outcome = member.processor.process(batch)
        assert not outcome.dead
        if end == "crash before the commit":
            process.rollback()
            return True
        process.commit()
        if end == "commit":
            member.offsets = Counter(new)
        return True

    def rewind(self, which: int, *, to: int) -> None:
        """Have the member read again, as after a rebalance without its last commits."""
        member = self.members[which % len(self.members)]
        for key in member.offsets:
            member.offsets[key] = min(member.offsets[key], to)

    def forget(self, which: int) -> None:
        """Deliver all of them again, as to a group that is new."""
        self.rewind(which, to=0)

    def settle(self) -> None:
        """Run until nothing happens any more."""
        for _ in range(200):
            busy = self.publish()
            for number in range(len(self.members)):
                busy |= self.deliver(number, range(20))
            busy |= self.timers.advance()
            self.check_facts()
            if not busy and not self.timers_due():
                return
        raise AssertionError("never quiet")

    def timers_due(self) -> bool:
        due = self.connection.execute(
            text("SELECT count(*) FROM shipments WHERE due_at IS NOT NULL")
        ).scalar_one()
        return bool(due)

    # what must hold

    def check_facts(self) -> None:
        """Hold at any moment: facts move forward only, and stock is never below zero."""
        for fact, order_id, rank in self.connection.execute(text(_FACTS)).all():
            assert rank >= self.furthest.get((fact, order_id), 0), f"{fact} of {order_id} went back"
            self.furthest[fact, order_id] = rank
        for order in reading.orders(self.connection, limit=len(self.orders), after=None)["orders"]:
            for name, kind in _KINDS.items():
                told = list(kind).index(order[name])
                key = f"told {name}", order["orderId"]
                assert told >= self.furthest.get(key, 0), f"{key} went back"
                self.furthest[key] = told
        low, taken = self.connection.execute(
            text("SELECT min(available), min(taken) FROM inventory")
        ).one()
        assert low >= 0
        assert taken >= 0

    def check_end(self) -> None:
        """Hold when all is quiet: each order has exactly one of two ends, and nothing is over."""
        published = self._published()
        taken: Counter[str] = Counter()
        for order_id in self.orders:
            row = self._row(order_id)
            kinds = published[order_id]
            assert set(kinds.values()) <= {1}, f"an event happened twice: {kinds}"
            fulfilled = (
                row["decision"] == "dispatched"
                and (row["payment"], row["charged"], row["refunded"])
                == ("processed", row["total"], 0)
                and row["stock"] == "reserved"
                and row["shipment"] == "delivered"
                and kinds[EventType.SHIPMENT_DISPATCHED] == kinds[EventType.SHIPMENT_DELIVERED] == 1
                and kinds[EventType.ORDER_CANCELLED] == 0
            )
            cancelled = (
                row["decision"] == "cancelled"
                and row["charged"] == row["refunded"]
                and row["stock"] in ("failed", "released")
                and row["shipment"] in (None, "pending", "cancelled")
                and kinds[EventType.SHIPMENT_DISPATCHED] == 0
                and kinds[EventType.ORDER_CANCELLED] == 1
            )
            assert fulfilled != cancelled, f"neither end, or both: {row}, {dict(kinds)}"
            assert order_id not in (self.refused if cancelled else self.granted)
            wanted_to_fail = (
                order_id in self.granted
                or kinds[EventType.PAYMENT_FAILED]
                or kinds[EventType.INVENTORY_FAILED]
            )
            assert cancelled == bool(wanted_to_fail), f"cancelled for no reason: {row}"
            told = self._get(f"/api/orders/{order_id}")["status"]
            assert told == (OrderStatus.DELIVERED if fulfilled else OrderStatus.CANCELLED)
            history = self._get(f"/api/orders/{order_id}/events")["events"]
            assert Counter(event["eventType"] for event in history) == kinds
            if fulfilled:
                taken.update({item["productId"]: item["quantity"] for item in row["items"]})
        held = self.connection.execute(
            text("SELECT product_id, taken FROM inventory WHERE taken > 0")
        ).all()
        assert {each[0]: each[1] for each in held} == dict(taken)

    def _get(self, path: str) -> Any:
        return ask(self.app, "GET", path).json()

    def _published(self) -> dict[str, Counter[EventType]]:
        """Count the different events of each order by type, replays apart."""
        ids: defaultdict[tuple[str, EventType], set[str]] = defaultdict(set)
        for (_, order_id), events in self.topics.items():
            for event in events:
                if not event.is_replay:
                    ids[order_id, event.event_type].add(event.event_id)
        counts: defaultdict[str, Counter[EventType]] = defaultdict(Counter)
        for (order_id, event_type), distinct in ids.items():
            counts[order_id][event_type] = len(distinct)
        return counts

    def _row(self, order_id: str) -> dict[str, Any]:
        return dict(
            self.connection.execute(
                text(
                    "SELECT o.total_cents AS total, o.items, d.decision::text,"
                    " p.fact::text AS payment, p.charged_cents AS charged,"
                    " p.refunded_cents AS refunded, r.fact::text AS stock,"
                    " s.fact::text AS shipment"
                    " FROM orders o LEFT JOIN order_decisions d USING (order_id)"
                    " LEFT JOIN payments p USING (order_id)"
                    " LEFT JOIN reservations r USING (order_id)"
                    " LEFT JOIN shipments s USING (order_id) WHERE order_id = :id"
                ),
                {"id": order_id},
            )
            .mappings()
            .one()
        )


numbers = st.integers(0, 5)
members = st.integers(0, 3)
baskets = st.dictionaries(
    st.sampled_from([CHEAP, SCARCE, SCARCE, DEAR]), st.integers(1, 2), min_size=1, max_size=2
)
ends = st.sampled_from(["commit"] * 4 + ["crash before the commit", "crash after the commit"])
steps = st.one_of(
    st.tuples(st.just("accept"), baskets),
    st.tuples(st.just("cancel"), numbers),
    st.tuples(st.just("publish"), st.sampled_from([False, False, True])),
    st.tuples(st.just("publish"), st.just(False)),
    st.tuples(st.just("deliver"), members, st.lists(numbers, min_size=1, max_size=6), ends),
    st.tuples(st.just("deliver"), members, st.lists(numbers, min_size=1, max_size=6), ends),
    st.tuples(st.just("deliver"), members, st.lists(numbers, min_size=1, max_size=6), ends),
    st.tuples(st.just("timers")),
    st.tuples(st.just("replay"), numbers),
    st.tuples(st.just("rewind"), members, numbers),
    st.tuples(st.just("forget"), members),
)
Script = list[tuple[Any, ...]]
scripts = st.lists(steps, min_size=5, max_size=30)

quick = settings(
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def perform(shop: Shop, script: Script) -> None:
    play: dict[str, Callable[..., object]] = {
        "accept": shop.accept,
        "cancel": shop.cancel,
        "publish": lambda forget: shop.publish(forget=forget),
        "deliver": shop.deliver,
        "timers": shop.timers.advance,
        "replay": shop.replay,
        "rewind": lambda which, to: shop.rewind(which, to=to),
        "forget": shop.forget,
    }
    shop.accept({SCARCE: 1})
    for name, *arguments in script:
        play[name](*arguments)
        shop.check_facts()
    shop.settle()
    shop.check_end()
    # all of it again, to members that remember nothing: not one change, not one event
    before = shop._published()
    for number in range(len(shop.members)):
        shop.forget(number)
    shop.settle()
    shop.check_end()
    assert shop._published() == before


@pytest.fixture
def shop(lab: Lab) -> Iterator[Shop]:
    with lab.database.engine.connect() as connection:
        shop = Shop(connection)
        yield shop
        assert shop.writer.close(20)


@quick
@given(script=scripts)
def test_every_order_has_exactly_one_of_two_ends(shop: Shop, script: Script) -> None:
    with shop.open():
        perform(shop, script)


def without_the_dispatch_gate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decisions, "dispatch", lambda _connection, order_ids: set(order_ids))


def with_cancels_that_decide_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decisions, "_decide", lambda _connection, _decision, reasons: set(reasons or ()))


def with_facts_that_move_back(patch: pytest.MonkeyPatch) -> None:
    forward = "greatest(shipment.payment_fact, excluded.payment_fact)"
    merge = shipping._MERGE.replace(forward, "excluded.payment_fact").replace(
        "excluded.payment_fact > shipment.payment_fact",
        "excluded.payment_fact <> shipment.payment_fact",
    )
    patch.setattr(shipping, "_MERGE", merge)


def without_refunds_before_the_charge(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        payment,
        "_REFUND",
        "UPDATE payments SET fact = 'refunded', refunded_cents = charged_cents"
        " WHERE order_id = ANY(%s::uuid[]) AND fact = 'processed'"
        " RETURNING order_id::text, refunded_cents",
    )


def with_stock_given_back_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        inventory, "_RELEASE", inventory._RELEASE.replace("WHERE reservation.fact = 'reserved'", "")
    )


def with_charges_that_add_up(patch: pytest.MonkeyPatch) -> None:
    again = "DO UPDATE SET charged_cents = payments.charged_cents + excluded.charged_cents"
    patch.setattr(payment, "_CHARGE", payment._CHARGE.replace("DO NOTHING", again))


@pytest.mark.parametrize(
    "sabotage",
    [
        without_the_dispatch_gate,
        with_cancels_that_decide_again,
        without_refunds_before_the_charge,
        with_stock_given_back_twice,
        with_facts_that_move_back,
        with_charges_that_add_up,
    ],
)
def test_what_breaks_the_promise_is_found(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, sabotage: Callable[[pytest.MonkeyPatch], None]
) -> None:
    sabotage(monkeypatch)

    @settings(quick, phases=[Phase.generate], derandomize=True)
    @given(script=scripts)
    def play(script: Script) -> None:
        with shop.open():
            perform(shop, script)

    with pytest.raises((AssertionError, SQLAlchemyError)):
        play()


@pytest.mark.parametrize("source", [payment.SOURCE, inventory.SOURCE])
def test_batches_in_parallel_on_the_same_orders_and_products_never_deadlock_nor_oversell(
    lab: Lab, source: str
) -> None:
    with lab.database.begin() as connection:
        connection.execute(text("UPDATE inventory SET stocked = 40"))
    two = [[CHEAP, SCARCE], [SCARCE, CHEAP]]
    created = [
        order_created(items=[{"productId": name, "quantity": 1} for name in two[number % 2]])
        for number in range(90)
    ]
    cancelled = [order_cancelled(event.order_id) for event in created[::3]]
    handlers: dict[str, Any] = {
        payment.SOURCE: payment.PaymentHandler(Rules()),
        inventory.SOURCE: inventory.InventoryHandler(),
    }
    processor = BatchProcessor(
        source=source,
        group=ConsumerGroup(source, (ORDERS,)),
        handles=payment.HANDLES,
        handle=handlers[source],
        takes_replays=False,
        database=lab.database,
        limit=DeadLetterLimit(0, 60),
    )
    together = threading.Barrier(4)

    def replica(seed: int) -> None:
        # every replica gets all, as after the worst of rebalances, each in an order of its own
        random = Random(seed)
        mine = [*random.sample(created, 90), *random.sample(cancelled, 30)]
        together.wait(20)
        for start in range(0, len(mine), 15):
            batch = mine[start : start + 15]
            outcome = processor.process(
                [ReceivedMessage(ORDERS, 0, 0, e.key(), e.encode(), e.headers()) for e in batch]
            )
            assert not outcome.dead

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(replica, range(4)))
    if source == payment.SOURCE:
        assert lab.number("SELECT count(*) FROM payments WHERE fact = 'processed'") == 60
        assert lab.number("SELECT sum(charged_cents - refunded_cents) FROM payments") == 60 * 1000
    else:
        held = lab.number("SELECT count(*) FROM reservations WHERE fact = 'reserved'")
        assert lab.number("SELECT sum(taken) FROM inventory") == 2 * held <= 2 * 40
        assert lab.number("SELECT min(available) FROM inventory") >= 0
    twice = "SELECT count(*) FROM (SELECT DISTINCT key, headers::json->>'event-type' FROM outbox) d"
    # PAYMENT_PROCESSING and PAYMENT_PROCESSED, or INVENTORY_RESERVED, once for each order
    assert lab.number("SELECT count(*) FROM outbox") == lab.number(twice)
