"""Finds out what listens at an address that does not answer as a Kafka broker, and what to set."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from monitor.kafka.questions import Failure
from monitor.settings import split_address

PROBE_TIMEOUT_S: Final = 1.0
# A server that keeps refusing is not probed by every poll: it logs each probe as an error.
SECONDS_BETWEEN_PROBES: Final = 60.0
REPLY_BYTES: Final = 4_096

# KIP-43's SaslHandshake, version 1, for a mechanism that nobody has: the reply lists those there are.
_SASL_HANDSHAKE: Final = 17
_NO_MECHANISM: Final = b"?"
_UNSUPPORTED_MECHANISM: Final = 33
_NO_LOGIN_HERE: Final = 34

# How OpenSSL names the alerts by which a server refuses a client's certificate.
_REFUSED_CERTIFICATES: Final = (
    ("CERTIFICATE_REQUIRED", "it asks for a client certificate: set KAFKA_SSL_CERTFILE"),
    ("HANDSHAKE_FAILURE", "it agrees to none of our offers for TLS, or asks for a client certificate (KAFKA_SSL_CERTFILE)"),
    ("CERTIFICATE_EXPIRED", "the client certificate of KAFKA_SSL_CERTFILE has expired"),
    ("UNKNOWN_CA", "it does not know the authority that issued the certificate of KAFKA_SSL_CERTFILE"),
    ("CERTIFICATE", "it refuses the client certificate of KAFKA_SSL_CERTFILE, whose authority it may not know"),
)  # fmt: skip


class Diagnoses:
    """Why no bootstrap server answers, with what listens there where that says more.

    `context` is the TLS that they are asked with, None without TLS; `logs_in` says that SASL is used.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None,
        *,
        logs_in: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._logs_in = logs_in
        self._monotonic = monotonic
        self._known: tuple[tuple[str, str], str | None] | None = None
        self._until = 0.0

    def causes(self, failures: Mapping[str, Failure]) -> dict[str, str]:
        """Return each address's cause; may take a few seconds, once a minute."""
        causes = {address: failure.cause for address, failure in failures.items()}
        # the first only: each may take seconds, and they are of one kind
        first = next((a for a, failure in failures.items() if failure.unclear), None)
        if first is not None:
            found = self._found(first, causes[first])
            causes[first] = found or causes[first]
        return causes

    def _found(self, address: str, cause: str) -> str | None:
        asked = (address, cause)
        if self._known is None or self._known[0] != asked or self._monotonic() >= self._until:
            self._known = (
                asked,
                identify(*split_address(address), self._context, logs_in=self._logs_in),
            )
            self._until = self._monotonic() + SECONDS_BETWEEN_PROBES
        return self._known[1]


def identify(host: str, port: int, context: ssl.SSLContext | None, *, logs_in: bool) -> str | None:
    """Say what an open port wants instead, and how to set it; None when that can't be told.

    `context` is the TLS that it was asked with, None without TLS; `logs_in` says that SASL was used.
    Takes at most a few seconds.
    """
    if context is not None:
        return _of_tls(host, port, context, logs_in=logs_in)
    login = _login(host, port)
    if login is not None:
        return _of_login(login, "SASL_PLAINTEXT", logs_in=logs_in)
    if _speaks_http(host, port):
        return "it is an HTTP server, not a Kafka broker"
    if _speaks_tls(host, port):
        return "it speaks TLS: set KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL"
    return None


def _of_tls(host: str, port: int, context: ssl.SSLContext, *, logs_in: bool) -> str | None:
    try:
        login = _login(host, port, context)
    except ssl.SSLCertVerificationError:
        return None  # that is told without us
    except ssl.SSLError as error:
        reason = str(error.reason)
        for sign, meaning in _REFUSED_CERTIFICATES:
            if "ALERT" in reason and sign in reason:
                return meaning
        login = None
    if login is not None:
        return _of_login(login, "SASL_SSL", logs_in=logs_in)
    if _speaks_tls(host, port):
        return None
    login = _login(host, port)
    if login is None:
        return "it does not speak TLS"
    return (
        "it does not speak TLS: set KAFKA_SECURITY_PROTOCOL to "
        f"{'SASL_PLAINTEXT' if login else 'PLAINTEXT'}"
    )


def _of_login(mechanisms: Sequence[str], protocol: str, *, logs_in: bool) -> str | None:
    if logs_in == bool(mechanisms):
        offered = ", ".join(mechanisms)
        return (
            f"it does not offer the SASL mechanism that KAFKA_SASL_MECHANISM names, but {offered}"
            if logs_in
            else None
        )
    if mechanisms:
        return (
            f"it asks for a login: set KAFKA_SECURITY_PROTOCOL={protocol} and KAFKA_SASL_MECHANISM "
            f"to one of {', '.join(mechanisms)}"
        )
    return (
        "it asks for no login on this port: set KAFKA_SECURITY_PROTOCOL to "
        f"{protocol.removeprefix('SASL_')}"
    )


def _login(host: str, port: int, context: ssl.SSLContext | None = None) -> Sequence[str] | None:
    """Return the SASL mechanisms that a Kafka broker offers, none without a login.

    None is said of what is no Kafka broker; raises ssl.SSLError where TLS fails.
    """
    head = struct.pack(">hhih", _SASL_HANDSHAKE, 1, 1, -1)
    body = head + struct.pack(">h", len(_NO_MECHANISM)) + _NO_MECHANISM
    try:
        with _connect(host, port) as plain, _wrapped(plain, context, host) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            return _mechanisms(connection.recv(REPLY_BYTES))
    except ssl.SSLError:
        raise
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def _mechanisms(reply: bytes) -> Sequence[str] | None:
    _, correlation, error = struct.unpack_from(">iih", reply)
    if correlation != 1 or error not in (_UNSUPPORTED_MECHANISM, _NO_LOGIN_HERE):
        return None
    (count,) = struct.unpack_from(">i", reply, 10)
    found, at = [], 14
    for _ in range(count):
        (length,) = struct.unpack_from(">h", reply, at)
        found.append(reply[at + 2 : at + 2 + length].decode("ascii"))
        at += 2 + length
    return found


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


@contextlib.contextmanager
def _wrapped(
    plain: socket.socket, context: ssl.SSLContext | None, host: str
) -> Iterator[socket.socket]:
    if context is None:
        yield plain
        return
    with context.wrap_socket(plain, server_hostname=host) as wrapped:
        yield wrapped
