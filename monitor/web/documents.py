"""The documents that pages fetch: each is made and compressed once a poll, however many look at it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import orjson

from monitor.poller import Poller
from monitor.web.live import MAX_LISTENERS

# Of 1 MB a tenth is left at a hundredth of a second.
_GZIP_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Document:
    """JSON, plain and compressed."""

    plain: bytes
    gzipped: bytes

    @classmethod
    def of(cls, told: Any) -> Document:
        """Make one."""
        plain = orjson.dumps(told)
        return cls(plain, gzip.compress(plain, _GZIP_LEVEL, mtime=0))


Found = TypeVar("Found", bound=Document | None)


@dataclass(slots=True)
class _Entry:
    making: threading.Lock = field(default_factory=threading.Lock)
    document: Document | None = None


@dataclass(slots=True)
class _OfPoll:
    made_at: float
    entries: dict[tuple[str, ...], _Entry] = field(default_factory=dict)


class Documents:
    """What was made of the last poll of each cluster; that of the poll before is dropped with it."""

    def __init__(self) -> None:
        self._choosing = threading.Lock()
        # by the poller: the documents of one that is watched no more go with it
        self._made: WeakKeyDictionary[Poller, _OfPoll] = WeakKeyDictionary()

    def get(
        self, poller: Poller, what: tuple[str, ...], make: Callable[[], Found]
    ) -> Document | Found:
        """Return a document; several who ask for it at once wait for the one that is made.

        `make` returns None where there is nothing to tell of: that is not remembered.
        """
        entry = self._entry(poller, what)
        with entry.making:
            if entry.document is not None:
                return entry.document
            document = make()
            # what has become too old is left out as time goes by, without a poll
            if poller.current().snapshot is poller.latest.state.snapshot:
                entry.document = document
            return document

    def _entry(self, poller: Poller, what: tuple[str, ...]) -> _Entry:
        with self._choosing:
            made_at = poller.latest.state.monotonic_at
            of_poll = self._made.get(poller)
            if of_poll is None or of_poll.made_at != made_at:
                of_poll = self._made[poller] = _OfPoll(made_at)
            entries = of_poll.entries
            if what not in entries and len(entries) >= MAX_LISTENERS:
                # who asks for all groups in turn does not fill the memory
                del entries[next(iter(entries))]
            return entries.setdefault(what, _Entry())
