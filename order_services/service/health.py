"""What a service says about itself: each answer is a list of reasons, none when all is well."""

from __future__ import annotations

from collections.abc import Callable

# Returns why something is not well, or None.
Check = Callable[[], str | None]


class Health:
    """Collects the checks of a process's parts; checks must be thread-safe.

    Those of liveness must be quick: they are made on the web server's loop.
    """

    def __init__(self) -> None:
        self._alive: list[Check] = []
        self._ready: list[Check] = []
        self._degraded: list[Check] = []

    def add_liveness(self, check: Check) -> None:
        """Add a reason to restart the process: only what a restart repairs."""
        self._alive.append(check)

    def add_readiness(self, check: Check, *, gates: bool = True) -> None:
        """Add a reason to send no work to the process; one that does not gate is only told."""
        (self._ready if gates else self._degraded).append(check)

    def alive(self) -> list[str]:
        """Say why the process should be restarted."""
        return _reasons(self._alive)

    def ready(self) -> list[str]:
        """Say why no work should be sent here."""
        return _reasons(self._ready)

    def degraded(self) -> list[str]:
        """Say what does not work while work can be sent here all the same."""
        return _reasons(self._degraded)


def _reasons(checks: list[Check]) -> list[str]:
    return [reason for check in checks if (reason := check()) is not None]
