"""The database: SQLAlchemy 2 on SQLite (one machine) or PostgreSQL (cluster), Alembic for its shape.

`tables` holds every table with the one module that writes it, `engine` opens, migrates and maps errors.
"""

from services.adapters.database.engine import insert_or_ignore, migrate, open_engine, reading, writing

__all__ = ["insert_or_ignore", "migrate", "open_engine", "reading", "writing"]
