"""Runs the application on a production WSGI server until told to stop."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import ssl
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Final

from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter
from flask import Flask

THREADS: Final = 8
# A poll computes for a third of a second: who scrapes meanwhile waits for the interpreter again and
# again, by default 5 ms each time.
SWITCH_INTERVAL_S: Final = 0.0002


class AddressError(Exception):
    """The server can't listen; the message says where, why, and which setting changes it."""


class CertificateError(Exception):
    """The certificate or its key can't be used; the message names the settings and the fault."""


class _Tls(BuiltinSSLAdapter):
    """TLS with a certificate that is read anew when its file has changed."""

    def __init__(self, certificate: Path, key: Path) -> None:
        try:
            # no password: else the terminal is asked for that of an encrypted key
            super().__init__(str(certificate), str(key), private_key_password="")
        except (OSError, ValueError) as error:
            raise CertificateError(
                f"MONITOR_TLS_CERTFILE={certificate} and MONITOR_TLS_KEYFILE={key} can't be used: "
                f"{error}"
            ) from error
        self._read_at = self._changed_at()

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        """Wrap a connection; its handshake is left to the thread that answers it.

        In this one, which accepts all, a client that says nothing would hold up the others.
        """
        # certificates live for weeks, this program for longer; one that is half written: later
        with contextlib.suppress(OSError):
            if (changed_at := self._changed_at()) != self._read_at:
                fresh = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                fresh.load_cert_chain(self.certificate, self.private_key, "")
                self.context, self._read_at = fresh, changed_at
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, {"wsgi.url_scheme": "https", "HTTPS": "on"}

    def _changed_at(self) -> list[int]:
        return [Path(name).stat().st_mtime_ns for name in (self.certificate, self.private_key)]


class WebServer:
    """Serves an application; `bind` first, then `serve_until_stopped`.

    `tls` is a certificate file and its key's, for HTTPS; raises CertificateError.
    """

    def __init__(
        self, app: Flask, host: str, port: int, tls: tuple[Path, Path] | None = None
    ) -> None:
        self._host, self._port = host, port
        self._server = wsgi.Server((host, port), app, numthreads=THREADS, server_name="monitor")
        if tls is not None:
            self._server.ssl_adapter = _Tls(*tls)

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
        sys.setswitchinterval(SWITCH_INTERVAL_S)
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
