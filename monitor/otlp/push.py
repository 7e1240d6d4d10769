"""Pushes what the pollers published to an OpenTelemetry collector, in a thread of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import requests
import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult

from monitor.every import Every, one_line
from monitor.exposition.families.otlp import LAST_PUSH, UP
from monitor.exposition.series import Block, Level, Samples, Values
from monitor.otlp.points import Points, resource
from monitor.poller import Published

_log = structlog.get_logger(__name__)

# A push that is under way when the monitor ends gets as long.
STOP_SECONDS: Final = 2.0


class Source(Protocol):
    """One cluster as its poller publishes it."""

    @property
    def latest(self) -> Published:
        """Return what the last poll published."""

    @property
    def cluster(self) -> str | None:
        """Return the name that its series have, None where they have none."""

    def blocks_at(self, level: Level) -> Iterator[Block]:
        """Yield the samples of the last state, with groups as far down as this."""


class _LastWords(logging.Handler):
    """Keeps what the exporter logged last, as where it can't encode: it raises nothing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.message = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.message = one_line(record.getMessage())


class _Session(requests.Session):
    """Keeps why the last request failed: the exporter does not always tell."""

    cause = ""

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send one request."""
        try:
            response = super().send(request, **kwargs)
        except requests.RequestException as error:
            self.cause = _root_of(error)
            raise
        self.cause = "" if response.ok else f"HTTP {response.status_code} {response.reason}"
        return response


class Pusher:
    """Pushes every so often; a collector that is away costs a metric and a line of the log.

    The exporter takes where to push, with which headers, TLS, compression and time limit from
    OpenTelemetry's own variables. Raises ValueError where one of them can't be used.
    """

    def __init__(
        self,
        sources: Callable[[], Sequence[Source]],
        level: Level = Level.GROUP,
    ) -> None:
        self._sources = sources
        self._level = level
        self._words = _LastWords()
        log = logging.getLogger("opentelemetry")
        log.addHandler(self._words)
        log.propagate = False  # else it says so again at each try
        self._session = _Session()
        self._exporter = OTLPMetricExporter(session=self._session)
        self._resource = resource()
        self._started_ns = time.time_ns()
        self._every = Every("otlp", self.push)
        self._error: str | None = None
        self._pushed_at: float | None = None
        self._has_tried = False

    def start(self, interval_s: float) -> None:
        """Push now and then every `interval_s` seconds in the background."""
        self._every.start(interval_s)

    def stop(self) -> None:
        """Push no more; one that is under way is given up."""
        self._exporter.shutdown()
        self._every.stop(STOP_SECONDS)

    def push(self) -> bool:
        """Push once, and say whether the collector took it."""
        points = Points(self._started_ns, partitions=self._level is Level.PARTITION)
        for source in self._sources():
            state = source.latest.state
            seen_ns = int(state.polled_at * 1e9)
            points.add(source.blocks_at(self._level), source.cluster, seen_ns)
        self._words.message = self._session.cause = ""
        result = self._exporter.export(points.data(self._resource))
        taken = result is MetricExportResult.SUCCESS
        error = None if taken else self._session.cause or self._words.message or "no cause is known"
        if (error is None) != (self._error is None) or not self._has_tried:
            if error is not None:
                _log.warning("the OpenTelemetry collector takes nothing", cause=error)
            else:
                _log.info("the OpenTelemetry collector takes what is pushed", samples=len(points))
        self._error, self._has_tried = error, True
        if taken:
            self._pushed_at = time.time()
        return taken

    def block(self) -> Block:
        """Return how pushing goes."""
        return Block((), self._samples, name="otlp")

    def _samples(self) -> Samples:
        if not self._has_tried:
            return {}
        last: Values = {} if self._pushed_at is None else {(): round(self._pushed_at, 3)}
        return {UP: {(): int(self._error is None)}, LAST_PUSH: last}


def _root_of(error: BaseException) -> str:
    """Return the cause of the causes, in one line."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return one_line(str(getattr(error, "strerror", None) or error or type(error).__name__))
