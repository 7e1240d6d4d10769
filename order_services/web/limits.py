"""What a client may take, and how long it may take for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

MAX_BODY_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may take: bytes, connections, and seconds for each step of a request.

    `head_seconds` counts from the connection or the first byte to the end of the head,
    `body_seconds` from there to the end of the body, `idle_seconds` between requests. A client that
    leaves an answer unread for `send_seconds` is cut off.
    """

    connections: int = 1000
    head_bytes: int = 32 * 1024
    body_bytes: int = MAX_BODY_BYTES
    head_seconds: float = 10.0
    body_seconds: float = 10.0
    idle_seconds: float = 75.0  # longer than proxies keep theirs: else they send into a closing one
    send_seconds: float = 10.0


class Unread:
    """Since when a client leaves unread what it was sent."""

    def __init__(self) -> None:
        self._since: float | None = None

    def is_overdue(self, transport: asyncio.Transport, now: float, limit_seconds: float) -> bool:
        """Say whether all of `limit_seconds` have passed, as far as we looked, with something unread."""
        if transport.get_write_buffer_size() == 0:
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since > limit_seconds
