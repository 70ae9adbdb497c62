"""Ledger entries: the same declaration has the same id, any other another."""

from __future__ import annotations

from datetime import UTC, datetime

from services.domain.ledger import EntryKind, LedgerEntry, SequenceRange, ShedReason
from services.ingest.declarations import entry_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def made(
    camera: str = "cam",
    epoch: str = "e1",
    kind: EntryKind = EntryKind.SHED,
    last: int = 4,
    reason: ShedReason = ShedReason.SAMPLED,
    now: datetime = NOW,
) -> LedgerEntry:
    return entry_of(camera, epoch, kind, [SequenceRange(0, 2), SequenceRange(4, last)], reason, now)


def test_an_entry_says_what_it_was_given() -> None:
    entry = made()
    assert (entry.camera, entry.epoch, entry.kind, entry.reason) == (
        "cam", "e1", EntryKind.SHED, ShedReason.SAMPLED,
    )  # fmt: skip
    assert (entry.ranges, entry.declared_at) == ((SequenceRange(0, 2), SequenceRange(4, 4)), NOW)


def test_an_id_is_that_of_what_is_said_and_not_of_when() -> None:
    assert made().entry_id == made(now=NOW.replace(year=2027)).entry_id
    others = [
        made(camera="other"), made(epoch="e2"), made(kind=EntryKind.CAPTURED), made(last=5),
        made(reason=ShedReason.SKIPPED),
    ]  # fmt: skip
    assert len({made().entry_id, *(entry.entry_id for entry in others)}) == 6
