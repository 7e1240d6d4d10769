"""Renders samples as Prometheus text, once per poll.

A page is kept in parts, one for each block and metric, compressed: parts that did not change since
the last poll are neither rendered nor compressed again. Who wants plain text has it decompressed
(9 MB in 8 ms), as kept it would be a tenth of the process's memory. Where the parts are not kept,
the text of the labels is: joined once per series, or per group and topic.
"""

from __future__ import annotations

import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, TypeAlias

from monitor.exposition.catalogue import ALL_METRICS
from monitor.exposition.metric import Metric
from monitor.exposition.series import Block, ByPartition, Series
from monitor.guard import Guard

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# The lowest level: 9 MB of text shrink to a twentieth in 0.05 s; higher levels take five times that.
GZIP_LEVEL: Final = 1
CLUSTER_LABEL: Final = "cluster"
PIECE_CHARACTERS: Final = 1 << 16
COMPRESSED_PIECE_BYTES: Final = 1 << 13
PLAIN_PIECE_BYTES: Final = 1 << 17
# RFC 1952: magic, deflate, no flags, no time, fastest compression, unknown system
_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
# RFC 1951: an empty last block
_DEFLATE_END: Final = b"\x03\x00"
_ZEROS: Final = memoryview(bytes(1 << 16))
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
_PLACE: Final = {metric.name: place for place, metric in enumerate(ALL_METRICS)}


@dataclass(frozen=True, slots=True)
class Part:
    """Lines of one metric as deflate blocks that refer to nothing before them.

    `length` is that of the plain text; `checksum` its CRC-32 less that of as many zero bytes, which
    is what `_page` joins.
    """

    deflated: bytes
    length: int
    checksum: int

    @classmethod
    def of(cls, texts: Iterable[str]) -> Part:
        """Compress texts, one after the other."""
        deflate = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        deflated = []
        checksum = length = 0
        for plain in _pieces(texts):
            deflated.append(deflate.compress(plain))
            checksum = zlib.crc32(plain, checksum)
            length += len(plain)
        deflated.append(deflate.flush(zlib.Z_FULL_FLUSH))
        return cls(b"".join(deflated), length, checksum ^ _after_zeros(0, length))


