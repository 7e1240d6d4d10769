"""The gateway's HTTP interface."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from order_services.domain.events import is_uuid
from order_services.gateway import reading
from order_services.gateway.accepting import (
    SOURCE,
    KeyReusedError,
    NotAcceptedInTimeError,
    OrderWriter,
    OutcomeUnknownError,
)
from order_services.gateway.following import append
from order_services.gateway.status import OrderStatus
from order_services.gateway.validation import parse_idempotency_key, parse_order
from order_services.process import instrumentation
from order_services.storage import outbox
from order_services.storage.decisions import REASON_CUSTOMER, CancelRequest, cancel
from order_services.web.answers import ApiError, Call, database_away, json_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response

    from order_services.gateway.fleet import Fleet
    from order_services.storage.database import Database
    from order_services.web.app import LoopView, ServiceApp, View

DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 200
MAX_DAYS: Final = 366


def add_routes(
    app: ServiceApp,
    *,
    database: Database,
    writer: OrderWriter,
    fleet: Fleet,
    wake_relay: Callable[[], None],
) -> None:
    """Add the interface to an app that has the probes."""
    app.add_on_loop("POST", "/api/orders", _accept(writer))
    app.add("GET", "/api/orders", _page(database))
    app.add("GET", "/api/orders/{order_id}", _one(database))
    app.add("GET", "/api/orders/{order_id}/events", _history(database))
    app.add("POST", "/api/orders/{order_id}/cancel", _cancel(database, wake_relay))
    app.add("GET", "/api/inventory", _inventory(database))
    app.add("GET", "/api/analytics", _analytics(database))
    app.add("GET", "/api/services/status", lambda _: json_response({"services": fleet.status()}))


def _accept(writer: OrderWriter) -> LoopView:
    async def accept(call: Call) -> Response:
        key = parse_idempotency_key(call.header("idempotency-key"))
        order = parse_order(call.json())
        try:
            accepted = await writer.accept(
                order, key=key, correlation_id=call.correlation_id, traceparent=call.traceparent
            )
        except KeyReusedError:
            raise ApiError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "this Idempotency-Key came with another order of this customer before",
                field="Idempotency-Key",
            ) from None
        except NotAcceptedInTimeError:
            raise database_away() from None
        except OutcomeUnknownError:
            # not "try again": without a key that would make a second order
            raise ApiError(
                HTTPStatus.GATEWAY_TIMEOUT,
                "the order may have been accepted: repeat it with the same Idempotency-Key, "
                "or look for it in /api/orders",
            ) from None
        headers = {"Location": f"/api/orders/{accepted.order_id}"}
        if accepted.earlier is not None:
            headers["Idempotency-Replayed"] = "true"
            return json_response(accepted.earlier, HTTPStatus.ACCEPTED, headers)
        body = {
            "orderId": accepted.order_id,
            "status": OrderStatus.ACCEPTED,
            **order.payload(),
            "correlationId": call.correlation_id,
        }
        return json_response(body, HTTPStatus.ACCEPTED, headers)

    return accept


def _page(database: Database) -> View:
    def page(call: Call) -> Response:
        limit = call.integer("limit", DEFAULT_PAGE, low=1, high=MAX_PAGE)
        cursor = call.query.get("cursor")
        if cursor is not None and not is_uuid(cursor):
            raise ApiError(
                HTTPStatus.BAD_REQUEST,
                "cursor must be the nextCursor of the page before",
                field="cursor",
            )
        with database.begin() as connection:
            return json_response(reading.orders(connection, limit=limit, after=cursor))

    return page


def _one(database: Database) -> View:
    def one(call: Call) -> Response:
        order_id = _order_id(call)
        with database.begin() as connection:
            order = reading.order(connection, order_id)
        if order is None:
            raise _no_order(order_id)
        return json_response(order)

    return one


def _history(database: Database) -> View:
    def history(call: Call) -> Response:
        order_id = _order_id(call)
        with database.begin() as connection:
            events = reading.events(connection, order_id)
        # an order is written together with its first event
        if not events:
            raise _no_order(order_id)
        return json_response({"orderId": order_id, "events": events})

    return history


def _cancel(database: Database, wake_relay: Callable[[], None]) -> View:
    def cancel_order(call: Call) -> Response:
        call.ask_for_json()
        order_id = _order_id(call)
        wish = CancelRequest(order_id, REASON_CUSTOMER, call.correlation_id, call.traceparent)
        with database.begin() as connection:
            if reading.order(connection, order_id) is None:
                raise _no_order(order_id)
            outcome = cancel(connection, [wish], SOURCE)
            if outcome.too_late:
                instrumentation.REFUSED_CANCELS.inc()
                raise ApiError(
                    HTTPStatus.CONFLICT, "too late to cancel: the order has been dispatched"
                )
            append(connection, outcome.events)
            outbox.write(connection, SOURCE, outcome.events)
            order = reading.order(connection, order_id)
        if outcome.events:
            wake_relay()
        return json_response(order)

    return cancel_order


def _inventory(database: Database) -> View:
    def inventory(_call: Call) -> Response:
        with database.begin() as connection:
            return json_response({"products": reading.inventory(connection)})

    return inventory


def _analytics(database: Database) -> View:
    def analytics(call: Call) -> Response:
        days = call.integer("days", 30, low=1, high=MAX_DAYS)
        with database.begin() as connection:
            return json_response({"days": reading.daily(connection, days=days)})

    return analytics


def _order_id(call: Call) -> str:
    """Return the id that the address has; raises the 404 of an unknown order for what cannot be one."""
    order_id = call.path["order_id"]
    if not is_uuid(order_id):
        raise _no_order(order_id)
    return order_id


def _no_order(order_id: str) -> ApiError:
    return ApiError(HTTPStatus.NOT_FOUND, f"there is no order {order_id[:64]}", field="orderId")
