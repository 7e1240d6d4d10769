"""Basic auth of the pages."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog
from werkzeug.datastructures import Authorization

_log = structlog.get_logger(__name__)

# Who tries passwords gets an answer a second, and a line a minute in the log.
WRONG_LOGIN_DELAY_S: Final = 1.0
SECONDS_BETWEEN_LINES: Final = 60.0
MAX_CLIENTS_REMEMBERED: Final = 1_000


class Login:
    """The user and password that open the pages; without them they are open to all."""

    def __init__(
        self,
        user_and_password: tuple[str, str] | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._right = user_and_password and _joined(*user_and_password)
        self._monotonic = monotonic
        self._told_at: OrderedDict[str, float] = OrderedDict()

    def opens(self, header: str | None) -> bool:
        """Tell whether a request with this Authorization header may see everything."""
        if not self._right:
            return True
        given = Authorization.from_header(header)
        if given is None or given.type != "basic":
            return False
        told = _joined(given.username or "", given.password or "")
        return hmac.compare_digest(told, self._right)  # as slow, however much of it is right

    def note_wrong(self, client: str) -> None:
        """Log that a client gave a wrong login, once a minute for each."""
        now = self._monotonic()
        if now - self._told_at.get(client, -SECONDS_BETWEEN_LINES) < SECONDS_BETWEEN_LINES:
            return
        self._told_at[client] = now
        self._told_at.move_to_end(client)
        if len(self._told_at) > MAX_CLIENTS_REMEMBERED:
            self._told_at.popitem(last=False)
        _log.warning("wrong login to the pages", client=client)


def _joined(user: str, password: str) -> bytes:
    return f"{user}:{password}".encode()
