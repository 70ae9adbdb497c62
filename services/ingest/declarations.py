"""What one camera's run declares on `loupe.ledger`: captured and shed sequences, as ranges (arrow 8).

Entries have deterministic ids and are sent again until acknowledged, so a broker's restart costs
nothing. While entries are on their way new sequences gather, so memory stays bounded by ranges.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from uuid import uuid5

from services.adapters.broker import Producer
from services.adapters.clock import Clock
from services.domain.errors import LoupeError
from services.domain.frame import FRAME_NAMESPACE
from services.domain.ledger import EntryKind, LedgerEntry, SequenceRange, ShedReason
from services.ingest.in_flight import InFlight
from services.wire.ledger import encode_ledger_entry

logger = logging.getLogger(__name__)


class Declarations:
    """The ledger entries of one camera and epoch; thread-safe."""

    def __init__(
        self, camera: str, epoch: str, producer: Producer, clock: Clock, in_flight: InFlight
    ) -> None:
        """Declare nothing yet."""
        self._camera, self._epoch = camera, epoch
        self._producer, self._clock, self._in_flight = producer, clock, in_flight
        self._lock = threading.Lock()
        self._captured: list[SequenceRange] = []
        self._shed: dict[ShedReason, list[SequenceRange]] = {}
        self._unsent: list[LedgerEntry] = []
        self._on_their_way = 0

    def captured(self, sequence: int) -> None:
        """Note a captured frame for the next entry."""
        with self._lock:
            _extend(self._captured, sequence)

    def shed(self, sequence: int, reason: ShedReason) -> None:
        """Note a frame that was let go for the next entry."""
        with self._lock:
            _extend(self._shed.setdefault(reason, []), sequence)

    @property
    def is_settled(self) -> bool:
        """Tell whether everything noted is declared and acknowledged."""
        with self._lock:
            return not (self._captured or self._shed or self._unsent or self._on_their_way)

    def declare(self) -> None:
        """Send what is not declared yet, unless the last entries are still on their way."""
        with self._lock:
            if self._on_their_way:
                return
            entries = self._unsent + self._new_entries()
            self._captured, self._shed, self._unsent = [], {}, []
            self._on_their_way = len(entries)
        for entry in entries:
            self._send(entry)

    def _new_entries(self) -> list[LedgerEntry]:
        entries = [self._entry(EntryKind.CAPTURED, self._captured, None)] if self._captured else []
        return entries + [self._entry(EntryKind.SHED, ranges, why) for why, ranges in self._shed.items()]

    def _entry(
        self, kind: EntryKind, ranges: Iterable[SequenceRange], reason: ShedReason | None
    ) -> LedgerEntry:
        spans = ",".join(f"{one.first}-{one.last}" for one in ranges)
        name = "\x1f".join(("ledger", self._camera, self._epoch, kind, reason or "", spans))
        return LedgerEntry(
            entry_id=uuid5(FRAME_NAMESPACE, name),
            camera=self._camera,
            kind=kind,
            declared_at=self._clock.now(),
            epoch=self._epoch,
            ranges=tuple(ranges),
            reason=reason,
        )

    def _send(self, entry: LedgerEntry) -> None:
        record = encode_ledger_entry(entry)
        try:
            delivery = self._producer.send(record)
        except LoupeError as error:
            logger.warning("camera %s: a ledger entry waits: %s", self._camera, error)
            self._end(entry, is_acknowledged=False)
            return
        self._in_flight.add(delivery, len(record.value), lambda ok: self._end(entry, is_acknowledged=ok))

    def _end(self, entry: LedgerEntry, *, is_acknowledged: bool) -> None:
        with self._lock:
            self._on_their_way -= 1
            if not is_acknowledged:
                self._unsent.append(entry)


def _extend(ranges: list[SequenceRange], sequence: int) -> None:
    """Add a sequence to the last range if it follows it, else begin a new one."""
    if ranges and ranges[-1].last + 1 == sequence:
        ranges[-1] = SequenceRange(ranges[-1].first, sequence)
    else:
        ranges.append(SequenceRange(sequence, sequence))
