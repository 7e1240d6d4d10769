"""What a restart takes up, as JSON: a row for each group and topic, and one for the polls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError

from monitor.analysis.kept import VERSION, Kept, KeptGroup, KeptPolls, KeptTopic

POLLS: Final = "polls"
GROUP: Final = "group"
TOPIC: Final = "topic"
# Of a group on 10,000 partitions that commits on all of them it is 4 MB: larger than that, a row costs
# more at each poll than a restart is worth.
MAX_BYTES: Final = 4_000_000

_POLLS: Final = TypeAdapter(KeptPolls)
_KINDS: Final[Mapping[str, TypeAdapter[Any]]] = {
    POLLS: _POLLS,
    GROUP: TypeAdapter(KeptGroup),
    TOPIC: TypeAdapter(KeptTopic),
}


class KeptRow(NamedTuple):
    """A row; `data` is None where the one that is there is to go."""

    kind: str
    name: str
    data: str | None


class UnreadableError(ValueError):
    """What was kept is not what this version writes."""


def rows_of(kept: Kept) -> Iterator[KeptRow]:
    """Yield the rows that say what was kept."""
    yield KeptRow(POLLS, "", _POLLS.dump_json(kept.polls).decode())
    for kind, values in ((GROUP, kept.groups), (TOPIC, kept.topics)):
        for name, value in values.items():
            data = None if value is None else _KINDS[kind].dump_json(value)
            is_kept = data is not None and len(data) <= MAX_BYTES
            yield KeptRow(kind, name, data.decode() if data is not None and is_kept else None)


def kept_of(rows: Iterable[KeptRow]) -> Kept | None:
    """Return what rows say, None where there are none; raises UnreadableError."""
    polls: KeptPolls | None = None
    groups: dict[str, KeptGroup | None] = {}
    topics: dict[str, KeptTopic | None] = {}
    is_empty = True
    try:
        for kind, name, data in rows:
            is_empty = False
            if data is None:
                continue
            value = _KINDS[kind].validate_json(data)
            if kind == POLLS:
                polls = value
            elif kind == GROUP:
                groups[name] = value
            else:
                topics[name] = value
    except (ValidationError, KeyError) as error:
        raise UnreadableError(f"not written by this version ({type(error).__name__})") from None
    if is_empty:
        return None
    if polls is None or polls.version != VERSION:
        raise UnreadableError("written by another version")
    return Kept(polls, groups, topics)
