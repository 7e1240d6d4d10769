"""Writes accepted orders: many requests' orders in one transaction (group commit).

A commit waits for the disk, whatever it holds. While one is under way the next requests gather, and
share the next one: under load the cost of a transaction is split between them, and without load an
order waits for nobody.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from order_services.events import Event, EventType, new_id
from order_services.runtime import instrumentation, outbox
from order_services.runtime.database import is_transient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from order_services.gateway.validation import OrderRequest
    from order_services.runtime.database import Database

SERVICE: Final = "gateway"

# One statement and one parameter for all orders: the items are taken out of the payload by the
# server, so that they cross the wire once.
_INSERT: Final = """
    WITH accepted AS (
        SELECT * FROM json_to_recordset(%s::json) AS accepted(
            order_id uuid, event_id uuid, correlation_id text, at timestamptz, payload jsonb)
    ), new_orders AS (
        INSERT INTO orders (order_id, customer_id, items, total_cents, currency, correlation_id,
                            created_at, updated_at)
        SELECT order_id, payload->>'customerId', payload->'items',
               (payload->>'totalCents')::bigint, payload->>'currency', correlation_id, at, at
        FROM accepted
    )
    INSERT INTO order_events
        (order_id, event_id, event_type, event_time, source, correlation_id, payload)
    SELECT order_id, event_id, 'ORDER_CREATED', at, 'gateway', correlation_id, payload
    FROM accepted
"""
# Sorted, so that the batches of two replicas that share keys cannot wait for each other. A key that
# is there is locked, which changes nothing: pruned before it is read, its order would come twice.
_CLAIM: Final = """
    INSERT INTO idempotency_keys (idempotency_key, request_digest, order_id)
    SELECT key, decode(digest, 'hex'), order_id
    FROM json_to_recordset(%s::json) AS claim(key text, digest text, order_id uuid)
    ORDER BY key
    ON CONFLICT (idempotency_key) DO UPDATE SET order_id = excluded.order_id WHERE false
    RETURNING idempotency_key
"""
_CLAIMED: Final = """
    SELECT idempotency_key, request_digest, order_id::text FROM idempotency_keys
    WHERE idempotency_key = ANY(%s)
"""
# A key that a request is using right now stays for the next time.
_PRUNE_KEYS: Final = """
    DELETE FROM idempotency_keys WHERE idempotency_key IN (
        SELECT idempotency_key FROM idempotency_keys
        WHERE created_at < now() - make_interval(secs => %s)
        ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED)
"""
PRUNED_AT_ONCE: Final = 5_000


class KeyReusedError(Exception):
    """An Idempotency-Key came again with another order."""


class NotAcceptedInTimeError(Exception):
    """The database took too long; unless a commit is under way, the order is not accepted."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a request: the order's id, and whether an earlier request had made it."""

    order_id: str
    repeated: bool


@dataclass(slots=True)
class _Waiting:
    """A request that waits for the transaction that its order is in."""

    event: Event
    digest: bytes
    key: str | None
    result: Future[Accepted] = field(default_factory=Future)


