"""Sets analytics' counts of the last days to what its rows say, in one statement.

Should anybody have changed them by hand, they are right again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from order_services.storage.database import allow_long_statements
from order_services.storage.rings import ANALYTICS_EVENTS, utc_today

# Waits for the batches that are under way; those that come later wait, and add what they bring after it.
# Days that are closed have no rows, and days that the first release counted have some without a type:
# their counts stay.
_LOCK_COUNTS: Final = "LOCK TABLE analytics_daily IN EXCLUSIVE MODE"
_RECOUNT: Final = """
    WITH days AS (
        SELECT DISTINCT day FROM (
            SELECT day FROM analytics_events WHERE slot = ANY(%(slots)s::smallint[])
            UNION ALL SELECT day FROM analytics_daily
        ) AS known
        WHERE day >= (%(since)s AT TIME ZONE 'UTC')::date
          AND day >= (SELECT counted_from FROM analytics_archive)
          AND NOT EXISTS (SELECT FROM analytics_events AS untold
                          WHERE untold.day = known.day AND untold.event_type IS NULL
                            AND slot = ANY(%(slots)s::smallint[]))
    ), fresh AS (
        SELECT day, event_type, count(*) AS events, sum(amount_cents) AS amount_cents
        FROM analytics_events JOIN days USING (day)
        WHERE slot = ANY(%(slots)s::smallint[]) GROUP BY day, event_type
    ), gone AS (
        DELETE FROM analytics_daily USING days
        WHERE analytics_daily.day = days.day
          AND NOT EXISTS (SELECT FROM fresh WHERE fresh.day = analytics_daily.day
                          AND fresh.event_type = analytics_daily.event_type)
    )
    INSERT INTO analytics_daily (day, event_type, events, amount_cents)
    SELECT day, event_type, events, amount_cents FROM fresh
    ON CONFLICT (day, event_type) DO UPDATE SET
        events = excluded.events, amount_cents = excluded.amount_cents
"""


def recount(connection: Connection, since: datetime) -> None:
    """Set the counts of the days from `since` on to what analytics' rows say."""
    allow_long_statements(connection)
    first, last = since.astimezone(UTC).date(), utc_today(connection) + timedelta(days=2)
    slots = {
        ANALYTICS_EVENTS.slot(first + timedelta(days=n)) for n in range((last - first).days + 1)
    }
    connection.exec_driver_sql(_LOCK_COUNTS)
    connection.exec_driver_sql(_RECOUNT, {"since": since, "slots": sorted(slots)})
