"""The HTTP and WebSocket interface of analytics, and its page."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from order_services.analytics.counting import stats
from order_services.web.answers import Call, json_response

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from order_services.analytics.live import Live
    from order_services.storage.database import Database
    from order_services.web.app import ServiceApp
    from order_services.web.websocket import Hub

# the page is whole: whatever found its way into it could load nothing and tell nobody
_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'"
)


def add_routes(app: ServiceApp, *, database: Database, hub: Hub, live: Live) -> None:
    """Add the interface to an app that has the probes."""
    page = files("order_services.analytics").joinpath("live.html").read_bytes()

    async def show(_call: Call) -> Response:
        return Response(
            page,
            headers={
                "Content-Type": "text/html; charset=utf-8",
                "Content-Security-Policy": _PAGE_POLICY,
            },
        )

    def totals(_call: Call) -> Response:
        with database.begin() as connection:
            return json_response(stats(connection))

    async def connected(websocket: WebSocket) -> None:
        hub.check(websocket)
        await hub.serve(websocket, await app.threads.run(live.greeting))

    app.add_on_loop("GET", "/", show)
    app.add("GET", "/api/stats", totals)
    app.add_websocket("/ws", connected)
