"""Alembic's environment; `storage.schema` runs it."""
