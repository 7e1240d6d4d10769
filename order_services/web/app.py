"""The ASGI app of a service: its probes and views, with ids, counts, and JSON for every error.

Views wait, so each runs on a thread of a small pool. What must be answered while all of them wait
runs on the server's loop: /health and /metrics, and coroutines, which wait without a thread. /ready
asks the database, on a thread of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from http import HTTPStatus
from typing import Final, Protocol, TypeAlias

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response
from starlette.routing import Route, Router, WebSocketRoute
from starlette.status import WS_1011_INTERNAL_ERROR
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from order_services.process import instrumentation
from order_services.web.answers import (
    ApiError,
    Call,
    json_response,
    refusal_of,
    upgrade_required,
)
from order_services.web.threads import Threads

THREADS: Final = 8
READY_SECONDS: Final = 2.0

View: TypeAlias = Callable[[Call], Response]
LoopView: TypeAlias = Callable[[Call], Awaitable[Response]]
Connected: TypeAlias = Callable[[WebSocket], Awaitable[None]]


class Health(Protocol):
    """What a service says about itself; each answer lists reasons, none when all is well."""

    def alive(self) -> Sequence[str]:
        """Say why the process should be restarted."""

    def ready(self) -> Sequence[str]:
        """Say why no work should be sent here."""

    def degraded(self) -> Sequence[str]:
        """Say what does not work while work can be sent here all the same."""


class ClientGoneError(Exception):
    """The client went away, or was refused, before its request was whole."""


class ServiceApp:
    """An ASGI app with /health, /ready and /metrics, to which a service adds its views.

    What answers may raise `ApiError`.
    """

    def __init__(
        self,
        name: str,
        health: Health,
        *,
        registry: CollectorRegistry = REGISTRY,
        threads: int = THREADS,
    ) -> None:
        self.threads = Threads(threads, "http-view")
        self._readiness = Threads(1, "readiness")
        self._paths: dict[str, _Path] = {}
        self._router = Router(redirect_slashes=False, default=self._unknown)
        _add_probes(self, name, health, self._readiness)
        _add_metrics(self, registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one WebSocket client."""
        # most requests are for an address without variable parts: no need to try one after the other
        exact = self._paths.get(scope["path"]) if scope["type"] == "http" else None
        if exact is not None:
            await exact(scope, receive, send)
        else:
            await self._router(scope, receive, send)

    def add(self, method: str, path: str, view: View) -> None:
        """Have `view` answer `method` on `path`, in which `{name}` stands for a variable part."""
        self.add_on_loop(method, path, lambda call: self.threads.run(view, call))

    def add_on_loop(self, method: str, path: str, view: LoopView) -> None:
        """Have a coroutine answer: it needs no thread, and must not wait otherwise than by `await`."""
        known = self._paths.get(path)
        if known is None:
            known = self._paths[path] = _Path(path)
            self._router.routes.append(Route(path, known))
        known.views[method] = view

    def add_websocket(self, path: str, connected: Connected) -> None:
        """Have `connected` serve each client that connects to `path`, its handshake included."""

        async def serve(websocket: WebSocket) -> None:
            try:
                await connected(websocket)
            except Exception as error:  # noqa: BLE001  # whatever it is, the client gets JSON
                refusal = refusal_of(error, path, "")
                if websocket.application_state is WebSocketState.CONNECTING:
                    await _deny(websocket, refusal)
                else:
                    await websocket.close(WS_1011_INTERNAL_ERROR)

        self._router.routes.append(WebSocketRoute(path, serve))
        self.add_on_loop("GET", path, _ask_for_upgrade)

    def close(self, timeout_seconds: float) -> bool:
        """End the threads once no request is left; false when that took too long."""
        until = time.monotonic() + timeout_seconds
        closed = self.threads.close(timeout_seconds)
        return self._readiness.close(max(0.0, until - time.monotonic())) and closed

    async def _unknown(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"][:200]
        if scope["type"] == "websocket":
            refusal = ApiError(HTTPStatus.NOT_FOUND, f"there is no WebSocket at {path}")
            await _deny(WebSocket(scope, receive, send), refusal)
            return

        async def refuse(_call: Call) -> Response:
            raise ApiError(HTTPStatus.NOT_FOUND, f"there is nothing at {path}")

        # not the path: every address that somebody tries would make a series of its own
        await _answer(("any", "unmatched"), refuse, Call(scope), receive, send)


class _Path:
    """What answers the methods of one address."""

    def __init__(self, path: str) -> None:
        self.views: dict[str, LoopView] = {}
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method: str = scope["method"]
        call = Call(scope, scope.get("path_params", {}))
        # the server leaves the body out
        view = self.views.get("GET" if method == "HEAD" else method)
        if view is None:
            # as a label, a method could be anything
            await _answer(("any", self._path), self._not_allowed, call, receive, send)
        else:
            await _answer((method, self._path), view, call, receive, send)

    async def _not_allowed(self, call: Call) -> Response:
        raise ApiError(
            HTTPStatus.METHOD_NOT_ALLOWED,
            f"{call.scope['method']} is not allowed here",
            headers={"Allow": ", ".join(sorted(self.views))},
        )


async def _answer(
    labels: tuple[str, str], view: LoopView, call: Call, receive: Receive, send: Send
) -> None:
    started = time.perf_counter()
    try:
        call.body = await _read_body(receive)
        response = await view(call)
    except ClientGoneError:
        return
    except Exception as error:  # noqa: BLE001  # whatever it is, the client gets JSON
        response = refusal_of(error, labels[1], call.correlation_id).response()
    _count(labels, response.status_code, started, call.correlation_id)
    response.raw_headers += [
        (b"x-correlation-id", call.correlation_id.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    connection = call.scope.get("state", {}).get("connection")  # our server's, where it is ours
    if connection is None:
        await response(call.scope, receive, send)
    else:
        await connection.send_whole(response.status_code, response.raw_headers, response.body)


async def _read_body(receive: Receive) -> bytes:
    # the server bounds its size and its time
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        body += part
        if not message.get("more_body", False):
            return body


def _count(labels: tuple[str, str], status: int, started: float, correlation: str) -> None:
    requests, seconds = _children(*labels, status)
    requests.inc()
    seconds.observe(time.perf_counter() - started, {"correlation_id": correlation})


@cache
def _children(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return (
        instrumentation.HTTP_REQUESTS.labels(method, route, str(status)),
        instrumentation.HTTP_SECONDS.labels(method, route),
    )


def _add_probes(app: ServiceApp, name: str, health: Health, own_thread: Threads) -> None:
    asking: asyncio.Future[tuple[Sequence[str], Sequence[str]]] | None = None

    def ask() -> tuple[Sequence[str], Sequence[str]]:
        return health.ready(), health.degraded()

    def answer(status: str, reasons: Sequence[str], code: HTTPStatus) -> Response:
        return json_response({"service": name, "status": status, "reasons": list(reasons)}, code)

    async def alive(_call: Call) -> Response:
        reasons = health.alive()
        if reasons:
            return answer("stuck", reasons, HTTPStatus.SERVICE_UNAVAILABLE)
        return answer("alive", (), HTTPStatus.OK)

    async def ready(_call: Call) -> Response:
        nonlocal asking
        # those who ask while the database is being asked hear the same
        if asking is None or asking.done() or asking.get_loop() is not asyncio.get_running_loop():
            asking = asyncio.ensure_future(own_thread.run(ask))
        try:
            reasons, degraded = await asyncio.wait_for(asyncio.shield(asking), READY_SECONDS)
        except TimeoutError:
            reasons, degraded = [f"no answer of the service's parts within {READY_SECONDS:g} s"], ()
        if reasons:
            return answer("not ready", [*reasons, *degraded], HTTPStatus.SERVICE_UNAVAILABLE)
        return answer("degraded" if degraded else "ready", degraded, HTTPStatus.OK)

    app.add_on_loop("GET", "/health", alive)
    app.add_on_loop("GET", "/ready", ready)


def _add_metrics(app: ServiceApp, registry: CollectorRegistry) -> None:
    async def metrics(call: Call) -> Response:
        encode, content_type = choose_encoder(call.header("accept") or "")
        return Response(encode(registry), headers={"Content-Type": content_type})

    app.add_on_loop("GET", "/metrics", metrics)


async def _deny(websocket: WebSocket, refusal: ApiError) -> None:
    response = refusal.response()
    # the connection is not used again, and a client that is not told loses its next request
    response.headers["Connection"] = "close"
    await websocket.send_denial_response(response)


async def _ask_for_upgrade(_call: Call) -> Response:
    raise upgrade_required()
