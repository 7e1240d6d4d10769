"""How many groups one question asks about: as many as a reply of bearable size has room for.

A reply that is larger than the client library takes costs the connection and tells nothing, at the
next poll again. So unknown groups are asked about in small batches, known ones by their size, and a
batch whose reply was too large is halved, and remembered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from monitor.kafka.exchange import Exchange
from monitor.kafka.questions import Ask

# What one reply is meant to hold; the client library refuses ten times as much.
MEANT_BYTES: Final = 10_000_000
MAX_GROUPS: Final = 5_000
# Replies of one broker that are in memory at the same time, at most: of a large cluster's first poll,
# whose groups' sizes nobody knows, they would be hundreds.
MAX_UNDER_WAY: Final = 8
# Halving the largest batch down to one group takes fewer questions than this.
MAX_HALVINGS: Final = 16


class Batches:
    """Cuts groups into batches, by what each took of a reply before; one kind of question.

    `oversized` are groups that do not fit into a reply alone: they are left out.
    """

    def __init__(self, unknown_bytes: int) -> None:
        self._unknown = unknown_bytes
        self._sizes: dict[str, int] = {}
        self.oversized: set[str] = set()

    def cut(self, groups: Iterable[str]) -> Iterator[list[str]]:
        """Yield the groups in batches."""
        batch: list[str] = []
        size = 0
        sizes, unknown = self._sizes, self._unknown
        for group in (
            groups if not self.oversized else [g for g in groups if g not in self.oversized]
        ):
            expected = sizes.get(group, unknown)
            if batch and (size + expected > MEANT_BYTES or len(batch) >= MAX_GROUPS):
                yield batch
                batch, size = [], 0
            batch.append(group)
            size += expected
        if batch:
            yield batch

    def learn(self, sizes: Mapping[str, int]) -> None:
        """Take in how many bytes each group took."""
        self._sizes |= sizes

    def halve(self, batch: Collection[str]) -> None:
        """Have these groups asked about in batches of half as many."""
        share = 2 * MEANT_BYTES // len(batch) + 1
        self._sizes.update((group, max(share, self._sizes.get(group, 0))) for group in batch)

    def leave_out(self, group: str) -> None:
        """Have a group not asked about: alone it is too large."""
        # it was the one that made the others' batches small
        self._sizes = {group: MEANT_BYTES}
        self.oversized.add(group)

    def try_oversized_again(self) -> None:
        """Ask once more about groups that did not fit: they may have become smaller."""
        self.oversized.clear()

    def keep(self, groups: Collection[str]) -> None:
        """Forget all other groups."""
        self.oversized.intersection_update(groups)
        for group in self._sizes.keys() - groups:
            del self._sizes[group]


@dataclass(frozen=True, slots=True)
class Part:
    """Groups that one broker is asked about with one kind of question."""

    broker: int
    question: Callable[[Sequence[str]], Any]
    batches: Batches
    groups: Sequence[str]


Take: TypeAlias = Callable[[Part, Ask[Any]], None]
"""What takes in an answer, or a failure that smaller batches can't mend."""


_Asked: TypeAlias = tuple[Part, Ask[Any]]


def ask_in_batches(exchange: Exchange, parts: Iterable[Part], take: Take) -> None:
    """Ask all, and have the answers taken; ask again in smaller batches where a reply is too large.

    Replies that came just before one that is too large are lost with it, and may be blamed for it:
    what can't be halved any more is asked for once more alone.
    """
    alone: list[Part] = []
    for _ in range(MAX_HALVINGS):
        asks = [
            (replace(part, groups=batch), Ask(part.broker, part.question(batch)))
            for part in parts
            for batch in part.batches.cut(part.groups)
        ]
        parts = []
        for wave in _waves(asks):
            exchange.ask([ask for _, ask in wave], again=True)
            parts += _again(wave, take, alone)
        if not parts:
            break
    for part in alone:
        ask = Ask(part.broker, part.question(part.groups))
        exchange.ask([ask], again=True)
        if ask.failure is not None and ask.failure.too_large:
            part.batches.leave_out(part.groups[0])
        else:
            take(part, ask)


def _waves(asks: Sequence[_Asked]) -> Iterator[list[_Asked]]:
    """Cut the questions so that no broker is asked too many at once."""
    of_brokers: defaultdict[int, list[_Asked]] = defaultdict(list)
    for part, ask in asks:
        of_brokers[part.broker].append((part, ask))
    longest = max(map(len, of_brokers.values()), default=0)
    for start in range(0, longest, MAX_UNDER_WAY):
        yield [
            asked
            for of_broker in of_brokers.values()
            for asked in of_broker[start : start + MAX_UNDER_WAY]
        ]


def _again(asks: Sequence[_Asked], take: Take, alone: list[Part]) -> list[Part]:
    """Have what was answered taken; return what is to be asked again, or put it to `alone`."""
    blamed = {
        (part.broker, part.batches): len(part.groups)
        for part, ask in asks
        if ask.failure is not None and ask.failure.too_large
    }
    again = []
    for part, ask in asks:
        if ask.failure is None or not (ask.failure.too_large or ask.failure.lost):
            take(part, ask)
            continue
        if ask.failure.too_large and len(part.groups) == 1:
            alone.append(part)
            continue
        # what was lost with it and asks for as much may be as large
        largest = blamed.get((part.broker, part.batches), 0)
        if ask.failure.too_large or 1 < largest <= len(part.groups):
            part.batches.halve(part.groups)
        again.append(part)
    return again
