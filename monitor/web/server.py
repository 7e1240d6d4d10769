"""Runs the application on a server from a library until told to stop."""

from __future__ import annotations

import asyncio
import errno
import queue
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn
from uvicorn._types import ASGI3Application

from monitor.web.connections import IDLE_SECONDS, Connection, Gate
from monitor.web.tls import Secures

# A poll computes for a third of a second: who scrapes meanwhile waits for the interpreter again and
# again, by default 5 ms each time.
SWITCH_INTERVAL_S: Final = 0.0002
MAX_CONNECTIONS: Final = 256
# Of the descriptors that the process may open: brokers and databases need the others.
CONNECTIONS_SHARE: Final = 0.25
BACKLOG: Final = 1_024
SEND_BUFFER_BYTES: Final = 256 * 1024
STOP_SECONDS: Final = 5
TICKS_PER_LOOK: Final = 5  # a tick of uvicorn is 0.1 s


class AddressError(Exception):
    """The server can't listen; the message says where, why, and which setting changes it."""


class _Server(uvicorn.Server):
    """uvicorn's server behind a gate of ours."""

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, certificate: Secures | None
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._certificate = certificate

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """Begin to accept connections."""
        self.servers = []
        self._gate = Gate(
            lambda: Connection(self.config, self.server_state, {}),
            self.server_state.connections,
            self._certificate,
            _limit(),
        )
        self._gate.open(self._listener)
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections, and say whether to stop."""
        if counter % TICKS_PER_LOOK == 0:
            self._gate.close_overdue()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is being answered, and close all connections."""
        self._gate.close()
        self._gate.close_listeners()
        await super().shutdown(sockets)
        self._gate.close_all()
        await asyncio.sleep(0)  # lets the transports close


class WebServer:
    """Serves an application; `bind` first, then `serve_until_stopped`, or `start` and `stop`."""

    def __init__(
        self,
        app: ASGI3Application,
        host: str,
        port: int,
        certificate: Secures | None = None,
    ) -> None:
        self._app = app
        self._host, self._port = host, port
        self._certificate = certificate
        self._on_end: Callable[[], None] = lambda: None

    def bind(self) -> int:
        """Take the port and return it (a free one for port 0); raises AddressError."""
        try:
            family, *_, address = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM
            )[0]
            listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        except OSError as error:
            where = f"{self._host}:{self._port}"
            if error.errno == errno.EADDRINUSE:
                raise AddressError(
                    f"{where} is taken by another program; choose another port with --port or "
                    "MONITOR_PORT"
                ) from error
            raise AddressError(
                f"can't listen on {where} ({error}); set --host or MONITOR_HOST"
            ) from error
        listener.setblocking(False)
        # of 4 MB that the kernel would keep for each client who takes nothing
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        config = uvicorn.Config(
            self._app,
            loop="uvloop",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # what clients do wrong is their own affair, however often
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(IDLE_SECONDS),
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        self._server = _Server(config, listener, self._certificate)
        return int(listener.getsockname()[1])

    def start(self) -> None:
        """Serve in a thread of its own: the main one gets the signals."""
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being answered; waits for it."""
        self._server.should_exit = True
        self._thread.join()

    def serve_until_stopped(
        self,
        begin: Callable[[], object] = lambda: None,
        on_hangup: Callable[[], object] = lambda: None,
    ) -> None:
        """Serve until SIGINT or SIGTERM, then finish what is being answered.

        `begin` starts what else is to run: a stop that comes in the middle of it is an orderly one.
        `on_hangup` is called after each SIGHUP. Both run in this thread.
        """
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        asked: queue.SimpleQueue[int] = queue.SimpleQueue()  # may be put into by a signal handler

        def note(number: int, _frame: FrameType | None) -> None:
            asked.put(number)

        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, note)
        self._on_end = lambda: asked.put(signal.SIGTERM)
        self.start()
        begin()
        while asked.get() == signal.SIGHUP:
            on_hangup()
        self.stop()

    def _run(self) -> None:
        try:
            self._server.run()
        finally:
            self._on_end()  # one that fails must not leave a program that serves nobody


def _limit() -> int:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(8, min(MAX_CONNECTIONS, int(allowed * CONNECTIONS_SHARE)))
