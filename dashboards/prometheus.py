"""A Prometheus to ask: one that runs somewhere, or one of our own on a free port.

For tests and pictures. The server is the operating system's (`prometheus` and `promtool`).
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from order_services.local.ports import LOOPBACK, free_port

_READY_WITHIN_S: Final = 60.0
_STOP_WITHIN_S: Final = 20.0


class PrometheusError(Exception):
    """Prometheus refused a query, or did not start; says why."""


@dataclass(frozen=True, slots=True)
class Series:
    """One result of a query: labels, and (time, value) pairs, a single one for an instant query."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        """The newest value that is a number; NaN when none is."""
        return next((v for _, v in reversed(self.points) if not math.isnan(v)), math.nan)


class Client:
    """Asks a Prometheus at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def query(self, expr: str, at: float) -> list[Series]:
        """Return the result of an instant query; raises PrometheusError."""
        result = self._get("query", query=expr, time=at)["result"]
        return [Series(item["metric"], [_point(item["value"])]) for item in result]

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """Return the result of a range query; raises PrometheusError."""
        result = self._get("query_range", query=expr, start=start, end=end, step=step)["result"]
        return [Series(item["metric"], [*map(_point, item["values"])]) for item in result]

    def label_values(self, label: str, selector: str) -> list[str]:
        """Return the values that a label has in the series of a selector, of any time."""
        values: list[str] = self._get(f"label/{label}/values", **{"match[]": selector})
        return values

    def _get(self, path: str, **parameters: object) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as reply:  # noqa: S310  # http by design
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise PrometheusError(json.load(error).get("error", str(error))) from None


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise PrometheusError(f"{name} is needed: install your system's package `prometheus`")
    return path


def _point(pair: Sequence[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


@dataclass(frozen=True, slots=True)
class Target:
    """What to scrape: `address` is host:port of a program that serves /metrics."""

    job: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)


class LocalPrometheus:
    """A server in `directory`, which scrapes the targets and judges the files of rules.

    Use it as a context manager.
    """

    def __init__(
        self,
        directory: Path,
        targets: Sequence[Target] = (),
        *,
        rules: Sequence[Path] = (),
        scrape_interval_s: int = 5,
    ) -> None:
        self.scrape_interval_s = scrape_interval_s
        self._directory = directory
        self._targets = targets
        self._rules = rules
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.client = Client(f"http://{LOOPBACK}:{self._port}")

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / "prometheus.yml"
        path.write_text(json.dumps(self._configuration()))  # JSON is YAML
        with (self._directory / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # every argument is ours
                [
                    _program("prometheus"),
                    f"--config.file={path}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={LOOPBACK}:{self._port}",
                    "--enable-feature=exemplar-storage",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _configuration(self) -> Mapping[str, Any]:
        jobs: dict[str, list[Target]] = {}
        for target in self._targets:
            jobs.setdefault(target.job, []).append(target)
        interval = f"{self.scrape_interval_s}s"
        return {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "rule_files": [str(path) for path in self._rules],
            "scrape_configs": [
                {
                    "job_name": job,
                    "static_configs": [
                        {"targets": [one.address], "labels": dict(one.labels)} for one in targets
                    ],
                }
                for job, targets in jobs.items()
            ],
        }

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            try:
                urllib.request.urlopen(f"{self.client.url}/-/ready", timeout=1).close()  # noqa: S310  # http by design
            except OSError as error:
                exited = self._process is None or self._process.poll() is not None
                if exited or time.monotonic() > deadline:
                    log = (self._directory / "prometheus.log").read_text()
                    raise PrometheusError(f"Prometheus did not start: {log[-2000:]}") from error
                time.sleep(0.1)
            else:
                return
