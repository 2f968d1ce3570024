"""Alembic's entry: `dispatcher.schema` hands over the connection."""

from __future__ import annotations

from alembic import context

from dispatcher.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
