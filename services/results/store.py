"""Writing to the database: one call is one transaction, the first write wins, repeating changes nothing.

The one module that writes `inspections`, `frame_ends`, `quarantine`, `ledger_captured`, `ledger_shed` and
`ledger_shed_ranges`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, Engine, Table, bindparam, exc, select, update

from services.adapters.clock import Clock
from services.adapters.database import insert_or_ignore, writing
from services.adapters.database.tables import (
    frame_ends,
    inspections,
    ledger_captured,
    ledger_shed,
    ledger_shed_ranges,
    quarantine,
)
from services.domain.errors import MalformedRecord
from services.domain.frame import RecordPosition
from services.domain.inspection import Inspection, inspection_id_of
from services.domain.ledger import EntryKind, LedgerEntry
from services.domain.topics import FRAMES
from services.results.batch import Quarantined, Read
from services.results.rows import inspection_of, inspection_row

Row = dict[str, Any]

# A declared range of more frames is several rows. So whoever looks for the rows around a sequence need not
# look further back than this, in an index by their first sequences.
FRAMES_PER_ROW = 100_000


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a batch of inspections.

    Attributes:
        first: written by this call, in order.
        known: written before, as they were stored then, each once.
        repeats: how many of the batch were not written, per project.
        stored_at: when they were safe, that is after the commit.
    """

    first: tuple[Read[Inspection], ...]
    known: tuple[Inspection, ...]
    repeats: Mapping[str, int]
    stored_at: datetime


@dataclass(frozen=True, slots=True)
class Declared:
    """Rows that a batch of ledger entries added: ranges captured, ranges shed, frames shed by id."""

    captured: tuple[Row, ...]
    shed_ranges: tuple[Row, ...]
    shed: tuple[Row, ...]


