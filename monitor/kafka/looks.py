"""Looks into logs: which offset is the first that a read_committed consumer can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, TypeVar

from monitor.kafka.apis.fetch import FoundLooks, LookAtLogs
from monitor.kafka.exchange import Exchange
from monitor.kafka.offsets import PASSING as PASSING_OFFSETS
from monitor.kafka.offsets import at_leaders
from monitor.kafka.questions import Ask
from monitor.model import LogLook, Topic

# Requests per leader and call: a reply is small, and may tell of one partition only.
MAX_ROUNDS: Final = 4
# Errors that pass by themselves: the log may have been cut since it was known where to look.
PASSING: Final = PASSING_OFFSETS | {"OFFSET_OUT_OF_RANGE"}

_Place: TypeAlias = tuple[str, int]
_T = TypeVar("_T")


class LogLooks:
    """Asks leaders for batches; remembers for which partitions there was no room in a reply.

    `leader_moved` says that the last look found the metadata out of date.
    """

    def __init__(self) -> None:
        self.leader_moved = False
        self._left_out: frozenset[_Place] = frozenset()
        self._refused: dict[_Place, str] = {}

    def take_refused(self) -> dict[str, dict[int, str]]:
        """Return why partitions may not be looked at, of the looks since the last call.

        Those that pass by themselves are not among them.
        """
        refused, self._refused = self._refused, {}
        return _by_topic(refused)

    def look(
        self,
        exchange: Exchange,
        topics: Mapping[str, Topic],
        wanted: Mapping[str, Mapping[int, int]],
    ) -> dict[str, dict[int, LogLook]]:
        """Return what was found of each partition; see `Collector.look_at_logs`."""
        found: dict[_Place, LogLook] = {}
        pending = {(name, at): offset for name, of in wanted.items() for at, offset in of.items()}
        left_out: set[_Place] = set(self._left_out & pending.keys())
        self.leader_moved = False
        for _ in range(MAX_ROUNDS):
            asks = [
                Ask(leader, LookAtLogs(offsets))
                for leader, offsets in at_leaders(topics, _in_order(pending, left_out)).items()
            ]
            if not asks:
                break
            exchange.ask(asks)
            left_out = set()
            following: dict[_Place, int] = {}
            for answer in (ask.answer for ask in asks if ask.answer is not None):
                self.leader_moved = self.leader_moved or answer.leader_moved
                self._note_refused(answer)
                for name, looks in answer.looks.items():
                    for index, look in looks.items():
                        place = name, index
                        found[place] = look
                        self._refused.pop(place, None)
                        if look.readable_at is None and look.looked_to < look.stable_end:
                            following[place] = look.looked_to
                            if look.looked_to <= pending[place]:
                                left_out.add(place)
            pending = following
        self._left_out = frozenset(left_out)
        return _by_topic(found)

    def _note_refused(self, answer: FoundLooks) -> None:
        for name, errors in answer.errors.items():
            for index, error in errors.items():
                if error not in PASSING:
                    self._refused[name, index] = error


def _by_topic(places: Mapping[_Place, _T]) -> dict[str, dict[int, _T]]:
    told: dict[str, dict[int, _T]] = {}
    for (name, index), value in places.items():
        told.setdefault(name, {})[index] = value
    return told


def _in_order(pending: Mapping[_Place, int], first: Iterable[_Place]) -> dict[str, dict[int, int]]:
    """Return topic -> partition -> offset; those first that a broker had no room for."""
    ordered: dict[str, dict[int, int]] = {}
    for name, index in dict.fromkeys([*first, *pending]):
        ordered.setdefault(name, {})[index] = pending[name, index]
    return ordered
