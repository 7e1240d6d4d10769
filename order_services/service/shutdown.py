"""Ends the parts of a service within one budget: all are asked first, and then waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

# What is kept of the budget for the relay: it publishes what the others wrote last.
RELAY_SHARE: Final = 0.3

_log = structlog.get_logger(__name__)

# Ends something within so many seconds.
Ending = Callable[[float], object]


class Part(Protocol):
    """A part of a service that runs on a thread of its own."""

    def ask_to_stop(self) -> None:
        """Begin to end; returns at once."""

    def stop(self, timeout_seconds: float) -> bool:
        """Wait for the end; False when that took too long."""


def stop_in_order(
    budget_seconds: float, *, doors: Sequence[Ending], parts: Sequence[Part], relay: Part
) -> bool:
    """End everything within `budget_seconds`; return whether all did.

    `doors` are ended one after the other, while `parts` finish what they have at hand: the web server,
    and then what answered its requests. The relay comes last. What does not end in time is not waited
    for.
    """
    deadline = time.monotonic() + budget_seconds
    for_relay = RELAY_SHARE * budget_seconds

    def left(kept: float = 0.0) -> float:
        return max(0.0, deadline - kept - time.monotonic())

    def close_doors() -> None:
        for door in doors:
            try:
                door(left(for_relay))
            except Exception:  # noqa: BLE001  # a door that jams must not keep the others open
                _log.exception("a part failed to end")

    for part in parts:
        part.ask_to_stop()
    # a thread: one that takes longer than it was given must not cost the others their time
    closing = threading.Thread(target=close_doors, name="close-doors", daemon=True)
    closing.start()
    closing.join(left(for_relay))
    ended = [not closing.is_alive()]
    ended += [part.stop(left(for_relay)) for part in parts]
    ended.append(relay.stop(left()))
    return all(ended)
