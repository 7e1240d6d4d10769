"""How many replicas of each service run here, and how many should: two files of the data directory.

A file needs no port and no login, outlives a supervisor that is busy, and whoever may write it may stop
the system anyway.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from order_services.domain.services import SERVICES
from order_services.local.plan import MAX_REPLICAS

_WANTED: Final = "replicas.wanted.json"
_RUNNING: Final = "replicas.json"


class NotRunningError(Exception):
    """No system runs in this data directory."""


class Replicas:
    """What one supervisor tells, and what others ask of it; counts by service."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._wanted = data_dir / _WANTED
        self._running = data_dir / _RUNNING

    def ask(self, counts: Mapping[str, int]) -> None:
        """Ask for so many of some services; raises NotRunningError."""
        self.running()
        _write(self._wanted, {**self.wanted(), **counts})

    def wanted(self) -> dict[str, int]:
        """Return what was asked for and is of use, nothing of what is not."""
        return {
            service: count
            for service, count in _read(self._wanted).items()
            if service in SERVICES and isinstance(count, int) and 1 <= count <= MAX_REPLICAS
        }

    def running(self) -> dict[str, int]:
        """Return how many there are, those that start among them; raises NotRunningError."""
        counts: dict[str, int] = self._told().get("replicas", {})
        return counts

    def refused(self) -> dict[str, str]:
        """Return why there are not as many as were asked for, by service."""
        why: dict[str, str] = self._told().get("refused", {})
        return why

    def monitor_url(self) -> str:
        """Return where the monitor of this system is."""
        url: str = self._told()["monitor_url"]
        return url

    def tell(
        self, replicas: Mapping[str, int], refused: Mapping[str, str], monitor_url: str
    ) -> None:
        """Tell what runs, what can't, and where the monitor is."""
        told = {
            "replicas": dict(replicas),
            "refused": dict(refused),
            "monitor_url": monitor_url,
            "pid": os.getpid(),
        }
        _write(self._running, told)

    def remove(self) -> None:
        """Tell that nothing runs, and forget what was asked for: it was asked of this run."""
        self._running.unlink(missing_ok=True)
        self._wanted.unlink(missing_ok=True)

    def _told(self) -> dict[str, Any]:
        told = _read(self._running)
        # after kill -9 the file is still there
        if not told or not _runs(told.get("pid")):
            raise NotRunningError(
                f"no system runs in {self._data_dir}: start one with `make run` or `order-services up`, "
                "or say which with --data-dir"
            )
        return told


def _runs(pid: Any) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(content), encoding="utf-8")
    # at once: who reads it must not see half
    fresh.replace(path)
