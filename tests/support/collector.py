"""Stands in for an OpenTelemetry collector: takes pushes over HTTP and decodes them."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)


@dataclass
class StandInCollector:
    """What was pushed: requests, and their headers in small letters. `status` is what it answers."""

    url: str = ""
    status: int = HTTPStatus.OK
    pushes: list[ExportMetricsServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    came: threading.Event = field(default_factory=threading.Event)

    def points(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Return name -> (attributes, value) of the last push."""
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for metric in self.metrics():
            data = metric.sum if metric.HasField("sum") else metric.gauge
            found[metric.name] = [
                (
                    {each.key: each.value.string_value for each in point.attributes},
                    getattr(point, point.WhichOneof("value")),
                )
                for point in data.data_points
            ]
        return found

    def metrics(self) -> list[Any]:
        """Return the metrics of the last push, decoded."""
        return [
            metric
            for resource in self.pushes[-1].resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]

    def resource(self) -> dict[str, str]:
        """Return who pushed last."""
        attributes = self.pushes[-1].resource_metrics[0].resource.attributes
        return {each.key: each.value.string_value for each in attributes}


@contextmanager
def standing_in() -> Iterator[StandInCollector]:
    """Serve one on a free port."""
    collector = StandInCollector()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.pushes.append(ExportMetricsServiceRequest.FromString(body))
            collector.headers.append({k.lower(): v for k, v in self.headers.items()})
            collector.paths.append(self.path)
            collector.came.set()
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
