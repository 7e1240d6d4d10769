"""The gateway's HTTP interface."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from flask import request

from order_services.cancellation import REASON_CUSTOMER, CancelRequest, cancel
from order_services.events import is_uuid
from order_services.gateway import reading
from order_services.gateway.accepting import (
    SERVICE,
    Accepted,
    KeyReusedError,
    NotAcceptedInTimeError,
    OrderWriter,
)
from order_services.gateway.following import advance
from order_services.gateway.status import OrderStatus
from order_services.gateway.validation import parse_idempotency_key, parse_order
from order_services.runtime import instrumentation, outbox
from order_services.runtime.direct import DirectAnswer, DirectRequest, Later, add_direct_route
from order_services.runtime.http import (
    ApiError,
    correlation_id,
    database_away,
    json_response,
    query_integer,
    traceparent,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from flask import Flask, Response

    from order_services.gateway.fleet import Fleet
    from order_services.runtime.database import Database

DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 200
MAX_DAYS: Final = 366


def add_routes(
    app: Flask,
    *,
    database: Database,
    writer: OrderWriter,
    fleet: Fleet,
    wake_relay: Callable[[], None],
) -> None:
    """Add the interface to an app that has the probes."""
    _add_accept(app, writer)
    _add_orders(app, database)
    _add_cancel(app, database, wake_relay)
    _add_overviews(app, database, fleet)


def _add_accept(app: Flask, writer: OrderWriter) -> None:
    def accept(request: DirectRequest) -> Later[Accepted]:
        key = parse_idempotency_key(request.headers.get("idempotency-key"))
        order = parse_order(request.json())

        def answer(accepting: Future[Accepted]) -> DirectAnswer:
            try:
                accepted = accepting.result()
            except KeyReusedError:
                raise ApiError(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    "this Idempotency-Key came with another order before",
                    field="Idempotency-Key",
                ) from None
            except NotAcceptedInTimeError:
                raise database_away() from None
            headers = {"Location": f"/api/orders/{accepted.order_id}"}
            if accepted.earlier is not None:
                headers["Idempotency-Replayed"] = "true"
                return DirectAnswer(HTTPStatus.ACCEPTED, accepted.earlier, headers)
            body = {
                "orderId": accepted.order_id,
                "status": OrderStatus.ACCEPTED,
                **order.payload(),
                "correlationId": request.correlation_id,
            }
            return DirectAnswer(HTTPStatus.ACCEPTED, body, headers)

        accepting = writer.accept(
            order,
            key=key,
            correlation_id=request.correlation_id,
            traceparent=request.traceparent,
        )
        return Later(accepting, answer)

    add_direct_route(app, "POST", "/api/orders", accept)


def _add_orders(app: Flask, database: Database) -> None:
    @app.get("/api/orders")
    def page() -> Response:
        limit = query_integer("limit", DEFAULT_PAGE, low=1, high=MAX_PAGE)
        cursor = request.args.get("cursor")
        if cursor is not None and not is_uuid(cursor):
            raise ApiError(
                HTTPStatus.BAD_REQUEST,
                "cursor must be the nextCursor of the page before",
                field="cursor",
            )
        with database.begin() as connection:
            return json_response(reading.orders(connection, limit=limit, after=cursor))

    @app.get("/api/orders/<order_id>")
    def one(order_id: str) -> Response:
        _check_form(order_id)
        with database.begin() as connection:
            order = reading.order(connection, order_id)
        if order is None:
            raise _no_order(order_id)
        return json_response(order)

    @app.get("/api/orders/<order_id>/events")
    def history(order_id: str) -> Response:
        _check_form(order_id)
        with database.begin() as connection:
            events = reading.events(connection, order_id)
        # an order is written together with its first event
        if not events:
            raise _no_order(order_id)
        return json_response({"orderId": order_id, "events": events})


def _add_cancel(app: Flask, database: Database, wake_relay: Callable[[], None]) -> None:
    @app.post("/api/orders/<order_id>/cancel")
    def cancel_order(order_id: str) -> Response:
        _check_form(order_id)
        wish = CancelRequest(order_id, REASON_CUSTOMER, correlation_id(), traceparent())
        with database.begin() as connection:
            if reading.order(connection, order_id) is None:
                raise _no_order(order_id)
            outcome = cancel(connection, [wish], SERVICE)
            if outcome.too_late:
                instrumentation.REFUSED_CANCELS.inc()
                raise ApiError(
                    HTTPStatus.CONFLICT, "too late to cancel: the order has been dispatched"
                )
            advance(connection, outcome.events)
            outbox.write(connection, SERVICE, outcome.events)
            order = reading.order(connection, order_id)
        if outcome.events:
            wake_relay()
        return json_response(order)


def _add_overviews(app: Flask, database: Database, fleet: Fleet) -> None:
    @app.get("/api/inventory")
    def inventory() -> Response:
        with database.begin() as connection:
            return json_response({"products": reading.inventory(connection)})

    @app.get("/api/analytics")
    def analytics() -> Response:
        days = query_integer("days", 30, low=1, high=MAX_DAYS)
        with database.begin() as connection:
            return json_response({"days": reading.daily(connection, days=days)})

    @app.get("/api/services/status")
    def services() -> Response:
        return json_response({"services": fleet.status()})


def _check_form(order_id: str) -> None:
    """Raise the 404 of an unknown order for what cannot be an order's id."""
    if not is_uuid(order_id):
        raise _no_order(order_id)


def _no_order(order_id: str) -> ApiError:
    return ApiError(HTTPStatus.NOT_FOUND, f"there is no order {order_id[:64]}", field="orderId")
