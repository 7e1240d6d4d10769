"""Runs the application on a production WSGI server until told to stop."""

from __future__ import annotations

import errno
import signal
import socket
import threading
from types import FrameType
from typing import Final

from cheroot import wsgi
from flask import Flask

THREADS: Final = 8


class AddressError(Exception):
    """The server can't listen; the message says where, why, and which setting changes it."""


class WebServer:
    """Serves an application; `bind` first, then `serve_until_stopped`."""

    def __init__(self, app: Flask, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._server = wsgi.Server((host, port), app, numthreads=THREADS, server_name="monitor")

    def bind(self) -> int:
        """Take the port and return it (a free one for port 0); raises AddressError."""
        try:
            _try_address(self._host, self._port)
            self._server.prepare()
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
        return int(self._server.bind_addr[1])

    def serve_until_stopped(self) -> None:
        """Serve until SIGINT or SIGTERM, then finish what is being answered."""
        stopped = threading.Event()

        def stop(_signal: int, _frame: FrameType | None) -> None:
            stopped.set()

        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, stop)
        thread = threading.Thread(target=self._server.serve, name="web", daemon=True)
        thread.start()
        stopped.wait()
        self._server.stop()
        thread.join()


def _try_address(host: str, port: int) -> None:
    """Raise what is wrong with an address: the server's own attempt joins causes into one text."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.create_server(address[:2], family=family):
        pass
