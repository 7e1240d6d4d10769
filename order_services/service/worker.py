"""Runs work that is due again and again, through transient errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from order_services.messaging.dead_letters import describe
from order_services.process import instrumentation
from order_services.process.backoff import Backoff
from order_services.process.settings import ServiceSettings
from order_services.process.threads import Threaded
from order_services.storage.database import is_transient

# How often what is old is looked for and forgotten.
MAINTENANCE_INTERVAL_SECONDS: Final = 3600.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """Work that is due every `interval_seconds`, on a thread of its own.

    `work` returns whether there may be more to do at once. Transient database errors are retried
    with back-off; after any other error the work is tried again too, and the process is not ready
    until it succeeds.
    """

    name: str
    interval_seconds: float
    work: Callable[[], bool]


class WorkerThread(Threaded):
    """Runs one `Worker` until it is stopped."""

    def __init__(self, worker: Worker, settings: ServiceSettings) -> None:
        super().__init__(worker.name)
        self._worker = worker
        self._backoff = Backoff(settings.retry_first_seconds, settings.retry_max_seconds)
        self._failed: str | None = None

    def not_ready(self) -> str | None:
        """Say why the work does not get done, or None."""
        return None if self._failed is None else f"{self._worker.name}: {self._failed}"

    def not_alive(self) -> str | None:
        """Say why only a restart can help, or None."""
        if self._thread.is_alive() or self._stopping.is_set():
            return None
        return f"{self._worker.name}: not running"

    def _run(self) -> None:
        wait_seconds = 0.0
        while not self._stopping.wait(wait_seconds):
            try:
                more = self._worker.work()
            except Exception as error:  # noqa: BLE001  # work of any kind may fail in any way
                wait_seconds = self._backoff.next_seconds()
                if is_transient(error):
                    instrumentation.RETRIES.labels(type(error).__name__).inc()
                    _log.warning("work will be tried again", worker=self._worker.name)
                else:
                    self._failed = describe(error)
                    _log.exception("work failed", worker=self._worker.name)
                continue
            self._failed = None
            self._backoff.reset()
            wait_seconds = 0 if more else self._worker.interval_seconds
