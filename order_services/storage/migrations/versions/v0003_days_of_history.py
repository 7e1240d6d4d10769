"""An index by time on the orders' history, built while the gateway appends to it."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply it."""
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        # one that a build left half done would be there by name, and used by nobody
        connection.exec_driver_sql("DROP INDEX IF EXISTS order_events_event_time")
        # it waits for every transaction that is older, and nobody waits for it
        connection.exec_driver_sql("SET lock_timeout = 0")
        # rows lie as they came: next to no cost to those who append
        connection.exec_driver_sql(
            "CREATE INDEX CONCURRENTLY order_events_event_time ON order_events "
            "USING brin (event_time)"
        )
