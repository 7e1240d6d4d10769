"""Daily partitions of the inbox: made ahead, dropped when old."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import IntegrityError

# Services that were down for less than this find today's partition in place.
DAYS_AHEAD: Final = 7
# Kafka keeps messages for 7 days by default: what is older cannot be delivered again.
RETENTION_DAYS: Final = 14
MAINTENANCE_LOCK: Final = 0x696E_626F_78

_PREFIX: Final = "inbox_"
_DEFAULT: Final = "inbox_default"

_log = structlog.get_logger(__name__)


def create(connection: Connection, today: date | None = None) -> None:
    """Create the partitions of yesterday and of the coming days, and the one for all other days."""
    first = (today or _today()) - timedelta(days=1)
    connection.execute(text(f"CREATE TABLE IF NOT EXISTS {_DEFAULT} PARTITION OF inbox DEFAULT"))
    present = _partitions(connection)
    for day in (first + timedelta(days=n) for n in range(DAYS_AHEAD + 2)):
        if day in present:
            continue
        try:
            with connection.begin_nested():
                connection.execute(
                    text(
                        f"CREATE TABLE {_PREFIX}{day:%Y%m%d} PARTITION OF inbox "
                        f"FOR VALUES FROM ('{day} 00:00+00') TO ('{day + timedelta(days=1)} 00:00+00')"
                    )
                )
        except IntegrityError:
            # events of that day came before its partition did: they stay in the default one
            _log.warning("inbox partition not created", day=str(day), kept_in=_DEFAULT)


def drop_old(
    connection: Connection, *, today: date | None = None, retention_days: int = RETENTION_DAYS
) -> list[str]:
    """Drop the partitions of days older than the retention and return their names."""
    oldest = (today or _today()) - timedelta(days=retention_days)
    dropped = []
    for day, name in sorted(_partitions(connection).items()):
        if day < oldest:
            connection.execute(text(f"DROP TABLE {name}"))
            dropped.append(name)
    connection.execute(
        text(f"DELETE FROM {_DEFAULT} WHERE event_time < :oldest"),
        {"oldest": datetime.combine(oldest, datetime.min.time(), UTC)},
    )
    return dropped


def maintain(connection: Connection) -> None:
    """Create and drop what is due, unless another process is at it."""
    taken = connection.execute(select(func.pg_try_advisory_xact_lock(MAINTENANCE_LOCK)))
    if not taken.scalar_one():
        return
    # dropping waits for the inbox to be free: give up rather than hold up those who write
    connection.execute(text("SET LOCAL lock_timeout = '1s'"))
    create(connection)
    dropped = drop_old(connection)
    if dropped:
        _log.info("inbox pruned", partitions=dropped)


def _partitions(connection: Connection) -> dict[date, str]:
    names = connection.execute(
        text(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = 'inbox'::regclass"
        )
    ).scalars()
    return {
        datetime.strptime(name.removeprefix(_PREFIX), "%Y%m%d").replace(tzinfo=UTC).date(): name
        for name in names
        if name != _DEFAULT
    }


def _today() -> date:
    return datetime.now(UTC).date()
