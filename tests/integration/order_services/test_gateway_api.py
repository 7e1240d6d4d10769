from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any

import httpx
import orjson
import psycopg2
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select, text

from order_services.domain.catalogue import PRODUCT_OF
from order_services.domain.events import Event, EventType, decode, is_traceparent
from order_services.gateway.accepting import (
    _ACCEPT,
    NotAcceptedInTimeError,
    OrderWriter,
    OutcomeUnknownError,
    prune_keys,
)
from order_services.gateway.fleet import Fleet
from order_services.gateway.following import follow
from order_services.gateway.routes import add_routes
from order_services.gateway.settings import GatewaySettings
from order_services.gateway.validation import OrderRequest, parse_order
from order_services.service.health import Health
from order_services.storage import tables
from order_services.storage.database import Database
from order_services.storage.decisions import dispatch
from order_services.web.app import ServiceApp
from tests.support.serving import serving

ORDER = {"customerId": "c-1", "items": [{"productId": "PROD-002", "quantity": 3}]}
MISSING_ID = "0192f0c1-2345-7000-8000-000000000000"


@pytest.fixture
def settings(database: Any) -> GatewaySettings:
    return GatewaySettings(
        db_host=database.host,
        db_port=database.port,
        db_name=database.name,
        db_user=database.user,
        db_password=database.password,
        db_pool_timeout_seconds=1,
        accept_timeout_seconds=5,
    )


@pytest.fixture
def connected(settings: GatewaySettings) -> Iterator[Database]:
    database = Database(settings)
    yield database
    database.close()


@pytest.fixture
def wakes() -> list[None]:
    return []


@pytest.fixture
def writer(
    connected: Database, settings: GatewaySettings, wakes: list[None]
) -> Iterator[OrderWriter]:
    writer = OrderWriter(
        connected,
        on_committed=lambda: wakes.append(None),
        max_orders=settings.accept_batch_max_orders,
        timeout_seconds=settings.accept_timeout_seconds,
    )
    writer.start()
    yield writer
    assert writer.close(20)


@pytest.fixture
def client(
    connected: Database, writer: OrderWriter, settings: GatewaySettings, wakes: list[None]
) -> Iterator[httpx.Client]:
    app = ServiceApp("gateway", Health(), registry=CollectorRegistry())
    add_routes(
        app,
        database=connected,
        writer=writer,
        fleet=Fleet(settings.service_urls),
        wake_relay=lambda: wakes.append(None),
    )
    with serving(app) as client:
        yield client


def counts(database: Database) -> dict[str, int]:
    with database.begin() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (tables.orders, tables.order_events, tables.outbox)
        }


def published(database: Database) -> list[Event]:
    with database.begin() as connection:
        rows = connection.execute(text("SELECT value FROM outbox ORDER BY id")).scalars().all()
    return [decode(bytes(row)) for row in rows]


def accept(client: httpx.Client, **headers: str) -> str:
    answer = client.post("/api/orders", json=ORDER, headers=headers)
    assert answer.status_code == HTTPStatus.ACCEPTED
    return str(answer.json()["orderId"])


def report(database: Database, order_id: str, *event_types: EventType) -> None:
    with database.begin() as connection:
        events = [Event(kind, order_id, {"amountCents": 1}, "test", "c") for kind in event_types]
        follow(events, connection)


