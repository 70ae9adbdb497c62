"""The database: SQLAlchemy 2 on SQLite (one machine) or PostgreSQL (cluster), Alembic for its shape.

`tables` holds every table with the one module that writes it, `engine` opens and migrates.
"""
