"""What the screen of `--watch` shows: pure functions from what was seen to lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from rich.text import Text

from monitor.analysis.measures import GroupMeasures
from monitor.analysis.rates import NEVER
from monitor.commands import report
from monitor.commands.looks import Look
from monitor.model import Group
from monitor.ranking import status_word, urgency
from monitor.words import UNKNOWN, duration, plural, safe, shorten

TREND_POLLS: Final = 8
MAX_FAULTS: Final = 3

_SPARKS: Final = "▁▂▃▄▅▆▇█"
# A shape beside each colour, for those who can't tell the colours apart.
_LOOKS: Final = {"OK": ("✓", "green"), "WARN": ("▲", "yellow"), "ERR": ("✖", "red")}
_NEITHER: Final = ("·", "dim")
_HELP: Final = "q quit  p pause  s sort  ↑↓ choose  Enter open  Esc back"


class Sort(StrEnum):
    """By what the groups are sorted."""

    NEED = "need"
    BEHIND = "behind"
    LAG = "lag"
    NAME = "name"

    @property
    def next(self) -> Sort:
        """Return the one that follows."""
        every = list(Sort)
        return every[(every.index(self) + 1) % len(every)]


@dataclass(frozen=True, slots=True)
class View:
    """What the reader chose: the order, the group that is marked, and whether it is opened."""

    sort: Sort = Sort.NEED
    marked: str | None = None
    is_open: bool = False
    is_paused: bool = False
    scrolled: int = 0

    def after(self, key: str, look: Look | None) -> View:
        """Return the view that a key makes of this one."""
        changes: dict[str, object] = {}
        match key:
            case "p":
                changes = {"is_paused": not self.is_paused}
            case "s":
                changes = {"sort": self.sort.next}
            case "up" | "down" if self.is_open:
                changes = {"scrolled": max(0, self.scrolled + (1 if key == "down" else -1))}
            case "up" | "down":
                changes = {"marked": _neighbour(self, look, 1 if key == "down" else -1)}
            case "enter" if look is not None and look.groups:
                marked = _marked(self, look, _sorted(look, self.sort))
                changes = {"marked": marked, "is_open": True, "scrolled": 0}
            case "escape":
                changes = {"is_open": False, "scrolled": 0}
        return replace(self, **changes)  # type: ignore[arg-type]  # the fields' own


def screen(look: Look | None, view: View, *, width: int, height: int, age: float) -> list[Text]:
    """Return the lines of the screen, at most `height`; `age` is how long ago the poll ended."""
    if look is None:
        return [Text("Asking the cluster ..."), Text(_HELP, "dim")][:height]
    head = [_title(look, view, age), *(_fault(line, width) for line in look.faults[:MAX_FAULTS])]
    if len(look.faults) > MAX_FAULTS:
        head.append(Text(f"and {plural(len(look.faults) - MAX_FAULTS, 'fault')} more", "red"))
    head += [Text(shorten(note, width), "dim") for note in look.notes]
    room = max(1, height - len(head) - 1)
    measures = look.groups.get(view.marked or "") if view.is_open else None
    if view.is_open and view.marked is not None and measures is not None:
        body = list(_group(look, look.snapshot.groups[view.marked], measures, width))
        top = min(view.scrolled, max(0, len(body) - room))
        body = body[top : top + room]
    elif view.is_open:
        body = [Text(f"Group {safe(view.marked or '')} is gone.")]
    else:
        body = _overview(look, view, width, room)
    lines = [*head, *body]
    lines += [Text()] * (height - 1 - len(lines))
    return [_cut(line, width) for line in [*lines[: height - 1], Text(_HELP, "dim")]]


def _title(look: Look, view: View, age: float) -> Text:
    cluster = look.snapshot.cluster_id or "unknown"
    title = Text(f"Kafka lag  {safe(cluster)}", "bold")
    title.append(
        f"  {plural(len(look.groups), 'group')}, seen {_age(age)} ago, by {view.sort}",
        "not bold",
    )
    if view.is_paused:
        title.append("  PAUSED", "yellow")
    return title


def _age(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 10 else duration(seconds)


def _fault(line: str, width: int) -> Text:
    return Text(shorten(f"Not read: {safe(line)}", width), "red")


def _overview(look: Look, view: View, width: int, room: int) -> list[Text]:
    ids = _sorted(look, view.sort)
    if not ids:
        return [Text("No consumer groups.")]
    marked = _marked(view, look, ids)
    name_width = max(18, min(40, width - 62))
    header = Text(
        f"  {'GROUP':<{name_width}} {'STATUS':<6} {'LAG':>11} {'BEHIND':>7} {'OUT/s':>7} "
        f"{'MEMB':>4} {'TREND':<{TREND_POLLS}} ADVICE",
        "bold",
    )
    rows = max(1, room - 1)
    top = max(0, min(ids.index(marked) - rows // 2, len(ids) - rows))
    lines = [
        _row(look, group_id, name_width, is_marked=group_id == marked)
        for group_id in ids[top : top + rows]
    ]
    return [header, *lines]


def _row(look: Look, group_id: str, name_width: int, *, is_marked: bool) -> Text:
    group, measures = look.snapshot.groups[group_id], look.groups[group_id]
    word = status_word(measures) or UNKNOWN
    shape, style = _LOOKS.get(word, _NEITHER)
    behind = measures.behind(look.snapshot.seen_at)
    consumed = [r.consumed for r in measures.rates.values() if r.consumed is not None]
    line = Text("> " if is_marked else "  ", "bold" if is_marked else "")
    line.append(f"{shorten(safe(group_id), name_width):<{name_width}} ")
    line.append(f"{f'{shape} {word}':<6} ", style)
    line.append(
        f"{f'{measures.lag.total:,}' if measures.lag.partitions else UNKNOWN:>11} "
        f"{UNKNOWN if behind is None else duration(behind):>7} "
        f"{f'{sum(consumed):,.1f}' if consumed else UNKNOWN:>7} "
        f"{UNKNOWN if group.members is None else len(group.members):>4} "
        f"{spark((look.trends or {}).get(group_id, ())):<{TREND_POLLS}} "
    )
    line.append(group.error or next((a.cause for a in measures.advice), ""), style)
    return line


def _group(look: Look, group: Group, measures: GroupMeasures, width: int) -> Iterator[Text]:
    (found,) = report.reports(look.snapshot, {group.id: measures})
    for line in textwrap.wrap(found.summary, width, subsequent_indent="  "):
        yield Text(line, "bold")
    if group.error:
        yield Text(shorten(f"Not read: {group.error}", width), "red")
    for advice in found.advice:
        for line in advice.splitlines():
            yield Text(line, "yellow")
    for topic, rates in sorted(measures.rates.items()):
        words = [
            f"{value:,.1f}/s {name}"
            for name, value in (("in", rates.produced), ("out", rates.consumed))
            if value is not None
        ]
        if rates.catch_up is not None:
            at = rates.catch_up
            words.append(f"catches up: {NEVER if at == NEVER else duration(float(at))}")
        if words:
            yield Text(f"  {shorten(safe(topic), 30)}: {', '.join(words)}")
    topic_width = max(12, width - 67)
    yield Text(
        f"{'TOPIC':<{topic_width}} {'PART':>5} {'COMMITTED':>12} {'LOG END':>12} {'LAG':>9} "
        f"{'BEHIND':>7} OWNER",
        "bold",
    )
    for row in found.rows:
        cells = (row.current_offset, row.log_end_offset, row.lag)
        committed, end, lag = (UNKNOWN if cell is None else str(cell) for cell in cells)
        behind = UNKNOWN if row.lag_seconds is None else duration(row.lag_seconds)
        owner = row.error or (row.consumer_id and safe(row.consumer_id)) or UNKNOWN
        yield Text(
            f"{shorten(safe(row.topic), topic_width):<{topic_width}} {row.partition:>5} "
            f"{committed:>12} {end:>12} {lag:>9} {behind:>7} {shorten(owner, 16)}",
            "" if row.lag or row.error else "dim",
        )


def spark(values: Sequence[float | None]) -> str:
    """Return a line of blocks, one a poll: the highest is the largest; a blank is not known."""
    shown = values[-TREND_POLLS:]
    most = max((value for value in shown if value is not None), default=0.0)
    if not most:
        return "".join(" " if value is None else _SPARKS[0] for value in shown)
    top = len(_SPARKS) - 1
    return "".join(" " if value is None else _SPARKS[round(value / most * top)] for value in shown)


_KEYS: Final[Mapping[Sort, Callable[[str, GroupMeasures], tuple[object, ...]]]] = {
    Sort.NEED: lambda _, measures: urgency(measures),
    Sort.BEHIND: lambda _, measures: urgency(measures)[2:3],
    Sort.LAG: lambda _, measures: (measures.lag.total,),
}


def _sorted(look: Look, sort: Sort) -> list[str]:
    """Return the groups' ids: worst first, or by name."""
    ids = sorted(look.groups)
    if sort is Sort.NAME:
        return ids
    return sorted(ids, key=lambda group: _KEYS[sort](group, look.groups[group]), reverse=True)


def _marked(view: View, look: Look, ids: Sequence[str]) -> str:
    return view.marked if view.marked in look.groups and view.marked is not None else ids[0]


def _neighbour(view: View, look: Look | None, step: int) -> str | None:
    if look is None or not look.groups:
        return view.marked
    ids = _sorted(look, view.sort)
    at = ids.index(_marked(view, look, ids)) + step
    return ids[max(0, min(at, len(ids) - 1))]


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line
