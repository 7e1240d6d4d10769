"""Drops what only services of the first release use: applied by `migrate --finish`."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply it."""
    op.get_bind().exec_driver_sql(
        "DROP VIEW replays; DROP FUNCTION first_release_analytics_must_stop(); DROP TABLE inbox;"
        # how far an order is, is read from its history; the room was for updates of these
        "ALTER TABLE orders DROP COLUMN payment_fact, DROP COLUMN inventory_fact,"
        " DROP COLUMN shipment_fact, DROP COLUMN updated_at, RESET (fillfactor)"
    )
