"""What an ingester declares on `loupe.ledger`: captured and shed sequences, as ranges (arrow 8).

An entry's id is that of what it says, so that one that is sent twice counts once. Sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import uuid5

from services.domain.frame import FRAME_NAMESPACE
from services.domain.ledger import EntryKind, LedgerEntry, SequenceRange, ShedReason


def entry_of(
    camera: str,
    epoch: str,
    kind: EntryKind,
    ranges: Iterable[SequenceRange],
    reason: ShedReason | None,
    now: datetime,
) -> LedgerEntry:
    """Return the entry that declares `ranges` of one camera's epoch."""
    spans = tuple(ranges)
    text = ",".join(f"{one.first}-{one.last}" for one in spans)
    name = "\x1f".join(("ledger", camera, epoch, kind, reason or "", text))
    return LedgerEntry(
        entry_id=uuid5(FRAME_NAMESPACE, name),
        camera=camera,
        kind=kind,
        declared_at=now,
        epoch=epoch,
        ranges=spans,
        reason=reason,
    )
