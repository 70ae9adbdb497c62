"""What Alembic runs: the revisions, inside the connection and transaction that `migrate` opened."""

from __future__ import annotations

from alembic import context

from services.adapters.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
