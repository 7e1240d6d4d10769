"""The schema of the first release."""

from __future__ import annotations

from importlib.resources import files

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create what is missing of it."""
    script = files("order_services.storage.migrations.versions").joinpath("first_release.sql")
    op.get_bind().exec_driver_sql(script.read_text())
