"""What the servers that we start ourselves have in common: how they begin and end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from order_services.local.ports import LOOPBACK, free_port
from order_services.local.process import ManagedProcess, StartError


class EmbeddedServer(ABC):
    """One server that listens on the loopback interface; `data_dir` stays across restarts."""

    name: ClassVar[str]
    start_timeout_s: ClassVar[float]
    host = LOOPBACK

    def __init__(self, data_dir: Path, port: int, log_file: Path) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self.log_file = log_file
        self.process: ManagedProcess | None = None

    def start(
        self,
        progress: Callable[[str], None] = lambda _: None,
        spawned: Callable[[ManagedProcess], None] = lambda _: None,
    ) -> None:
        """Prepare what it needs, start, and wait until it answers.

        `spawned` gets the process before it is ready. Raises StartError with the end of its log, or
        with what is missing.
        """
        process = self._prepare(progress)
        progress(f"{self.name}: starting on {self.host}:{self.port}")
        self.process = process
        process.start()
        spawned(process)
        self._wait_until_ready(process)

    @abstractmethod
    def _prepare(self, progress: Callable[[str], None]) -> ManagedProcess:
        """Make its data directory, where it is new, and return how to run it."""

    @abstractmethod
    def _probe(self) -> Callable[[], bool]:
        """Return what asks it whether it serves clients yet."""

    def _comes_back(self, _process: ManagedProcess) -> bool:
        """Say whether one that ended before it was ready has been started once more."""
        return False

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._started().pid

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing is answered."""
        self._started().pause()

    def resume(self) -> None:
        """Let a frozen one go on."""
        self._started().resume()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._started().kill()

    def stop(self) -> None:
        """Shut down in good order: a clean shutdown starts faster the next time."""
        if self.process is not None:
            self.process.stop(timeout_s=20)

    def _started(self) -> ManagedProcess:
        if self.process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self.process

    def _wait_until_ready(self, process: ManagedProcess) -> None:
        answers = self._probe()
        deadline = time.monotonic() + self.start_timeout_s
        while time.monotonic() < deadline:
            if not process.running and not self._comes_back(process):
                raise self._failure(f"ended with exit code {process.exit_code}", process)
            if answers():
                return
            time.sleep(0.05)
        process.kill()
        address = f"{self.host}:{self.port}"
        raise self._failure(
            f"did not answer on {address} within {self.start_timeout_s:.0f} s", process
        )

    def _failure(self, what: str, process: ManagedProcess) -> StartError:
        return StartError(
            f"{self.name} {what}; the end of its log ({self.log_file}):\n{process.log_tail()}"
        )
