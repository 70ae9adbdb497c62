"""Alembic revisions; `services.adapters.database.migrate` runs them, `tables` is what they must lead to."""
