"""Where a PostgreSQL or PgBouncer is: read from a URL or DSN, shown without its password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

_FORM = (
    "say postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with @ : / ? # % in a password "
    "percent-encoded, or HOST=... PORT=... in libpq's form"
)
# what SQLAlchemy adds to the scheme; libpq does not know it
_DRIVER = re.compile(r"^(postgres(?:ql)?)\+[a-z0-9]+://")
_SHORTEST_SECRET = 4
"""Shorter ones are also parts of words; no message would stay readable."""


@dataclass(frozen=True)
class Address:
    """libpq's parameters, and `shown`: the host, port and database without user or password."""

    shown: str
    parameters: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, text: str, *, database: str | None = None) -> Self:
        """Read a URL or DSN; `database` replaces the one in it.

        Raises ValueError that says what is allowed and does not repeat the text.
        """
        # here, as most monitors watch no database: the driver takes 6 MB
        from psycopg2 import ProgrammingError  # noqa: PLC0415
        from psycopg2.extensions import parse_dsn  # noqa: PLC0415

        try:
            given = parse_dsn(_DRIVER.sub(r"\1://", text.strip()))
        except ProgrammingError:
            # libpq's own text quotes the part that it could not read: that may be the password
            raise ValueError(_FORM) from None
        if not given or _is_torn(given):
            raise ValueError(_FORM)
        if database is not None:
            given["dbname"] = database
        host = given.get("host") or given.get("hostaddr") or "localhost"
        port = given.get("port") or "5432"
        name = f"/{given['dbname']}" if "dbname" in given else ""
        return cls(f"{host}:{port}{name}", given)

    def without_secrets(self, message: str) -> str:
        """Return a driver's or server's message on one line, with no secret of ours in it."""
        public = {self.parameters.get(name) for name in ("user", "host", "dbname")}
        for name in ("password", "sslpassword"):
            secret = self.parameters.get(name)
            if secret and len(secret) >= _SHORTEST_SECRET and secret not in public:
                message = message.replace(secret, "***")
        return " ".join(message.split())


def _is_torn(given: Mapping[str, str]) -> bool:
    """Say whether an unescaped @ or / of a password ended up in the parts that are shown."""
    ports = given.get("port", "").replace(",", "")
    parts = (given.get(name, "") for name in ("host", "hostaddr", "dbname"))
    return (bool(ports) and not ports.isdecimal()) or any("@" in part for part in parts)
