"""Who may see the pages: basic auth, client certificates."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog
from werkzeug.datastructures import Authorization

_log = structlog.get_logger(__name__)

# Who tries passwords gets an answer a second, and a line a minute in the log.
WRONG_LOGIN_DELAY_S: Final = 1.0
SECONDS_BETWEEN_LINES: Final = 60.0
MAX_CLIENTS_REMEMBERED: Final = 1_000
# A hash takes a core for 70 ms and more: those who guess get one at a time.
HASHES_AT_ONCE: Final = 1
MAX_LOGINS_REMEMBERED: Final = 100
# bcrypt counts no more bytes of a password; its library refuses longer ones.
MAX_BCRYPT_BYTES: Final = 72
# Costs what a user's costs, so that the time tells nobody which users there are.
_NOBODY: Final = "$2y$10$" + "." * 53


class Opens(Protocol):
    """Says whether an Authorization header opens the pages."""

    async def opens(self, header: str | None) -> bool:
        """Tell whether a request with this header may see everything."""


class Login:
    """The user and password that open the pages; without them they are open to all."""

    def __init__(self, user_and_password: tuple[str, str] | None) -> None:
        self._right = user_and_password and _joined(*user_and_password)

    async def opens(self, header: str | None) -> bool:
        """Tell whether a request with this Authorization header may see everything."""
        if not self._right:
            return True
        given = _given(header)
        # as slow, however much of it is right
        return given is not None and hmac.compare_digest(_joined(*given), self._right)


class HashedLogin:
    """Users with their passwords as bcrypt has them; what was right once is not hashed again."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = dict(users)
        self._hashing = asyncio.Semaphore(HASHES_AT_ONCE)
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()

    async def opens(self, header: str | None) -> bool:
        """Tell whether a request with this Authorization header may see everything."""
        given = _given(header)
        if given is None:
            return False
        digest = hmac.new(self._key, _joined(*given), hashlib.sha256).digest()
        if digest in self._right:
            return True
        user, password = given
        hashed = self._users.get(user)
        async with self._hashing:
            is_right = await asyncio.to_thread(_is_password, password, hashed or _NOBODY)
        if hashed is None or not is_right:
            return False
        self._right[digest] = None
        if len(self._right) > MAX_LOGINS_REMEMBERED:
            self._right.popitem(last=False)
        return True


@dataclass(frozen=True, slots=True)
class Access:
    """Who may see the pages, and with which headers they go out (an empty one is left out)."""

    login: Opens
    needs_certificate: bool = False
    allowed_sans: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict)

    def has_certificate(self, scope: Any) -> bool:
        """Say whether the client has shown the certificate that is needed, if one is."""
        if not self.needs_certificate:
            return True
        tls = scope.get("extensions", {}).get("tls", {})
        names = self.allowed_sans
        return bool(tls.get("client_cert_chain")) and (
            not names or not names.isdisjoint(tls.get("client_cert_sans", ()))
        )


class WrongLogins:
    """Notes who gives wrong logins."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._told_at: OrderedDict[str, float] = OrderedDict()

    def note(self, client: str) -> None:
        """Log that a client gave a wrong login, once a minute for each."""
        now = self._monotonic()
        if now - self._told_at.get(client, -SECONDS_BETWEEN_LINES) < SECONDS_BETWEEN_LINES:
            return
        self._told_at[client] = now
        self._told_at.move_to_end(client)
        if len(self._told_at) > MAX_CLIENTS_REMEMBERED:
            self._told_at.popitem(last=False)
        _log.warning("wrong login to the pages", client=client)


def _is_password(password: str, hashed: str) -> bool:
    encoded = password.encode()
    # $2$, $2x$ and $2y$ differ from $2b$ only for faults of old programs
    modern = "$2b$" + hashed.split("$", 2)[2]
    import bcrypt  # noqa: PLC0415  # most pages are open: it is 0.4 MB

    return len(encoded) <= MAX_BCRYPT_BYTES and bcrypt.checkpw(encoded, modern.encode())


def _given(header: str | None) -> tuple[str, str] | None:
    given = Authorization.from_header(header)
    if given is None or given.type != "basic":
        return None
    return given.username or "", given.password or ""


def _joined(user: str, password: str) -> bytes:
    return f"{user}:{password}".encode()
