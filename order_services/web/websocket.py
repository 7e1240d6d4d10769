"""The connected WebSocket clients: a queue for each, and no waiting for any.

`WebSocketProtocol` is the library's with what ASGI has no messages for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import structlog
from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Request, TextMessage

from order_services.process import instrumentation
from order_services.web.answers import RETRY_AFTER_SECONDS, ApiError
from order_services.web.limits import Limits, Unread

MAX_CLIENTS: Final = 200
# About four seconds of events at full load; a client further behind is not reading.
MAX_UNSENT_BYTES: Final = 4 * 1024 * 1024

_log = structlog.get_logger(__name__)


class Hub:
    """Sends text messages to all connected clients.

    A client that does not read what it is sent is dropped as soon as `max_unsent_bytes` wait for
    it: it delays neither the others nor the caller. What clients say is ignored. The server says
    goodbye to all of them when it stops.
    """

    def __init__(
        self, *, max_clients: int = MAX_CLIENTS, max_unsent_bytes: int = MAX_UNSENT_BYTES
    ) -> None:
        self._max_clients = max_clients
        self._max_unsent_bytes = max_unsent_bytes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clients: set[_Client] = set()
        self.dropped = 0

    @property
    def connected(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    @property
    def full(self) -> bool:
        """Whether another client is turned away."""
        return len(self._clients) >= self._max_clients

    def check(self, websocket: WebSocket) -> None:
        """Raise `ApiError` 403 for another site's page, and 503 while the hub is full."""
        headers = websocket.headers
        origin = headers.get("origin")
        # browsers let any page open a WebSocket to any host: only the header tells them apart
        if origin is not None and origin.split("://", 1)[-1] != headers.get("host"):
            raise ApiError(HTTPStatus.FORBIDDEN, "this origin is not allowed", field="Origin")
        if self.full:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "as many clients are connected as this replica serves; try again",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )

    async def serve(self, websocket: WebSocket, greeting: str) -> None:
        """Serve a client until it goes; greet it first. Raises as `check` does."""
        self.check(websocket)  # again: others may have come while the greeting was made
        self._loop = asyncio.get_running_loop()
        client = _Client(websocket, greeting)
        self._add(client)
        try:
            await websocket.accept()
            sending = asyncio.create_task(client.send_on())
            try:
                await client.listen()
            finally:
                sending.cancel()
                with suppress(asyncio.CancelledError):
                    await sending
        finally:
            self._remove(client)

    def broadcast(self, messages: Sequence[str]) -> None:
        """Send the messages to every client, from any thread; returns at once."""
        loop = self._loop
        if not self._clients or not messages or loop is None:
            return
        frames = _frames(messages)
        with suppress(RuntimeError):  # the loop has ended: nobody is left to tell
            loop.call_soon_threadsafe(self._put, frames)

    def _put(self, frames: bytes) -> None:
        for client in tuple(self._clients):
            if client.unsent_bytes + len(frames) > self._max_unsent_bytes:
                self._drop(client)
            else:
                client.put(frames)

    def _add(self, client: _Client) -> None:
        self._clients.add(client)
        instrumentation.WEBSOCKET_CLIENTS.set(len(self._clients))

    def _remove(self, client: _Client) -> None:
        self._clients.discard(client)
        instrumentation.WEBSOCKET_CLIENTS.set(len(self._clients))

    def _drop(self, client: _Client) -> None:
        self._remove(client)
        instrumentation.WEBSOCKET_DROPPED.inc()
        self.dropped += 1
        _log.info("slow client dropped", unsent_bytes=client.unsent_bytes)
        client.abort()


class WebSocketProtocol(WSProtocol):
    """One WebSocket connection; the app finds it as `connection` in the state of its scope."""

    def __init__(self, *arguments: Any, limits: Limits, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits = limits
        self._unread = Unread()

    def handle_connect(self, event: Request) -> None:
        """Begin, and let the app reach what ASGI has no messages for."""
        super().handle_connect(event)
        self.scope["state"]["connection"] = self

    def abort(self) -> None:
        """Cut off a client that does not read."""
        self.transport.abort()

    async def send_frames(self, frames: bytes) -> None:
        """Send frames that were encoded once for many clients, when this one has read enough.

        Raises `ConnectionError` when it has gone.
        """
        await self.writable.wait()
        if self.disconnected or self.close_sent or self.transport.is_closing():
            raise ConnectionResetError
        self.transport.write(frames)

    def check_deadlines(self, now: float) -> None:
        """End the connection of a client that leaves for too long what it was sent."""
        if self._unread.is_overdue(self.transport, now, self._limits.send_seconds):
            self.transport.abort()


class _Client:
    """One client, and what is still to be sent to it."""

    def __init__(self, websocket: WebSocket, greeting: str) -> None:
        self._websocket = websocket
        self._unsent: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self.unsent_bytes = 0
        self.put(_frames([greeting]))

    def put(self, frames: bytes) -> None:
        self._unsent.append(frames)
        self.unsent_bytes += len(frames)
        self._arrived.set()

    def abort(self) -> None:
        # not close: that would wait until the client has read everything
        self._websocket.state.connection.abort()

    async def send_on(self) -> None:
        send_frames = self._websocket.state.connection.send_frames
        with suppress(ConnectionError):
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._unsent:
                    await send_frames(self._unsent[0])
                    self.unsent_bytes -= len(self._unsent.popleft())

    async def listen(self) -> None:
        while (await self._websocket.receive())["type"] != "websocket.disconnect":
            pass


def _frames(messages: Sequence[str]) -> bytes:
    # what a server sends is neither masked nor compressed here: the same bytes serve every client
    encoder = Connection(ConnectionType.SERVER)
    return b"".join(encoder.send(TextMessage(data=message)) for message in messages)
