"""The server that carries a service's app: cheroot, with our limits, WebSocket, and direct routes.

Cheroot waits for requests on one thread and gives each to a thread of its pool, which reads, answers
and, where it must, waits. A plain request of a direct route takes the short way: it is begun on the
thread that waits for requests, and whoever has the answer sends it. So orders by the hundred, all of
which wait for one commit, hold no threads, and none has to be woken for each of them.

Each probe has a thread of its own: where all others wait for the database, the metrics that say so are
scraped, and nobody takes the service for dead.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import structlog
from cheroot import wsgi
from cheroot.server import HTTPConnection, HTTPRequest

from order_services.runtime.direct import DirectRoute, Reply, direct_routes
from order_services.runtime.http import MAX_BODY_BYTES, ON_UPGRADE
from order_services.runtime.plain import PlainRequest, plain_request
from order_services.runtime.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Flask

MAX_HEADER_BYTES: Final = 32 * 1024
MAX_IDLE_CONNECTIONS: Final = 1000
SHUTDOWN_SECONDS: Final = 5.0
SOCKET_TIMEOUT_SECONDS: Final = 10
THREADS: Final = 8
SERVER_NAME: Final = "order-services"
PROBES: Final = (b"/health", b"/ready", b"/metrics")

_PROBE: Final = re.compile(rb"GET (%s)(?:\?[!-~]*)? HTTP/1\.[01]\r\n" % b"|".join(PROBES))

_log = structlog.get_logger(__name__)


class PortTakenError(OSError):
    """The port that a server should listen on cannot be had."""


def _error(status: str, message: str = "") -> bytes:
    body = json.dumps({"error": {"message": message or str(status)[4:]}})
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return (head + body).encode("latin-1")


class _Request(HTTPRequest):
    """Answers in JSON also what is refused before the app sees it."""

    def simple_response(self, status: str, msg: str = "") -> None:
        self.close_connection = True
        self.conn.wfile.write(_error(status, msg))


class _Connection(HTTPConnection):
    """A connection that can be handed over to WebSocket."""

    RequestHandlerClass = _Request
    handed_over = False

    def __init__(self, server: _Server, sock: socket.socket, _makefile: Any = None) -> None:
        stream = Stream(sock, SOCKET_TIMEOUT_SECONDS)
        super().__init__(server, sock, lambda *_: stream)

    def close(self) -> None:
        # a request that got no thread has nobody else to tell its client
        if self.rfile.is_unfinished and self.server.ready:
            with suppress(OSError):
                self.socket.send(_error("408 Request Timeout"))
        super().close()

    def _close_kernel_socket(self) -> None:
        # shutting down would reach through to the duplicate that the new owner holds
        if not self.handed_over:
            super()._close_kernel_socket()  # type: ignore[misc]  # missing in cheroot's stubs


class _Gateway(wsgi.Gateway_10):
    """Hands the socket over after an answer with 101."""

    def respond(self) -> None:
        super().respond()
        on_connected = self.env.get(ON_UPGRADE)
        if on_connected is None or not self.req.status.startswith(b"101"):
            return
        connection = self.req.conn
        self.req.close_connection = True
        duplicate = connection.socket.dup()
        duplicate.setblocking(False)
        connection.handed_over = True
        on_connected(duplicate)


class _Lane:
    """A thread that serves connections one after the other."""

    def __init__(self, name: str) -> None:
        self._waiting: SimpleQueue[_Connection | None] = SimpleQueue()
        # daemon, as the pool's: a request that never ends must not keep the process from exiting
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def put(self, connection: _Connection) -> None:
        """Serve one request of a connection, after those that came before."""
        self._waiting.put(connection)

    def stop(self) -> None:
        """Have the thread end after what waits now."""
        self._waiting.put(None)

    def _serve(self) -> None:
        while (connection := self._waiting.get()) is not None:
            keep = False
            try:
                keep = connection.communicate()  # type: ignore[no-untyped-call]  # cheroot's stubs
            except Exception:  # noqa: BLE001  # whatever it is, nobody else would serve this lane
                _log.exception("request failed on its connection")
            if keep:
                connection.server.put_conn(connection)
            else:
                connection.close()


class _Server(wsgi.Server):
    """Cheroot with our limits, our short way for direct routes, and its messages in the log."""

    ConnectionClass = _Connection
    max_request_header_size = MAX_HEADER_BYTES
    keep_alive_conn_limit = MAX_IDLE_CONNECTIONS

    def __init__(
        self, routes: Mapping[tuple[str, str], DirectRoute], *arguments: Any, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self._routes = routes
        self._begun: set[_Connection] = set()
        self._probes = {path: _Lane(f"http {path.decode()}") for path in PROBES}

    def prepare(self) -> None:
        """Listen, and start the threads."""
        super().prepare()
        for lane in self._probes.values():
            lane.start()

    def stop(self) -> None:
        """Finish the requests in flight; the probes' are not waited for."""
        super().stop()
        for lane in self._probes.values():
            lane.stop()

    def process_conn(self, conn: _Connection) -> None:
        """Serve a connection that is new or has something to read."""
        stream: Stream = conn.rfile
        # what was read before is the rest of a pipeline: rare, and a thread may wait for its end
        if not stream.has_data():
            stream.receive()
            if not stream.has_data():
                self.put_conn(conn)  # silent so far, or within a body: it gets no thread for that
                return
            request = plain_request(
                stream.arrived, self._routes, max_head=MAX_HEADER_BYTES, max_body=MAX_BODY_BYTES
            )
            if request is not None and len(stream.arrived) >= request.size:
                self._begin(conn, request)
                return
            if request is not None and not stream.ended:
                stream.want(request.size)
                self.put_conn(conn)
                return
            probe = _PROBE.match(stream.arrived)
            # with its whole head: a thread that others wait for must not wait for the rest
            if probe is not None and b"\r\n\r\n" in stream.arrived:
                self._probes[probe[1]].put(conn)
                return
        super().process_conn(conn)

    def wait_until_answered(self, timeout_seconds: float) -> bool:
        """Wait for the answers that are still to come; False when that took too long."""
        deadline = time.monotonic() + timeout_seconds
        while self._begun:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _begin(self, conn: _Connection, request: PlainRequest) -> None:
        conn.rfile.take(request.size)
        self._begun.add(conn)
        route = self._routes[request.method, request.path]
        route.begin(request.headers, lambda: request.body, partial(self._answer, conn))

    def _answer(self, conn: _Connection, reply: Reply) -> None:
        keep = self.can_add_keepalive_connection
        data = _encode(reply, keep=keep)
        try:
            # at once or not at all: a client that does not read must not hold up those who do
            keep &= conn.socket.send(data) == len(data)
        except OSError:
            keep = False
        # before the connection is given back: its next request may begin at once
        self._begun.discard(conn)
        if keep:
            self.put_conn(conn)
        else:
            conn.close()

    @staticmethod
    def bind_socket(socket_: socket.socket, bind_addr: Any) -> socket.socket:
        try:
            socket_.bind(bind_addr)
        except OSError:
            socket_.close()  # cheroot forgets a socket that it could not bind
            raise
        return socket_

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: FBT001, FBT002  # cheroot's signature
        _log.log(level, msg, exc_info=traceback)


