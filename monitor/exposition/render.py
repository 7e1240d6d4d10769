"""Renders samples as Prometheus text, once per poll.

The text of a block of samples is kept while the block's source is the same object, and the text of
other series' labels while the series live: most of a large page never changes between two polls.
"""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from monitor.exposition.metrics import METRICS, Metric
from monitor.exposition.samples import Block, Series

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# The lowest level: 9 MB of text shrink to a twentieth in 0.05 s; higher levels take five times that.
GZIP_LEVEL: Final = 1
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page, plain and compressed."""

    plain: bytes
    gzipped: bytes


class _LabelTexts(dict[tuple[str, ...], str]):
    """Label values -> the text in braces, joined when first asked for."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names

    def __missing__(self, values: tuple[str, ...]) -> str:
        text = self[values] = label_text(self.names, values)
        return text


class Renderer:
    """Renders the metrics of the families that are switched on (all unless named)."""

    def __init__(self, families: Collection[str] | None = None) -> None:
        self._families = families
        self._labels: dict[tuple[str, ...], _LabelTexts] = {}
        self._kept: dict[int, tuple[object, dict[Metric, str]]] = {}

    def render(self, blocks: Iterable[Block]) -> Page:
        """Render all blocks; raises ValueError when a metric is in two of them."""
        texts: dict[Metric, str] = {}
        kept: dict[int, tuple[object, dict[Metric, str]]] = {}
        live: defaultdict[tuple[str, ...], list[Series]] = defaultdict(list)
        for block in blocks:
            rendered = self._text_of(block, live)
            if block.source is not None:
                kept[id(block.source)] = (block.source, rendered)
            for metric, text in rendered.items():
                if metric in texts:
                    raise ValueError(f"{metric.name} is in two blocks: its series could be twice")
                texts[metric] = text
        self._kept = kept
        self._forget_dead(live)
        plain = "".join(texts[metric] for metric in METRICS if metric in texts).encode()
        return Page(plain, gzip.compress(plain, GZIP_LEVEL, mtime=0))

    def _text_of(
        self, block: Block, live: defaultdict[tuple[str, ...], list[Series]]
    ) -> dict[Metric, str]:
        before = self._kept.get(id(block.source))
        if before is not None and before[0] is block.source:
            return before[1]
        rendered = {}
        for metric, series in block.samples().items():
            if self._families is None or metric.family in self._families:
                if block.source is None:
                    live[metric.labels].append(series)
                    labels = self._labels.setdefault(metric.labels, _LabelTexts(metric.labels))
                else:
                    # the whole text is kept: to keep its labels as well would double the memory
                    labels = _LabelTexts(metric.labels)
                rendered[metric] = _text(metric, series, labels)
        return rendered

    def _forget_dead(self, live: Mapping[tuple[str, ...], Sequence[Series]]) -> None:
        """Drop the texts of dead series once they are many: seldom, as it costs a pass over all."""
        for names, labels in self._labels.items():
            series = live.get(names, ())
            if len(labels) > 1.25 * max(map(len, series), default=0) + 100:
                alive = _LabelTexts(names)
                alive.update((values, labels[values]) for each in series for values in each)
                self._labels[names] = alive


def _text(metric: Metric, series: Series, labels: _LabelTexts) -> str:
    if not series:
        return ""
    name = metric.name
    lines = [f"{name}{labels[values]} {value}\n" for values, value in series.items()]
    return header(metric) + "".join(lines)


def header(metric: Metric) -> str:
    """Return the HELP and TYPE lines."""
    text = metric.help.translate(_HELP_ESCAPES)
    return f"# HELP {metric.name} {text}\n# TYPE {metric.name} {metric.kind}\n"


def label_text(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    """Return labels in braces, escaped; raises ValueError when names and values differ in number."""
    if not names and not values:
        return ""
    pairs = zip(names, values, strict=True)
    joined = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs)
    return f"{{{joined}}}"
