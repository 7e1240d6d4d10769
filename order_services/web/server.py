"""Runs uvicorn on a thread of its own, within a process that has others."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Final

import structlog
import uvicorn
import uvloop

from order_services.web.app import ServiceApp
from order_services.web.limits import MAX_BODY_BYTES, Limits
from order_services.web.protocol import Protocol
from order_services.web.websocket import WebSocketProtocol

BACKLOG: Final = 256
SHUTDOWN_SECONDS: Final = 5.0
SERVER_NAME: Final = "order-services"
# Finds clients whose machine vanished; also keeps proxies from closing an idle connection.
PING_INTERVAL_SECONDS: Final = 20.0
# What the library takes to end beside waiting for requests: a tick, and two looks at what is left.
_STOP_MARGIN_SECONDS: Final = 0.5
_TICKS_A_CHECK: Final = 5  # uvicorn ticks ten times a second

_log = structlog.get_logger(__name__)


class PortTakenError(OSError):
    """The port that a server should listen on cannot be had."""


class _Server(uvicorn.Server):
    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_A_CHECK == 0:
            now = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, (Protocol, WebSocketProtocol)):
                    connection.check_deadlines(now)
        return await super().on_tick(counter)


class WebServer:
    """Serves a service's app on a thread of its own."""

    def __init__(
        self,
        app: ServiceApp,
        host: str,
        port: int,
        *,
        limits: Limits | None = None,
        ping_interval_seconds: float = PING_INTERVAL_SECONDS,
    ) -> None:
        limits = within_descriptors(limits or Limits())
        config = uvicorn.Config(
            app,
            http=partial(Protocol, limits=limits),  # type: ignore[arg-type]  # called as the class is
            ws=partial(WebSocketProtocol, limits=limits),  # type: ignore[arg-type]
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=[("Server", SERVER_NAME)],
            backlog=BACKLOG,
            timeout_graceful_shutdown=int(SHUTDOWN_SECONDS),
            ws_max_size=MAX_BODY_BYTES,
            ws_per_message_deflate=False,
            ws_ping_interval=ping_interval_seconds,
            ws_ping_timeout=ping_interval_seconds,
        )
        self._server = _Server(config)
        self._app = app
        self._address = (host, port)
        self._listening: socket.socket | None = None
        # Daemon, and so are the threads of the views: a request that never ends must not keep the
        # process from exiting.
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        self._started: Future[None] = Future()

    @property
    def port(self) -> int:
        """The port that is listened on, also when 0 was asked for."""
        return self._address[1]

    def start(self) -> None:
        """Listen, and return; raises `PortTakenError` that names the port and its setting."""
        host, port = self._address
        try:
            self._listening = _listen(host, port)
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
            message = f"cannot listen on {host} port {port}: {cause}; set PORT to another port"
            raise PortTakenError(message) from error
        self._address = (host, self._listening.getsockname()[1])
        _send_logs_to_ours()
        self._thread.start()
        self._started.result()

    def stop(self, timeout_seconds: float = SHUTDOWN_SECONDS) -> bool:
        """Finish the requests in flight and stop; false when that took longer than `timeout_seconds`."""
        until = time.monotonic() + timeout_seconds
        graceful: Any = max(
            0.0, timeout_seconds - _STOP_MARGIN_SECONDS
        )  # the library takes floats too
        self._server.config.timeout_graceful_shutdown = graceful
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        in_time = self._app.close(max(0.0, until - time.monotonic()))
        if self._thread.is_alive() or not in_time:
            _log.warning("requests still running at shutdown", waited_seconds=timeout_seconds)
            return False
        return True

    def _serve(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.get_loop().set_exception_handler(_log_loop_error)
                runner.run(self._serve_on_loop())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve_on_loop(self) -> None:
        asyncio.get_running_loop().call_soon(self._note_start)
        assert self._listening is not None  # noqa: S101  # start() made it; narrows the type
        await self._server.serve([self._listening])

    def _note_start(self) -> None:
        if self._server.started:
            self._started.set_result(None)
        else:
            asyncio.get_running_loop().call_later(0.005, self._note_start)


def within_descriptors(limits: Limits) -> Limits:
    """Return the limits with no more connections than half of the descriptors that we may open.

    The other half is for the database, Kafka and files: a server that has none left accepts nobody,
    and cannot even read its clients' orders into the database.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits
    return replace(limits, connections=min(limits.connections, max(8, soft // 2)))


def _listen(host: str, port: int) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


class _ToOurs(logging.Handler):
    """Takes the library's warnings: as they are they would go to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        if not isinstance(cause, asyncio.CancelledError):  # a request that did not end in time
            _log.log(record.levelno, record.getMessage().strip(), exc_info=cause)


def _send_logs_to_ours() -> None:
    logger = logging.getLogger("uvicorn.error")
    if not any(isinstance(handler, _ToOurs) for handler in logger.handlers):
        logger.addHandler(_ToOurs())
    logger.setLevel(logging.WARNING)
    logger.propagate = False


def _log_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, OSError):
        return  # a client's connection broke
    _log.error("error on the server's loop", message=context["message"], exc_info=error)
