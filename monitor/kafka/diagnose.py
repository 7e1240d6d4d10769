"""Finds out what listens at an address that does not answer as a Kafka broker."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Final

PROBE_TIMEOUT_S: Final = 1.0


def identify(host: str, port: int, *, tls: bool) -> str | None:
    """Say what the server at an open port speaks instead, None when that can't be told.

    `tls` says that it was asked with TLS. Takes at most a few seconds.
    """
    if tls:
        return None if _speaks_tls(host, port) else "it does not speak TLS"
    if _speaks_http(host, port):
        return "it is an HTTP server, not a Kafka broker"
    if _speaks_tls(host, port):
        return "it speaks TLS: set KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL"
    return None


def _speaks_http(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), _connect(host, port) as connection:
        connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        return connection.recv(5) == b"HTTP/"
    return False


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # only whether it is TLS is asked; nothing is sent, so nothing need be verified
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _connect(host, port) as connection, context.wrap_socket(connection):
            return True
    except ssl.SSLError as error:
        # it refused our offer, in TLS
        return "ALERT" in str(error.reason)
    except OSError:
        return False


def _connect(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port), PROBE_TIMEOUT_S)
    connection.settimeout(PROBE_TIMEOUT_S)
    return connection
