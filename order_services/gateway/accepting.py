"""Writes accepted orders: many requests' orders in one transaction (group commit).

A commit waits for the disk, whatever it holds. While one is under way the next requests gather, and
share the next one: under load the cost of a transaction is split between them, and without load an
order waits for nobody.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy.exc import DBAPIError

from order_services.domain.events import Event, EventType, new_id
from order_services.gateway import reading
from order_services.process import instrumentation
from order_services.storage import outbox
from order_services.storage.database import is_transient

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from order_services.gateway.validation import OrderRequest
    from order_services.storage.database import Database

SOURCE: Final = "gateway"

# One statement and one parameter for all orders: the items are taken out of the payload by the
# server, so that they cross the wire once. An order whose key is another one's comes to nothing.
# Keys are sorted, so that the batches of two replicas that share some cannot wait for each other. A key
# that is there is locked, which changes nothing: pruned before it is read, its order would come twice.
_ACCEPT: Final = """
    WITH given AS (
        SELECT * FROM json_to_recordset(%s::json) AS given(
            order_id uuid, event_id uuid, correlation_id text, at timestamptz, payload jsonb,
            key text, digest text)
    ), claimed AS (
        INSERT INTO idempotency_keys (customer_id, idempotency_key, request_digest, order_id)
        SELECT payload->>'customerId', key, decode(digest, 'hex'), order_id
        FROM given WHERE key IS NOT NULL
        ORDER BY payload->>'customerId', key
        ON CONFLICT (customer_id, idempotency_key)
            DO UPDATE SET order_id = excluded.order_id WHERE false
        RETURNING order_id
    ), accepted AS (
        SELECT * FROM given WHERE key IS NULL OR order_id IN (SELECT order_id FROM claimed)
    ), new_orders AS (
        INSERT INTO orders (order_id, customer_id, items, total_cents, currency, correlation_id,
                            created_at)
        SELECT order_id, payload->>'customerId', payload->'items',
               (payload->>'totalCents')::bigint, payload->>'currency', correlation_id, at
        FROM accepted
    )
    INSERT INTO order_events
        (order_id, event_id, event_type, event_time, source, correlation_id, payload)
    SELECT order_id, event_id, 'ORDER_CREATED', at, 'gateway', correlation_id, payload
    FROM accepted
    RETURNING order_id::text
"""
_CLAIMED: Final = """
    SELECT customer_id, idempotency_key, request_digest, order_id::text FROM idempotency_keys
    WHERE (customer_id, idempotency_key) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""
# A key that a request is using right now stays for the next time.
_PRUNE_KEYS: Final = """
    DELETE FROM idempotency_keys WHERE (customer_id, idempotency_key) IN (
        SELECT customer_id, idempotency_key FROM idempotency_keys
        WHERE created_at < now() - make_interval(secs => %s)
        ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED)
"""
PRUNED_AT_ONCE: Final = 5_000
GIVE_UP_INTERVAL_SECONDS: Final = 0.25
# A transaction costs as much for one order as for ten: those that come so soon after one began share
# the next, unless they are many. After a pause the first order waits for nobody.
GATHER_SECONDS: Final = 0.02
GATHERED_ORDERS: Final = 32


class KeyReusedError(Exception):
    """A customer's Idempotency-Key came again with another order."""


class NotAcceptedInTimeError(Exception):
    """The database took too long; the order is not accepted, and will not be."""


