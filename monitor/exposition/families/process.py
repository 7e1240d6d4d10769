"""What the monitor's own process uses, under the names that Prometheus' clients give it."""

from __future__ import annotations

from typing import Final

from prometheus_client import ProcessCollector

from monitor.exposition.families.family import Family
from monitor.exposition.metric import Kind, Metric
from monitor.exposition.series import Block, Samples


def _process(name: str, text: str, unit: str = "", kind: Kind = "gauge") -> Metric:
    name = f"process_{name}"
    return Metric(name, kind, text, (), unit, when="the monitor runs on Linux")


METRICS: Final[tuple[Metric, ...]] = (
    _process("cpu_seconds_total", "CPU time of the monitor's process.", "seconds", "counter"),
    _process("resident_memory_bytes", "Resident memory of the monitor's process.", "bytes"),
    _process("virtual_memory_bytes", "Virtual memory of the monitor's process.", "bytes"),
    _process("open_fds", "Open file descriptors of the monitor's process."),
    _process("max_fds", "File descriptors that the monitor's process may open."),
    _process("start_time_seconds", "When the monitor started, as a Unix time.", "seconds"),
)
FAMILY: Final = Family(
    "process", "About the monitor's own process; always on.", METRICS, is_always_on=True
)
_BY_NAME: Final = {metric.name: metric for metric in METRICS}
_COLLECTOR: Final = ProcessCollector(registry=None)


def block() -> Block:
    """Return the samples of the moment in which a page is rendered."""
    return Block((), _samples)


def _samples() -> Samples:
    # none where there is no /proc
    return {
        _BY_NAME[sample.name]: {(): sample.value}
        for family in _COLLECTOR.collect()
        for sample in family.samples
        if sample.name in _BY_NAME
    }
