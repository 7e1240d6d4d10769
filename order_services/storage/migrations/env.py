"""What Alembic runs: each migration in a transaction of its own, on the connection that it is given."""

from __future__ import annotations

from alembic import context

from order_services.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