class OrderWriter:
    """Accepts orders from many threads and writes them from one."""

    def __init__(
        self,
        database: Database,
        *,
        on_committed: Callable[[], None],
        max_orders: int,
        timeout_seconds: float,
    ) -> None:
        self._database = database
        self._on_committed = on_committed
        self._max_orders = max_orders
        self._timeout_seconds = timeout_seconds
        self._queue: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="order-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    @property
    def dead(self) -> str | None:
        """Why nothing is written any more, or None."""
        return None if self._thread.is_alive() else "the order writer has ended"

    def accept(
        self,
        order: OrderRequest,
        *,
        key: str | None,
        correlation_id: str,
        traceparent: str | None = None,
    ) -> Accepted:
        """Return once the order, its event and its outbox message are committed.

        The same `key` (Idempotency-Key) again returns the order of the first time. Raises
        `KeyReusedError` when it comes with another order, `NotAcceptedInTimeError`, and the
        database's own errors; after an error the same request with the same key is safe.
        """
        event = Event(
            EventType.ORDER_CREATED,
            new_id(),
            order.payload(),
            SERVICE,
            correlation_id,
            traceparent,
        )
        waiting = _Waiting(event, order.digest, key)
        self._queue.put(waiting)
        try:
            return waiting.result.result(self._timeout_seconds)
        except (FutureTimeoutError, CancelledError):
            waiting.result.cancel()
            raise NotAcceptedInTimeError from None

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < self._max_orders:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            # a request that has given up waiting must not become an order behind its back
            self._settle([w for w in batch if w.result.set_running_or_notify_cancel()])

    def _settle(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        try:
            with self._database.begin() as connection:
                outcomes = _write(connection, batch)
        except Exception as error:  # noqa: BLE001  # whatever it is, those who wait must hear of it
            if len(batch) > 1 and not is_transient(error):
                # one order that the database refuses must not cost the others theirs
                for waiting in batch:
                    self._settle([waiting])
                return
            for waiting in batch:
                waiting.result.set_exception(error)
            return
        self._on_committed()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Accepted):
                waiting.result.set_result(outcome)
            else:
                waiting.result.set_exception(outcome)
        instrumentation.ACCEPTED_ORDERS.inc(
            sum(isinstance(o, Accepted) and not o.repeated for o in outcomes)
        )


def _write(connection: Connection, batch: Sequence[_Waiting]) -> list[Accepted | KeyReusedError]:
    owner_of_key = _claim_keys(connection, batch)
    outcomes: list[Accepted | KeyReusedError] = []
    new: list[Event] = []
    for waiting in batch:
        order_id = waiting.event.order_id
        digest, owner = (waiting.digest, order_id)
        if waiting.key is not None:
            digest, owner = owner_of_key[waiting.key]
        if owner == order_id:
            new.append(waiting.event)
            outcomes.append(Accepted(order_id, repeated=False))
        elif digest == waiting.digest:
            outcomes.append(Accepted(owner, repeated=True))
        else:
            outcomes.append(KeyReusedError())
    if new:
        connection.exec_driver_sql(_INSERT, (_json([_row(event) for event in new]),))
        outbox.write(connection, SERVICE, new)
    return outcomes


def _claim_keys(connection: Connection, batch: Sequence[_Waiting]) -> dict[str, tuple[bytes, str]]:
    """Return the digest and the order that own each key, once this transaction commits."""
    claims: dict[str, tuple[bytes, str]] = {}
    for waiting in batch:
        if waiting.key is not None:
            # of two requests with one key in the same batch, the first one owns it
            claims.setdefault(waiting.key, (waiting.digest, waiting.event.order_id))
    if not claims:
        return {}
    rows = [
        {"key": key, "digest": digest.hex(), "order_id": order_id}
        for key, (digest, order_id) in claims.items()
    ]
    won = set(connection.exec_driver_sql(_CLAIM, (_json(rows),)).scalars())
    lost = [key for key in claims if key not in won]
    if lost:
        for key, digest, order_id in connection.exec_driver_sql(_CLAIMED, (lost,)):
            claims[key] = (bytes(digest), order_id)
    return claims


def prune_keys(database: Database, retention_seconds: float) -> bool:
    """Forget idempotency keys that are older; true when there may be more of them."""
    with database.begin() as connection:
        parameters = (retention_seconds, PRUNED_AT_ONCE)
        pruned: int = connection.exec_driver_sql(_PRUNE_KEYS, parameters).rowcount
    return pruned == PRUNED_AT_ONCE


def _row(event: Event) -> dict[str, Any]:
    return {
        "order_id": event.order_id,
        "event_id": event.event_id,
        "correlation_id": event.correlation_id,
        "at": event.timestamp,
        "payload": event.payload,
    }


def _json(rows: list[dict[str, Any]]) -> str:
    return orjson.dumps(rows).decode()
