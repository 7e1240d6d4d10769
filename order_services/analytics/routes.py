"""The HTTP and WebSocket interface of analytics, and its page."""

from __future__ import annotations

from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from flask import Response

from order_services.analytics.counting import stats
from order_services.runtime.http import (
    RETRY_AFTER_SECONDS,
    ApiError,
    json_response,
    websocket_response,
)

if TYPE_CHECKING:
    from flask import Flask

    from order_services.analytics.live import Live
    from order_services.analytics.websocket import Hub
    from order_services.runtime.database import Database

# the page is whole: whatever found its way into it could load nothing and tell nobody
_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'"
)


def add_routes(app: Flask, *, database: Database, hub: Hub, live: Live) -> None:
    """Add the interface to an app that has the probes."""
    page = files("order_services.analytics").joinpath("live.html").read_bytes()

    @app.get("/")
    def show() -> Response:
        return Response(
            page,
            content_type="text/html; charset=utf-8",
            headers={"Content-Security-Policy": _PAGE_POLICY},
        )

    @app.get("/api/stats")
    def totals() -> Response:
        with database.begin() as connection:
            return json_response(stats(connection))

    @app.get("/ws", websocket=True)
    def connect() -> Response:
        if hub.full:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "as many clients are connected as this replica serves; try again",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        greeting = live.greeting()
        return websocket_response(lambda connection: hub.adopt(connection, greeting))
