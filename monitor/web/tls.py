"""The certificate that the pages are served with, read anew when its file has changed."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path


class CertificateError(Exception):
    """The certificate or its key can't be used; the message names the settings and the fault."""


class Certificate:
    """A certificate and its key, in files; raises CertificateError where they can't be used.

    `client_authorities` is a file of those whose client certificates are taken.
    """

    def __init__(
        self, certificate: Path, key: Path, client_authorities: Path | None = None
    ) -> None:
        self._files = (certificate, key)
        self._authorities = client_authorities
        try:
            self._context, self._read_at = self._read(), self._changed_at()
        except (OSError, ValueError) as error:
            told = f"MONITOR_TLS_CERTFILE={certificate} and MONITOR_TLS_KEYFILE={key}"
            if client_authorities is not None:
                told = f"{told}, or MONITOR_TLS_CLIENT_CAFILE={client_authorities},"
            raise CertificateError(f"{told} can't be used: {error}") from error

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
        if self._authorities is not None:
            context.load_verify_locations(self._authorities)
            # asked for, and demanded only of those who want more than to know whether it lives
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _changed_at(self) -> list[int]:
        files = [*self._files, *([self._authorities] if self._authorities else [])]
        return [Path(name).stat().st_mtime_ns for name in files]