def test_an_accepted_order_is_written_with_its_event_and_its_message(
    client: httpx.Client, connected: Database, wakes: list[None]
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = client.post(
        "/api/orders", json=ORDER, headers={"X-Correlation-Id": "shop-7", "traceparent": trace}
    )
    assert answer.status_code == HTTPStatus.ACCEPTED
    order_id = answer.json()["orderId"]
    assert answer.headers["Location"] == f"/api/orders/{order_id}"
    assert answer.headers["X-Correlation-Id"] == "shop-7"
    assert answer.json()["status"] == "accepted"
    assert answer.json()["totalCents"] == 3 * PRODUCT_OF["PROD-002"].price_cents
    assert counts(connected) == {"orders": 1, "order_events": 1, "outbox": 1}
    [event] = published(connected)
    assert event.event_type is EventType.ORDER_CREATED
    assert event.order_id == order_id
    assert event.correlation_id == "shop-7"
    assert event.payload["totalCents"] == answer.json()["totalCents"]
    with connected.begin() as connection:
        row = connection.execute(text("SELECT topic, key, headers FROM outbox")).one()
    assert row.topic == "orders"
    assert bytes(row.key).decode() == order_id
    assert orjson.loads(row.headers)["traceparent"] == trace
    assert wakes
    # what GET says is what POST said
    got = client.get(answer.headers["Location"]).json()
    assert {**got, **answer.json()} == got
    history = client.get(f"/api/orders/{order_id}/events").json()
    assert [event["eventType"] for event in history["events"]] == ["ORDER_CREATED"]


@pytest.mark.parametrize("given", ["", "nonsense", f"00-{'0' * 32}-b7ad6b7169203331-01"])
def test_an_order_without_a_proper_trace_begins_one(
    client: httpx.Client, connected: Database, given: str
) -> None:
    client.post("/api/orders", json=ORDER, headers={"traceparent": given})
    with connected.begin() as connection:
        headers = orjson.loads(connection.execute(text("SELECT headers FROM outbox")).scalar_one())
    assert headers["traceparent"] != given
    assert is_traceparent(headers["traceparent"])


def test_a_bad_order_leaves_nothing(client: httpx.Client, connected: Database) -> None:
    bad = {"customerId": "c-1", "items": [{"productId": "PROD-002", "quantity": 0}]}
    answer = client.post("/api/orders", json=bad)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json()["error"]["field"] == "items[0].quantity"
    assert counts(connected) == {"orders": 0, "order_events": 0, "outbox": 0}


@pytest.mark.parametrize("path", ["", "/events"])
@pytest.mark.parametrize("order_id", [MISSING_ID, "42", "%00", MISSING_ID.upper(), "x" * 5000])
def test_an_unknown_order_is_not_found(client: httpx.Client, order_id: str, path: str) -> None:
    answer = client.get(f"/api/orders/{order_id}{path}")
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.json()["error"]["field"] == "orderId"
    assert (
        client.post(f"/api/orders/{order_id}/cancel", json={}).status_code == HTTPStatus.NOT_FOUND
    )


def test_the_same_key_twice_gives_the_same_order_once(
    client: httpx.Client, connected: Database
) -> None:
    first = accept(client, **{"Idempotency-Key": "k-1"})
    report(connected, first, EventType.PAYMENT_PROCESSING)
    again = client.post("/api/orders", json=ORDER, headers={"Idempotency-Key": "k-1"})
    assert again.status_code == HTTPStatus.ACCEPTED
    assert again.json()["orderId"] == first
    assert again.json()["status"] == "processing"
    assert again.headers["Idempotency-Replayed"] == "true"
    assert counts(connected)["orders"] == 1
    assert len(published(connected)) == 1
    assert accept(client, **{"Idempotency-Key": "k-2"}) != first


def test_the_same_key_with_another_order_is_refused(
    client: httpx.Client, connected: Database
) -> None:
    accept(client, **{"Idempotency-Key": "k-1"})
    other = {**ORDER, "items": [{"productId": "PROD-002", "quantity": 4}]}
    answer = client.post("/api/orders", json=other, headers={"Idempotency-Key": "k-1"})
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert answer.json()["error"]["field"] == "Idempotency-Key"
    assert counts(connected) == {"orders": 1, "order_events": 1, "outbox": 1}


def test_two_customers_may_use_the_same_key(client: httpx.Client, connected: Database) -> None:
    first = accept(client, **{"Idempotency-Key": "1"})
    other = {**ORDER, "customerId": "c-2"}
    for _ in range(2):
        answer = client.post("/api/orders", json=other, headers={"Idempotency-Key": "1"})
        assert answer.status_code == HTTPStatus.ACCEPTED
        assert answer.json()["orderId"] != first
    assert counts(connected) == {"orders": 2, "order_events": 2, "outbox": 2}


@pytest.mark.parametrize("given", [{}, {"Content-Type": "text/plain"}])
def test_a_page_of_somebody_else_cannot_cancel(client: httpx.Client, given: dict[str, str]) -> None:
    order_id = accept(client)
    answer = client.post(f"/api/orders/{order_id}/cancel", headers=given)
    assert answer.status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    assert client.get(f"/api/orders/{order_id}").json()["status"] == "accepted"


@pytest.fixture
def make_writer(connected: Database) -> Iterator[Callable[..., OrderWriter]]:
    with ExitStack() as made:

        def make(**options: Any) -> OrderWriter:
            given: dict[str, Any] = {
                "on_committed": lambda: None,
                "max_orders": 50,
                "timeout_seconds": 30,
            }
            writer = OrderWriter(connected, **(given | options))
            made.callback(writer.close, 20)
            return writer

        yield make


def test_the_same_keys_at_the_same_time_on_two_replicas_give_each_order_once(
    connected: Database, make_writer: Callable[..., OrderWriter]
) -> None:
    replicas = [make_writer(max_orders=7) for _ in range(2)]
    for replica in replicas:
        replica.start()
    order = parse_order(ORDER)
    keys = [f"key-{n}" for n in range(20)]

    async def ask(number: int) -> list[tuple[str, bool]]:
        # each in another order: locks are taken by key, not by arrival
        turn = keys[number:] + keys[:number]
        results = []
        for key in turn if number % 4 else turn[::-1]:
            got = await replicas[number % 2].accept(order, key=key, correlation_id="c")
            results.append((f"{key}={got.order_id}", got.earlier is not None))
        return results

    async def ask_all() -> list[list[tuple[str, bool]]]:
        return await asyncio.gather(*(ask(number) for number in range(16)))

    results = [result for results in asyncio.run(ask_all()) for result in results]
    assert len(results) == 16 * 20
    assert len({name for name, _ in results}) == 20
    assert sum(not repeated for _, repeated in results) == 20
    assert counts(connected) == {"orders": 20, "order_events": 20, "outbox": 20}


async def accept_all(writer: OrderWriter, orders: Sequence[OrderRequest]) -> list[Any]:
    """Ask for all before any is written; returns ids and errors."""
    asked = [
        asyncio.ensure_future(writer.accept(order, key=None, correlation_id="c"))
        for order in orders
    ]
    await asyncio.sleep(0)
    writer.start()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    return [getattr(outcome, "order_id", outcome) for outcome in outcomes]


def test_one_order_that_the_database_refuses_does_not_cost_the_others_theirs(
    connected: Database, make_writer: Callable[..., OrderWriter]
) -> None:
    good = parse_order(ORDER)
    with connected.begin() as connection:
        connection.execute(
            text("ALTER TABLE orders ADD CONSTRAINT nobody CHECK (customer_id <> 'nobody')")
        )
    bad = parse_order({**ORDER, "customerId": "nobody"})
    orders = [bad if n == 4 else good for n in range(9)]
    outcomes = asyncio.run(accept_all(make_writer(), orders))
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Exception)] == [4]
    assert counts(connected)["orders"] == 8


