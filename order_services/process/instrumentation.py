"""Every metric of the order services, declared once.

Looking a child up by its labels costs four times what counting does: the hot path asks `children`
once and keeps the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from prometheus_client import Counter, Gauge

from order_services.process.histogram import Histogram

_FINE: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
_BUCKETS: Final = (*_FINE, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)

MESSAGES = Counter(
    "kafka_messages_processed_total",
    "Messages taken from a topic, by what became of them: "
    "processed, duplicate, ignored (not for this service) or dead_letter.",
    ["topic", "status"],
)
PROCESSING = Histogram(
    "kafka_message_processing_seconds",
    "Time from taking a message to the commit of the transaction that it was processed in.",
    ["topic"],
    buckets=_BUCKETS,
)
BATCH_MESSAGES = Histogram(
    "kafka_batch_messages",
    "Messages in a batch, which is one database transaction.",
    buckets=(1, 5, 10, 25, 50, 100, 250, 500, 1000, 5000, 10000),
)
BATCH_SECONDS = Histogram(
    "kafka_batch_seconds",
    "Time of a batch: its transaction, and telling of its events.",
    buckets=_BUCKETS,
)
RETRIES = Counter(
    "kafka_batch_retries_total",
    "Batches tried again after a transient error.",
    ["reason"],
)
DEAD_LETTERS = Counter(
    "kafka_dead_letters_total",
    "Messages sent to the group's dead-letter topic, by the kind of error.",
    ["topic", "error"],
)
CONSUMER_STOPPED = Gauge(
    "kafka_consumer_stopped",
    "1 when the consumer has stopped because of an error that needs a person, else 0.",
)
PARKED_PARTITIONS = Gauge(
    "kafka_consumer_parked_partitions",
    "Partitions that wait for a retry of their own while the others go on.",
)
ASSIGNED_PARTITIONS = Gauge(
    "kafka_consumer_assigned_partitions",
    "Partitions that this consumer is assigned.",
    ["topic"],
)
REBALANCES = Counter(
    "kafka_consumer_rebalances_total",
    "Changes of this consumer's assignment.",
    ["kind"],
)
OFFSET_COMMIT_FAILURES = Counter(
    "kafka_offset_commit_failures_total",
    "Offset commits that failed; the messages may be delivered again, and change nothing.",
)
CLIENTS_LEFT_BEHIND = Counter(
    "kafka_consumer_clients_left_behind_total",
    "Kafka clients that could not go on (a lost commit, a fatal error) and were replaced by a new one.",
)
CONSUMER_ERRORS = Counter(
    "kafka_consumer_errors_total",
    "Errors that the Kafka client reported to this consumer.",
    ["code"],
)

RECORDS_LOST = Counter(
    "kafka_consumer_records_lost_total",
    "Records that retention took before this consumer's group had read them.",
    ["topic"],
)

OUTBOX_MESSAGES = Gauge(
    "outbox_messages",
    "Messages that Kafka has not acknowledged yet, as the relay that holds the slice sees them.",
    ["slice"],
)
OUTBOX_OLDEST_SECONDS = Gauge(
    "outbox_oldest_message_seconds",
    "Age of the oldest message that Kafka has not acknowledged yet, 0 when there is none.",
    ["slice"],
)
OUTBOX_DELAY = Histogram(
    "outbox_delay_seconds",
    "Time from writing a message to the outbox to its acknowledgement by Kafka.",
    ["slice"],
    buckets=_BUCKETS,
)
OUTBOX_PUBLISHED = Counter("outbox_published_total", "Messages that Kafka acknowledged.", ["slice"])
OUTBOX_FAILURES = Counter(
    "outbox_failures_total", "Messages that Kafka did not take; they are tried again.", ["slice"]
)
OUTBOX_REFUSED = Counter(
    "outbox_refused_total",
    "Messages that Kafka will never take; they were set aside in the table outbox_refused.",
    ["slice"],
)
OUTBOX_LANES_CLOSED = Gauge(
    "outbox_lanes_closed",
    "Partitions, or topics as a whole, that take nothing at the moment: their messages wait.",
    ["slice"],
)
OUTBOX_PRODUCERS_REPLACED = Counter(
    "outbox_producers_replaced_total",
    "Kafka producers that could not go on (a fatal error) and were replaced by a new one.",
    ["slice"],
)
OUTBOX_RELAY_ACTIVE = Gauge(
    "outbox_relay_active",
    "1 when this process publishes the slice, 0 when it stands by.",
    ["slice"],
)

TRANSITIONS = Counter(
    "order_transitions_total", "Facts about orders that moved forward.", ["fact", "to"]
)
ACCEPTED_TO_SHIPPED = Histogram(
    "order_accepted_to_shipped_seconds",
    "Time from accepting an order to dispatching it.",
    buckets=(0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 300),
)
ACCEPTED_ORDERS = Counter("orders_accepted_total", "Orders that the gateway accepted.")
REFUSED_CANCELS = Counter(
    "order_cancels_refused_total", "Cancellations that came too late: the order was dispatched."
)

EVENTS_OF_CLOSED_DAYS = Counter(
    "analytics_events_of_closed_days_total",
    "Events that came when the counts of their day were closed: they are not added any more.",
)

REPLAYS_REQUESTED = Counter(
    "replays_requested_total",
    "Replays that the gateway was asked for: begun, or refused as another one was under way.",
    ["answer"],
)
REPLAY_EVENTS = Counter("replay_events_published_total", "Events published again by replays.")
REPLAYS_RUNNING = Gauge(
    "replays_running",
    "1 while this process works on a replay: publish (its events), count (until analytics has read them).",
    ["stage"],
)
REPLAY_SECONDS = Histogram(
    "replay_seconds",
    "Time of a stage of a replay that it came through.",
    ["stage"],
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)

HTTP_REQUESTS = Counter(
    "http_requests_total", "HTTP requests, by route pattern.", ["method", "route", "status"]
)
HTTP_SECONDS = Histogram(
    "http_request_seconds", "Time to answer an HTTP request.", ["method", "route"], buckets=_BUCKETS
)
WEBSOCKET_CLIENTS = Gauge("websocket_clients", "Connected WebSocket clients.")
WEBSOCKET_DROPPED = Counter(
    "websocket_clients_dropped_total", "WebSocket clients dropped because they read too slowly."
)

POOL_MAX = Gauge("db_pool_max_connections", "Connections that the pool may open.")
POOL_MIN = Gauge("db_pool_min_connections", "Connections that the pool keeps when idle.")
POOL_IN_USE = Gauge("db_pool_in_use_connections", "Connections that are checked out.")
POOL_IDLE = Gauge("db_pool_idle_connections", "Connections that are open and not checked out.")
POOL_WAITING = Gauge("db_pool_waiting", "Threads that wait for a connection.")
POOL_WAIT = Histogram(
    "db_pool_wait_seconds",
    "Time to check a connection out, opening and testing it included.",
    buckets=_BUCKETS,
)
POOL_TIMEOUTS = Counter(
    "db_pool_timeouts_total", "Checkouts that failed because no connection became free in time."
)

FAULTS_ACTIVE = Gauge("faults_active", "1 while faults of this kind are injected.", ["kind"])
FAULTS_INJECTED = Counter("faults_injected_total", "Faults that were injected.", ["kind"])

PROCESSED: Final = "processed"
DUPLICATE: Final = "duplicate"
IGNORED: Final = "ignored"
DEAD_LETTER: Final = "dead_letter"


PUBLISH: Final = "publish"
COUNT: Final = "count"

# shown as 0 from the start: a rate needs the value before the first one
for _answer in ("begun", "refused"):
    REPLAYS_REQUESTED.labels(_answer)


# What OpenMetrics allows for the names and values of an exemplar's labels together.
_EXEMPLAR_LABEL: Final = "correlation_id"
_MAX_EXEMPLAR_VALUE: Final = 128 - len(_EXEMPLAR_LABEL)


def exemplar(correlation_id: str) -> dict[str, str] | None:
    """Return the exemplar of an observation, or None when the id is too long for one."""
    # the client library raises for what is too long, and other producers choose ids as they like
    return {_EXEMPLAR_LABEL: correlation_id} if len(correlation_id) <= _MAX_EXEMPLAR_VALUE else None


@dataclass(frozen=True, slots=True)
class TopicChildren:
    """The children of the per-topic families, looked up once."""

    processed: Counter
    duplicate: Counter
    ignored: Counter
    dead_letter: Counter
    seconds: Histogram


@cache
def children(topic: str) -> TopicChildren:
    """Return a topic's children, created on first use so that they show as 0 from the start."""
    return TopicChildren(
        processed=MESSAGES.labels(topic, PROCESSED),
        duplicate=MESSAGES.labels(topic, DUPLICATE),
        ignored=MESSAGES.labels(topic, IGNORED),
        dead_letter=MESSAGES.labels(topic, DEAD_LETTER),
        seconds=PROCESSING.labels(topic),
    )
