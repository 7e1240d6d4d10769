"""Replays of the history of the last days: their rows, which tell what became of each.

`replay_publisher` carries one out.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection

MIN_DAYS: Final = 1
MAX_DAYS: Final = 30
# A publisher writes down how far it is several times in this time: one that does not has ended.
SILENT_AFTER_SECONDS: Final = 60

_COLUMNS: Final = f"""
    replay_id::text, days, since,
    CASE WHEN silent THEN 'failed' ELSE state END,
    CASE WHEN silent THEN 'its publisher has ended half way' ELSE reason END,
    orders, events, created_at
    FROM history_replays CROSS JOIN LATERAL (
        SELECT state = 'publishing'
           AND updated_at < clock_timestamp() - interval '{SILENT_AFTER_SECONDS}s' AS silent
    ) AS publisher
"""
_RUNNING: Final = f"SELECT {_COLUMNS} WHERE NOT silent AND state = 'publishing'"
_GET: Final = f"SELECT {_COLUMNS} WHERE replay_id = %s::uuid"
_BEGIN: Final = """
    INSERT INTO history_replays (replay_id, days, since, state)
    SELECT %s::uuid, %s, date_trunc('day', now(), 'UTC') - make_interval(days => %s), 'publishing'
"""
_NOTE: Final = """
    UPDATE history_replays SET state = %s, reason = %s, orders = %s, events = %s,
        updated_at = clock_timestamp()
    WHERE replay_id = %s::uuid
"""


class ReplayError(Exception):
    """A replay cannot be carried out; the text says why."""


class ReplayRunningError(ReplayError):
    """Another replay is under way."""

    def __init__(self, replay: Replay) -> None:
        super().__init__(f"replay {replay.replay_id} is under way: {replay.state}")
        self.replay = replay


class ReplayState(StrEnum):
    """How far a replay is."""

    PUBLISHING = "publishing"
    PUBLISHED = "published"  # analytics has yet to read it to its end
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay as its row has it; `orders` and `events` are what was published."""

    replay_id: str
    days: int
    since: datetime
    state: ReplayState
    reason: str | None
    orders: int
    events: int
    created_at: datetime

    @classmethod
    def of(cls, row: Sequence[Any]) -> Replay:
        """Return what a row of `history_replays` says."""
        replay_id, days, since, state, *rest = row
        return cls(replay_id, days, since, ReplayState(state), *rest)


def begin(connection: Connection, days: int) -> Replay:
    """Begin a replay of the last `days` days (UTC, today included), for a `Publisher`.

    Raises `ReplayRunningError` while another one is under way: two would do no harm, and no good.
    """
    running = connection.exec_driver_sql(_RUNNING).first()
    if running is not None:
        raise ReplayRunningError(Replay.of(running))
    replay_id = str(uuid.uuid4())
    connection.exec_driver_sql(_BEGIN, (replay_id, days, days - 1))
    return Replay.of(connection.exec_driver_sql(_GET, (replay_id,)).one())


def get(connection: Connection, replay_id: str) -> Replay | None:
    """Return a replay, or None; one whose publisher fell silent half way has failed."""
    row = connection.exec_driver_sql(_GET, (replay_id,)).one_or_none()
    return None if row is None else Replay.of(row)


def note(
    connection: Connection,
    replay: Replay,
    state: ReplayState,
    reason: str | None,
    *,
    orders: int,
    events: int,
) -> None:
    """Write down how far a replay is."""
    parameters = (state, reason, orders, events, replay.replay_id)
    connection.exec_driver_sql(_NOTE, parameters)