Parts: TypeAlias = Mapping[Metric, Sequence[Part]]
"""The lines of each metric, without its header."""


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page, of `length` bytes when plain, compressed in two pieces.

    `body` is most of it; `ending` has the lines that are made again whenever the page is sent. The
    plain text of the body has `body_length` bytes and `body_checksum`.
    """

    body: bytes
    ending: bytes
    length: int
    body_length: int
    body_checksum: int

    @property
    def gzipped(self) -> bytes:
        """Return the compressed page in one piece."""
        return self.body + self.ending

    @property
    def plain(self) -> bytes:
        """Return the plain text in one piece."""
        return b"".join(self.pieces())

    def ending_with(self, last: Part) -> Page:
        """Return the page with other last lines; they share the body."""
        # CRC-32 is linear: what is before a part moves it as it would move as many zero bytes
        checksum = _after_zeros(self.body_checksum, last.length) ^ last.checksum
        length = self.body_length + last.length
        end = _DEFLATE_END + struct.pack("<II", checksum, length & 0xFFFFFFFF)
        return replace(self, ending=last.deflated + end, length=length)

    def pieces(self) -> Iterator[bytes]:
        """Yield the plain text in pieces: whole it would need its length in memory.

        The compressed text goes in by pieces as well: its rest would be copied again and again.
        """
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        for compressed in (memoryview(self.body)[len(_GZIP_HEADER) :], memoryview(self.ending)):
            for start in range(0, len(compressed), COMPRESSED_PIECE_BYTES):
                rest: bytes | memoryview = compressed[start : start + COMPRESSED_PIECE_BYTES]
                while rest and not inflate.eof:
                    if piece := inflate.decompress(rest, PLAIN_PIECE_BYTES):
                        yield piece
                    rest = inflate.unconsumed_tail


class _LabelTexts(dict[tuple[str, ...], str]):
    """Label values -> their text, joined when first asked for.

    Label names may be one more than the values: then the text ends where the last value begins. A
    cluster goes before them, where they do not name it themselves.
    """

    def __init__(self, names: tuple[str, ...], cluster: str | None = None) -> None:
        super().__init__()
        self._first = (cluster,) if cluster is not None and CLUSTER_LABEL not in names else ()
        self._names = (CLUSTER_LABEL, *names) if self._first else names

    def __missing__(self, values: tuple[str, ...]) -> str:
        names, all_values = self._names, self._first + values
        if len(all_values) == len(names):
            text = label_text(names, all_values)
        else:
            text = label_text(names[:-1], all_values)[:-1] + f',{names[-1]}="'
        self[values] = text
        return text


class Renderer:
    """Renders blocks, poll after poll.

    `cluster` is the value of a label `cluster` that series without one get; none get it without.
    """

    def __init__(self, *, cluster: str | None = None) -> None:
        self._cluster = cluster
        self._labels: dict[tuple[str, ...], _LabelTexts] = {}
        # by the sources' ids; the sources are kept as well, so that no other object has those ids
        self._kept: dict[tuple[int, ...], tuple[Block, dict[Metric, Part]]] = {}

    def render(self, blocks: Iterable[Block], guard: Guard | None = None) -> Page:
        """Return the page of all blocks, see `parts`."""
        return page_of(self.parts(blocks, guard))

    def parts(self, blocks: Iterable[Block], guard: Guard | None = None) -> Parts:
        """Render all blocks; raises ValueError when a metric is in two that are not of one thing.

        With `guard`, a block that fails is left out and named there.
        """
        parts: dict[Metric, list[Part]] = {}
        owners: dict[Metric, str | None] = {}
        kept: dict[tuple[int, ...], tuple[Block, dict[Metric, Part]]] = {}
        live: dict[tuple[str, ...], list[Series]] = {}
        for block in blocks:
            key = tuple(map(id, block.sources))
            before = self._kept.get(key) if key else None
            if before is not None:
                rendered = before[1]
            else:
                try:
                    rendered = self._render(block, live)
                except Exception as error:
                    if guard is None:
                        raise
                    guard.failed("exposition", block.name, error)
                    continue
            if key:
                kept[key] = (block, rendered)
            for metric, part in rendered.items():
                if metric not in parts:
                    owners[metric] = block.pieces_of
                    parts[metric] = []
                elif block.pieces_of is None or owners[metric] != block.pieces_of:
                    raise ValueError(f"{metric.name} is in two blocks: its series could be twice")
                parts[metric].append(part)
        self._kept = kept
        self._forget_dead(live)
        return parts

    def lines(self, metric: Metric, series: Series) -> Part:
        """Return a metric's lines with their header, apart from any page."""
        labels = _LabelTexts(metric.labels, self._cluster)
        return Part.of([header(metric), *_texts(metric.name, series, labels)])

    def _render(
        self, block: Block, live: dict[tuple[str, ...], list[Series]]
    ) -> dict[Metric, Part]:
        rendered = {}
        # of a block whose text is kept only while it is made: the labels are twenty times as much
        texts = {} if block.sources else self._labels
        for metric, series in block.samples().items():
            if not series:
                continue
            names = metric.labels
            if names not in texts:
                texts[names] = _LabelTexts(names, self._cluster)
            if not block.sources:
                if not isinstance(series, ByPartition):
                    live.setdefault(names, []).append(series)
                else:
                    live.setdefault(names, []).append(dict.fromkeys(series.values, 0.0))
            rendered[metric] = Part.of(_texts(metric.name, series, texts[names]))
        return rendered

    def _forget_dead(self, live: dict[tuple[str, ...], list[Series]]) -> None:
        """Drop the texts of dead series once they are many: seldom, as it costs a pass over all."""
        for names, labels in self._labels.items():
            series: Sequence[Series] = live.get(names, ())
            if len(labels) > 1.25 * max(map(len, series), default=0) + 100:
                alive = _LabelTexts(names, self._cluster)
                alive.update((values, labels[values]) for each in series for values in each)
                self._labels[names] = alive


def page_of(*rendered: Parts) -> Page:
    """Return the page of what was rendered, as of several clusters: each metric is there once."""
    metrics: dict[str, Metric] = {}
    lines: defaultdict[str, list[Part]] = defaultdict(list)
    for parts in rendered:
        for metric, of_metric in parts.items():
            metrics.setdefault(metric.name, metric)  # clusters may have different labels, by level
            lines[metric.name] += of_metric
    names = sorted(metrics, key=_PLACE.__getitem__)
    return _page(part for name in names for part in (_header(metrics[name]), *lines[name]))


@cache
def _header(metric: Metric) -> Part:
    return Part.of([header(metric)])


def _page(parts: Iterable[Part]) -> Page:
    checksum = length = 0
    deflated = [_GZIP_HEADER]
    for part in parts:
        checksum = _after_zeros(checksum, part.length) ^ part.checksum
        length += part.length
        deflated.append(part.deflated)
    return Page(b"".join(deflated), b"", length, length, checksum).ending_with(Part.of([]))


def _after_zeros(checksum: int, count: int) -> int:
    """Return the CRC-32 of a text with this one after so many zero bytes more."""
    whole, rest = divmod(count, len(_ZEROS))
    for _ in range(whole):
        checksum = zlib.crc32(_ZEROS, checksum)
    return zlib.crc32(_ZEROS[:rest], checksum)


def _pieces(texts: Iterable[str]) -> Iterator[bytes]:
    """Join texts to pieces that are quick to compress, and small beside a metric's whole text."""
    joined: list[str] = []
    size = 0
    for text in texts:
        joined.append(text)
        size += len(text)
        if size > PIECE_CHARACTERS:
            yield "".join(joined).encode()
            joined.clear()
            size = 0
    yield "".join(joined).encode()


def _texts(name: str, series: Series | ByPartition, labels: _LabelTexts) -> Iterator[str]:
    if isinstance(series, ByPartition):
        for values, partitions in series.values.items():
            start = name + labels[values]
            yield "".join([f'{start}{partition}"}} {v}\n' for partition, v in partitions.items()])
    else:
        for values, value in series.items():
            yield f"{name}{labels[values]} {value}\n"


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