class WebServer:
    """Serves a WSGI app on threads of its own."""

    def __init__(self, app: Flask, host: str, port: int) -> None:
        self._server = _Server(
            direct_routes(app),
            (host, port),
            app,
            numthreads=THREADS,
            request_queue_size=256,
            timeout=SOCKET_TIMEOUT_SECONDS,
            shutdown_timeout=int(SHUTDOWN_SECONDS),
            server_name=SERVER_NAME,
        )
        self._server.gateway = _Gateway
        self._address = (host, port)
        # Daemon, and so are the workers that it starts: a request that never ends must not keep
        # the process from exiting.
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        self._bound: Future[None] = Future()

    @property
    def port(self) -> int:
        """The port that is listened on, also when 0 was asked for."""
        return int(self._server.bind_addr[1])

    def start(self) -> None:
        """Listen, and return; raises `PortTakenError` that names the port and its setting."""
        self._thread.start()
        try:
            self._bound.result()
        except OSError as error:
            host, port = self._address
            raise PortTakenError(
                f"cannot listen on {host} port {port}: {_cause(error)}; set PORT to another port"
            ) from error

    def stop(self, timeout_seconds: float = SHUTDOWN_SECONDS) -> None:
        """Finish the requests in flight and stop; gives up waiting after `timeout_seconds`."""
        self._server.shutdown_timeout = timeout_seconds
        # joins its workers without a limit once their sockets are shut: not on our thread
        stopper = threading.Thread(target=self._server.stop, name="http-stop", daemon=True)
        stopper.start()
        stopper.join(timeout_seconds + 1)
        if stopper.is_alive() or not self._server.wait_until_answered(timeout_seconds):
            _log.warning("requests still running at shutdown", waited_seconds=timeout_seconds)

    def _serve(self) -> None:
        try:
            self._server.prepare()
        except OSError as error:
            self._bound.set_exception(error)
            return
        self._bound.set_result(None)
        self._server.serve()


def _encode(reply: Reply, *, keep: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {reply.status.value} {reply.status.phrase}",
        *[f"{name}: {value}" for name, value in reply.headers],
        f"Date: {_date(int(time.time()))}",
        f"Server: {SERVER_NAME}",
    ]
    if not keep:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + reply.content


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _cause(error: OSError) -> str:
    """Take the reason out of "No socket could be created -- (address: [Errno 98] reason)"."""
    match = re.search(r"\[Errno -?\d+\] ([^)]*)", str(error))
    return (match.group(1) if match else str(error)).lower()
