"""How many groups one question asks about: as many as a reply of bearable size has room for.

A reply that is larger than the client library takes costs the connection and tells nothing, at the
next poll again. So unknown groups are asked about in small batches, known ones by their size, and a
batch whose reply was too large is halved, and remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from monitor.kafka.exchange import Exchange
from monitor.kafka.questions import Ask

# What one reply is meant to hold; the client library refuses ten times as much.
MEANT_BYTES: Final = 10_000_000
MAX_GROUPS: Final = 5_000
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
        for group in groups:
            if group in self.oversized:
                continue
            expected = self._sizes.get(group, self._unknown)
            if batch and (size + expected > MEANT_BYTES or len(batch) >= MAX_GROUPS):
                yield batch
                batch, size = [], 0
            batch.append(group)
            size += expected
        if batch:
            yield batch

    def learn(self, group: str, size: int) -> None:
        """Take in how many bytes a group took."""
        self._sizes[group] = size

    def halve(self, batch: Collection[str]) -> None:
        """Have these groups asked about in batches of half as many, one that is alone not at all."""
        share = 2 * MEANT_BYTES // len(batch) + 1
        if len(batch) > 1:
            self._sizes.update((g, max(share, self._sizes.get(g, 0))) for g in batch)
            return
        # it was the one that made all others' batches small
        self._sizes = dict.fromkeys(batch, share)
        self.oversized.update(batch)

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


def ask_in_batches(
    exchange: Exchange,
    parts: Sequence[Part],
    take: Callable[[Part, Mapping[str, Any], float], None],
) -> None:
    """Ask all, and have the answers taken; ask again in smaller batches where a reply is too large."""
    for _ in range(MAX_HALVINGS):
        asks = [
            (part, batch, Ask(part.broker, part.question(batch)))
            for part in parts
            for batch in part.batches.cut(part.groups)
        ]
        exchange.ask([ask for *_, ask in asks], again=True)
        blamed = {
            (part.broker, part.batches): len(batch)
            for part, batch, ask in asks
            if ask.failure is not None and ask.failure.too_large
        }
        again = []
        for part, batch, ask in asks:
            if ask.answer is not None:
                take(part, ask.answer, ask.answered_at)
            elif ask.failure is not None and (ask.failure.too_large or ask.failure.lost):
                # only one on each connection is found out; what was lost with it and asks for as
                # much may be as large
                largest = blamed.get((part.broker, part.batches), 0)
                if ask.failure.too_large or 1 < largest <= len(batch):
                    part.batches.halve(batch)
                again.append(replace(part, groups=batch))
        if not again:
            return
        parts = again
