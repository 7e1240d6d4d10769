"""Connections that may be as slow, silent or many as they like, and hold up nobody.

uvicorn parses and answers; what it leaves open is closed here: a connection has a deadline for the
head of its request, for taking its answer and for its silence between two requests; heads are of
bounded size and bodies are refused; and when there are as many connections as are allowed, a new one
takes the place of the one that has been useless for longest.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from monitor.web.live import LISTEN
from monitor.web.tls import Secures

# Who asks for a page has it written before it connects; handshakes over slow links take seconds.
HEAD_SECONDS: Final = 10.0
HANDSHAKE_SECONDS: Final = 5.0
# 9 MB of text at 300 kB/s
ANSWER_SECONDS: Final = 30.0
# Prometheus keeps its connection from scrape to scrape, mostly of a minute at most.
IDLE_SECONDS: Final = 75.0
# An answer without an end ends itself before this (`live`); what it may hold unsent is a few events.
LISTENING_SECONDS: Final = 660.0
MAX_HEAD_BYTES: Final = 16 * 1024
_TOO_LARGE: Final = (
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"the head of a request may have {MAX_HEAD_BYTES} bytes",
)
MAX_ACCEPTED_AT_ONCE: Final = 64


class Use(IntEnum):
    """What a connection is doing, the least useful first."""

    ASKING = 0
    IDLE = 1
    LISTENING = 2
    ANSWERED = 3


# use -> seconds
PATIENCE_SECONDS: Final = {
    Use.ASKING: HEAD_SECONDS,
    Use.IDLE: IDLE_SECONDS,
    Use.LISTENING: LISTENING_SECONDS,
    Use.ANSWERED: ANSWER_SECONDS,
}


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with limits to what a client may send and how long it may take."""

    # when the gate accepted it, in looks at those who wait
    accepted_in = 0
    # its handshake has ended: closed by whoever accepts it, it would answer into the void
    is_made = False
    _since: float
    _use = Use.ASKING
    _head_bytes = 0
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.is_made = True
        self._since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        if self.transport.is_closing():
            return
        if self._use is Use.IDLE:
            self._set_use(Use.ASKING)
        self._head_bytes += len(data)
        super().data_received(data)
        # what comes while an answer is under way is the head of the next request
        if self._head_bytes > MAX_HEAD_BYTES and not self._is_refused:
            self._refuse(*_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Begin to answer, unless a body follows: no page takes one."""
        if self._is_refused:
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(*_TOO_LARGE)
            return
        if any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
            for name, value in self.headers
        ):
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "no page takes a body")
            return
        self._head_bytes = 0
        if self.cycle is None or self.cycle.response_complete:
            self._set_use(Use.ANSWERED)
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        """Note the client's certificate, as ASGI's TLS extension has it."""
        super().on_message_begin()
        tls = self.transport.get_extra_info("ssl_object")
        chain = [found] if tls is not None and (found := tls.getpeercert(binary_form=True)) else []
        shown = tls.getpeercert() if chain else {}
        self.scope["extensions"] = {
            LISTEN: {"begin": self.listen},
            "tls": {
                "client_cert_chain": chain,
                "client_cert_sans": [name for _, name in shown.get("subjectAltName", ())],
            },
        }

    def on_body(self, body: bytes) -> None:
        """Ignore what was refused."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Ignore what was refused."""
        if not self._is_refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request; the client may still have to take the answer."""
        super().on_response_complete()
        if self.cycle is not None and self.cycle.response_complete:
            self._use = Use.IDLE

    def listen(self) -> None:
        """Take the answer that has begun for one without an end: its client only has to take it."""
        self._set_use(Use.LISTENING)

    @property
    def is_listening(self) -> bool:
        """Say whether it gets an answer without an end."""
        return self._use is Use.LISTENING

    def use(self, now: float) -> tuple[Use, float]:
        """Return what the connection is doing, and for how long, in seconds."""
        if self._use is Use.IDLE and self.transport.get_write_buffer_size() > 0:
            return Use.ANSWERED, now - self._since
        return self._use, now - self._since

    def is_overdue(self, now: float) -> bool:
        """Say whether the client has taken too long over what it is doing."""
        use, seconds = self.use(now)
        return seconds > PATIENCE_SECONDS[use]

    def abort(self) -> None:
        """Close the connection at once, whatever is still to be sent."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # what is still sent goes nowhere, and is no fault
        self.transport.abort()

    def _set_use(self, use: Use) -> None:
        self._use, self._since = use, self.loop.time()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._is_refused = True
        body = json.dumps({"error": {"message": message, "field": None}})
        self.transport.write(
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        self.transport.close()


Connections: TypeAlias = set[Any]  # uvicorn's own set: what it holds is Connection


class Gate:
    """Accepts connections, of which so many are open at a time at most."""

    def __init__(
        self,
        make_connection: Callable[[], Connection],
        connections: Connections,
        certificate: Secures | None,
        limit: int,
    ) -> None:
        self._make_connection = make_connection
        self._connections = connections
        self._certificate = certificate
        self._limit = limit
        self._looks = 0
        # task that accepts -> what it makes, and since when; a task ends some time after it has made it
        self._accepting: dict[asyncio.Task[None], tuple[Connection, float]] = {}

    def open(self, listener: socket.socket) -> None:
        """Begin to accept."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept no more."""
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        """Accept all who wait: one at a time they would wait for the answers to those before them."""
        self._looks += 1
        for _ in range(MAX_ACCEPTED_AT_ONCE):
            if self._is_full() and not self._close_least_useful():
                return  # all are as new as who waits: the next look tells them apart
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._close_least_useful()
                    return
                continue  # the client has gone already
            accepted.setblocking(False)
            connection = self._make_connection()
            connection.accepted_in = self._looks
            task = self._loop.create_task(self._begin(connection, accepted))
            self._accepting[task] = (connection, self._loop.time())
            task.add_done_callback(lambda done: self._accepting.pop(done, None))

    def close_overdue(self) -> None:
        """Close all connections whose clients take too long."""
        now = self._loop.time()
        for connection in list(self._connections):
            if connection.is_overdue(now):
                connection.abort()

    def close_listeners(self) -> None:
        """Close those whose answers have no end, for which a stop would wait in vain."""
        for connection in list(self._connections):
            if connection.is_listening:
                connection.abort()

    def close_all(self) -> None:
        """Close all connections at once."""
        for task, _, _ in self._handshakes():
            task.cancel()
        for connection in list(self._connections):
            connection.abort()

    async def _begin(self, connection: Connection, accepted: socket.socket) -> None:
        is_secured = self._certificate is not None
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._certificate.context() if self._certificate else None,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if is_secured else None,
            )
        except (TimeoutError, OSError):
            # a client that is gone, or does not speak TLS, or says nothing: nobody's fault here
            self._connections.discard(connection)
        except asyncio.CancelledError:
            self._connections.discard(connection)
            raise

    def _handshakes(self) -> list[tuple[asyncio.Task[None], Connection, float]]:
        return [
            (task, connection, since)
            for task, (connection, since) in self._accepting.items()
            if not connection.is_made
        ]

    def _is_full(self) -> bool:
        if len(self._connections) + len(self._accepting) < self._limit:
            return False
        is_open = sum(not one.transport.is_closing() for one in self._connections)
        return is_open + len(self._handshakes()) >= self._limit

    def _close_least_useful(self) -> bool:
        """Close the connection that has been of least use for longest, if there is one.

        What a new one sent with its first packet is read only after the next look.
        """
        now = self._loop.time()
        old = self._looks - 2
        found = [
            (connection.use(now), connection.abort)
            for connection in self._connections
            if connection.accepted_in <= old and not connection.transport.is_closing()
        ]
        found += [
            ((Use.ASKING, now - since), partial(self._give_up, task))
            for task, connection, since in self._handshakes()
            if connection.accepted_in <= old
        ]
        worst = min(found, key=lambda one: (one[0][0], -one[0][1]), default=None)
        if worst is None:
            return False
        worst[1]()
        return True

    def _give_up(self, handshake: asyncio.Task[None]) -> None:
        del self._accepting[handshake]
        handshake.cancel()
