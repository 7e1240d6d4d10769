"""Looks at databases and pools on a schedule of its own, in a thread of its own.

A database that hangs then delays its own figures and no Kafka poll.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from monitor.exposition.series import Block, Samples
from monitor.pools.analysis import analyse
from monitor.pools.metrics import samples
from monitor.pools.settings import DatabaseSettings

# A look is bounded by its sources' time limits; longer than this nobody waits for it at the end.
STOP_SECONDS: Final = 1.0


class DatabaseWatch:
    """Repeats looks; `blocks` has the samples of the last one, nothing before the first."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._latest: Samples | None = None

    def start(self, interval_s: float) -> None:
        """Look now and then every `interval_s` seconds in the background, if there is anything."""
        if self._settings.is_empty:
            return
        self._thread = threading.Thread(
            target=self._run, args=(interval_s,), name="databases", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Start no other look."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def blocks(self) -> Iterator[Block]:
        """Yield the samples of the last look."""
        latest = self._latest
        if latest is not None:
            yield Block((latest,), lambda: latest)

    def _run(self, interval_s: float) -> None:
        # here, as most monitors watch no database: the driver takes 6 MB
        from monitor.pools.collector import DatabaseCollector  # noqa: PLC0415

        collector = DatabaseCollector(self._settings)
        try:
            while True:
                snapshot = collector.collect()
                self._latest = samples(snapshot, analyse(snapshot, self._settings.pool_max))
                if self._stopped.wait(interval_s):
                    return
        finally:
            collector.close()
