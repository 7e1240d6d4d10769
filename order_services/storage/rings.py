"""Tables that forget: as many partitions as a ring has places, one for each day or week.

A row's place is its day (or week) modulo the number of places, so the same partitions serve for ever:
nothing is created ahead, nothing is attached or detached, no row falls into a default partition, and
the rights to insert and to truncate are all that a service needs. Forgetting truncates places whose
days are over: it locks that place alone, to which nobody writes any more, and never the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from sqlalchemy import Connection, text

_EPOCH: Final = date(1970, 1, 1).toordinal()
# Any number will do: who finds it taken leaves the work to the one who took it.
_LOCK: Final = 0x7269_6E67


@dataclass(frozen=True, slots=True)
class Ring:
    """A table partitioned by `slot`: `days` days share a place, and there are `places` of them."""

    table: str
    places: int  # a power of two: & takes the modulus, of days before 1970 too
    days: int

    def turn(self, day: date) -> int:
        """Return the number of the day (or week) that `day` is in, from 1970 on."""
        return (day.toordinal() - _EPOCH) // self.days

    def slot(self, day: date) -> int:
        """Return the place of a day's rows."""
        return self.turn(day) & (self.places - 1)

    def partition(self, slot: int) -> str:
        """Name the partition of a place."""
        return f"{self.table}_{slot:02d}"

    def forget(self, connection: Connection, *, first_kept: date, today: date) -> list[str]:
        """Empty each place but those of `first_kept` to tomorrow; returns the names of those that had rows.

        Raises `ValueError` when so many days do not fit into the ring.
        """
        kept = range(self.turn(first_kept), self.turn(date.fromordinal(today.toordinal() + 1)) + 1)
        if len(kept) >= self.places:
            raise ValueError(f"{self.table} cannot keep the days since {first_kept}")
        slots = {turn & (self.places - 1) for turn in kept}
        emptied = []
        for name in (self.partition(slot) for slot in range(self.places) if slot not in slots):
            if connection.execute(text(f"SELECT EXISTS (SELECT FROM {name})")).scalar_one():
                connection.execute(text(f"TRUNCATE {name}"))
                emptied.append(name)
        return emptied


# The events that analytics has counted; `analytics.counting` says what its retention means.
ANALYTICS_EVENTS: Final = Ring("analytics_events", places=32, days=7)
RINGS: Final = (ANALYTICS_EVENTS,)


def take_turn(connection: Connection, ring: Ring) -> bool:
    """Say whether this transaction may maintain a ring; give up soon where it would hold up others."""
    taken = connection.execute(
        text("SELECT pg_try_advisory_xact_lock(:lock, hashtext(:table))"),
        {"lock": _LOCK, "table": ring.table},
    )
    if not taken.scalar_one():
        return False
    connection.execute(text("SET LOCAL lock_timeout = '1s'"))
    return True


def utc_today(connection: Connection) -> date:
    """Return the database's day: processes' clocks may differ, and it is the one that they share."""
    now: datetime = connection.execute(text("SELECT now()")).scalar_one()
    return now.astimezone(UTC).date()
