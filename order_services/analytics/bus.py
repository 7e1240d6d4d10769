"""Carries what one replica has committed to the clients of every replica."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class EventBus(Protocol):
    """Delivers each published message to every subscriber of every replica.

    Delivery is best effort: a client that missed something reads the numbers from the database.
    """

    def publish(self, messages: Sequence[str]) -> None:
        """Hand over messages (JSON texts) whose events are committed; does not wait."""

    def subscribe(self, receive: Callable[[Sequence[str]], None]) -> None:
        """Call `receive` with the messages of each publication, in order; it must not block."""

    def close(self) -> None:
        """Deliver nothing more."""


class LocalBus:
    """The bus within one process: enough where clients stick to the only replica."""

    def __init__(self) -> None:
        self._receivers: list[Callable[[Sequence[str]], None]] = []

    def publish(self, messages: Sequence[str]) -> None:
        """Hand the messages to each subscriber on the caller's thread."""
        for receive in self._receivers:
            receive(messages)

    def subscribe(self, receive: Callable[[Sequence[str]], None]) -> None:
        """Add a subscriber."""
        self._receivers.append(receive)

    def close(self) -> None:
        """Forget all subscribers."""
        self._receivers.clear()
