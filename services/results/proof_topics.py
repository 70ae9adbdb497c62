"""The proof's re-reading of topics: each record that Kafka still keeps has its rows in the database.

`loupe.ledger`, `loupe.inspections` and `loupe.frames.dlq` are read from the oldest record kept to the
newest at the start; `loupe.frames` is read only where offsets have no end (`proof`), never whole. Records
that the results service refused are in a dead-letter topic of their own and are only counted here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, Engine, select

from services.adapters.broker.reader import TopicReader, read_up_to
from services.adapters.database import reading
from services.adapters.database.tables import (
    inspections,
    ledger_captured,
    ledger_shed,
    ledger_shed_ranges,
    quarantine,
)
from services.domain.inspection import Inspection, inspection_id_of
from services.domain.ledger import LedgerEntry
from services.domain.topics import FRAMES_DLQ, INSPECTIONS, LEDGER, Topic
from services.results.batch import (
    Quarantined,
    Read,
    place_of,
    read_dead_letter,
    read_inspection,
    read_ledger_entry,
    sort_out,
)
from services.results.ledger import Scope
from services.results.proof import Progress, Proof, silent
from services.results.sequences import in_chunks
from services.results.store import range_rows
from services.wire.record import Record

OfCamera = TypeVar("OfCamera", LedgerEntry, Inspection, Quarantined)
Compare = Callable[[Connection, Sequence[Read[OfCamera]], Proof], None]

# Records per look into the database; below the number of parameters that any SQLite takes.
_RECORDS_AT_ONCE = 500


def prove_topics(
    engine: Engine, reader: TopicReader, scope: Scope, proof: Proof, progress: Progress = silent
) -> None:
    """Hold the kept records of three topics against the database.

    Raises:
        DatabaseUnavailable: no answer.
        BrokerUnavailable: no answer.
    """
    comparing = _Comparing(engine, reader, scope, proof, progress)
    comparing.topic("ledger", LEDGER, read_ledger_entry, _entries)
    comparing.topic("verdicts", INSPECTIONS, read_inspection, _verdicts)
    comparing.topic("quarantine", FRAMES_DLQ, read_dead_letter, _letters)


@dataclass(frozen=True, slots=True)
class _Comparing:
    engine: Engine
    reader: TopicReader
    scope: Scope
    proof: Proof
    progress: Progress

    def topic(
        self, check: str, topic: Topic, read: Callable[[Record], OfCamera], compare: Compare[OfCamera]
    ) -> None:
        """Hold a topic's records against their rows."""
        one = self.proof.check(check)
        spans = self.scope.spans(self.reader, topic)
        total = sum(map(len, spans.values()))
        unreadable = 0
        for records in in_chunks(read_up_to(self.reader, topic.name, spans), _RECORDS_AT_ONCE):
            # What the service refuses is told on standard error by it, once; here it is only counted.
            good, refused = sort_out(records, read)
            unreadable += len(refused)
            asked = [it for it in good if self.scope.camera in (None, it.what.camera)]
            one.looked_at += len(asked)
            # A look of its own per batch: what is stored while the topic is read is seen.
            with reading(self.engine) as connection:
                compare(connection, asked, self.proof)
            self.progress(check, one.looked_at + unreadable, total)
        if unreadable:
            one.told = f"{unreadable} more cannot be read and were refused: see `loupe dlq list`"


def _facts(one: Read[LedgerEntry] | Read[Inspection] | Read[Quarantined]) -> dict[str, object]:
    return {"camera": one.what.camera, "record": place_of(one.record)}


def _entries(connection: Connection, batch: Sequence[Read[LedgerEntry]], proof: Proof) -> None:
    """Each range and each id of an entry has its row, with the same content."""
    ids = [str(one.what.entry_id) for one in batch]
    stored: set[tuple[object, ...]] = set()
    for table in (ledger_captured, ledger_shed_ranges):
        of = table.c
        query = select(of.entry_id, of.number, of.camera, of.epoch, of.first, of.last)
        stored |= {tuple(row) for row in connection.execute(query.where(of.entry_id.in_(ids)))}
    frame_ids = [str(frame_id) for one in batch for frame_id in one.what.frame_ids]
    shed = set(_known(connection, frame_ids))
    for one in batch:
        entry = one.what
        for row in range_rows(entry):
            if (
                tuple(row[name] for name in ("entry_id", "number", "camera", "epoch", "first", "last"))
                not in stored
            ):
                what = {name: row[name] for name in ("epoch", "first", "last")}
                proof.wrong("ledger", "declared but not stored", {**_facts(one), **what})
        for frame_id in map(str, entry.frame_ids):
            if frame_id not in shed:
                proof.wrong("ledger", "shed but not stored", {**_facts(one), "frame_id": frame_id})


def _known(connection: Connection, frame_ids: Iterable[str]) -> Iterator[str]:
    of = ledger_shed.c.frame_id
    for chunk in in_chunks(frame_ids, _RECORDS_AT_ONCE):
        yield from connection.execute(select(of).where(of.in_(chunk))).scalars()


def _verdicts(connection: Connection, batch: Sequence[Read[Inspection]], proof: Proof) -> None:
    """Each verdict has its row; one that tells otherwise than its row is a repeat, and the first counts."""
    by_id = [(str(inspection_id_of(r.what.frame_id, r.what.role, r.what.run)), r) for r in batch]
    of = inspections.c
    query = select(of.inspection_id, of.judged_at).where(of.inspection_id.in_([key for key, _ in by_id]))
    stored = {key: judged_at for key, judged_at in connection.execute(query)}  # noqa: C416
    for key, one in by_id:
        facts = {**_facts(one), "frame_id": str(one.what.frame_id)}
        if key not in stored:
            proof.wrong("verdicts", "judged but not stored", facts)
        elif stored[key] != one.what.judged_at:
            proof.note("verdicts", "judged again", facts)


def _letters(connection: Connection, batch: Sequence[Read[Quarantined]], proof: Proof) -> None:
    """Each dead letter's frame has its row."""
    of = quarantine.c.frame_id
    ids = [str(one.what.frame_id) for one in batch]
    stored = set(connection.execute(select(of).where(of.in_(ids))).scalars())
    for one in batch:
        if str(one.what.frame_id) not in stored:
            facts = {**_facts(one), "frame_id": str(one.what.frame_id)}
            proof.wrong("quarantine", "quarantined but not stored", facts)
