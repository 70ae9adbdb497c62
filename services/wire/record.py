"""A Kafka record without Kafka: what every broker adapter gives and takes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from services.domain.frame import RecordPosition

Headers = tuple[tuple[str, bytes], ...]
# 9999-12-31T00:00:00Z: the last day that any clock, zone and database can tell.
_LAST_TIMESTAMP_MS = 253_402_214_400_000


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read.

    Attributes:
        timestamp_ms: broker or producer time, milliseconds since the epoch, UTC.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers = ()
    timestamp_ms: int = 0

    @property
    def position(self) -> RecordPosition:
        """Where the record stands."""
        return RecordPosition(self.topic, self.partition, self.offset)

    @property
    def recorded_at(self) -> datetime:
        """The record's own time, aware UTC; a producer may claim any number, and years end at 9999."""
        return datetime.fromtimestamp(min(max(self.timestamp_ms, 0), _LAST_TIMESTAMP_MS) / 1000, UTC)


@dataclass(frozen=True, slots=True)
class OutRecord:
    """A record to be written; the broker chooses the partition from the key."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = ()
