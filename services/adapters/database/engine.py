"""Opening the database, migrating it, and its transactions with our errors.

Blocking; call it from a thread, never from an event loop. `writing` and `reading` are the only
ways in, so that every caller meets `DatabaseUnavailable` and never a driver's error.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, exc, make_url, text
from sqlalchemy.dialects import postgresql, sqlite

from services.domain.errors import BadSettings, DatabaseUnavailable

# Writers of one SQLite file wait for each other this long; a batch of the results service takes
# some milliseconds, a migration or a large ledger page well under a second.
SQLITE_BUSY_TIMEOUT_S = 10.0
POSTGRES_CONNECT_TIMEOUT_S = 5
# A server that vanished (no reset, no answer) is noticed after this, not after the kernel's 15 minutes.
POSTGRES_DEAD_AFTER_MS = 10_000
# Any number, equal for all: two processes that migrate at once queue on it.
_MIGRATION_LOCK = 0x6C6F757065
# SQLite's primary result codes that time, space or another process can mend:
# BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
_SQLITE_TRANSIENT = frozenset({5, 6, 8, 10, 13, 14})


def open_engine(url: str) -> Engine:
    """Return an engine for `sqlite:///file` or `postgresql://…`; connects on first use only.

    SQLite files get WAL, a busy timeout, full synchronisation (what was acknowledged survives a
    power cut) and write transactions that take the lock at once.

    Raises:
        BadSettings: neither SQLite nor PostgreSQL, or not a URL.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "postgresql":
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": POSTGRES_CONNECT_TIMEOUT_S,
                "tcp_user_timeout": POSTGRES_DEAD_AFTER_MS,
            },
        )
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    # isolation_level None: Python's driver then leaves BEGIN to us.
    engine = create_engine(parsed, connect_args={"isolation_level": None, "timeout": SQLITE_BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1))
        known = parsed.get_backend_name() in {"sqlite", "postgresql"}
    except exc.SQLAlchemyError as error:
        raise BadSettings(f"The database address cannot be read: {error}") from error
    if not known:
        raise BadSettings(f"The database has to be SQLite or PostgreSQL, not {parsed.get_backend_name()}.")
    return parsed


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once: a deferred transaction that upgrades fails instead of waiting."""
    is_reading = connection.get_execution_options().get("loupe_reading", False)
    connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Give a transaction that commits at the end, or rolls back on any error.

    Raises:
        DatabaseUnavailable: gone, locked, read-only or full; nothing of the transaction is kept.
    """
    with _our_errors(), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Give one consistent snapshot to read; it never waits for writers of a SQLite file.

    Raises:
        DatabaseUnavailable: gone or unreadable.
        BadSettings: it has not the tables of this version.
    """
    options: dict[str, Any] = {"loupe_reading": True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with _our_errors(), engine.connect().execution_options(**options) as connection:
        yield connection


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError) as error:
        if _lacks_tables(error):
            raise BadSettings(
                "The database lacks tables or columns of this version of Loupe. Is it the right one? Loupe's "
                "processes make them when they start."
            ) from error
        if not _is_transient(error):
            raise
        told = str(getattr(error, "orig", None) or error).strip().splitlines()
        raise DatabaseUnavailable(f"The database does not answer: {' '.join(told[:2])}") from error


def _lacks_tables(error: exc.DBAPIError | exc.TimeoutError) -> bool:
    original = getattr(error, "orig", None)
    # undefined_table, undefined_column
    if getattr(original, "sqlstate", None) in ("42P01", "42703"):
        return True
    return getattr(original, "sqlite_errorcode", None) == 1 and str(original).startswith("no such ")


def _is_transient(error: exc.DBAPIError | exc.TimeoutError) -> bool:
    if isinstance(error, exc.TimeoutError) or error.connection_invalidated:
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return (code & 0xFF) in _SQLITE_TRANSIENT
    return isinstance(error, exc.OperationalError | exc.InterfaceError)


def insert_or_ignore(connection: Connection, table: Table) -> Any:
    """Return an INSERT that leaves rows alone whose primary key is known, for this database."""
    module = postgresql if connection.dialect.name == "postgresql" else sqlite
    return module.insert(table).on_conflict_do_nothing()


def migrate(url: str) -> None:
    """Bring the database to the newest revision; any number of processes may do so at once.

    Raises:
        BadSettings: not a database address.
        DatabaseUnavailable: the database does not answer.
    """
    config = Config()
    config.set_main_option("script_location", "services.adapters.database:migrations")
    engine = open_engine(url)
    try:
        with _one_at_a_time(engine), writing(engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


@contextmanager
def _one_at_a_time(engine: Engine) -> Iterator[None]:
    """Queue on a lock file next to a SQLite file: switching to WAL needs the file for itself."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database or database == ":memory:":
        yield
        return
    with Path(f"{database}.migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
