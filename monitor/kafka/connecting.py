"""How a connection is made: kafka-python's options, names, TLS, logins."""

from __future__ import annotations

import socket
import ssl
from importlib.util import find_spec
from typing import Any, Final

from kafka.net.inet import KafkaNetSocket

from monitor.kafka.tokens import Renewed, TokenFile, TokenProvider, has_botocore
from monitor.settings import KafkaSettings

CLIENT_ID: Final = "kafka-lag-monitor"
# A reply larger than this is a broker gone wrong: questions are batched far below it.
MAX_REPLY_BYTES: Final = 100_000_000
# A broker that is back must be seen at the next poll, not after a client's usual 30 s.
MAX_RECONNECT_BACKOFF_S: Final = 1.0


class OptionsError(ValueError):
    """Settings that kafka-python refuses; the message says which."""


# Host and port -> what getaddrinfo said last; looked up before kafka-python would do it.
_ADDRESSES: Final[dict[tuple[str, int], list[Any]]] = {}


def resolve(host: str, port: int) -> None:
    """Look a name up and remember what was found; blocks as long as the name server does."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    _ADDRESSES[host, port] = found


class _EndsLast(socket.socket):
    """A socket whose end is told only when all that came before it was taken.

    kafka-python drops what it reads together with the end: the reply that refuses a login, after
    which a broker closes the connection.
    """

    _has_read = False

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Read; BlockingIOError means that there is no more for now."""
        try:
            data = super().recv(size, flags)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._has_read = False
            raise
        except OSError:
            self._end_later()
            raise
        if data:
            self._has_read = True
        else:
            self._end_later()
        return data

    def _end_later(self) -> None:
        if self._has_read:
            self._has_read = False
            raise BlockingIOError


class _TlsEndsLast(_EndsLast, ssl.SSLSocket):  # type: ignore[misc]  # the names of its arguments
    """The same over TLS."""


class ClosingSocket(KafkaNetSocket):  # type: ignore[misc]  # untyped base
    """Closes a socket that fails to connect; kafka-python leaves it to the garbage collector.

    It resolves no names either: that would hold up the one network thread, and with it all other
    brokers. It is chosen as proxies are, by the scheme of the proxy's URL.
    """

    SCHEMES = ("direct",)

    def dns_lookup(self, host: str, port: int, raise_error: bool = False) -> list[Any]:  # noqa: FBT001, FBT002, ARG002  # its signature
        """Return what `resolve` found."""
        return _ADDRESSES.get((host, port), [])

    def socket(
        self, family: int = socket.AF_UNSPEC, sock_type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> socket.socket:
        """Return a socket that is not yet connected."""
        return _EndsLast(family, sock_type, proto)

    async def sock_connect(
        self, net: Any, sock: Any, sockaddr: Any, timeout_at: float | None = None
    ) -> Any:
        """Connect, or close the socket."""
        try:
            return await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise


def connection_options(
    settings: KafkaSettings, tokens: Renewed[Any] | None = None
) -> dict[str, Any]:
    """Return kafka-python's options for these settings; raises OptionsError.

    `tokens` is what the login needs to be fetched, as `tokens.of_settings` has it.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": CLIENT_ID,
        "proxy_url": f"{ClosingSocket.SCHEMES[0]}://",
        "security_protocol": settings.security_protocol,
        "receive_message_max_bytes": MAX_REPLY_BYTES,
        "reconnect_backoff_max_ms": MAX_RECONNECT_BACKOFF_S * 1_000,
        # kafka-python fails a request beyond this at once: old brokers get one request per group
        "max_in_flight_requests_per_connection": 1_000_000,
    }
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = _tls_context(settings)
    if settings.sasl_mechanism == "GSSAPI" and find_spec("gssapi") is None:
        raise OptionsError("KAFKA_SASL_MECHANISM=GSSAPI needs the Python package gssapi")
    if settings.sasl_mechanism == "AWS_MSK_IAM" and not has_botocore():
        raise OptionsError(
            "KAFKA_SASL_MECHANISM=AWS_MSK_IAM needs the Python package botocore: pip install "
            "'kafka-lag-monitor[msk]'"
        )
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password
            and settings.sasl_password.get_secret_value(),
            "sasl_kerberos_service_name": settings.sasl_kerberos_service_name,
        }
        if settings.sasl_mechanism == "AWS_MSK_IAM":
            options["sasl_oauth_token_provider"] = tokens
        elif settings.sasl_mechanism == "OAUTHBEARER":
            more = settings.sasl_oauthbearer_extensions
            file = settings.sasl_oauth_token_file
            options["sasl_oauth_token_provider"] = (
                TokenFile(file, more)
                if file is not None
                else TokenProvider(tokens, more)
                if tokens is not None
                else None
            )
    return options


def _tls_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except (OSError, ssl.SSLError):
        raise OptionsError(f"KAFKA_SSL_CAFILE={settings.ssl_cafile} holds no certificate") from None
    context.sslsocket_class = _TlsEndsLast
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = settings.ssl_check_hostname
    if settings.ssl_certfile is not None:
        password = settings.ssl_password.get_secret_value() if settings.ssl_password else ""
        try:
            # without a password, an encrypted key would have OpenSSL ask the terminal for one
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password=password)
        except (OSError, ssl.SSLError):
            raise OptionsError(
                "KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE and KAFKA_SSL_PASSWORD do not fit together"
            ) from None
    return context
