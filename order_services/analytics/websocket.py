"""The connected WebSocket clients: one thread for all, and no waiting for any."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Final

import structlog
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

from order_services.runtime import instrumentation

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

MAX_CLIENTS: Final = 200
# About four seconds of events at full load; a client further behind is not reading.
MAX_UNSENT_BYTES: Final = 4 * 1024 * 1024
# Finds clients whose machine vanished; also keeps proxies from closing an idle connection.
PING_INTERVAL_SECONDS: Final = 20.0
STOP_SECONDS: Final = 2.0

_log = structlog.get_logger(__name__)


class Hub:
    """Sends text messages to all connected clients.

    A client that does not read what it is sent is dropped as soon as `max_unsent_bytes` wait for
    it: it delays neither the others nor the caller. What clients say is ignored.
    """

    def __init__(
        self,
        *,
        max_clients: int = MAX_CLIENTS,
        max_unsent_bytes: int = MAX_UNSENT_BYTES,
        ping_interval_seconds: float = PING_INTERVAL_SECONDS,
    ) -> None:
        self._max_clients = max_clients
        self._max_unsent_bytes = max_unsent_bytes
        self._ping_interval_seconds = ping_interval_seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="websocket", daemon=True)
        self._clients: set[_Client] = set()
        self.dropped = 0

    @property
    def connected(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def start(self) -> None:
        """Begin to serve clients."""
        self._thread.start()

    def stop(self) -> None:
        """Say goodbye to every client and end; bounded by `STOP_SECONDS`."""
        if not self._thread.is_alive():
            self._loop.close()
            return
        self._loop.call_soon_threadsafe(self._close_all)
        self._thread.join(STOP_SECONDS)

    @property
    def full(self) -> bool:
        """Whether another client would be turned away."""
        return len(self._clients) >= self._max_clients

    def adopt(self, connection: socket.socket, greeting: str) -> None:
        """Take over a client's socket, non-blocking, after its handshake; greet it first."""
        try:
            asyncio.run_coroutine_threadsafe(self._connect(connection, greeting), self._loop)
        except RuntimeError:  # the loop has ended
            connection.close()

    def broadcast(self, messages: Sequence[str]) -> None:
        """Send the messages to every client, from any thread; returns at once."""
        if not self._clients or not messages:
            return
        # server frames are neither masked nor compressed: the same bytes serve every client
        encoder = Connection(ConnectionType.SERVER)
        frames = b"".join(encoder.send(TextMessage(data=message)) for message in messages)
        try:
            self._loop.call_soon_threadsafe(self._send_to_all, frames)
        except RuntimeError:  # the loop has ended: nobody is left to tell
            return

    # What follows runs on the hub's own thread.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_later(self._ping_interval_seconds, self._ping_all)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _connect(self, connection: socket.socket, greeting: str) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: _Client(self, greeting), connection)
        except OSError:
            connection.close()

    def _send_to_all(self, frames: bytes) -> None:
        for client in tuple(self._clients):
            client.send(frames)

    def _ping_all(self) -> None:
        for client in tuple(self._clients):
            client.ping()
        self._loop.call_later(self._ping_interval_seconds, self._ping_all)

    def _close_all(self) -> None:
        for client in tuple(self._clients):
            client.close()
        # one more turn, in which the goodbyes are written
        self._loop.call_later(0.1, self._loop.stop)

    def join(self, client: _Client) -> bool:
        """Count a client in; false when the hub is full."""
        if self.full:
            return False
        self._clients.add(client)
        instrumentation.WEBSOCKET_CLIENTS.set(len(self._clients))
        return True

    def leave(self, client: _Client) -> None:
        """Forget a client whose connection is gone."""
        self._clients.discard(client)
        instrumentation.WEBSOCKET_CLIENTS.set(len(self._clients))

    def too_slow(self, unsent_bytes: int) -> bool:
        """Decide whether a client with this much unsent is to be dropped."""
        if unsent_bytes <= self._max_unsent_bytes:
            return False
        instrumentation.WEBSOCKET_DROPPED.inc()
        self.dropped += 1
        _log.info("slow client dropped", unsent_bytes=unsent_bytes)
        return True


class _Client(asyncio.Protocol):
    """One client's connection after the handshake."""

    def __init__(self, hub: Hub, greeting: str) -> None:
        self._hub = hub
        self._greeting = greeting
        self._protocol = Connection(ConnectionType.SERVER)
        self._transport: asyncio.Transport | None = None
        self._awaits_pong = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # narrows for the type checker
        self._transport = transport
        if not self._hub.join(self):
            self.close(CloseReason.TRY_AGAIN_LATER)
            return
        self._transport.write(self._protocol.send(TextMessage(data=self._greeting)))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self._transport = None
        self._hub.leave(self)

    def send(self, frames: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._hub.too_slow(self._transport.get_write_buffer_size()):
            # abort, not close: close would wait until the client has read everything
            self._transport.abort()
            return
        self._transport.write(frames)

    def ping(self) -> None:
        if self._transport is None or self._protocol.state is not ConnectionState.OPEN:
            return
        if self._awaits_pong:
            self._transport.abort()
            return
        self._awaits_pong = True
        self._transport.write(self._protocol.send(Ping()))

    def close(self, code: CloseReason = CloseReason.GOING_AWAY) -> None:
        if self._transport is None:
            return
        if self._protocol.state is ConnectionState.OPEN:
            self._transport.write(self._protocol.send(CloseConnection(code=code)))
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._awaits_pong = False
        if self._transport is None or self._transport.is_closing():
            return
        try:
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                if isinstance(event, Ping):
                    self._transport.write(self._protocol.send(Pong(payload=event.payload)))
                elif isinstance(event, CloseConnection):
                    if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                        self._transport.write(self._protocol.send(event.response()))
                    self._transport.close()
                    return
        except RemoteProtocolError:
            self._transport.abort()
