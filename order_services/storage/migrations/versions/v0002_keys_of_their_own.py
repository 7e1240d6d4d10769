"""Every effect gets a key of its own: analytics' events, and idempotency keys by customer.

Services of the first release may run meanwhile, but for two:

- Analytics of the first release counted by the inbox alone. From here on each of its batches fails with
  an error that it takes for passing (a view in the place of a table that it reads says so): it waits,
  and what it has counted until then is here to the event.
- Gateways of the first release cannot claim an Idempotency-Key: such orders are refused until they are
  replaced. Orders without one go on.

The inbox of the first release stays for those who use it; see 0004.
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0002"
down_revision = "0001"

_RING: Final = """
    CREATE TABLE analytics_events (
        event_id uuid NOT NULL,
        slot smallint NOT NULL,
        day date NOT NULL,
        event_type text,
        amount_cents bigint NOT NULL,
        PRIMARY KEY (event_id, slot)
    ) PARTITION BY LIST (slot);
"""
# One row. Days before `counted_from` are closed: their events are archived, their counts stay.
_ARCHIVE: Final = """
    CREATE TABLE analytics_archive (
        one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
        counted_from date NOT NULL,
        moved_at timestamptz NOT NULL DEFAULT now()
    );
"""
# A batch of the old analytics reads `replays` before it counts: dropping it waits for those under way,
# and those that come later fail (57P03 counts as passing). So the copy below lacks nothing.
_STOP_OLD_ANALYTICS: Final = """
    DROP TABLE replays, analytics_rebuild_events, analytics_rebuild_daily;
    CREATE FUNCTION first_release_analytics_must_stop()
        RETURNS TABLE (replay_id uuid, since timestamptz, state text)
        LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'this analytics is of an older release than the schema: replace it'
            USING ERRCODE = '57P03';
    END $$;
    CREATE VIEW replays AS SELECT * FROM first_release_analytics_must_stop();
    CREATE TABLE history_replays (
        replay_id uuid PRIMARY KEY,
        days integer NOT NULL,
        since timestamptz NOT NULL,
        state text NOT NULL,
        reason text,
        orders bigint NOT NULL DEFAULT 0,
        events bigint NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    );
"""
# What the old inbox remembers was counted. Type and amount are in the orders' history, unless the
# gateway is behind; the old inbox kept 14 days: those before are closed, and
# their counts stay as they are.
_COPY_COUNTED: Final = """
    INSERT INTO analytics_archive (counted_from)
    SELECT CASE WHEN EXISTS (SELECT FROM analytics_daily)
                THEN (now() AT TIME ZONE 'UTC')::date - 14 ELSE '-infinity' END;
    INSERT INTO analytics_events (event_id, slot, day, event_type, amount_cents)
    SELECT inbox.event_id,
           ((day - DATE '1970-01-01') / 7) & 31,
           day, event_type,
           coalesce(CASE WHEN event_type = 'ORDER_CREATED' THEN (payload->>'totalCents')::bigint
                         WHEN event_type IN ('PAYMENT_PROCESSED', 'PAYMENT_FAILED', 'PAYMENT_REFUNDED')
                         THEN (payload->>'amountCents')::bigint END, 0)
    FROM inbox
    CROSS JOIN LATERAL (SELECT (inbox.event_time AT TIME ZONE 'UTC')::date AS day) AS of_day
    LEFT JOIN order_events USING (event_id)
    WHERE consumer_group = 'analytics-service-group' AND day >= (SELECT counted_from FROM analytics_archive)
    ON CONFLICT DO NOTHING;
"""
_KEYS_OF_CUSTOMERS: Final = """
    ALTER TABLE idempotency_keys ADD COLUMN customer_id text;
    UPDATE idempotency_keys SET customer_id = orders.customer_id
    FROM orders WHERE orders.order_id = idempotency_keys.order_id;
    DELETE FROM idempotency_keys WHERE customer_id IS NULL;
    ALTER TABLE idempotency_keys
        ALTER COLUMN customer_id SET NOT NULL,
        DROP CONSTRAINT idempotency_keys_pkey,
        ADD PRIMARY KEY (customer_id, idempotency_key);
"""


def upgrade() -> None:
    """Apply it."""
    connection = op.get_bind()
    connection.exec_driver_sql(_RING)
    connection.exec_driver_sql(_partitions("analytics_events", 32))
    connection.exec_driver_sql(_ARCHIVE)
    connection.exec_driver_sql(_STOP_OLD_ANALYTICS)
    connection.exec_driver_sql(_COPY_COUNTED)
    connection.exec_driver_sql(_KEYS_OF_CUSTOMERS)


def _partitions(table: str, places: int) -> str:
    return "".join(
        f"CREATE TABLE {table}_{slot:02d} PARTITION OF {table} FOR VALUES IN ({slot});"
        for slot in range(places)
    )
