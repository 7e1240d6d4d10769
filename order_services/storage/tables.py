"""Every table, declared once; `storage.migrations` make and change them.

Facts are native PostgreSQL enumerations whose values stand in the order in which a fact moves
forward: `greatest(old, new)` is all that it takes to apply an event that comes late or twice.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    Enum,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from order_services.domain.facts import Decision, InventoryFact, PaymentFact, ShipmentFact

metadata = MetaData()


def _enumeration(values: type[StrEnum], name: str) -> Enum:
    return Enum(
        values, name=name, metadata=metadata, values_callable=lambda e: [m.value for m in e]
    )


_payment_fact = _enumeration(PaymentFact, "payment_fact")
_inventory_fact = _enumeration(InventoryFact, "inventory_fact")
_shipment_fact = _enumeration(ShipmentFact, "shipment_fact")
_decision = _enumeration(Decision, "order_decision")
_id = Uuid(as_uuid=False)
_moment = DateTime(timezone=True)


def _created_at() -> Column[object]:
    return Column("created_at", _moment, nullable=False, server_default=func.now())


def _updated_at() -> Column[object]:
    return Column("updated_at", _moment, nullable=False, server_default=func.now())


# What customers ordered; how far an order is, is in its history. Ids are time-ordered: newest first is
# the primary key backwards.
orders = Table(
    "orders",
    metadata,
    Column("order_id", _id, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("items", JSONB, nullable=False),  # [{productId, quantity, unitPriceCents}]
    Column("total_cents", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("correlation_id", Text, nullable=False),
    _created_at(),
    CheckConstraint("total_cents >= 0", name="orders_total_not_negative"),
)

# One row per order whose end is decided: inserted once, never changed (see `decisions`).
order_decisions = Table(
    "order_decisions",
    metadata,
    Column("order_id", _id, primary_key=True),
    Column("decision", _decision, nullable=False),
    Column("reason", Text),  # why it was cancelled
    Column("decided_at", _moment, nullable=False, server_default=func.now()),
)

# The answer that belongs to a customer's Idempotency-Key.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    # keys belong to their customer: two of them may both call theirs 1
    Column("customer_id", Text, primary_key=True),
    Column("idempotency_key", Text, primary_key=True),
    Column("request_digest", LargeBinary, nullable=False),
    Column("order_id", _id, nullable=False),
    _created_at(),
    Index("idempotency_keys_created_at", "created_at"),
)

# The history of each order: whoever follows it appends, and its key says what is known already.
order_events = Table(
    "order_events",
    metadata,
    Column("order_id", _id, nullable=False),
    Column("event_id", _id, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("event_time", _moment, nullable=False),
    Column("source", Text, nullable=False),
    Column("correlation_id", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    PrimaryKeyConstraint("order_id", "event_id"),
    # rows lie as they came: an index by time costs those who append next to nothing
    Index("order_events_event_time", "event_time", postgresql_using="brin"),
)

# Written by inventory. taken is what orders hold; a release gives it back.
inventory = Table(
    "inventory",
    metadata,
    Column("product_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("price_cents", BigInteger, nullable=False),
    Column("stocked", BigInteger, nullable=False),
    Column("taken", BigInteger, nullable=False, server_default=text("0")),
    Column("available", BigInteger, Computed("stocked - taken", persisted=True), nullable=False),
    _updated_at(),
    CheckConstraint("taken >= 0", name="inventory_taken_not_negative"),
    CheckConstraint("taken <= stocked", name="inventory_never_oversold"),
    CheckConstraint("price_cents >= 0", name="inventory_price_not_negative"),
    # eight rows, updated by every batch
    postgresql_with={"fillfactor": "10", "autovacuum_vacuum_threshold": "1000"},
)

# Written by inventory: what it did for each order.
reservations = Table(
    "reservations",
    metadata,
    Column("order_id", _id, primary_key=True),
    Column("fact", _inventory_fact, nullable=False),
    Column("items", JSONB, nullable=False),  # {productId: quantity} held or given back
    _created_at(),
    _updated_at(),
)

# Written by payment: what it did for each order.
payments = Table(
    "payments",
    metadata,
    Column("order_id", _id, primary_key=True),
    Column("fact", _payment_fact, nullable=False),
    Column("charged_cents", BigInteger, nullable=False),
    Column("refunded_cents", BigInteger, nullable=False, server_default=text("0")),
    Column("reason", Text),  # why it failed
    _created_at(),
    _updated_at(),
    CheckConstraint(
        "0 <= refunded_cents AND refunded_cents <= charged_cents", name="payments_net_not_negative"
    ),
    CheckConstraint(
        "(fact = 'refunded') <= (refunded_cents = charged_cents)", name="payments_refund_is_whole"
    ),
)

# Written by shipping: joins the facts of payment and inventory, and holds the timers.
shipments = Table(
    "shipments",
    metadata,
    Column("order_id", _id, primary_key=True),
    Column("payment_fact", _payment_fact, nullable=False, server_default=PaymentFact.PENDING),
    Column("inventory_fact", _inventory_fact, nullable=False, server_default=InventoryFact.PENDING),
    Column("fact", _shipment_fact, nullable=False, server_default=ShipmentFact.PENDING),
    Column("tracking_number", Text),
    Column("correlation_id", Text, nullable=False),
    Column("traceparent", Text),
    Column("accepted_at", _moment),  # when the gateway accepted the order
    Column("due_at", _moment),  # when the next step is to be taken; null when there is none
    _created_at(),
    _updated_at(),
    Index("shipments_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    postgresql_with={"fillfactor": "70"},
)

# What happened on each day (UTC, by the event's own time).
analytics_daily = Table(
    "analytics_daily",
    metadata,
    Column("day", Date, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("amount_cents", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("day", "event_type"),
)

# The events that are in those counts, each once: the key that makes analytics idempotent. Its partitions
# are a ring of weeks (`storage.rings`).
analytics_events = Table(
    "analytics_events",
    metadata,
    Column("event_id", _id, nullable=False),
    Column("slot", SmallInteger, nullable=False),
    Column("day", Date, nullable=False),
    Column("event_type", Text),  # null: counted by the first release, which did not note it
    Column("amount_cents", BigInteger, nullable=False),
    PrimaryKeyConstraint("event_id", "slot"),
    postgresql_partition_by="LIST (slot)",
)

# One row. Days before `counted_from` are closed: their events are archived and their counts stay.
analytics_archive = Table(
    "analytics_archive",
    metadata,
    Column("one_row", Boolean, primary_key=True, server_default=text("true")),
    Column("counted_from", Date, nullable=False),
    Column("moved_at", _moment, nullable=False, server_default=func.now()),
    CheckConstraint("one_row", name="analytics_archive_one_row_check"),
)

# Replays of history and what became of them.
history_replays = Table(
    "history_replays",
    metadata,
    Column("replay_id", _id, primary_key=True),
    Column("days", Integer, nullable=False),
    Column("since", _moment, nullable=False),  # the beginning of the first day (UTC)
    Column("state", Text, nullable=False),
    Column("reason", Text),  # why it failed
    Column("orders", BigInteger, nullable=False, server_default=text("0")),  # published
    Column("events", BigInteger, nullable=False, server_default=text("0")),
    _created_at(),
    _updated_at(),
)

# Messages that Kafka has not acknowledged yet. A row is deleted when it has: the table is as small
# as the backlog, needs no flag, no partial index and no pruning.
outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(), nullable=False),
    Column("slice", Text, nullable=False),  # the service whose relay publishes it
    Column("topic", Text, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("headers", Text, nullable=False),  # JSON object of texts
    Column("created_at", _moment, nullable=False, server_default=func.clock_timestamp()),
    PrimaryKeyConstraint("slice", "id"),
    postgresql_with={
        # a queue: dead rows pile up in front of the reader unless they are removed soon
        "autovacuum_vacuum_scale_factor": "0",
        "autovacuum_vacuum_threshold": "20000",
        "autovacuum_vacuum_cost_delay": "0",
    },
)

# Messages that Kafka will never take (too large for the topic), with its reason: out of the way of the
# others, and kept for a person to look at.
outbox_refused = Table(
    "outbox_refused",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("slice", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("headers", Text, nullable=False),
    Column("reason", Text, nullable=False),
    _created_at(),
    Column("refused_at", _moment, nullable=False, server_default=func.now()),
)
