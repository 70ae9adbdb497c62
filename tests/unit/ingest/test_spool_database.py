"""The spool's file: commits that callers share, a disk that is full, a folder with one owner."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.domain.errors import StorageFull
from services.ingest.spool.database import Database, Work
from tests.poll import poll_until


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path)
    yield opened
    opened.close()


def entry(number: int, size_bytes: int = 10) -> Work:
    def work(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO entries VALUES (?, 1, ?)", (number, bytes(size_bytes)))

    return work


def numbers(database: Database) -> list[int]:
    return [number for (number,) in database.read("SELECT number FROM entries ORDER BY number")]


def test_those_who_come_during_a_commit_share_the_next_one(database: Database) -> None:
    entered, go = threading.Event(), threading.Event()

    def slow(db: sqlite3.Connection) -> None:
        entered.set()
        assert go.wait(10)

    commits = 0

    def count(statement: str) -> None:
        nonlocal commits
        commits += statement == "COMMIT"

    database._writer.set_trace_callback(count)
    threads = [threading.Thread(target=database.write, args=(slow,))]
    threads[0].start()
    assert entered.wait(10)
    threads += [threading.Thread(target=database.write, args=(entry(number),)) for number in range(1, 9)]
    for thread in threads[1:]:
        thread.start()
    poll_until(lambda: len(database._waiting) == 8, deadline_s=10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert numbers(database) == list(range(1, 9))
    assert commits == 2


def test_a_full_disk_is_told_to_all_and_what_need_not_be_awaited_is_kept(database: Database) -> None:
    (pages,) = database._writer.execute("PRAGMA page_count").fetchone()
    database._writer.execute(f"PRAGMA max_page_count={pages}")
    database.write_later(entry(1))
    with pytest.raises(StorageFull, match="takes no more"):
        database.write(entry(2, 1_000_000))
    assert numbers(database) == []
    database._writer.execute("PRAGMA max_page_count=100000")
    database.write(entry(3))
    assert numbers(database) == [1, 3]


def test_what_waits_is_committed_by_a_flush_and_by_closing(tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.write_later(entry(1))
    assert numbers(database) == []
    database.flush()
    assert numbers(database) == [1]
    database.write_later(entry(2))
    database.close()
    database.close()
    again = Database(tmp_path)
    assert numbers(again) == [1, 2]
    again.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFull, match="cannot be written"):
        Database(tmp_path / "file" / "spool")
