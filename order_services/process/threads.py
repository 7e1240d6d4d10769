"""What runs on a thread of its own, from `start` until it is asked to stop."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class Threaded(ABC):
    """A part of a process; `_run` ends soon once `_stopping` is set."""

    def __init__(self, name: str) -> None:
        self._stopping = threading.Event()
        # daemon: a broker that does not answer can hold up the end, and must not hold up the exit
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def _run(self) -> None:
        """Do the work."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Begin nothing new; returns at once."""
        self._stopping.set()

    def stop(self, timeout_seconds: float) -> bool:
        """Finish what is at hand; False when that took too long."""
        self.ask_to_stop()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()
