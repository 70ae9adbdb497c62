"""What the spool declares on `loupe.ledger`: entries that are on disk before they are sent (arrow 8).

Sequences gather until an entry is made of them; an entry is made, and what it holds is crossed out, in
one transaction, so ranges of different entries never overlap, whenever the process dies. Entries are
sent as they are, with their ids, until Kafka has them.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from services.domain.ledger import EntryKind, LedgerEntry, SequenceRange, ShedReason
from services.ingest.declarations import entry_of
from services.ingest.spool.database import Database
from services.wire.ledger import decode_ledger_entry, encode_ledger_entry
from services.wire.record import OutRecord

# An entry of so many ranges has some 100 KB; sampling makes a range of every frame that it lets go.
_MAX_RANGES = 5000


def note_shed(
    db: sqlite3.Connection, camera: int, epoch: str, reason: ShedReason, first: int, last: int
) -> None:
    """Note sequences for an entry to come; those that follow the last ones make one range with them."""
    of = (camera, epoch, reason.value)
    grown = db.execute(
        "UPDATE shed SET last = ? WHERE camera = ? AND epoch = ? AND reason = ? AND last = ?",
        (last, *of, first - 1),
    )
    if not grown.rowcount:
        db.execute("INSERT INTO shed VALUES (?, ?, ?, ?, ?)", (*of, first, last))


@dataclass(frozen=True, slots=True)
class OpenEntry:
    """An entry that Kafka has not acknowledged."""

    number: int
    camera: int
    record: OutRecord


def load_entries(db: Database) -> list[OpenEntry]:
    """Return the entries that an earlier run left."""
    rows = db.read("SELECT number, camera, value FROM entries ORDER BY number")
    return [OpenEntry(number, camera, _record_of(value)) for number, camera, value in rows]


def make_entries(db: sqlite3.Connection, camera: int, now: datetime) -> list[OpenEntry]:
    """Make entries of what a camera has not declared: all that is captured, and much of what is shed."""
    return [*declare_captured(db, camera, now), *_declare_shed(db, camera, now)]


def declare_captured(db: sqlite3.Connection, camera: int, now: datetime) -> list[OpenEntry]:
    """Make the entry of what a camera captured and did not declare, if there is any."""
    name, epoch, first, end = db.execute(
        "SELECT name, epoch, declared_to, next_sequence FROM cameras WHERE number = ?", (camera,)
    ).fetchone()
    if first == end:
        return []
    db.execute("UPDATE cameras SET declared_to = ? WHERE number = ?", (end, camera))
    entry = entry_of(name, epoch, EntryKind.CAPTURED, [SequenceRange(first, end - 1)], None, now)
    return [_insert(db, camera, entry)]


def delete_entry(db: sqlite3.Connection, number: int) -> None:
    """Forget an entry that Kafka has."""
    db.execute("DELETE FROM entries WHERE number = ?", (number,))


def _declare_shed(db: sqlite3.Connection, camera: int, now: datetime) -> list[OpenEntry]:
    (name,) = db.execute("SELECT name FROM cameras WHERE number = ?", (camera,)).fetchone()
    rows = db.execute(
        "SELECT epoch, reason, first, last FROM shed WHERE camera = ? ORDER BY epoch, reason, last LIMIT ?",
        (camera, _MAX_RANGES),
    ).fetchall()
    groups: dict[tuple[str, str], list[SequenceRange]] = {}
    for epoch, reason, first, last in rows:
        groups.setdefault((epoch, reason), []).append(SequenceRange(first, last))
    made = []
    for (epoch, reason), ranges in groups.items():
        db.execute(
            "DELETE FROM shed WHERE camera = ? AND epoch = ? AND reason = ? AND last <= ?",
            (camera, epoch, reason, ranges[-1].last),
        )
        entry = entry_of(name, epoch, EntryKind.SHED, ranges, ShedReason(reason), now)
        made.append(_insert(db, camera, entry))
    return made


def _insert(db: sqlite3.Connection, camera: int, entry: LedgerEntry) -> OpenEntry:
    record = encode_ledger_entry(entry)
    inserted = db.execute("INSERT INTO entries (camera, value) VALUES (?, ?)", (camera, record.value))
    return OpenEntry(inserted.lastrowid or 0, camera, record)


def _record_of(value: bytes) -> OutRecord:
    return encode_ledger_entry(decode_ledger_entry(value))
