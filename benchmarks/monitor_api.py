"""What the JSON API's lists cost, and a push to an OpenTelemetry collector: 2,000 groups in memory.

A list is made once a poll, and kept: both are shown. CPU time of the process, without HTTP. A push
is turned into protobuf, as the exporter does it, and sent nowhere; every group has something to
tell, and a tenth of them lags.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Final

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

from benchmarks.monitor_scrape import Cluster
from benchmarks.support import median, run, table
from monitor.exposition.series import Level
from monitor.otlp.points import Points, resource
from monitor.poller import Poller
from monitor.web.pages import pages

TOPICS: Final = 1_000
PATHS: Final = (
    "/groups?limit=10000",
    "/groups",
    "/groups?only_behind=true&sort=behind",
    "/topics?limit=10000",
    "/advice",
    "/groups/group-0000",
    "/topics/topic-0000",
)


def measure(arguments: argparse.Namespace) -> None:
    """Print both tables."""
    rounds = 3 if arguments.quick else 10
    poller = Poller(Cluster(TOPICS), stale_after_s=3_600)
    for _ in range(3):
        poller.poll()
    client = pages(poller).test_client()
    client.get("/api/v1/clusters")  # the first request of all sets Flask up
    rows: list[list[object]] = []
    for path in PATHS:
        made: list[float] = []
        kept: list[float] = []
        size = 0
        for _ in range(rounds):
            poller.poll()
            for found in (made, kept):
                seconds, size = _cpu(lambda path=path: len(client.get(f"/api/v1{path}").data))  # type: ignore[misc]
                found.append(1_000 * seconds)
        rows.append([path, size / 1_000, median(made), median(kept)])
    table("A list of the API", ["", "kB", "made, CPU ms", "again, CPU ms"], rows)

    pushes: list[list[object]] = []
    for level in Level:
        spent, size, count = [], 0, 0
        for _ in range(rounds):
            points = Points(0, partitions=level is Level.PARTITION)

            def push(points: Points = points, level: Level = level) -> int:
                points.add(poller.blocks_at(level), "cluster", time.time_ns())
                return len(encode_metrics(points.data(resource())).SerializeToString())

            seconds, size = _cpu(push)
            spent.append(seconds)
            count = len(points)
        pushes.append([level.value, count, size / 1e6, median(spent)])
    table("A push", ["level", "samples", "MB", "CPU s"], pushes)


def _cpu(what: Callable[[], int]) -> tuple[float, int]:
    began = time.process_time()
    result = what()
    return time.process_time() - began, result


if __name__ == "__main__":
    sys.exit(run("monitor_api", __doc__ or "", measure))
