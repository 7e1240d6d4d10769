"""The certificate that the pages are served with, read anew when its file has changed."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import NamedTuple, Protocol


class CertificateError(Exception):
    """The certificate or its key can't be used; the message names the settings and the fault."""


class Secures(Protocol):
    """Gives each new connection its TLS."""

    def context(self) -> ssl.SSLContext:
        """Return what a new connection is to be served with."""


class TlsLimits(NamedTuple):
    """What of TLS is offered; `ciphers` is OpenSSL's list of those before TLS 1.3, empty for its own."""

    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: str = ""
    prefers_own_order: bool = True
    curve: str | None = None


class Certificate:
    """A certificate and its key, in files; raises CertificateError where they can't be used.

    `client_authorities` is a file of those whose client certificates are taken; `named` says in the
    error where the files come from.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        client_authorities: Path | None = None,
        *,
        limits: TlsLimits = TlsLimits(),  # noqa: B008  # it is immutable
        named: str | None = None,
    ) -> None:
        self._limits = limits
        self._files = (certificate, key)
        self._authorities = client_authorities
        try:
            self._context, self._read_at = self._read(), self._changed_at()
        except (OSError, ValueError) as error:
            told = f"MONITOR_TLS_CERTFILE={certificate} and MONITOR_TLS_KEYFILE={key}"
            if client_authorities is not None:
                told = f"{told}, or MONITOR_TLS_CLIENT_CAFILE={client_authorities},"
            raise CertificateError(f"{named or told} can't be used: {error}") from error

    def context(self) -> ssl.SSLContext:
        """Return what a new connection is to be served with."""
        # certificates live for weeks, this program for longer; one that is half written: later
        with contextlib.suppress(OSError, ValueError):
            if (changed_at := self._changed_at()) != self._read_at:
                self._context, self._read_at = self._read(), changed_at
        return self._context

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate, key = self._files
        # no password: else the terminal is asked for that of an encrypted key
        context.load_cert_chain(certificate, key, "")
        limits = self._limits
        context.minimum_version, context.maximum_version = limits.min_version, limits.max_version
        if limits.ciphers:
            context.set_ciphers(limits.ciphers)
        if limits.curve is not None:
            context.set_ecdh_curve(limits.curve)
        if not limits.prefers_own_order:
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        if self._authorities is not None:
            context.load_verify_locations(self._authorities)
            # asked for, and demanded only of those who want more than to know whether it lives
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _changed_at(self) -> list[int]:
        files = [*self._files, *([self._authorities] if self._authorities else [])]
        return [Path(name).stat().st_mtime_ns for name in files]