class Store:
    """The results service's side of the database; thread-safe."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        """Write through `engine`."""
        self._engine = engine
        self._clock = clock

    def add_inspections(self, batch: Sequence[Read[Inspection]]) -> Judged:
        """Store inspections and the ends of their frames.

        Raises:
            MalformedRecord: the database cannot hold one of them; nothing was stored.
            DatabaseUnavailable: nothing was stored; try again.
        """
        with _writing(self._engine) as connection:
            stored_at = self._clock.now()
            rows: dict[str, Row] = {}
            for one in batch:
                row = inspection_row(one.what, produced_at=one.record.recorded_at, stored_at=stored_at)
                rows.setdefault(row["inspection_id"], row)
            new = {key for (key,) in _insert(connection, rows.values(), inspections.c.inspection_id)}
            _end_frames(
                connection,
                "judged",
                [(i.position, str(i.frame_id), i.camera) for i in (one.what for one in batch) if i.position],
            )
            known = _stored(connection, [key for key in rows if key not in new])
        return _judged(batch, new, known, self._clock.now())

    def add_quarantined(self, batch: Sequence[Read[Quarantined]]) -> tuple[Row, ...]:
        """Store frames that were given up; return the rows that are new.

        Raises:
            MalformedRecord: the database cannot hold one of them; nothing was stored.
            DatabaseUnavailable: nothing was stored; try again.
        """
        rows: dict[str, Row] = {}
        later: list[Row] = []
        for row in map(_quarantine_row, batch):
            if rows.setdefault(row["frame_id"], row) is not row:
                later.append(row)
        ends = [(one.what.letter.position, str(one.what.frame_id), one.what.camera) for one in batch]
        with _writing(self._engine) as connection:
            new = {key for (key,) in _insert(connection, rows.values(), quarantine.c.frame_id)}
            _failed_again(connection, [*(row for key, row in rows.items() if key not in new), *later])
            _end_frames(connection, "quarantined", ends)
        return tuple(row for key, row in rows.items() if key in new)

    def add_declared(self, batch: Sequence[Read[LedgerEntry]]) -> Declared:
        """Store what ingesters and the stream declared.

        Raises:
            MalformedRecord: the database cannot hold one of them; nothing was stored.
            DatabaseUnavailable: nothing was stored; try again.
        """
        entries = [one.what for one in batch]
        ranges: dict[Table, dict[tuple[str, int], Row]] = {ledger_captured: {}, ledger_shed_ranges: {}}
        for entry in entries:
            rows = ranges[_table_of(entry)]
            rows.update(((row["entry_id"], row["number"]), row) for row in range_rows(entry))
        shed = {row["frame_id"]: row for entry in entries for row in _shed_rows(entry)}
        with _writing(self._engine) as connection:
            captured, shed_ranges = (
                tuple(rows[entry_id, number] for entry_id, number in _insert(connection, rows.values(), *key))
                for table, rows in ranges.items()
                for key in [(table.c.entry_id, table.c.number)]
            )
            new = {frame_id for (frame_id,) in _insert(connection, shed.values(), ledger_shed.c.frame_id)}
            _end_frames(connection, "shed", [end for entry in entries for end in _shed_ends(entry)])
        return Declared(captured, shed_ranges, tuple(row for key, row in shed.items() if key in new))

    def close_ranges(self, keys: Sequence[tuple[str, int]]) -> None:
        """Note that every frame of these captured ranges (entry id, number) has its end.

        Raises:
            DatabaseUnavailable: not noted; harmless.
        """
        if not keys:
            return
        table = ledger_captured.c
        one = (table.entry_id == bindparam("of_entry")) & (table.number == bindparam("of_number"))
        with writing(self._engine) as connection:
            # Row by row: after an outage there may be more of them than a query takes parameters.
            connection.execute(
                update(ledger_captured).where(one).values(is_ended=True),
                [{"of_entry": entry_id, "of_number": number} for entry_id, number in keys],
            )


@contextmanager
def _writing(engine: Engine) -> Iterator[Connection]:
    """Give a transaction; values that the database cannot hold (text too long, not a number) are refused."""
    try:
        with writing(engine) as connection:
            yield connection
    except (exc.DataError, exc.IntegrityError, OverflowError, ValueError) as error:
        told = str(getattr(error, "orig", None) or error).strip().splitlines()
        raise MalformedRecord(f"The database cannot hold it: {told[0] if told else error}") from error


def _insert(connection: Connection, rows: Any, *key: Column[Any]) -> list[tuple[Any, ...]]:
    """Insert rows whose primary key is not known, and return the keys of those inserted."""
    wanted = list(rows)
    if not wanted:
        return []
    statement = insert_or_ignore(connection, key[0].table).returning(*key)
    return [tuple(found) for found in connection.execute(statement, wanted)]


def _end_frames(connection: Connection, end: str, frames: Sequence[tuple[RecordPosition, str, str]]) -> None:
    """Note the end of records of `loupe.frames`: where each stood, frame id and camera."""
    rows = [
        {
            "topic": position.topic,
            "partition": position.partition,
            "offset": position.offset,
            "frame_id": frame_id,
            "camera": camera,
            "end": end,
        }
        for position, frame_id, camera in frames
    ]
    if rows:
        connection.execute(insert_or_ignore(connection, frame_ends), rows)


def _failed_again(connection: Connection, rows: Sequence[Row]) -> None:
    """Let the rows of frames that were published again and failed again tell of the last failure."""
    if rows:
        of = quarantine.c
        is_later = (of.frame_id == bindparam("of_frame")) & (of.tries < bindparam("of_tries"))
        changed: Row = {c.name: bindparam(c.name) for c in of if c.name not in {"frame_id", "camera"}}
        told = [{**row, "of_frame": row["frame_id"], "of_tries": row["tries"]} for row in rows]
        connection.execute(update(quarantine).where(is_later).values(changed), told)


def _stored(connection: Connection, keys: Sequence[str]) -> dict[str, Inspection]:
    if not keys:
        return {}
    found = connection.execute(select(inspections).where(inspections.c.inspection_id.in_(keys)))
    return {row.inspection_id: inspection_of(row._asdict()) for row in found}


def _judged(
    batch: Sequence[Read[Inspection]], new: set[str], known: dict[str, Inspection], stored_at: datetime
) -> Judged:
    first: dict[str, Read[Inspection]] = {}
    repeats: Counter[str] = Counter()
    for one in batch:
        key = str(inspection_id_of(one.what.frame_id, one.what.role, one.what.run))
        if key in new and key not in first:
            first[key] = one
        else:
            repeats[one.what.project] += 1
    return Judged(tuple(first.values()), tuple(known.values()), repeats, stored_at)


def _quarantine_row(one: Read[Quarantined]) -> Row:
    letter = one.what.letter
    return {
        "frame_id": str(one.what.frame_id),
        "camera": one.what.camera,
        "topic": letter.position.topic,
        "partition": letter.position.partition,
        "offset": letter.position.offset,
        "cause": letter.cause[:64],
        "reason": letter.reason,
        "tries": letter.tries,
        "failed_at": letter.failed_at,
        "image_uri": one.what.image.uri if one.what.image else None,
        "image_sha256": one.what.image.sha256 if one.what.image else None,
        "original_sha256": one.what.original.sha256 if one.what.original else None,
        "letter_partition": one.record.partition,
        "letter_offset": one.record.offset,
    }


def _table_of(entry: LedgerEntry) -> Table:
    return ledger_captured if entry.kind is EntryKind.CAPTURED else ledger_shed_ranges


def range_rows(entry: LedgerEntry) -> list[Row]:
    """Return the rows of an entry's ranges; equal for every delivery of it."""
    kind: Row = {"is_ended": False}
    if entry.kind is EntryKind.SHED:
        kind = {"reason": _reason(entry)}
    starts = (
        (first, min(first + FRAMES_PER_ROW - 1, one.last))
        for one in entry.ranges
        for first in range(one.first, one.last + 1, FRAMES_PER_ROW)
    )
    return [
        {
            "entry_id": str(entry.entry_id),
            "number": number,
            "camera": entry.camera,
            "epoch": entry.epoch,
            "first": first,
            "last": last,
            "declared_at": entry.declared_at,
            **kind,
        }
        for number, (first, last) in enumerate(starts)
    ]


def _shed_rows(entry: LedgerEntry) -> list[Row]:
    if entry.kind is not EntryKind.SHED:
        return []
    return [
        {
            "frame_id": str(frame_id),
            "camera": entry.camera,
            "reason": _reason(entry),
            "declared_at": entry.declared_at,
        }
        for frame_id in entry.frame_ids
    ]


def _reason(entry: LedgerEntry) -> str:
    return entry.reason.value if entry.reason else "unknown"


def _shed_ends(entry: LedgerEntry) -> list[tuple[RecordPosition, str, str]]:
    """Return the ends of frames that the stream shed; an ingester's never were on the topic."""
    if entry.kind is not EntryKind.SHED or entry.partition is None:
        return []
    return [
        (RecordPosition(FRAMES.name, entry.partition, offset), str(frame_id), entry.camera)
        for frame_id, offset in zip(entry.frame_ids, entry.offsets, strict=False)
    ]
