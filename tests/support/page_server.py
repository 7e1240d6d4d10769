"""Serves a large page as `monitor serve` does, from a cluster in memory: for those who attack it.

Run as a program: `python -m tests.support.page_server PORT DESCRIPTORS HURRY [CERTIFICATE]`. Deadlines
of connections are HURRY times shorter than in earnest.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from monitor.model import Group, Offsets, Partition, Snapshot, Topic
from monitor.poller import Poller
from monitor.web import connections
from monitor.web.app import create_app
from monitor.web.server import WebServer
from monitor.web.tls import Certificate

TOPICS: Final = 150
PARTITIONS: Final = 100
POLL_INTERVAL_S: Final = 2.0


class Cluster:
    """Groups that are all behind on all partitions; each poll sees that they moved."""

    def __init__(self) -> None:
        self._polls = 0

    def poll(self) -> Snapshot:
        """Return the next snapshot."""
        self._polls += 1
        now = time.monotonic()
        indexes = range(PARTITIONS)
        partitions = dict.fromkeys(indexes, Partition(1, (1,), (1,)))
        names = [f"topic-{number}" for number in range(TOPICS)]
        groups = [
            Group(
                f"group-of-{name}", members=(), commits={name: dict.fromkeys(indexes, self._polls)}
            )
            for name in names
        ]
        return Snapshot(
            "cluster",
            time.time(),
            now,
            topics={name: Topic(name, partitions) for name in names},
            end_offsets=Offsets(
                {name: dict.fromkeys(indexes, 100 + self._polls) for name in names}, now
            ),
            groups={group.id: group for group in groups},
        )

    def offsets_for_times(self, wanted: Any) -> Mapping[str, Any]:  # noqa: ARG002
        """Answer nothing."""
        return {}

    def look_at_logs(self, wanted: Any) -> Mapping[str, Any]:  # noqa: ARG002
        """Answer nothing."""
        return {}

    def take_request_counts(self) -> Mapping[str, int]:
        """Return that no request was sent."""
        return {}


def main(port: int, descriptors: int, hurry: float, certificate: str = "") -> None:
    """Serve until told to stop."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    for use in connections.PATIENCE_SECONDS:
        connections.PATIENCE_SECONDS[use] /= hurry
    poller = Poller(Cluster(), stale_after_s=3_600)
    tls = Certificate(Path(certificate), Path(certificate)) if certificate else None
    server = WebServer(create_app(poller), "127.0.0.1", port, tls)
    server.bind()
    poller.start(POLL_INTERVAL_S)
    server.serve_until_stopped()
    poller.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
