"""Tells open pages that there was a poll: server-sent events of a few bytes, made once for all.

An event only says what is new of which cluster; the figures are fetched as one document a poll, made and
compressed once (`page_data`), which a client who is slow to take it delays for nobody.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from monitor.poller import Published
from monitor.state import State

# How often it is looked whether a poll has ended, while somebody wants to know.
LOOK_SECONDS: Final = 0.5
# A comment so often: a proxy between closes what is silent, mostly after a minute.
COMMENT_SECONDS: Final = 15.0
# A password that is changed is asked for again at the latest after this.
MAX_SECONDS: Final = 600.0
# Of the connections that the server allows: others have to scrape.
MAX_LISTENERS: Final = 64
RETRY_MS: Final = 2_000

LISTEN: Final = "listen"
"""The ASGI extension by which a connection is told that its answer has no end: see `connections`."""


class Polls(Protocol):
    """One cluster as its poller publishes it."""

    @property
    def latest(self) -> Published:
        """Return what the last poll published: another object after each."""

    def current(self) -> State:
        """Return the last state without what is too old by now."""

    def unready_reason(self) -> str | None:
        """Say why it can't be relied on now, None when it can."""


class TooManyError(Exception):
    """As many pages listen as may."""


@dataclass(eq=False)
class _Event:
    """What is told, and what wakes those who wait for what comes after."""

    text: bytes = b""
    basis: tuple[object, ...] = ()
    has_successor: asyncio.Event = field(default_factory=asyncio.Event)


class Live:
    """The events; all of it runs on one event loop."""

    def __init__(self, pollers: Callable[[], Mapping[str, Polls]]) -> None:
        self._pollers = pollers
        self._event: _Event | None = None
        self._listeners = 0
        self._looking: asyncio.Task[None] | None = None

    async def stream(
        self, send: Callable[[bytes], Awaitable[None]], gone: asyncio.Future[None]
    ) -> None:
        """Send events until the client is gone or has listened for long; raises TooManyError."""
        if self._listeners >= MAX_LISTENERS:
            raise TooManyError
        self._listeners += 1
        try:
            event = self._look()
            if self._looking is None:
                self._looking = asyncio.create_task(self._keep_looking())
            await send(f"retry: {RETRY_MS}\n\n".encode() + event.text)
            ends_at = time.monotonic() + MAX_SECONDS
            while not gone.done() and time.monotonic() < ends_at:
                waiting = asyncio.ensure_future(event.has_successor.wait())
                await asyncio.wait(
                    (waiting, gone), timeout=COMMENT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                waiting.cancel()
                latest = self._event or event
                await send(latest.text if latest is not event else b": still here\n\n")
                event = latest
        finally:
            self._listeners -= 1
            if self._listeners == 0 and self._looking is not None:
                self._looking.cancel()
                self._looking = None
                self._event = None  # it has the last poll in memory

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._look()

    def _look(self) -> _Event:
        """Make the next event if there is anything new; return the last one."""
        found: dict[str, tuple[Polls, Published, str | None]] = {
            name: (poller, poller.latest, poller.unready_reason())
            for name, poller in self._pollers().items()
        }
        basis = tuple(
            part for name, (_, latest, reason) in found.items() for part in (name, latest, reason)
        )
        event = self._event
        if event is not None and _same(event.basis, basis):
            return event
        clusters = [_told(name, *each) for name, each in found.items()]
        told = json.dumps({"now": time.time(), "clusters": clusters})
        self._event = _Event(f"data: {told}\n\n".encode(), basis)
        if event is not None:
            event.has_successor.set()
        return self._event


def _told(name: str, poller: Polls, latest: Published, reason: str | None) -> dict[str, Any]:
    snapshot = poller.current().snapshot
    return {
        "name": name,
        "cluster": latest.state.cluster,
        # tells polls apart, also those of the monitor before its restart
        "poll": latest.state.monotonic_at,
        "seen_at": None if snapshot is None else snapshot.taken_at,
        "reason": reason,
    }


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Compare by identity where a poll is meant: to compare what is in it takes long.

    Reasons and names are text, of which equal is the same.
    """
    return len(one) == len(other) and all(
        a is b or (isinstance(a, str) and a == b) for a, b in zip(one, other, strict=True)
    )