def test_orders_that_come_soon_after_a_transaction_share_the_next_one(
    make_writer: Callable[..., OrderWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("order_services.gateway.accepting.GATHER_SECONDS", 3.0)
    commits: list[float] = []
    writer = make_writer(on_committed=lambda: commits.append(time.monotonic()))
    writer.start()
    order = parse_order(ORDER)

    async def ask() -> set[str]:
        asked = time.monotonic()
        await writer.accept(order, key=None, correlation_id="c")
        assert commits[0] - asked < 2  # nobody came before it: it waits for nobody
        soon = []
        for _ in range(3):
            soon.append(asyncio.create_task(writer.accept(order, key=None, correlation_id="c")))
            await asyncio.sleep(0.05)
        return {waiting.order_id for waiting in await asyncio.gather(*soon)}

    assert len(asyncio.run(ask())) == 3
    assert len(commits) == 2


def test_an_order_that_is_given_up_while_it_waits_is_not_accepted(
    connected: Database, make_writer: Callable[..., OrderWriter]
) -> None:
    writer = make_writer(max_orders=1, timeout_seconds=0.3)
    order = parse_order(ORDER)
    with connected.begin() as connection:
        connection.execute(text("LOCK TABLE orders IN EXCLUSIVE MODE"))
        outcomes = asyncio.run(accept_all(writer, [order, order]))
    # the first was on its way; only the second is known not to become an order
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknownError, NotAcceptedInTimeError]
    writer._timeout_seconds = 30
    last = asyncio.run(writer.accept(order, key=None, correlation_id="c"))
    with connected.begin() as connection:
        ids = set(connection.execute(select(tables.orders.c.order_id)).scalars())
    assert last.order_id in ids
    assert len(ids) == 2


def test_an_order_whose_commit_is_under_way_is_not_to_be_tried_again_without_its_key(
    connected: Database, settings: GatewaySettings, make_writer: Callable[..., OrderWriter]
) -> None:
    writer = make_writer(timeout_seconds=0.3)
    writer.start()
    app = ServiceApp("gateway", Health(), registry=CollectorRegistry())
    add_routes(app, database=connected, writer=writer, fleet=Fleet({}), wake_relay=lambda: None)
    keyed = {"Idempotency-Key": "k-1"}
    with serving(app) as client:
        with connected.begin() as connection:
            connection.execute(text("LOCK TABLE orders IN EXCLUSIVE MODE"))
            answer = client.post("/api/orders", json=ORDER, headers=keyed)
        assert answer.status_code == HTTPStatus.GATEWAY_TIMEOUT
        assert "repeat it with the same Idempotency-Key" in answer.json()["error"]["message"]
        assert "Retry-After" not in answer.headers
        writer._timeout_seconds = 30
        again = client.post("/api/orders", json=ORDER, headers=keyed)
        assert again.status_code == HTTPStatus.ACCEPTED
    assert counts(connected)["orders"] == 1


def test_a_connection_that_is_lost_within_the_commit_leaves_the_outcome_unknown(
    connected: Database,
    make_writer: Callable[..., OrderWriter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer = make_writer()

    dialect = connected.engine.dialect
    commit = dialect.do_commit

    # a fake: between the COMMIT and its answer there is no moment that a test could choose
    def commit_and_lose(connection: Any) -> None:
        commit(connection)
        raise psycopg2.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(dialect, "do_commit", commit_and_lose)
    [outcome] = asyncio.run(accept_all(writer, [parse_order(ORDER)]))
    monkeypatch.undo()
    assert isinstance(outcome, OutcomeUnknownError)
    assert counts(connected)["orders"] == 1


def test_pages_are_newest_first_and_stay_put_while_orders_come_in(client: httpx.Client) -> None:
    ids = [accept(client) for _ in range(5)]

    def page(**query: Any) -> dict[str, Any]:
        answer = client.get("/api/orders", params=query)
        assert answer.status_code == HTTPStatus.OK
        return dict(answer.json())

    newest_first = sorted(ids, reverse=True)
    first = page(limit=2)
    assert [order["orderId"] for order in first["orders"]] == newest_first[:2]
    accept(client)
    second = page(limit=2, cursor=first["nextCursor"])
    assert [order["orderId"] for order in second["orders"]] == newest_first[2:4]
    third = page(limit=2, cursor=second["nextCursor"])
    assert [order["orderId"] for order in third["orders"]] == newest_first[4:]
    assert third["nextCursor"] is None
    assert len(page()["orders"]) == 6


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=201", "limit"), ("limit=x", "limit"), ("cursor=x", "cursor")],
)
def test_a_bad_page_is_refused_by_name(client: httpx.Client, query: str, field: str) -> None:
    answer = client.get(f"/api/orders?{query}")
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json()["error"]["field"] == field


def test_a_cancel_is_published_once_and_is_idempotent(
    client: httpx.Client, connected: Database, wakes: list[None]
) -> None:
    order_id = accept(client)
    del wakes[:]
    for _ in range(2):
        answer = client.post(f"/api/orders/{order_id}/cancel", json={})
        assert answer.status_code == HTTPStatus.OK
        assert answer.json()["status"] == "cancelling"
        assert answer.json()["cancelReason"] == "customer"
    assert len(wakes) == 1
    events = [event.event_type for event in published(connected)]
    assert events == [EventType.ORDER_CREATED, EventType.ORDER_CANCELLED]
    history = client.get(f"/api/orders/{order_id}/events").json()
    assert [event["eventType"] for event in history["events"]] == events


def test_a_cancel_after_the_dispatch_is_refused(client: httpx.Client, connected: Database) -> None:
    order_id = accept(client)
    with connected.begin() as connection:
        assert dispatch(connection, [order_id]) == {order_id}
    answer = client.post(f"/api/orders/{order_id}/cancel", json={})
    assert answer.status_code == HTTPStatus.CONFLICT
    assert [event.event_type for event in published(connected)] == [EventType.ORDER_CREATED]
    got = client.get(f"/api/orders/{order_id}").json()
    assert got["status"] == "accepted"


def test_inventory_shows_the_catalogue(client: httpx.Client) -> None:
    answer = client.get("/api/inventory").json()
    assert {product["productId"] for product in answer["products"]} == set(PRODUCT_OF)
    for product in answer["products"]:
        assert product["priceCents"] == PRODUCT_OF[product["productId"]].price_cents
        assert product["available"] == product["stocked"] - product["taken"]


def test_services_that_do_not_answer_are_shown_as_such(client: httpx.Client) -> None:
    answer = client.get("/api/services/status")
    assert answer.status_code == HTTPStatus.OK
    states = {service["service"]: service for service in answer.json()["services"]}
    assert set(states) == {"payment", "inventory", "shipping", "analytics"}


@pytest.fixture
def away_client(settings: GatewaySettings) -> Iterator[httpx.Client]:
    database = Database(settings.model_copy(update={"db_port": 1}))
    writer = OrderWriter(database, on_committed=lambda: None, max_orders=50, timeout_seconds=20)
    writer.start()
    app = ServiceApp("gateway", Health(), registry=CollectorRegistry())
    add_routes(app, database=database, writer=writer, fleet=Fleet({}), wake_relay=lambda: None)
    with serving(app) as client:
        yield client
    assert writer.close(20)
    database.close()


@pytest.mark.parametrize("path", ["/api/orders", f"/api/orders/{MISSING_ID}", "/api/inventory"])
def test_reading_without_a_database_asks_to_retry(away_client: httpx.Client, path: str) -> None:
    assert_asks_to_retry(away_client.get(path))


def test_accepting_without_a_database_asks_to_retry(away_client: httpx.Client) -> None:
    assert_asks_to_retry(away_client.post("/api/orders", json=ORDER))
    keyed = {"Idempotency-Key": str(uuid.uuid4())}
    assert_asks_to_retry(away_client.post("/api/orders", json=ORDER, headers=keyed))
    assert_asks_to_retry(away_client.post(f"/api/orders/{MISSING_ID}/cancel", json={}))


def assert_asks_to_retry(answer: httpx.Response) -> None:
    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert int(answer.headers["Retry-After"]) > 0
    assert "127.0.0.1" not in answer.text
    assert "postgres" not in answer.text


def test_old_idempotency_keys_are_forgotten_and_newer_ones_and_those_in_use_are_kept(
    connected: Database, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("order_services.gateway.accepting.PRUNED_AT_ONCE", 2)
    for key in ("old-1", "old-2", "old-3", "in-use", "new"):
        accept(client, **{"Idempotency-Key": key})
    with connected.begin() as connection:
        connection.execute(
            text(
                "UPDATE idempotency_keys SET created_at = now() - interval '2 h' "
                "WHERE idempotency_key <> :key"
            ),
            {"key": "new"},
        )
    with connected.begin() as busy:
        # as a request that comes again does: nothing may take the key from it now
        order = {"key": "in-use", "digest": "00", "order_id": MISSING_ID, "payload": ORDER}
        assert busy.exec_driver_sql(_ACCEPT, (orjson.dumps([order]).decode(),)).all() == []
        assert prune_keys(connected, 3600) is True
        assert prune_keys(connected, 3600) is False
    with connected.begin() as connection:
        left = set(connection.execute(select(tables.idempotency_keys.c.idempotency_key)).scalars())
    assert left == {"in-use", "new"}
