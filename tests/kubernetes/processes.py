"""Programs that are run beside each other as processes of this machine, and asked whether they are ready."""

from __future__ import annotations

import contextlib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from order_services.local.process import ManagedProcess
from tests.support.waiting import wait_for

START_TIMEOUT_S: Final = 240.0
STOP_TIMEOUT_S: Final = 30.0
LOG_LINES: Final = 60


class Processes:
    """Runs programs by name, each with a log of its own in one folder."""

    def __init__(self, folder: Path, programs: Mapping[str, Path]) -> None:
        self._folder = folder
        self._programs = programs
        self._running: list[ManagedProcess] = []

    def run(
        self,
        name: str,
        *flags: str,
        ready: Callable[[], bool] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a program, and wait until it is ready; an AssertionError has the log of one that ended."""
        process = ManagedProcess(
            name,
            [str(self._programs[name]), *flags],
            self._folder / f"{name}.log",
            environment=environment,
        )
        process.start()
        self._running.append(process)
        if ready is None:
            return

        def is_ready() -> bool:
            assert process.running, f"{name} ended:\n{process.log_tail(LOG_LINES)}"
            return ready()

        wait_for(f"{name} that is ready", is_ready, START_TIMEOUT_S)

    def stop(self) -> None:
        """Stop them, last started first: an API server waits for its clients for a minute."""
        while self._running:
            self._running.pop().stop(STOP_TIMEOUT_S)


def answers(url: str, token: str = "") -> bool:
    """Say whether something answers 200 there; whose certificate it is does not matter."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    anybody = ssl._create_unverified_context()
    with contextlib.suppress(urllib.error.URLError, OSError):
        # no proxy of the machine: it is on this machine
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=anybody)
        )
        with opener.open(request, timeout=5) as answer:
            return bool(answer.status == 200)
    return False
