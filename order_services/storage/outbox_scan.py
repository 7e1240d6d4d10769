"""Finds the outbox rows that can go among many that cannot."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final

from sqlalchemy import Connection

# How long a transaction may have been under way, and its rows still be found at once.
LATE_COMMIT_SECONDS: Final = 5.0
# All others are found so much later at most.
LOOK_AT_ALL_SECONDS: Final = 60.0
PAGE: Final = 10_000
# In one cycle; the next one goes on from there.
PAGES: Final = 10

_SCAN: Final = """
    SELECT id, topic, key FROM outbox
    WHERE slice = %s AND id > %s AND NOT topic = ANY(%s::text[]) ORDER BY id LIMIT %s
"""


class Scan:
    """Remembers below which id there are only rows that cannot go.

    Ids are given before the commit: it begins at what it saw some seconds ago, as rows may have turned
    up between those that it has seen since.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin_at = 0
        self._begin_next = 0
        self._moves_at = 0.0
        self._all_at = 0.0

    def begin_anew(self) -> None:
        """Look at all rows again: some of those that were passed over can go now."""
        now = self._clock()
        self._begin_at = self._begin_next = 0
        self._moves_at = now + LATE_COMMIT_SECONDS
        self._all_at = now + LOOK_AT_ALL_SECONDS

    def find(
        self,
        connection: Connection,
        slice_: str,
        limit: int,
        *,
        closed_topics: Collection[str],
        can_go: Callable[[int, str, bytes | None], bool],
    ) -> list[int]:
        """Return the ids of at most `limit` rows that can go, in their order."""
        now = self._clock()
        if now >= self._all_at:
            self.begin_anew()
        elif now >= self._moves_at:
            self._begin_at = self._begin_next
            self._moves_at = now + LATE_COMMIT_SECONDS
        found: list[int] = []
        seen = self._begin_at
        for _ in range(PAGES):
            page = connection.exec_driver_sql(
                _SCAN, (slice_, seen, list(closed_topics), PAGE)
            ).all()
            for row_id, topic, key in page:
                seen = row_id
                if can_go(row_id, topic, None if key is None else bytes(key)):
                    found.append(row_id)
                    if len(found) == limit:
                        break
            if len(page) < PAGE or len(found) == limit:
                break
        else:
            self._begin_at = seen
        self._begin_next = max(self._begin_next, seen)
        return found
