"""Words and numbers as people read them: durations, names on a terminal, columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from typing import Final

UNKNOWN: Final = "-"
"""Shown for what is not known: never a zero."""

_REMEDIES: Final = {
    "GROUP_AUTHORIZATION_FAILED": "allow the monitor's user (ACLs) to DESCRIBE the group",
    "TOPIC_AUTHORIZATION_FAILED": "allow the monitor's user (ACLs) to DESCRIBE the topic",
    "CLUSTER_AUTHORIZATION_FAILED": "allow the monitor's user (ACLs) to DESCRIBE the cluster",
}
# Categories of characters that move a cursor, turn text around or break a line.
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_SHORT_ESCAPES: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def duration(seconds: float) -> str:
    """Return a time in at most six characters: 0.4 s, 59 s, 12 min, 5.3 h, 21 d."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds else "0 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.0f} d"


def plural(count: int, noun: str) -> str:
    """Return a count and its noun: 1 partition, 2 partitions."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def rate(per_second: float) -> str:
    """Return messages per second so that half a message is not none: 0.5, 7.5, 120, 12,000."""
    return f"{per_second:,.0f}" if per_second >= 99.95 else f"{per_second:.3g}"


def with_remedy(error: str | None) -> str:
    """Return a broker's refusal with what helps against it, empty for none."""
    if not error:
        return ""
    remedy = next((text for sign, text in _REMEDIES.items() if sign in error), None)
    return f"{error}: {remedy}" if remedy else error


def safe(name: str) -> str:
    """Return a name as a terminal may have it.

    Group ids, topics and client ids may hold any character: an escape sequence clears the screen,
    a line feed adds a line that nobody printed, and nothing at all looks like a fault of ours.
    """
    if not name:
        return "(empty id)"
    if name.isascii() and name.isprintable():
        return name
    return "".join(_escaped(c) if unicodedata.category(c) in _UNSAFE else c for c in name)


def _escaped(character: str) -> str:
    code = ord(character)
    return _SHORT_ESCAPES.get(character) or (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def shorten(text: str, width: int) -> str:
    """Cut in the middle: ids of one group begin alike and differ at the end."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def columns(rows: Sequence[Sequence[object]], left: Collection[int]) -> str:
    """Return rows in columns: numbers to the right, those in `left` to the left."""
    cells = [[UNKNOWN if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "".join(f"{line}\n" for line in lines)
