"""The spool's file: SQLite in a folder that one process owns, with commits that callers share.

Knows tables, transactions and the disk; what frames mean is `services.ingest.spool.spool`'s.
Measured on 200 KB frames with an insert, a receipt and a delete each (2 busy cores, ext4): 350-390 MB/s
at one frame a commit, 670-830 MB/s at eight, at every page size from 16 to 64 KiB; the smallest of them
is the fastest for small frames. `synchronous=FULL` and `auto_vacuum` made no difference that showed.
"""

from __future__ import annotations

import fcntl
import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.domain.errors import BadSettings, StorageFull
from services.domain.topics import MIB

logger = logging.getLogger(__name__)

Work = Callable[[sqlite3.Connection], None]

_PAGE_BYTES = 16 * 1024
# The write-ahead log goes back into the file at this size; it stays that long on disk.
_LOG_BYTES = 64 * MIB
_CACHE_BYTES = 16 * MIB
# Free pages are given back to the disk in steps of this size, between two commits.
_SHRINK_STEP_BYTES = 16 * MIB
_FULL = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")

# Version 1. A frame's `position` is its camera's number << 40 plus a number of its own, so that a camera's
# frames lie together, in order, without an index.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS cameras (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL,
    next_sequence INTEGER NOT NULL, declared_to INTEGER NOT NULL, receipts INTEGER NOT NULL,
    frames INTEGER NOT NULL, size_bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS frames (
    position INTEGER PRIMARY KEY, epoch TEXT NOT NULL, sequence INTEGER NOT NULL,
    accepted_us INTEGER NOT NULL, size_bytes INTEGER NOT NULL, headers TEXT NOT NULL, value BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS shed (
    camera INTEGER NOT NULL, epoch TEXT NOT NULL, reason TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (camera, epoch, reason, last)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, camera INTEGER NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS receipts (
    camera INTEGER NOT NULL, number INTEGER NOT NULL, digest BLOB NOT NULL, frame_id BLOB NOT NULL,
    reason TEXT, PRIMARY KEY (camera, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS receipts_by_digest ON receipts (camera, digest);
"""


class _Ticket:
    """One caller's part of a commit."""

    __slots__ = ("error", "is_awaited", "is_done", "work")

    def __init__(self, work: Work, *, is_awaited: bool) -> None:
        self.work, self.is_awaited = work, is_awaited
        self.is_done = False
        self.error: BaseException | None = None


class Database:
    """The file `spool.sqlite` of a folder; thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Open or make it.

        Raises:
            BadSettings: another process has it open, or it is no spool.
            StorageFull: the disk takes nothing.
        """
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock_file = (folder / "lock").open("a")
        except OSError as error:
            raise StorageFull(f"The spool {folder} cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock_file.close()
            raise BadSettings(f"The spool {folder} is in use by another process.") from error
        self._waiting: list[_Ticket] = []
        self._waiting_lock = threading.Lock()
        self._commit_lock = threading.Lock()
        self._read_lock = threading.Lock()
        try:
            self._writer = self._connect()
            self._writer.executescript(_SCHEMA)
            self._reader = self._connect()
        except sqlite3.Error as error:
            self._lock_file.close()
            raise self._failure(error) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.folder / "spool.sqlite", isolation_level=None, check_same_thread=False, timeout=30
        )
        for pragma in (
            f"page_size={_PAGE_BYTES}", "auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=FULL",
            f"wal_autocheckpoint={_LOG_BYTES // _PAGE_BYTES}", f"journal_size_limit={_LOG_BYTES}",
            "secure_delete=OFF", f"cache_size=-{_CACHE_BYTES // 1024}", "temp_store=MEMORY",
        ):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def write(self, work: Work) -> None:
        """Run `work` in a transaction that others may share, and return when it is on disk.

        Whoever comes while a commit is under way waits for the next one, which then carries all of
        them. `work` must only execute statements.

        Raises:
            StorageFull: the disk did not take it; nothing was changed.
        """
        ticket = _Ticket(work, is_awaited=True)
        with self._waiting_lock:
            self._waiting.append(ticket)
        with self._commit_lock:
            if not ticket.is_done:
                self._commit()
        if ticket.error is not None:
            raise ticket.error

    def write_later(self, work: Work) -> None:
        """Let the next commit carry `work` too; kept until one succeeds, lost with the process."""
        with self._waiting_lock:
            self._waiting.append(_Ticket(work, is_awaited=False))

    def flush(self) -> None:
        """Commit what waits, if anything does.

        Raises:
            StorageFull: the disk did not take it; it goes on waiting.
        """
        if self._waiting:
            self.write(lambda _: None)

    def read(self, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return rows as they were last committed.

        Raises:
            StorageFull: the disk cannot be read.
        """
        with self._read_lock:
            try:
                return self._reader.execute(query, parameters).fetchall()
            except sqlite3.Error as error:
                raise self._failure(error) from error

    def shrink(self, keep_bytes: int) -> None:
        """Give one step of the file's free pages back to the disk, beyond `keep_bytes` of them."""
        with self._commit_lock:
            try:
                (free,) = self._writer.execute("PRAGMA freelist_count").fetchone()
                spare, step = free - keep_bytes // _PAGE_BYTES, _SHRINK_STEP_BYTES // _PAGE_BYTES
                if spare < step:
                    return
                # `execute` stops at the first page, because the statement has rows without columns.
                self._writer.executescript(f"PRAGMA incremental_vacuum({step})")
                if spare < 2 * step:
                    # The file itself becomes shorter when its log goes back into it.
                    self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                logger.warning("the spool does not shrink: %s", error)

    @property
    def size_bytes(self) -> int:
        """What it takes on disk, the write-ahead log included."""
        paths = (self.folder / "spool.sqlite", self.folder / "spool.sqlite-wal")
        return sum(path.stat().st_size for path in paths if path.exists())

    def close(self) -> None:
        """Commit what waits and let go of the folder; harmless twice."""
        if self._lock_file.closed:
            return
        try:
            self.flush()
        except StorageFull as error:
            logger.warning("records that Kafka has will be sent again: %s", error)
        self._reader.close()
        self._writer.close()
        self._lock_file.close()

    def _commit(self) -> None:
        """Commit all that waits in one transaction; the caller holds the commit lock."""
        with self._waiting_lock:
            group, self._waiting = self._waiting, []
        error: BaseException | None = None
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for ticket in group:
                ticket.work(self._writer)
            self._writer.execute("COMMIT")
        except BaseException as found:  # noqa: BLE001  # told to every caller of this commit, who raises it
            error = self._failure(found) if isinstance(found, sqlite3.Error) else found
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            with self._waiting_lock:
                self._waiting[:0] = [ticket for ticket in group if not ticket.is_awaited]
        for ticket in group:
            ticket.is_done, ticket.error = True, error

    def _failure(self, error: sqlite3.Error) -> StorageFull | BadSettings:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(_FULL):
            return StorageFull(f"The spool {self.folder} takes no more: {error}.")
        return BadSettings(f"The spool {self.folder} cannot be used: {error}. Move it away to begin anew.")