class OutcomeUnknownError(Exception):
    """The order was on its way into the database: it may be accepted, or not."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a request: the order's id, and `earlier` as it is now if a request had made it."""

    order_id: str
    earlier: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that waits for the transaction that its order is in."""

    event: Event
    digest: bytes
    key: tuple[str, str] | None  # the customer's id and its Idempotency-Key
    deadline: float
    result: asyncio.Future[Accepted]

    def settle(self, outcome: Accepted | Exception) -> None:
        if self.result.done():
            return  # too late: the client was told that it took too long, or has gone away
        if isinstance(outcome, Accepted):
            self.result.set_result(outcome)
        else:
            self.result.set_exception(outcome)


class OrderWriter:
    """Accepts orders on one asyncio loop, and writes them from a thread."""

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
        self._queue: deque[_Waiting] = deque()
        self._under_way: Sequence[_Waiting] = ()
        self._arrived = threading.Condition()
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._write_on, name="order-writer", daemon=True),
            threading.Thread(target=self._give_up_late, name="order-deadlines", daemon=True),
        ]

    def start(self) -> None:
        """Begin to write."""
        for thread in self._threads:
            thread.start()

    def close(self, timeout_seconds: float) -> bool:
        """Write what waits, and end; false when that took too long."""
        with self._arrived:
            self._closed.set()
            self._arrived.notify()
        until = time.monotonic() + timeout_seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def dead(self) -> str | None:
        """Why nothing is written any more, or None."""
        alive = self._closed.is_set() or all(thread.is_alive() for thread in self._threads)
        return None if alive else "the order writer has ended"

    async def accept(
        self,
        order: OrderRequest,
        *,
        key: str | None,
        correlation_id: str,
        traceparent: str | None = None,
    ) -> Accepted:
        """Return when the order, its event and its message are committed.

        A customer's `key` (Idempotency-Key) again gives the order of the first time. Raises
        `KeyReusedError` when it comes with another order, `NotAcceptedInTimeError`,
        `OutcomeUnknownError`, and the database's own errors; after an error the same request with the
        same key is safe.
        """
        event = Event(
            EventType.ORDER_CREATED,
            new_id(),
            order.payload(),
            SOURCE,
            correlation_id,
            traceparent,
        )
        waiting = _Waiting(
            event,
            order.digest,
            None if key is None else (order.customer_id, key),
            time.monotonic() + self._timeout_seconds,
            asyncio.get_running_loop().create_future(),
        )
        with self._arrived:
            self._queue.append(waiting)
            # to wake the writer for each order would cost as much as to queue it
            if len(self._queue) in (1, GATHERED_ORDERS):
                self._arrived.notify()
        return await waiting.result

    def _write_on(self) -> None:
        began = float("-inf")
        while True:
            with self._arrived:
                self._under_way = ()
                while not self._queue:
                    if self._closed.is_set():
                        return
                    self._arrived.wait()
                due_at = began + GATHER_SECONDS
                self._arrived.wait_for(self._has_gathered, max(0.0, due_at - time.monotonic()))
                began = time.monotonic()
                count = min(len(self._queue), self._max_orders)
                batch = self._under_way = [self._queue.popleft() for _ in range(count)]
            if batch:  # all may have given up meanwhile
                self._settle(batch)

    def _has_gathered(self) -> bool:
        return len(self._queue) >= GATHERED_ORDERS or self._closed.is_set()

    def _give_up_late(self) -> None:
        while not self._closed.wait(GIVE_UP_INTERVAL_SECONDS):
            now = time.monotonic()
            with self._arrived:
                # only what is queued can be given up: it must not become an order behind a back
                late: list[tuple[_Waiting, Exception]] = [
                    (each, OutcomeUnknownError()) for each in self._under_way if each.deadline < now
                ]
                while self._queue and self._queue[0].deadline < now:
                    late.append((self._queue.popleft(), NotAcceptedInTimeError()))
            _deliver(late)

    def _settle(self, batch: Sequence[_Waiting]) -> None:
        is_written = False
        try:
            with self._database.begin() as connection:
                outcomes = _write(connection, batch)
                is_written = True
        except Exception as error:  # noqa: BLE001  # whatever it is, those who wait must hear of it
            if len(batch) > 1 and not is_transient(error):
                # one order that the database refuses must not cost the others theirs
                for waiting in batch:
                    self._settle([waiting])
                return
            if is_written and not _is_refusal(error):
                error = OutcomeUnknownError()  # the commit was asked for, and never answered
            _deliver([(waiting, error) for waiting in batch])
            return
        self._on_committed()
        _deliver(list(zip(batch, outcomes, strict=True)))
        instrumentation.ACCEPTED_ORDERS.inc(
            sum(isinstance(o, Accepted) and o.earlier is None for o in outcomes)
        )


def _deliver(settled: Sequence[tuple[_Waiting, Accepted | Exception]]) -> None:
    """Give those who wait their answers, and wake their loop once for all of them."""
    if not settled:
        return

    def settle() -> None:
        for waiting, outcome in settled:
            waiting.settle(outcome)

    try:
        settled[0][0].result.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:
        return  # the loop has ended, and with it those who waited


def _is_refusal(error: Exception) -> bool:
    """Say whether the database has answered, and so has not committed."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "pgcode", None) is not None


def _write(connection: Connection, batch: Sequence[_Waiting]) -> list[Accepted | KeyReusedError]:
    # of two requests with one key in the same batch, the first one owns it
    owners: dict[tuple[str, str], _Waiting] = {}
    first = [
        each for each in batch if each.key is None or owners.setdefault(each.key, each) is each
    ]
    rows = orjson.dumps([_row(each) for each in first]).decode()
    new = set(connection.exec_driver_sql(_ACCEPT, (rows,)).scalars())
    outbox.write(connection, SOURCE, [each.event for each in first if each.event.order_id in new])
    earlier = [each.key for each in batch if each.key and each.event.order_id not in new]
    owner_of_key = _owners(connection, earlier) if earlier else {}
    return [_outcome(connection, each, new, owner_of_key) for each in batch]


def _outcome(
    connection: Connection,
    waiting: _Waiting,
    new: Collection[str],
    owner_of_key: Mapping[tuple[str, str], tuple[bytes, str]],
) -> Accepted | KeyReusedError:
    if waiting.event.order_id in new or waiting.key is None:
        return Accepted(waiting.event.order_id)
    digest, owner = owner_of_key[waiting.key]
    if digest != waiting.digest:
        return KeyReusedError()
    return Accepted(owner, earlier=reading.order(connection, owner) or {})


def _owners(
    connection: Connection, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], tuple[bytes, str]]:
    """Return the digest and the order that own each key."""
    columns = ([customer for customer, _ in keys], [key for _, key in keys])
    return {
        (customer, key): (bytes(digest), order_id)
        for customer, key, digest, order_id in connection.exec_driver_sql(_CLAIMED, columns)
    }


def prune_keys(database: Database, retention_seconds: float) -> bool:
    """Forget idempotency keys that are older; true when there may be more of them."""
    with database.begin() as connection:
        parameters = (retention_seconds, PRUNED_AT_ONCE)
        pruned: int = connection.exec_driver_sql(_PRUNE_KEYS, parameters).rowcount
    return pruned == PRUNED_AT_ONCE


def _row(waiting: _Waiting) -> dict[str, Any]:
    event = waiting.event
    return {
        "order_id": event.order_id,
        "event_id": event.event_id,
        "correlation_id": event.correlation_id,
        "at": event.timestamp,
        "payload": event.payload,
        "key": None if waiting.key is None else waiting.key[1],
        "digest": waiting.digest.hex(),
    }
